"""A library with CuPy's names whose arrays lie in a simulated device's memory.

Like CuPy's, they never become NumPy's by themselves: `get` copies them.

Non-Goals: more of CuPy than layers call.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.support.gpu_simulator.grid import Simulator

STREAM = 4321


class ndarray:
    __module__ = "fake_cupy"
    device = SimpleNamespace(id=0)

    def __init__(self, simulator: Simulator, view: np.ndarray) -> None:
        self.simulator, self.view = simulator, view

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "ndim", "strides", "itemsize", "size", "flags"):
            return getattr(self.view, name)
        raise AttributeError(name)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        space = self.simulator.space
        low = self.view.__array_interface__["data"][0] - space.data.ctypes.data
        first, last = np.lib.array_utils.byte_bounds(self.view)
        begin = (first - space.data.ctypes.data) // 4
        space.state[begin : begin + -(-(last - first) // 4)] = 2
        return {"data": (space.base + low, False), "shape": self.shape, "version": 3}

    def _new(self, array: np.ndarray) -> ndarray:
        made = empty(self.simulator, array.shape, array.dtype)
        made.view[...] = array
        return made

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        same = self.view.dtype == dtype and not copy
        return self if same else self._new(self.view.astype(dtype))

    def copy(self) -> ndarray:
        return self._new(self.view)

    def get(self) -> np.ndarray:
        return self.view.copy()

    def swapaxes(self, a: int, b: int) -> ndarray:
        return ndarray(self.simulator, self.view.swapaxes(a, b))

    def sum(self, **how: Any) -> ndarray:
        return self._new(self.view.sum(**how))

    def cumsum(self, **how: Any) -> ndarray:
        return self._new(self.view.cumsum(**how))

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, index: Any) -> ndarray:
        return ndarray(self.simulator, self.view[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        assert isinstance(value, ndarray | int | float), "CuPy takes no array of NumPy's"
        self.view[index] = value.view if isinstance(value, ndarray) else value

    def __add__(self, other: ndarray) -> ndarray:
        return self._new(self.view + other.view)

    def __iadd__(self, other: ndarray) -> ndarray:
        self.view += other.view
        return self


def empty(simulator: Simulator, shape: Any, dtype: Any) -> ndarray:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    count = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    low = simulator.space.allocate(count).address - simulator.space.base
    data = simulator.space.data[low : low + count]
    return ndarray(simulator, data.view(dtype).reshape(shape))


def library(simulator: Simulator) -> Any:
    """The module; imported from now on as fake_cupy."""
    made: Any = ModuleType("fake_cupy")
    made.ndarray = ndarray
    made.cuda = SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=STREAM))
    made.empty = lambda shape, dtype: empty(simulator, shape, dtype)

    def asarray(array: Any) -> ndarray:
        found = empty(simulator, array.shape, array.dtype)
        found.view[...] = array
        return found

    made.asarray = asarray
    made.ascontiguousarray = lambda a: a._new(np.ascontiguousarray(a.view))
    sys.modules["fake_cupy"] = made
    return made
