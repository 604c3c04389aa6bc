"""NVIDIA's driver over a simulated grid: the functions that a `Device` calls."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rnncc.runtime.cuda.driver import device as devices
from rnncc.runtime.cuda.kernels.kernel import CudaKernel
from tests.support.gpu_simulator.grid import Simulator

ATTRIBUTES = {
    "COMPUTE_CAPABILITY_MAJOR": 9,
    "COMPUTE_CAPABILITY_MINOR": 0,
    "MULTIPROCESSOR_COUNT": 4,
    "COOPERATIVE_LAUNCH": 1,
    "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 227 * 1024,
    "MAX_REGISTERS_PER_MULTIPROCESSOR": 65_536,
    "MEMORY_POOLS_SUPPORTED": 1,
    "CLOCK_RATE": 1_980_000,
}
CAPTURING = 777  # the stream that graphs are captured on


class _Named:
    """`driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_X` and the like: their own names."""

    def __getattr__(self, name: str) -> str:
        return name


class FakeDriver:
    """The functions of `cuda.bindings.driver` that `Device` calls, with their arguments' order."""

    CUdevice_attribute = CUfunction_attribute = CUmemPool_attribute = _Named()
    CUstreamCaptureMode = _Named()
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    cuuint64_t = int

    def __init__(self, simulator: Simulator, fits: int = 1, **attributes: int) -> None:
        self.simulator, self.fits = simulator, fits
        self.attributes = {**ATTRIBUTES, **attributes}
        self.kernels: list[tuple[CudaKernel, str]] = []
        self.asked: list[str] = []
        self.live: dict[int, int] = {}
        self.free: dict[int, list[int]] = {}
        self.captured: list[Any] | None = None  # what is launched while a stream is captured
        self.graphs: list[list[Any]] = []
        self.no_graphs = False
        self.context = "another device's"  # the thread's own
        self.refused: set[bytes] = set()  # images that are no good

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu") and name != "cuuint64_t":
            self.asked.append(name)
        return object.__getattribute__(self, name)

    def _ok(self, *found: Any) -> tuple[Any, ...]:
        return (_Status(0, "CUDA_SUCCESS"), *found)

    def cuDriverGetVersion(self):
        return self._ok(13000)

    def cuDeviceGetCount(self):
        return self._ok(1)

    def cuDeviceGet(self, number):
        return self._ok(number)

    def cuDeviceGetName(self, length, handle):
        return self._ok(b"A fake GPU".ljust(length, b"\0"))

    def cuDeviceGetAttribute(self, name, handle):
        return self._ok(self.attributes[name.removeprefix("CU_DEVICE_ATTRIBUTE_")])

    def cuDevicePrimaryCtxRetain(self, handle):
        return self._ok("context")

    def cuCtxSetCurrent(self, context):
        assert context in ("context", "another device's")
        self.context = context
        return self._ok()

    def cuCtxGetCurrent(self):
        return self._ok(self.context)

    def cuDeviceGetDefaultMemPool(self, handle):
        return self._ok("pool")

    def cuMemPoolSetAttribute(self, pool, name, value):
        return self._ok()

    def cuMemAllocAsync(self, size, stream):
        if size > 1 << 40:
            return (_Status(2, "CUDA_ERROR_OUT_OF_MEMORY"), None)
        free = self.free.get(size)
        address = free.pop(0) if free else self.simulator.empty(size).address
        self.live[address] = size
        self._mark(address, size, 1)
        return self._ok(address)

    def cuMemFreeAsync(self, address, stream):
        size = self.live.pop(address)
        self.free.setdefault(size, []).append(address)
        self._mark(address, size, 0)
        return self._ok()

    def _mark(self, address, size, state):
        """What was given back is nobody's: whoever reads or writes it is at fault."""
        space = self.simulator.space
        low = (address - space.base) // 4
        space.state[low : low + -(-size // 4)] = state

    def _is_live(self, address, size):
        return any(a <= address and address + size <= a + n for a, n in self.live.items())

    def cuMemGetInfo(self):
        return self._ok(2**30, 2**33)

    def cuGetErrorString(self, status):
        return self._ok(b"no memory")

    def cuMemcpyHtoDAsync(self, target, source, size, stream):
        assert self._is_live(target, size), "memory that was given back"
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(source))
        self.simulator.space.fill(target, array)
        return self._ok()

    def cuMemcpyDtoHAsync(self, target, source, size, stream):
        assert self._is_live(source, size), "memory that was given back"
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(target))
        self.simulator.download(source, array)
        return self._ok()

    def cuMemsetD8Async(self, target, value, size, stream):
        assert self._is_live(target, size), "memory that was given back"
        if self._is_captured(stream, self.cuMemsetD8Async, target, value, size, 0):
            return self._ok()
        self.simulator.space.fill(target, np.full(size, value, np.uint8))
        return self._ok()

    def cuCtxSynchronize(self):
        return self._ok()

    def cuStreamSynchronize(self, stream):
        return self._ok()

    def cuModuleLoadData(self, code):
        assert isinstance(code, bytes)
        if code in self.refused:
            return (_Status(200, "CUDA_ERROR_INVALID_IMAGE"), None)
        return self._ok(int(code))

    def cuModuleGetFunction(self, module, name):
        assert isinstance(name, bytes)
        return self._ok(module)

    def cuFuncSetAttribute(self, function, name, value):
        assert name == "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"
        return self._ok()

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(self, function, threads, shared):
        return self._ok(self.fits)

    def cuLaunchKernel(self, function, x, y, z, tx, ty, tz, shared, stream, words, extra):
        assert extra == 0
        return self._launch(function, x, tx, shared, words, False, stream)

    def cuLaunchCooperativeKernel(self, function, x, y, z, tx, ty, tz, shared, stream, words):
        return self._launch(function, x, tx, shared, words, True, stream)

    def cuStreamCreate(self, flags):
        assert flags == 1
        return self._ok(CAPTURING)

    def cuStreamIsCapturing(self, stream):
        return self._ok(_Status(0, "CU_STREAM_CAPTURE_STATUS_NONE"))

    def cuStreamBeginCapture(self, stream, mode):
        assert stream == CAPTURING and mode == "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL"
        if self.no_graphs:
            return (_Status(801, "CUDA_ERROR_NOT_SUPPORTED"),)
        self.captured = []
        return self._ok()

    def cuStreamEndCapture(self, stream):
        found, self.captured = self.captured, None
        return self._ok(found)

    def cuGraphInstantiate(self, graph, flags):
        self.graphs.append(graph)
        return self._ok(len(self.graphs) - 1)

    def cuGraphDestroy(self, graph):
        return self._ok()

    def cuGraphExecDestroy(self, graph):
        return self._ok()

    def cuGraphLaunch(self, graph, stream):
        for function, arguments in self.graphs[graph]:
            function(*arguments)
        return self._ok()

    def _is_captured(self, stream, function, *arguments):
        """Whether a launch is kept for later."""
        assert stream != CAPTURING or self.captured is not None
        if stream != CAPTURING:
            assert self.captured is None, "another stream is used while one is captured"
            return False
        self.captured.append((function, arguments))
        return True

    def _launch(self, function, grid, threads, shared, words, cooperative, stream):
        kernel, _ = self.kernels[function]
        places = (ctypes.c_void_p * kernel.words).from_address(words)
        values = [ctypes.c_int64.from_address(p).value for p in places]
        arguments = function, grid, threads, shared, values, cooperative
        if not self._is_captured(stream, self._run, *arguments):
            self._run(*arguments)
        return self._ok()

    def _run(self, function, grid, threads, shared, values, cooperative):
        kernel, dtype = self.kernels[function]
        self.simulator.launch(
            kernel, dtype, grid, threads, np.array(values), shared=shared, cooperative=cooperative
        )


class _Status(SimpleNamespace):
    def __init__(self, code: int, name: str) -> None:
        super().__init__(code=code, name=name)

    def __int__(self) -> int:
        return self.code


@pytest.fixture(name="driver")
def driver_on_a_grid(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver(Simulator(seed=2, size=1 << 24, threads=256))
    monkeypatch.setattr(devices, "_driver", lambda: fake)

    def machine_code(
        kernel: CudaKernel, dtype: str, capability: tuple[int, int], *, anew: bool = False
    ) -> Any:
        assert capability == (9, 0)
        fake.kernels.append((kernel, dtype))
        return kernel.name, b"%d" % (len(fake.kernels) - 1)

    monkeypatch.setattr(devices, "machine_code", machine_code)
    return fake
