"""One call as a picture: a bar a thread, coloured by what it was at.

Non-Goals: files; what was measured (`pieces`).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rnncc.common.figures import new_figure
from rnncc.runtime.profiles.pieces import EPILOGUE, KINDS, Threads, TimedCall
from rnncc.runtime.profiles.rows import parted

_COLOURS = "2166ac f4a582 fddbc7 b2abd2 66a61e a6d854 d9d9d9 878787 ffd92f"  # in KINDS' order
COLOURS = {kind: f"#{colour}" for kind, colour in zip(KINDS, _COLOURS.split(), strict=True)}
UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))


def timeline(
    name: str, call: TimedCall, threads: Threads, tick: float, start: float, stop: float | None
) -> Any:
    """See `Profile.timeline`. tick: seconds of one."""
    length = call.ticks * tick
    stop = length if stop is None else stop
    if not 0 <= start < min(stop, length):
        raise ValueError(f"the call takes {length:.3g} s: nothing lies between {start} and {stop}")
    unit, size = next((u for u in UNITS if stop - start >= u[1]), UNITS[-1])
    bars: dict[str, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for piece in call.pieces(threads):
        at = (piece.begin - call.begin) * tick
        for key, ticks in parted(piece):
            kind, took = key[4], ticks * tick
            low, high = max(at, start), min(at + took, stop)
            if high > low:
                bars[kind][piece.thread].append((low / size, (high - low) / size))
            at += took
    count = threads.count
    figure = new_figure(10, 1.4 + 0.6 * count)
    axis = figure.subplots()
    for kind in (k for k in KINDS if k in bars):
        for number, (thread, own) in enumerate(bars[kind].items()):
            label = None if number else kind
            axis.broken_barh(own, (thread - 0.4, 0.8), facecolors=COLOURS[kind], label=label)
    axis.set_yticks(range(count), [f"thread {n}" if n else "caller" for n in range(count)])
    axis.invert_yaxis()
    axis.set_xlim(start / size, min(stop, length) / size)
    axis.set_xlabel(f"{unit} since the call")
    axis.set_title(f"{name}: {EPILOGUE}s follow their contractions, as long as both took")
    figure.legend(loc="outside lower center", ncols=len(bars))
    return figure
