"""What `layer.profile` gives: rows, and what they add up to; as text, in a notebook, in files.

Non-Goals: measuring (`measure`).
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from rnncc.files.writing import StrPath, write_whole
from rnncc.runtime.profiles.chrome_trace import trace_events
from rnncc.runtime.profiles.pieces import Threads, TimedCall
from rnncc.runtime.profiles.roofline import Roofline
from rnncc.runtime.profiles.rows import ProfileRow, by_kind

COLUMNS = ("kernel", "level", "stage", "kind", "times", "time", "share", "GFLOP/s", "limit")
NUMBERS = COLUMNS[4:]
LONGEST = 36  # of a stage's names in a table
LEAST_SHARE = 0.0005  # of what a table shows


@dataclass(frozen=True, eq=False)
class Profile:
    """Where the time of a layer's call goes.

    layer: its name. gradients: of `vjp` and its pullback. rows: what a call does, in order; their
    seconds add up to `timed_seconds`. packing: what is done once for new weights; with `gradients`
    it is among the rows. timed_seconds: of the calls that rows are of; seconds: of the layer's own
    beside them, without stamps. All are means of the middle half of `repeats` calls, so that one
    that was disturbed counts for nothing. limits: the machine's, of as many cores as there were
    threads.
    """

    layer: str
    gradients: bool
    rows: tuple[ProfileRow, ...]
    packing: tuple[ProfileRow, ...]
    timed_seconds: float
    seconds: float
    repeats: int
    threads: Threads = field(repr=False)
    limits: Roofline = field(repr=False)
    _call: TimedCall = field(repr=False)
    _tick: float = field(repr=False)

    @property
    def overhead(self) -> float:
        """What stamps cost: 0.05 where timed calls take 5 % longer."""
        return self.timed_seconds / self.seconds - 1

    @property
    def kinds(self) -> dict[str, tuple[float, ...]]:
        """Seconds of each thread, the caller first, by kind of work."""
        return by_kind(self.rows)

    def timeline(self, start: float = 0.0, stop: float | None = None) -> Any:
        """A figure of matplotlib of one call, the one whose time is the median: a bar for each
        thread, coloured by kind, time to the right. start, stop: seconds of it that are shown.

        ImportError without matplotlib; ValueError where nothing lies between them."""
        from rnncc.runtime.profiles.timeline import timeline

        return timeline(self.layer, self._call, self.threads, self._tick, start, stop)

    def chrome_trace(self, path: StrPath) -> None:
        """Writes the same call as JSON in the Trace Event Format, for ui.perfetto.dev or
        chrome://tracing. The file appears whole or not at all; OSError as the system says."""
        text = trace_events(self.layer, self._call, self.threads, self._tick)
        write_whole(path, lambda file: file.write(text.encode()))

    def __str__(self) -> str:
        what = "vjp and pullback" if self.gradients else "a call"
        lines = [
            f"{self.layer}, {what}: {shown(self.seconds)}; with time stamps "
            f"{shown(self.timed_seconds)} ({self.overhead:+.0%}), of which:",
            *_text(_rows_table(self.rows, self.timed_seconds)),
            *_text(_kinds_table(self.kinds, self.timed_seconds)),
        ]
        if self.packing:
            took = sum(row.seconds for row in self.packing)
            lines += [
                f"once for new weights: {shown(took)}",
                *_text(_rows_table(self.packing, took)),
            ]
        peak = self.limits.fma / self.limits.cores / 1e9
        lines.append(
            f"means of the middle half of {self.repeats} calls; GFLOP/s of a thread; limit: its "
            f"share of what a core can do, {peak:.0f} GFLOP/s of float32 or the bytes it can read"
        )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def shown(seconds: float) -> str:
    """In a unit that leaves few digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _rows_table(rows: Sequence[ProfileRow], whole: float) -> Table:
    table = _table(COLUMNS, NUMBERS)
    before = None
    for row in rows:
        if row.seconds < LEAST_SHARE * whole:
            continue
        kernel = ": ".join(filter(None, (row.part, row.kernel)))
        stage = _short(f"{row.stage}: {row.what}" if row.what else row.stage)
        table.add_row(
            "" if kernel == before else kernel,
            str(row.level or ""),
            stage,
            row.kind,
            str(row.times),
            shown(row.seconds),
            f"{row.seconds / whole:.1%}" if whole else "",
            "" if row.gflops is None else f"{row.gflops:.3g}",
            "" if row.roofline is None else f"{row.roofline:.0%}",
        )
        before = kernel
    return table


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _kinds_table(kinds: dict[str, tuple[float, ...]], whole: float) -> Table:
    count = len(next(iter(kinds.values()), ()))
    names = [f"thread {n}" if n else "caller" for n in range(count)]
    table = _table(("kind", *names, "share"), (*names, "share"))
    for kind, seconds in kinds.items():
        mean = sum(seconds) / count
        table.add_row(kind, *map(shown, seconds), f"{mean / whole:.1%}" if whole else "")
    return table


def _table(columns: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=True)
    return table


def _text(table: Table) -> list[str]:
    console = Console(width=240, color_system=None, markup=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().strip("\n").splitlines() if line.strip()]
