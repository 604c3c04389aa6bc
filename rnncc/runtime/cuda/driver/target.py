"""What runs kernels, and where arrays are: two small protocols.

    Target     compiles and launches kernels: `device.Device`, or a simulator in tests
    Carrier    hands arrays in and results out: `HostArrays` copies NumPy's, `tensors` reads a
               framework's where they are

Non-Goals: what is launched (`run`); which target is in use (`current_target`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rnncc.artifact.grid_sync import Gpu
from rnncc.runtime.common.device_arrays import CARRIER
from rnncc.runtime.cuda.driver.graphs import Launches, LaunchGraph
from rnncc.runtime.cuda.kernels.kernel import CudaKernel
from rnncc.runtime.cuda.kernels.matmuls import Product

__all__ = ["CARRIER", "CarriedAllocator", "Carrier", "CudaTarget", "DeviceMemory", "HostArrays"]


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of the device: where it begins, and what keeps it alive."""

    address: int
    owner: Any


class CudaTarget(Protocol):
    gpu: Gpu

    def enter(self) -> None:
        """Makes the device the thread's own, for the calls of a target that come next."""

    def empty(self, size: int, stream: Any = None) -> DeviceMemory:
        """So many bytes, at a multiple of 256, with anything in them."""

    def upload(self, array: np.ndarray, stream: Any = None) -> DeviceMemory:
        """A copy of a C-contiguous array."""

    def clear(self, piece: DeviceMemory, size: int, stream: Any = None) -> None:
        """Zeros over so many bytes."""

    def download(self, address: int, array: np.ndarray, stream: Any = None) -> None:
        """Fills a C-contiguous array, once all that was launched before is done."""

    def zeros(self, size: int) -> DeviceMemory:
        """So many zero bytes that nobody writes."""

    def ones(self, dtype: str, count: int = 1) -> DeviceMemory:
        """So many times the number one, which nobody writes over."""

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
        """Runs a matrix product of `gpu.library`; places: addresses of left, right and result."""

    def is_capturing(self, stream: Any) -> bool:
        """Whether somebody makes a graph of what is launched there."""

    def captured(self, run: Launches, stream: Any) -> LaunchGraph:
        """What `run` launches, as a graph to be launched on that stream; nothing has run yet. Asked
        of a target with `gpu.graphs`. RuntimeError where there can't be one."""

    def resident(self, kernel: CudaKernel, dtype: str, threads: int, shared: int) -> int:
        """How many blocks of a kernel are on the device at once."""

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
        """Runs a kernel over int64 words. shared: bytes of shared memory a block has. RuntimeError,
        before anything runs, for a cooperative grid that doesn't fit on the device at once."""


class Carrier(Protocol):
    target: CudaTarget
    stream: Any
    copies: bool  # what enters is a copy, worth keeping

    def empty(self, size: int) -> DeviceMemory: ...

    def enter(
        self, array: Any, dtype: np.dtype[Any], lead: int = 0
    ) -> tuple[DeviceMemory, tuple[int, ...] | None]:
        """An argument on the device, and its strides in bytes where its first `lead` axes lie
        otherwise than in a C-contiguous array."""

    def result(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceMemory:
        """Room for a result."""

    def leave(
        self, piece: DeviceMemory, shape: tuple[int, ...], dtype: np.dtype[Any], out: Any = None
    ) -> Any:
        """A result as its caller gets it, in `out` if that is given."""


class CarriedAllocator:
    """A `allocators.Allocator` of a carrier's arrays."""

    def __init__(self, carrier: Carrier, dtype: np.dtype[Any]) -> None:
        self.carrier, self.dtype = carrier, dtype

    def empty(self, shape: tuple[int, ...]) -> Any:
        return self.carrier.leave(self.carrier.result(shape, self.dtype), shape, self.dtype)

    def zeros(self, shape: tuple[int, ...]) -> Any:
        array = self.empty(shape)
        array[...] = 0
        return array

    def nothing(self, shape: tuple[int, ...], lead: int) -> Any:
        return self.zeros(shape)

    def copy(self, array: Any) -> Any:
        if isinstance(array, np.ndarray):  # it comes to the device with the call
            return np.array(array)
        copied = self.empty(tuple(array.shape))
        copied[...] = array
        return copied


class HostArrays:
    """NumPy's arrays: copied to the device and back."""

    stream = None
    copies = True

    def __init__(self, target: CudaTarget) -> None:
        self.target = target
        target.enter()

    def empty(self, size: int) -> DeviceMemory:
        return self.target.empty(size)

    def enter(
        self, array: Any, dtype: np.dtype[Any], lead: int = 0
    ) -> tuple[DeviceMemory, tuple[int, ...] | None]:
        return self.target.upload(np.ascontiguousarray(array, dtype)), None

    def result(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceMemory:
        return self.target.empty(int(np.prod(shape, dtype=int)) * dtype.itemsize)

    def leave(
        self, piece: DeviceMemory, shape: tuple[int, ...], dtype: np.dtype[Any], out: Any = None
    ) -> np.ndarray:
        if out is not None and out.flags.c_contiguous:
            self.target.download(piece.address, out)
            return out
        array = np.empty(shape, dtype)
        self.target.download(piece.address, array)
        if out is None:
            return array
        out[...] = array
        return out
