"""Stamps of one call -> how long each thread was at what.

    a part of a launch   BEGIN | piece, piece, ... | END      a stamp is of the time before it
    a thread             parts of launches, and what is between them
    the caller           CALL | Python | RUN launches RAN | Python | RETURNED

Every tick between CALL and RETURNED belongs to one piece on each thread: so they add up.

Non-Goals: names and tables (`profile`); pictures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rnncc.runtime.cpu.execution.timed import CALL, CALLER, RAN, RETURNED, RUN, Launched
from rnncc.runtime.cpu.kernels.executor import COPIES, PACKING
from rnncc.runtime.cpu.kernels.stamps import BEGIN, END

CONTRACTION, EPILOGUE, POINTWISE, ROWS = "contraction", "epilogue", "pointwise", "rows"
WAITING, OTHER, PYTHON = "waiting", "other", "python"
KINDS = (CONTRACTION, EPILOGUE, POINTWISE, ROWS, COPIES, PACKING, WAITING, OTHER, PYTHON)
OF_PIECES = {"sums": CONTRACTION, "lanes": POINTWISE, "rows": ROWS, "waiting": WAITING}
APART = 1 << 16  # bytes between stacks of two threads, at least
OUTSIDE = -1  # the number of what is in no launch


@dataclass(frozen=True, slots=True)
class TimedPiece:
    """Ticks from `begin` to `end` on a thread; 0 is the caller. launch: None outside of all.
    number: of `KernelSpec.pieces`; OUTSIDE where it is none. cores: ticks of it in cores."""

    thread: int
    begin: int
    end: int
    kind: str
    launch: Launched | None = None
    number: int = OUTSIDE
    cores: int = 0


@dataclass(frozen=True, eq=False)
class TimedCall:
    """One call. lines: stamps [n, 3] of the caller, then of every part; launches: by number."""

    lines: Sequence[np.ndarray]
    launches: Mapping[int, Launched]

    @property
    def begin(self) -> int:
        return int(self.lines[CALLER][0, 1])

    @property
    def end(self) -> int:
        return int(self.lines[CALLER][-1, 1])

    @property
    def ticks(self) -> int:
        """From the call to its return."""
        return self.end - self.begin

    def in_parts(self) -> int:
        """Ticks of all parts of launches."""
        parts = (part for line in self.lines[CALLER + 1 :] for part in _parts(line))
        return sum(int(part[-1, 1] - part[0, 1]) for part in parts)

    def only(self, launches: Container[int]) -> TimedCall:
        """Parts of these launches alone: nothing is between them."""
        lines = [self.lines[CALLER]]
        for line in self.lines[CALLER + 1 :]:
            kept = [part for part in _parts(line) if _number(part) in launches]
            lines.append(np.concatenate([line[:0], *kept]))
        return TimedCall(lines, self.launches)

    def places(self) -> np.ndarray:
        """Addresses on stacks, of all that say on which thread they are."""
        caller, *parts = self.lines
        begun = [line[(line[:, 0] & BEGIN) != 0, 2] for line in parts]
        return np.unique(np.concatenate([caller[:, 2], *begun]))

    def parts(self, threads: Threads) -> Iterator[tuple[int, Launched, np.ndarray]]:
        """(thread, launch, stamps [n, 3]) of each part of a launch, BEGIN and END among them."""
        for line in self.lines[CALLER + 1 :]:
            for part in _parts(line):
                yield threads.of(int(part[0, 2])), self.launches[_number(part)], part

    def pieces(self, threads: Threads) -> Iterator[TimedPiece]:
        """All of every thread, in no order; what is empty is left out."""
        done: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for thread, launch, stamps in self.parts(threads):
            done[thread].append((int(stamps[0, 1]), int(stamps[-1, 1])))
            yield from _within(thread, launch, stamps)
        ended = np.sort([end for thread, own in done.items() if thread for _, end in own])
        for begin, end, kind in self._callers(sorted(done[0]), ended):
            yield TimedPiece(0, begin, end, kind)
        for thread in range(1, threads.count):
            at = self.begin
            for begin, end in sorted(done[thread]):
                yield TimedPiece(thread, at, begin, WAITING)
                at = end
            yield TimedPiece(thread, at, self.end, WAITING)

    def _callers(
        self, parts: Sequence[tuple[int, int]], ended: np.ndarray
    ) -> Iterator[tuple[int, int, str]]:
        """What the caller does between its parts of launches. ended: when those of others did."""
        inner = iter([*parts, (self.end, self.end)])
        part = next(inner)
        for (what, at, _), (after, until, _) in zip(
            self.lines[CALLER][:-1], self.lines[CALLER][1:], strict=True
        ):
            if what in (CALL, RAN):
                assert after in (RUN, RETURNED)
                yield int(at), int(until), PYTHON
                continue
            begin, first = int(at), True
            while part[0] < until:
                yield from _between(begin, part[0], ended, first)
                begin, first = part[1], False
                part = next(inner)
            yield from _between(begin, int(until), ended, first)


def _parts(line: np.ndarray) -> list[np.ndarray]:
    """A line's stamps, those of each part of a launch together."""
    return np.split(line, np.flatnonzero(line[:, 0] & BEGIN))[1:]


def _number(part: np.ndarray) -> int:
    """Of its launch."""
    return int(part[0, 0]) & (BEGIN - 1)


def _between(
    begin: int, end: int, ended: np.ndarray, first: bool
) -> Iterator[tuple[int, int, str]]:
    """Behind a part of a launch others may still be at theirs."""
    last = int(np.searchsorted(ended, end, "right")) - 1
    until = begin if first or last < 0 else min(max(int(ended[last]), begin), end)
    yield begin, until, WAITING
    yield until, end, OTHER


def _within(thread: int, launch: Launched, stamps: np.ndarray) -> Iterator[TimedPiece]:
    begin = int(stamps[0, 1])
    for what, end, cores in stamps[1:].tolist():
        number = OUTSIDE if what == END else what
        yield TimedPiece(thread, begin, end, kind_of(launch, number), launch, number, cores)
        begin = end


def kind_of(launch: Launched, number: int) -> str:
    """Of a piece; EPILOGUE is what the cores leave of it."""
    if launch.kernel is None:
        return launch.what
    if launch.kernel.function is None:
        return CONTRACTION
    return OTHER if number == OUTSIDE else OF_PIECES.get(launch.pieces[number].kind, EPILOGUE)


@dataclass(frozen=True)
class Threads:
    """Threads by where their stacks are, the caller first."""

    bounds: tuple[tuple[int, int], ...]

    @classmethod
    def of_calls(cls, calls: Sequence[TimedCall]) -> Threads:
        places = np.unique(np.concatenate([call.places() for call in calls]))
        groups = np.split(places, np.flatnonzero(np.diff(places) > APART) + 1)
        own = int(calls[0].lines[CALLER][0, 2])
        bounds = [(int(g[0]), int(g[-1])) for g in groups]
        return cls(tuple(sorted(bounds, key=lambda b: (not b[0] <= own <= b[1], b))))

    @property
    def count(self) -> int:
        return len(self.bounds)

    def of(self, place: int) -> int:
        return next(n for n, (low, high) in enumerate(self.bounds) if low <= place <= high)
