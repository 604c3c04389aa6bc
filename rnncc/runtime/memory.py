"""Shapes to 64-byte aligned arrays, and workspaces kept between calls.

Unaligned, every 64-byte load crosses a cache line and L1 gives half its bandwidth; NumPy aligns to
16 bytes only.

Non-Goals: lifetimes within a call (the schedule lays out one workspace); device memory.
"""

import math
import threading
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .forks import open_in_children

ALIGNMENT = 64
# A vector that starts at the last element reads up to this far past it.
SLACK = 64


def aligned(shape, dtype, zero: bool = False) -> np.ndarray:
    """A C-ordered array at a multiple of 64 bytes, with 64 readable bytes behind it."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    # np.zeros asks the system for zeroed pages; clearing an np.empty would touch them all twice.
    raw = (np.zeros if zero else np.empty)(size + ALIGNMENT + SLACK, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def address_of(array: np.ndarray) -> int:
    """Where an array's data begins; three times as quick as `array.ctypes.data`."""
    return int(array.__array_interface__["data"][0])


def write_into(out: Mapping[str, np.ndarray], results: dict[str, np.ndarray]) -> dict[str, Any]:
    """Results by name, in the arrays they were asked into: copied where they aren't there yet."""
    for name in results.keys() & out.keys():
        if results[name] is not out[name]:
            out[name][...] = results[name]
            results[name] = out[name]
    return results


KEPT_BYTES = 256 * 2**20


class Pool:
    """Workspaces by size in bytes, handed out to one call at a time.

    Pages the system has given once are kept: touching new ones costs more than filling them.
    """

    def __init__(self, keep: int = 4):
        self._keep = keep
        self._kept_bytes = 0
        self._free: dict[int, list[np.ndarray]] = {}
        self._lock = threading.RLock()  # a lease may end while its own thread is in here
        open_in_children(self, "_lock")

    def take(self, size: int) -> np.ndarray:
        """`size` bytes with anything in them."""
        with self._lock:
            free = self._free.get(size)
            if free:
                self._kept_bytes -= size
                return free.pop()
        return aligned((size,), np.uint8)

    def give(self, workspace: np.ndarray) -> None:
        """Back to the pool; freed where enough of that size wait already."""
        with self._lock:
            free = self._free.setdefault(workspace.nbytes, [])
            size = workspace.nbytes
            if len(free) < self._keep and self._kept_bytes + size <= KEPT_BYTES:
                free.append(workspace)
                self._kept_bytes += size

    def lease(self, size: int) -> "Lease":
        """`size` bytes that come back by themselves."""
        return Lease(self.take(size), self)

    @contextmanager
    def borrow(self, size: int):
        workspace = self.take(size)
        try:
            yield workspace
        finally:
            self.give(workspace)

    def clear(self) -> None:
        with self._lock:
            self._free.clear()
            self._kept_bytes = 0


class Lease:
    """Memory of a pool for as long as this object lives; nothing else may keep a view of it."""

    __slots__ = ("_pool", "array")

    def __init__(self, array: np.ndarray, pool: Pool):
        self.array, self._pool = array, pool

    def __del__(self) -> None:
        self._pool.give(self.array)
