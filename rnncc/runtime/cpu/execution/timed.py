"""An engine whose plans write when they did what: the same plans, each part of a launch timed.

    timed(engine, "cell_0")     the engine's kernels are those of `emit.cpu.timed_kernels`
    with STAMPS.held():
        STAMPS.start(); engine.forward(...); lines = STAMPS.read()

All timed engines of a process write into one memory, which one thread has at a time.

Non-Goals: what stamps add up to (`runtime.profiles`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from weakref import WeakValueDictionary

import numpy as np

from rnncc.artifact.kernel_tables import DirectionSpec, KernelSpec, PieceSpec
from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.common.memory_pool import aligned
from rnncc.runtime.cpu.execution.engine import CpuEngine
from rnncc.runtime.cpu.execution.run import Direction
from rnncc.runtime.cpu.kernels.executor import PACKING, ArgumentBlock, Launch, Plan
from rnncc.runtime.cpu.kernels.stamps import (
    HEAD_WORDS,
    STAMP_LINE,
    STAMP_WORDS,
    stamp_now,
    timed_part,
)
from rnncc.runtime.cpu.planning.bound_program import BoundProgram
from rnncc.runtime.cpu.planning.target import Host, run_plan
from rnncc.runtime.cpu.planning.work import StageWork, work_of
from rnncc.runtime.cpu.threads.dispatch import max_threads
from rnncc.runtime.cpu.threads.worker_pool import function_of

CALLER = 0  # the line of the thread that calls; then those of parts
FIRST_ROOM = 1 << 14  # stamps of a line
MOST_STAMPS = 1 << 18  # of all lines: what is made of them takes microseconds each
# What the caller writes, besides the pieces of kernels.
CALL, RUN, RAN, RETURNED = range(4)


@dataclass(eq=False)
class Launched:
    """A launch of a plan. part: of a layer made of layers, else "". kernel: its table, None of
    copies and packing. works: of each piece of the kernel that contracts, by its place; of a kernel
    that isn't generated, the whole at 0. copied: bytes. parts: threads it may have. once: a version
    of the weights, and not a call."""

    number: int
    part: str
    what: str
    kernel: KernelSpec | None
    pieces: tuple[PieceSpec, ...]
    works: dict[int, StageWork]
    copied: int
    parts: int
    once: bool
    dtype: str


def _blank_lines() -> np.ndarray:
    """Of the caller and of every part, none of which has room."""
    return aligned((max_threads() + 1, STAMP_LINE // 8), np.int64, zero=True)


@dataclass(eq=False)
class Stamps:
    """Memory for stamps: a line a part, room behind each."""

    lines: np.ndarray = field(default_factory=_blank_lines)
    room: np.ndarray | None = None  # [lines in use, stamps, words]
    launches: WeakValueDictionary[int, Launched] = field(default_factory=WeakValueDictionary)
    lock: threading.RLock = field(default_factory=threading.RLock)
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        open_in_children(self, "lock")

    @property
    def parts(self) -> int:
        """Where the line of part 0 is."""
        return int(self.lines.ctypes.data) + STAMP_LINE * (CALLER + 1)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else's while the block runs; its memory is let go behind it."""
        with self.lock:
            try:
                self._make_room(FIRST_ROOM)
                yield
            finally:
                self.lines[:] = 0
                self.room = None

    def _make_room(self, stamps: int) -> None:
        self.room = np.empty((len(self.lines), stamps, STAMP_WORDS), np.int64)

    def start(self) -> None:
        """Forgets what was written."""
        assert self.room is not None
        self.lines[:] = 0
        base, size = self.room.ctypes.data, self.room[0].nbytes
        for line in range(len(self.room)):
            self.lines[line, :2] = base + line * size, base + (line + 1) * size

    def now(self, what: int) -> None:
        """The caller's."""
        _stamp_now()(self.lines.ctypes.data + STAMP_LINE * CALLER, what)

    def read(self) -> list[np.ndarray] | None:
        """Stamps [n, 3] of every line; None where there wasn't room: there is enough now.

        ValueError where there can't be."""
        assert self.room is not None
        base, size = self.room.ctypes.data, self.room[0].nbytes
        ends = (int(self.lines[n, 0]) - base - n * size for n in range(len(self.room)))
        counts = [end // (8 * STAMP_WORDS) for end in ends]
        if sum(counts) > MOST_STAMPS:
            raise ValueError(
                f"this call has {sum(counts)} pieces to time, more than {MOST_STAMPS}: profile "
                "fewer steps or a smaller batch"
            )
        if max(counts) <= self.room.shape[1]:
            return [self.room[n, :k].copy() for n, k in enumerate(counts)]
        self._make_room(max(counts) + max(counts) // 4)
        return None


STAMPS = Stamps()


@cache
def _stamp_now() -> Callable[..., None]:
    return function_of(stamp_now)


class TimedHost(Host):
    """This machine, with a stamp around each part of what runs."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part, self.stamps = part, STAMPS.parts
        self.run = self._run
        self.launched: list[Launched] = []  # of all plans

    def watched(self, binding: BoundProgram, launches: Sequence[Launch]) -> Sequence[Launch]:
        once = any(launch.what == PACKING for launch in launches)
        return [self._watched(binding, launch, once) for launch in launches]

    def _watched(self, binding: BoundProgram, launch: Launch, once: bool) -> Launch:
        table = next((k for k in binding.direction.kernels if k.name == launch.what), None)
        made = Launched(
            next(STAMPS.numbers),
            self.part,
            launch.what,
            table,
            table.pieces if table else (),
            _works(binding, table),
            launch.copied,
            launch.parts,
            once,
            binding.dtype,
        )
        self.launched.append(made)
        STAMPS.launches[made.number] = made
        words = [launch.kernel, self.stamps, made.number]
        piece = launch.piece
        addresses = [(at + HEAD_WORDS, place) for at, place in piece.addresses]
        own = ArgumentBlock(np.array([*words, *piece.words], np.int64), addresses)
        return Launch(self.code(timed_part), own, launch.parts, launch.what, launch.copied)

    def _run(self, plan: Plan, bases: Sequence[int]) -> None:
        STAMPS.now(RUN)
        run_plan(plan, bases)
        STAMPS.now(RAN)


def _works(binding: BoundProgram, kernel: KernelSpec | None) -> dict[int, StageWork]:
    if kernel is None:
        return {}
    stages = {s.name: s for s in binding.direction.stages}
    if kernel.function is None:
        works = [work_of(binding, kernel, stages[name]) for name in kernel.stages]
        return {0: sum(works, StageWork())}
    return {
        number: work_of(binding, kernel, stages[piece.stage], piece)
        for number, piece in enumerate(kernel.pieces)
        if piece.stage in stages and piece.kind in ("sums", "stage")
    }


def timed(engine: CpuEngine, part: str) -> CpuEngine:
    """An engine over the same kernels, which are timed ones, of its own plans."""

    def side(spec: DirectionSpec, dtype: str, *, cell: str) -> Direction:
        return Direction(spec, dtype, target=TimedHost(part), cell=cell)

    return CpuEngine(engine.cell, engine._forward.direction, engine._backward.direction, side)
