"""Arrays with `__cuda_array_interface__`, CuPy's, as a carrier: read and written where they are.

Memory comes from their library, on the stream that is its current one; there kernels run, too. So
what the library was asked before is done before, and what it frees it hands out in that order.

Non-Goals: knowing such arrays (`device_arrays`). Nothing here has run on a GPU yet: tests run it
over a simulated one.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from rnncc.runtime.common.strides import rows_are_dense
from rnncc.runtime.cuda.driver.current_target import current
from rnncc.runtime.cuda.driver.target import CudaTarget, DeviceMemory


class InterfaceArrays:
    """A `Carrier` of one library and stream."""

    copies = True  # weights are NumPy's: each is copied once a version

    def __init__(self, target: CudaTarget, library: Any) -> None:
        """library: a module with CuPy's names."""
        self.target, self.library = target, library
        self.stream = int(library.cuda.get_current_stream().ptr)

    @staticmethod
    def of(like: Any) -> InterfaceArrays:
        """Whose arrays are like that one. TypeError for one of another device than is in use."""
        target: Any = current()
        number = getattr(getattr(like, "device", None), "id", 0)
        if number != getattr(target, "number", number):
            raise TypeError(f"arrays lie on device {number}, kernels run on {target.number}")
        library = sys.modules[type(like).__module__.partition(".")[0]]
        return InterfaceArrays(target, library)

    def empty(self, size: int) -> DeviceMemory:
        return self.piece(self.library.empty(max(size, 1), "uint8"))

    def piece(self, array: Any) -> DeviceMemory:
        return DeviceMemory(int(array.__cuda_array_interface__["data"][0]), array)

    def enter(
        self, array: Any, dtype: np.dtype[Any], lead: int = 0
    ) -> tuple[DeviceMemory, tuple[int, ...] | None]:
        if isinstance(array, np.generic) or type(array) is np.ndarray:
            return self.piece(self.library.asarray(np.ascontiguousarray(array, dtype))), None
        array = array.astype(dtype, copy=False)
        if array.flags.c_contiguous:
            return self.piece(array), None
        dense = rows_are_dense(array.shape[lead:], array.strides[lead:], array.itemsize)
        if not lead or not dense:
            return self.piece(self.library.ascontiguousarray(array)), None
        return self.piece(array), tuple(array.strides)

    def result(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceMemory:
        return self.piece(self.library.empty(shape, dtype))

    def leave(
        self, piece: DeviceMemory, shape: tuple[int, ...], dtype: np.dtype[Any], out: Any = None
    ) -> Any:
        if out is None:
            return piece.owner
        out[...] = piece.owner
        return out
