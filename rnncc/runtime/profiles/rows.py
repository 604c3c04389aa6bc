"""TimedCall calls -> rows: how long each piece takes, how often, and how near that is to the limit.

Seconds are means over the calls, of each thread; a row's are the mean of all threads, so that rows
add up to the time of a call.

Non-Goals: measuring (`profiled`); how rows are shown (`profile`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rnncc.runtime.cpu.execution.timed import Launched
from rnncc.runtime.cpu.kernels.executor import COPIES, PACKING
from rnncc.runtime.cpu.planning.work import StageWork
from rnncc.runtime.profiles.pieces import (
    CONTRACTION,
    EPILOGUE,
    KINDS,
    OUTSIDE,
    Threads,
    TimedCall,
    TimedPiece,
)
from rnncc.runtime.profiles.roofline import Roofline

# part, kernel, level, stage, kind, what
Key = tuple[str, str, int, str, str, str]


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One kind of work at one place of a call.

    part: of a layer made of layers, else "". kernel: as in `plan()`, "copies" or "packing", "" for
    what is in none. level: of a kernel, counted from 1; 0 is none. stage: as in `plan()`. what: the
    names that its equations set. times: how often a thread does it, at most. seconds: the mean of
    all threads; by_thread: of each, the caller first. flops, bytes: at least, of contractions,
    copies and packing; 0 where nothing is counted. limit: seconds below which the machine's cores
    can't do that, those of all threads together.
    """

    part: str
    kernel: str
    level: int
    stage: str
    kind: str
    what: str
    times: int
    seconds: float
    by_thread: tuple[float, ...]
    flops: int = 0
    bytes: int = 0
    limit: float = 0.0

    @property
    def gflops(self) -> float | None:
        """10^9 FLOPs a second of a thread, while it is at it."""
        busy = sum(self.by_thread)
        return self.flops / busy / 1e9 if self.flops and busy else None

    @property
    def roofline(self) -> float | None:
        """The share of what a core can do, of a thread while it is at it: 1 is its limit."""
        busy = sum(self.by_thread)
        return self.limit / busy if self.limit and busy else None


@dataclass
class _Sum:
    """Of one call: ticks of each thread, how often, what was to be done."""

    ticks: np.ndarray
    times: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    work: StageWork = field(default_factory=StageWork)
    limit: float = 0.0


def rows_of(
    calls: Sequence[TimedCall], threads: Threads, roofline: Roofline, seconds: float
) -> tuple[ProfileRow, ...]:
    """Rows in the order in which a call comes to them, what is in no kernel behind them. seconds:
    of a tick."""
    sums = [_summed(call, threads, roofline) for call in calls]
    keys = sorted(dict.fromkeys(key for one in sums for key in one), key=lambda key: not key[1])
    return tuple(_row(key, [one.get(key) for one in sums], seconds, threads.count) for key in keys)


def _row(key: Key, sums: Sequence[_Sum | None], seconds: float, count: int) -> ProfileRow:
    blank = np.zeros(count)
    ticks = np.array([blank if one is None else one.ticks for one in sums])
    by_thread = ticks.mean(0) * seconds
    some = next(one for one in sums if one is not None)
    return ProfileRow(
        *key,
        max(some.times.values(), default=0),
        float(by_thread.mean()),
        tuple(by_thread.tolist()),
        some.work.flops,
        some.work.bytes,
        some.limit,
    )


def _summed(call: TimedCall, threads: Threads, roofline: Roofline) -> dict[Key, _Sum]:
    sums: dict[Key, _Sum] = {}

    def add(key: Key, thread: int, ticks: int) -> _Sum:
        one = sums.get(key)
        if one is None:
            one = sums[key] = _Sum(np.zeros(threads.count))
        one.ticks[thread] += ticks
        one.times[thread] += 1
        return one

    for piece in sorted(call.pieces(threads), key=lambda p: p.begin):
        for key, ticks in parted(piece):
            if ticks or piece.launch is not None:
                add(key, piece.thread, ticks)
    for launch, times in _launches(call, threads):
        for number, work in _works(launch).items():
            one = sums[key_of(launch, number, _kind(launch))]
            cores = min(launch.parts, threads.count)
            one.work += StageWork(work.flops * times, work.bytes * times)
            one.limit += times * cores * _limit(work, launch.dtype, roofline.of(cores))
    return sums


def _launches(call: TimedCall, threads: Threads) -> Iterable[tuple[Launched, int]]:
    """How often each was made in a call."""
    begun: dict[Launched, int] = defaultdict(int)
    for _, launch, _ in call.parts(threads):
        begun[launch] += 1
    return [(launch, count // launch.parts) for launch, count in begun.items()]


def _works(launch: Launched) -> dict[int, StageWork]:
    if launch.kernel is None:
        return {OUTSIDE: StageWork(0, 2 * launch.copied)}
    if launch.kernel.function is None:
        return {OUTSIDE: launch.works[0]}
    return launch.works


def _kind(launch: Launched) -> str:
    return launch.what if launch.kernel is None else CONTRACTION


def _limit(work: StageWork, dtype: str, roofline: Roofline) -> float:
    peak = roofline.fma if dtype == "float32" else roofline.fma / 2
    read = work.bytes / roofline.read_at(work.again or work.bytes) if work.bytes else 0.0
    return max(work.flops / peak, read)


def parted(piece: TimedPiece) -> Iterable[tuple[Key, int]]:
    """A piece's keys and their ticks: what its cores took is a contraction."""
    if piece.launch is None:
        yield ("", "", 0, "", piece.kind, ""), piece.end - piece.begin
        return
    if piece.kind == EPILOGUE:
        yield key_of(piece.launch, piece.number, CONTRACTION), piece.cores
    own = piece.end - piece.begin - (piece.cores if piece.kind == EPILOGUE else 0)
    yield key_of(piece.launch, piece.number, piece.kind), own


def key_of(launch: Launched, number: int, kind: str) -> Key:
    """Where a piece belongs, whatever plan it is of."""
    if number != OUTSIDE:
        piece = launch.pieces[number]
        return launch.part, launch.what, piece.level, piece.stage, kind, piece.what
    names = () if launch.kernel is None or launch.kernel.function else launch.kernel.stages
    kernel = launch.what if launch.kernel else (COPIES if launch.what == COPIES else PACKING)
    return launch.part, kernel, 0, ", ".join(names), kind, ""


def by_kind(rows: Iterable[ProfileRow]) -> dict[str, tuple[float, ...]]:
    """Seconds of each thread, by kind, in the order of KINDS."""
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for row in rows:
        found[row.kind].append(row.by_thread)
    return {k: tuple(map(sum, zip(*found[k], strict=True))) for k in KINDS if k in found}
