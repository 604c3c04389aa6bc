"""Shapes to 64-byte aligned arrays, and workspaces kept between calls.

Unaligned, every 64-byte load crosses a cache line and L1 gives half its bandwidth; NumPy aligns to
16 bytes only.

Non-Goals: lifetimes within a call (the schedule lays out one workspace); device memory.
"""

import ctypes
import math
import mmap
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from rnncc.runtime.common.fork_safety import open_in_children

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


def _told_address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


# The first field of NumPy's array (PyArrayObject_fields in its C interface) behind Python's head.
_DATA_AT = object.__basicsize__
_word_at = ctypes.c_ssize_t.from_address


def _read_address(array: np.ndarray) -> int:
    return _word_at(id(array) + _DATA_AT).value


def _reads_right() -> bool:
    if sys.implementation.name != "cpython":
        return False
    array = np.arange(7)
    return all(_read_address(a) == _told_address(a) for a in (array, array[3:]))


# Where an array's data begins. Read, not asked for: a sixth of the time, and a call has a dozen.
address_of: Callable[[np.ndarray], int] = _read_address if _reads_right() else _told_address


def write_into(out: Mapping[str, np.ndarray], results: dict[str, np.ndarray]) -> dict[str, Any]:
    """Results by name, in the arrays they were asked into: copied where they aren't there yet."""
    for name in results.keys() & out.keys():
        if results[name] is not out[name]:
            out[name][...] = results[name]
            results[name] = out[name]
    return results


KEPT_BYTES = 256 * 2**20
# Arrays from this size on are given memory of a pool; NumPy is as quick with smaller ones.
POOLED_BYTES = 2**15
# From here on large pages are asked for: one of them covers 512 small ones' addresses.
HUGE_BYTES = 2**22


def size_class(size: int) -> int:
    """What is kept is of few sizes, an eighth apart at most, so that it serves other calls.

    >>> size_class(1), size_class(1000), size_class(100_000)
    (64, 1024, 106496)
    """
    step = max(1 << max(size.bit_length() - 4, 0), ALIGNMENT)
    return -(-size // step) * step


def _pages(size: int) -> mmap.mmap:
    """Memory of the system's, which a forked child has a copy of."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a system without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


class Pool:
    """Workspaces, handed out to one call at a time, and memory of results and residuals.

    Pages the system has given once are kept: touching new ones costs more than filling them.
    """

    def __init__(self, keep: int = 4):
        self._keep = keep
        self._kept_bytes = 0
        self._free: dict[int, list[np.ndarray]] = {}  # by size, the one given back last at the end
        self._lock = threading.RLock()  # a lease may end while its own thread is in here
        open_in_children(self, "_lock")

    def take(self, size: int) -> np.ndarray:
        """`size` bytes or some more, with anything in them."""
        size = size_class(max(size, 1))
        with self._lock:
            free = self._free.get(size)
            if free:
                self._kept_bytes -= size
                return free.pop()
        return np.ndarray((size,), np.uint8, _pages(size))

    def give(self, workspace: np.ndarray) -> None:
        """Back to the pool, which lets go of sizes that weren't asked for lately."""
        size = workspace.nbytes
        with self._lock:
            free = self._free.pop(size, None) or []
            self._free[size] = free
            if len(free) < self._keep and size <= KEPT_BYTES:
                free.append(workspace)
                self._kept_bytes += size
                while self._kept_bytes > KEPT_BYTES:
                    self._let_go()

    def _let_go(self) -> None:
        size, free = next(iter(self._free.items()))
        if free:
            self._kept_bytes -= size
            free.pop()
        if not free:
            del self._free[size]

    def lease(self, size: int) -> "Lease":
        """`size` bytes that come back by themselves."""
        return Lease(self.take(size), self)

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A new array for a caller to keep; its memory comes back when nobody has a view of it."""
        size = math.prod(shape) * dtype.itemsize
        if size < POOLED_BYTES:
            return np.empty(shape, dtype)
        memory = self.take(size)
        owner = _Owner(shape, dtype, memory.base)  # were that an array, views would skip the owner
        owner.pool, owner.memory = self, memory
        return owner.view(np.ndarray)

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


class _Owner(np.ndarray):
    """The base of an array in a pool's memory: lives as long as any view of it."""

    pool: Pool | None = None
    memory: np.ndarray

    def __del__(self) -> None:
        if self.pool is not None:
            self.pool.give(self.memory)


class Lease:
    """Memory of a pool for as long as this object lives; nothing else may keep a view of it."""

    __slots__ = ("_pool", "array")

    def __init__(self, array: np.ndarray, pool: Pool):
        self.array, self._pool = array, pool

    def __del__(self) -> None:
        self._pool.give(self.array)


POOL = Pool()
