"""A GPU as a target: memory, launches and graphs through NVIDIA's driver.

The device's primary context is used, the one torch and cupy have, so that addresses and streams
mean the same.

Non-Goals: which kernels run (`cuda.executable`); their machine code (`machine_code_cache`).
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from rnncc.artifact.grid_sync import Gpu
from rnncc.common.machine import Missing
from rnncc.runtime.common.one_for_all import one_for_all
from rnncc.runtime.cuda.driver.cublas import WORKSPACE, Cublas
from rnncc.runtime.cuda.driver.graphs import Launches
from rnncc.runtime.cuda.driver.target import DeviceMemory
from rnncc.runtime.cuda.kernels.kernel import CudaKernel
from rnncc.runtime.cuda.kernels.machine_code_cache import INSTALL, machine_code
from rnncc.runtime.cuda.kernels.matmuls import Product

OLDEST = (7, 0)  # the first with acquire and release


class CudaError(RuntimeError):
    """What the driver said, and of what."""


@one_for_all
def device(number: int = 0) -> Device:
    """The device of that number. RuntimeError says what is missing: the driver, numba-cuda, a GPU
    that is new enough."""
    return Device(number)


class _Memory:
    """Bytes that are given back when nobody has them any more."""

    __slots__ = ("__weakref__",)

    def __init__(self, owner: Device, address: int, stream: int) -> None:
        # A process that ends gives back everything anyway.
        weakref.finalize(self, owner.release, address, stream).atexit = False


class DeviceGraph:
    """Launches that the driver keeps."""

    def __init__(self, owner: Device, handle: Any) -> None:
        self.owner, self.handle = owner, handle
        weakref.finalize(self, owner.destroy, handle).atexit = False

    def launch(self, stream: Any) -> None:
        self.owner.ask("cuGraphLaunch", self.handle, stream or 0)


class Device:
    """A `Target`. Thread-safe."""

    def __init__(self, number: int = 0) -> None:
        self.driver = _driver()
        self.success = getattr(getattr(self.driver, "CUresult", None), "CUDA_SUCCESS", None)
        self.number, self.process = number, os.getpid()
        self.lock = threading.RLock()
        self.functions: WeakKeyDictionary[CudaKernel, dict[str, Any]] = WeakKeyDictionary()
        # By what they are of. They stay: graphs that others have captured may launch them.
        self.modules: dict[bytes, Any] = {}
        self.zero: list[
            tuple[int, DeviceMemory]
        ] = []  # all are kept: something may still read them
        self.one: dict[str, tuple[int, DeviceMemory]] = {}
        self.kept: list[DeviceMemory] = []
        count = self.ask("cuDeviceGetCount")
        if number >= count:
            raise Missing(f"there is no CUDA device {number}: the driver sees {count}")
        self.handle = self.ask("cuDeviceGet", number)
        self.capability = (
            self.attribute("COMPUTE_CAPABILITY_MAJOR"),
            self.attribute("COMPUTE_CAPABILITY_MINOR"),
        )
        name = self.ask("cuDeviceGetName", 128, self.handle)
        self.name = bytes(name).split(b"\0")[0].decode()
        if self.capability < OLDEST:
            raise Missing(
                f"{self.name} has compute capability {self.capability[0]}.{self.capability[1]}: "
                f"kernels need {OLDEST[0]}.{OLDEST[1]} or newer"
            )
        self.context = self.ask("cuDevicePrimaryCtxRetain", self.handle)
        self.enter()
        self.pooled = self.keep_memory()
        processors = self.attribute("MULTIPROCESSOR_COUNT")
        cooperative = bool(self.attribute("COOPERATIVE_LAUNCH"))
        # One block of a heavy kernel a multiprocessor; what really fits is asked at the launch.
        shared = self.attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
        resident = processors if cooperative else 0
        self.cublas, no_library = _cublas()
        library = "cuBLAS" if self.cublas else ""
        self.gpu = Gpu(
            self.name,
            processors,
            resident,
            cooperative,
            shared,
            library=library,
            no_library=no_library,
            graphs=True,
            registers=self.attribute("MAX_REGISTERS_PER_MULTIPROCESSOR"),
        )
        self.capturing: Any = None  # the stream that graphs are captured on
        self.workspaces: dict[int, DeviceMemory] = {}  # by stream

    # ---- the driver ---------------------------------------------------------------------------

    def ask(self, function: str, *arguments: Any) -> Any:
        """A call of the driver: its result. CudaError says what went wrong."""
        error, *results = getattr(self.driver, function)(*arguments)
        if error is not self.success and int(error) != 0:
            words = self.driver.cuGetErrorString(error)[1]
            said = words.decode() if isinstance(words, bytes) else str(words)
            if self.process != os.getpid():
                said += "; a forked process can't use its parent's GPU: start it with 'spawn'"
            raise CudaError(f"{function}: {error.name} ({said})")
        return results[0] if len(results) == 1 else tuple(results)

    def attribute(self, name: str) -> int:
        kind = self.driver.CUdevice_attribute
        return int(
            self.ask(
                "cuDeviceGetAttribute", getattr(kind, f"CU_DEVICE_ATTRIBUTE_{name}"), self.handle
            )
        )

    def driver_version(self) -> str:
        """Of CUDA, as far as the driver goes: 13.0."""
        version = int(self.ask("cuDriverGetVersion"))
        return f"{version // 1000}.{version % 1000 // 10}"

    def enter(self) -> None:
        """Makes the context this thread's: others may have one of another device there."""
        self.ask("cuCtxSetCurrent", self.context)

    @contextmanager
    def current(self) -> Iterator[None]:
        """The context in here, and the thread's own afterwards: memory is given back whenever it
        is let go, in the midst of what a caller does on another device perhaps."""
        own = self.ask("cuCtxGetCurrent")
        self.enter()
        try:
            yield
        finally:
            self.ask("cuCtxSetCurrent", own)

    # ---- memory -------------------------------------------------------------------------------

    def empty(self, size: int, stream: Any = None) -> DeviceMemory:
        try:
            if self.pooled:
                address = int(self.ask("cuMemAllocAsync", max(size, 1), stream or 0))
            else:
                address = int(self.ask("cuMemAlloc", max(size, 1)))
        except CudaError as error:
            if "OUT_OF_MEMORY" not in str(error):
                raise
            free, total = self.ask("cuMemGetInfo")
            raise MemoryError(
                f"{self.name} has no {size / 2**20:.1f} MiB: {free / 2**20:.0f} of "
                f"{total / 2**20:.0f} MiB are free. A smaller batch needs less, and so does "
                "checkpoint_every="
            ) from None
        return DeviceMemory(address, _Memory(self, address, stream or 0))

    def release(self, address: int, stream: int) -> None:
        """Memory back to the pool, once what was launched before has run."""
        if self.process != os.getpid():  # a forked one has copies of what isn't its own
            return
        with self.current():
            if self.pooled:
                self.ask("cuMemFreeAsync", address, stream)
            else:
                self.ask("cuMemFree", address)

    def keep_memory(self) -> bool:
        """Whether the driver has pools; the device's own keeps what it was given back."""
        if not self.attribute("MEMORY_POOLS_SUPPORTED"):
            return False
        pool = self.ask("cuDeviceGetDefaultMemPool", self.handle)
        kind = self.driver.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
        self.ask("cuMemPoolSetAttribute", pool, kind, self.driver.cuuint64_t(2**64 - 1))
        return True

    def upload(self, array: np.ndarray, stream: Any = None) -> DeviceMemory:
        piece = self.empty(array.nbytes)
        if array.nbytes:  # from pageable memory: the array has been read when this returns
            self.ask(
                "cuMemcpyHtoDAsync", piece.address, array.ctypes.data, array.nbytes, stream or 0
            )
        return piece

    def clear(self, piece: DeviceMemory, size: int, stream: Any = None) -> None:
        self.ask("cuMemsetD8Async", piece.address, 0, size, stream or 0)

    def download(self, address: int, array: np.ndarray, stream: Any = None) -> None:
        if array.nbytes:
            self.ask("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, stream or 0)
        self.ask("cuStreamSynchronize", stream or 0)

    def zeros(self, size: int) -> DeviceMemory:
        with self.lock:
            if not self.zero or self.zero[-1][0] < size:
                self.enter()
                self.zero.append((size, self.upload(np.zeros(size, np.uint8))))
                self.ask("cuStreamSynchronize", 0)  # other streams read it, too
            return self.zero[-1][1]

    def ones(self, dtype: str, count: int = 1) -> DeviceMemory:
        with self.lock:
            known, piece = self.one.get(dtype, (0, None))
            if known < count:
                self.enter()
                piece = self.upload(np.ones(count, dtype))
                self.one[dtype] = count, piece
                self.kept.append(piece)  # something may still read the one before
                self.ask("cuStreamSynchronize", 0)
            assert piece is not None
            return piece

    # ---- kernels ------------------------------------------------------------------------------

    def launch(
        self,
        kernel: CudaKernel,
        dtype: str,
        grid: int,
        threads: int,
        words: np.ndarray,
        *,
        shared: int = 0,
        cooperative: bool = False,
        stream: Any = None,
    ) -> None:
        function = self.function(kernel, dtype, shared)
        if cooperative:
            self.check_resident(kernel, function, grid, threads, shared)
        launch = "cuLaunchCooperativeKernel" if cooperative else "cuLaunchKernel"
        # The driver takes a pointer to each parameter, and copies what it points at.
        places = np.arange(len(words), dtype=np.uint64) * 8 + np.uint64(words.ctypes.data)
        last = () if cooperative else (0,)
        self.ask(
            launch,
            function,
            *(grid, 1, 1),
            *(threads, 1, 1),
            shared,
            stream or 0,
            places.ctypes.data,
            *last,
        )

    def multiply(
        self,
        product: Product,
        places: tuple[int, int, int],
        dtype: str,
        precision: str,
        *,
        stream: Any = None,
        workspace: int = 0,
    ) -> None:
        assert self.cublas is not None, "gpu.library says so"
        if not workspace and not self.is_capturing(stream):
            # The same as in a graph: with less, the library might choose another way to sum.
            workspace = self.workspace(stream)
        self.cublas.multiply(product, places, dtype, precision, stream, workspace)

    # ---- graphs -------------------------------------------------------------------------------

    def is_capturing(self, stream: Any) -> bool:
        error, *status = self.driver.cuStreamIsCapturing(stream or 0)
        # An error says that somebody captures who wouldn't have the default stream used.
        return int(error) != 0 or int(status[0]) != 0

    def captured(self, run: Launches, stream: Any) -> DeviceGraph:
        with self.lock:
            if self.capturing is None:
                flag = self.driver.CUstream_flags.CU_STREAM_NON_BLOCKING
                self.capturing = self.ask("cuStreamCreate", int(flag))
            workspace = self.workspace(stream) if self.cublas is not None else 0
            own = int(self.capturing)
            mode = self.driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
            self.ask("cuStreamBeginCapture", own, mode)
            try:
                run(own, workspace)
            except BaseException:
                self.driver.cuStreamEndCapture(own)
                raise
            graph = self.ask("cuStreamEndCapture", own)
            try:
                return DeviceGraph(self, self.ask("cuGraphInstantiate", graph, 0))
            finally:
                self.ask("cuGraphDestroy", graph)

    def workspace(self, stream: Any) -> int:
        """What the library works in on that stream, where one product comes after the other."""
        with self.lock:
            workspace = self.workspaces.get(stream or 0)
            if workspace is None:
                workspace = self.workspaces[stream or 0] = self.empty(WORKSPACE)
                self.ask("cuStreamSynchronize", 0)  # it is there, whoever uses it
            return workspace.address

    def destroy(self, graph: Any) -> None:
        """A graph is given back; it ends first if it runs."""
        if self.process == os.getpid():
            with self.current():
                self.ask("cuGraphExecDestroy", graph)

    def resident(self, kernel: CudaKernel, dtype: str, threads: int, shared: int) -> int:
        self.enter()
        return self.fits(self.function(kernel, dtype, shared), threads, shared)

    def fits(self, function: Any, threads: int, shared: int) -> int:
        each = self.ask("cuOccupancyMaxActiveBlocksPerMultiprocessor", function, threads, shared)
        return int(each) * self.gpu.multiprocessors

    def check_resident(
        self, kernel: CudaKernel, function: Any, grid: int, threads: int, shared: int
    ) -> None:
        """RuntimeError unless all blocks fit at once: blocks that wait for others would hang."""
        fits = self.fits(function, threads, shared)
        if grid > fits:
            raise RuntimeError(
                f"{kernel.name}: {grid} blocks of {threads} threads wait for each other, but only "
                f"{fits} fit on {self.name} at once"
            )

    def loaded(self, kernel: CudaKernel, dtype: str) -> Any:
        """The kernel's function, out of the store if the driver takes what is there."""
        name, code = machine_code(kernel, dtype, self.capability)
        try:
            module = self.module(code)
        except CudaError as refused:
            if "OUT_OF_MEMORY" in str(refused):
                raise
            try:  # another machine's compilers may be too new for this one's driver
                name, code = machine_code(kernel, dtype, self.capability, anew=True)
            except Missing:
                raise refused from None
            module = self.module(code)
        return self.ask("cuModuleGetFunction", module, name.encode())

    def module(self, code: bytes) -> Any:
        """The driver's of that machine code, the same for the same."""
        key = hashlib.blake2b(code, digest_size=32).digest()
        module = self.modules.get(key)
        if module is None:
            module = self.modules[key] = self.ask("cuModuleLoadData", code)
        return module

    def function(self, kernel: CudaKernel, dtype: str, shared: int = 0) -> Any:
        """The kernel on the device, compiled or out of the store."""
        with self.lock:
            loaded = self.functions.get(kernel, {}).get(dtype)
            if loaded is None:
                loaded = self.loaded(kernel, dtype)
                self.functions.setdefault(kernel, {})[dtype] = loaded
            if shared > 48 * 1024:
                kind = self.driver.CUfunction_attribute
                which = kind.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                self.ask("cuFuncSetAttribute", loaded, which, shared)
            return loaded


def _cublas() -> tuple[Cublas | None, str]:
    """cuBLAS, or why there is none."""
    try:
        return Cublas(), ""
    except (OSError, AttributeError) as error:
        return None, str(error)


def _driver() -> Any:
    """NVIDIA's driver, initialised. RuntimeError says what is missing."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise Missing(f"target cuda needs numba-cuda and NVIDIA's bindings: {INSTALL}") from error
    try:
        (status,) = driver.cuInit(0)
    except Exception as missing:  # the bindings look for the library when it is first called
        raise Missing(
            "target cuda found no NVIDIA driver on this machine (libcuda): install one, or use "
            "target='cpu'"
        ) from missing
    if int(status) != 0:
        raise Missing(
            f"target cuda found no usable GPU: cuInit says {status.name}; use target='cpu'"
        )
    return driver
