"""Memory of a simulated device: every word knows whether it may be read, and who touched it last.

A read of what nobody wrote, an access outside of every allocation, a misaligned one, and two
threads at one word without a barrier between them are errors, whatever order threads ran in.

Non-Goals: threads (`grid`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from rnncc.runtime.cuda.driver.target import DeviceMemory

BASE = 1 << 20
GUARD = 256
WORD = 4
DTYPES = {"float32": np.float32, "float64": np.float64, "int64": np.int64, "uint32": np.uint32}


class Fault(RuntimeError):
    """An access that a device would not report."""


class Race(Fault):
    """Two threads, one word, no barrier between them."""


class Space:
    """Bytes with allocations in them. state: 0 outside, 1 never written, 2 written."""

    def __init__(self, size: int, base: int = BASE) -> None:
        self.base, self.end = base, base
        self.data = np.zeros(size, np.uint8)
        self.views = {n: self.data.view(t) for n, t in DTYPES.items()}
        self.state = np.zeros(size // WORD, np.uint8)
        # Who wrote what a word holds (several, if all wrote the same), and who read it last.
        self.written: dict[int, list[Stamp]] = {}
        self.read: dict[int, Stamp] = {}

    def allocate(self, size: int) -> DeviceMemory:
        """Poisoned: NaN in either precision."""
        at = -(-self.end // GUARD) * GUARD + GUARD
        size = -(-max(size, 1) // 8) * 8
        if at + size + GUARD > self.base + len(self.data):
            raise Fault(f"out of memory: {size} bytes more than {len(self.data)}")
        self.end = at + size
        low = at - self.base
        self.data[low : low + size] = 0xFF
        self.state[low // WORD : (low + size) // WORD] = 1
        return DeviceMemory(at, None)

    def fill(self, address: int, array: np.ndarray) -> None:
        low, data = address - self.base, np.ascontiguousarray(array).view(np.uint8).ravel()
        self.data[low : low + data.size] = data
        self.state[low // WORD : -(-(low + data.size) // WORD)] = 2

    def copy(self, address: int, array: np.ndarray) -> None:
        low = address - self.base
        array.reshape(-1).view(np.uint8)[...] = self.data[low : low + array.nbytes]

    def place(self, address: int, dtype: str, what: str) -> tuple[np.ndarray, int, int]:
        """The view and the index in it, and the number of the address's first word."""
        item = np.dtype(DTYPES[dtype]).itemsize
        low = int(address) - self.base
        if low % item:
            raise Fault(f"{what} of {dtype} at {address:#x}: misaligned")
        word = low // WORD
        if not 0 <= word < len(self.state) or not self.state[word]:
            raise Fault(f"{what} of {dtype} at {address:#x}: outside every allocation")
        return self.views[dtype], low // item, word


class Stamp:
    """Who touched a word: a thread, its block, and how often that had come to a barrier."""

    __slots__ = ("block", "epoch", "launch", "thread")

    def __init__(self, launch: int, block: int, thread: int, epoch: int) -> None:
        self.launch, self.block, self.thread, self.epoch = launch, block, thread, epoch

    def __repr__(self) -> str:
        return f"thread {self.thread} of block {self.block} before its barrier {self.epoch}"


def check(stamps: Iterable[Stamp], thread: Any, what: str) -> None:
    """Race unless one of what the stamps say happened before what the thread does now."""
    stamp = None
    for stamp in stamps:
        if stamp.launch != thread.launch or stamp.thread == thread.number:
            return
        if stamp.epoch < thread.block.clock[stamp.block]:
            return
    if stamp is not None:
        raise Race(f"{what} by thread {thread.number} of block {thread.block.index}, {stamp}")
