"""Arrays that a call needs beside those it was given, of the kind that its results are.

    HostRoom                             NumPy's
    runtime.cuda.target.CarriedRoom      a framework's, on its device

Non-Goals: what they are for (`time_chunks`, `second_engine`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from rnncc.runtime.common import memory_pool
from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.common.strides import repeated

KEPT_SHAPES = 64


class Allocator(Protocol):
    def empty(self, shape: tuple[int, ...]) -> Any:
        """An array with anything in it."""

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """Zeros to write into."""

    def nothing(self, shape: tuple[int, ...], lead: int) -> Any:
        """Zeros to read: one row for every place along the first `lead` axes."""

    def copy(self, array: Any) -> Any:
        """What is in an array, for ourselves."""


def of_every_step(last: Any, steps: int, zeros: Callable[[tuple[int, ...]], Any]) -> Any:
    """A cotangent of the last step, [batch, ...], as one of every step. zeros: an `Allocator`'s."""
    every_step = zeros((len(last), steps, *last.shape[1:]))
    every_step[:, -1] = last
    return every_step


class HostAllocator:
    """A `Allocator` of NumPy's arrays. Thread-safe."""

    def __init__(self, dtype: Any, pool: memory_pool.Pool | None = None) -> None:
        """pool: of memory; None is this machine's."""
        self.dtype, self._pool = np.dtype(dtype), pool
        self._kept: dict[Any, np.ndarray] = {}
        self._lock = threading.Lock()
        open_in_children(self, "_lock")

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        return (self._pool or memory_pool.POOL).array(shape, self.dtype)

    def zeros(self, shape: tuple[int, ...]) -> np.ndarray:
        return memory_pool.aligned(shape, self.dtype, zero=True)

    def nothing(self, shape: tuple[int, ...], lead: int) -> np.ndarray:
        with self._lock:
            zeros = self._kept.get((shape, lead))
            if zeros is None:
                if len(self._kept) >= KEPT_SHAPES:
                    self._kept.clear()
                row = np.zeros(shape[lead:], self.dtype)
                zeros = self._kept[shape, lead] = repeated(row, shape[:lead])
                zeros.flags.writeable = False
            return zeros

    def copy(self, array: Any) -> np.ndarray:
        return np.array(array)
