"""A suite as one picture: times beside our own, growth, or bars as parts of their limits.

    picture(result, "png")     # bytes

Non-Goals: what a table says better: paths, errors, spreads of everyone.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from bench.contenders import NAMES
from bench.harness import BenchError
from bench.result import Bar, Result, best_of_others

WIDTH = 10.0  # inches
MARKS = "oDs^v<>PX*hpd8"
OURS, GREY = "#c02020", "#606060"
FAR = 30.0  # times our time: whoever is behind that stands there, with a number
PEERS = (
    *("#1f77b4", "#2ca02c", "#9467bd", "#17becf", "#ff7f0e", "#8c564b", "#000080"),
    *("#e377c2", "#bcbd22", "#7f7f7f"),
)


def check_plottable(path: Path) -> None:
    """BenchError without matplotlib, or for a kind of file it doesn't write."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ModuleNotFoundError:
        raise BenchError("--plot needs matplotlib: pip install 'rnncc[bench]'") from None
    kinds = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in kinds:
        raise BenchError(f"--plot {path}: a name that ends in one of {', '.join(sorted(kinds))}")


def picture(result: Result, kind: str) -> bytes:
    from matplotlib.figure import Figure

    if result.fits:
        figure = _growth(result, Figure)
    elif list(result.rows()):
        figure = _times(result, Figure)
    else:
        figure = _bars(result, Figure)
    file = BytesIO()
    figure.savefig(file, format=kind, dpi=150)
    return file.getvalue()


def _times(result: Result, figure_class: Any) -> Any:
    """A row a case, a mark a contender, at its time over ours; ours is the line at 1."""
    rows = list(result.rows())
    figure = figure_class(figsize=(WIDTH, 1.6 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    unit, seconds = result.unit
    seen: set[str] = set()
    for place, (_, timings, raced) in enumerate(rows):
        ours, best = timings[0], best_of_others(timings)
        for timing in timings[1:]:
            name = timing.contender
            ratio = timing.median / ours.median
            low, high = (t / ours.median for t in timing.spread)
            at = min(ratio, FAR)
            if ratio > FAR:
                axes.annotate(f"   {ratio:.0f}x", (FAR, place), fontsize=7, va="center", color=GREY)
            axes.errorbar(
                at,
                place,
                xerr=[[at - min(low, at)], [max(min(high, FAR), at) - at]],
                fmt=_mark(name),
                color=_colour(name),
                markersize=8 if timing is best else 5,
                elinewidth=0.8,
                label=name if name not in seen else None,
            )
            seen.add(name)
        if raced and raced.roofline() > 1 / FAR:
            axes.plot(raced.roofline(), place, "|", color="black", markersize=12)
    labels = [f"{label}   {ours_[0].median / seconds:.3g} {unit}" for label, ours_, _ in rows]
    axes.axvline(1, color=OURS, label="rnncc (its time is beside the case)")
    if any(raced for *_, raced in rows):
        axes.plot([], [], "|", color="black", markersize=12, label="roofline")
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    _plain_ticks(axes)
    axes.grid(axis="x", which="both", alpha=0.25)
    axes.set_xlabel("time / rnncc's: right of the line is slower; bars: 10th to 90th percentile")
    figure.suptitle(f"{result.suite}: the best peer is the larger mark")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _growth(result: Result, figure_class: Any) -> Any:
    """A panel for each thing that grows; the fitted line is dashed."""
    titles = list(dict.fromkeys(f.name for f in result.fits))
    down = -(-len(titles) // 2)
    figure = figure_class(figsize=(WIDTH, 3.4 * down), layout="constrained")
    for place, title in enumerate(titles, 1):
        axes = figure.add_subplot(down, 2, place)
        for fit in (f for f in result.fits if f.name == title):
            colour, milliseconds = _colour(fit.contender), np.array(fit.seconds) * 1e3
            axes.plot(fit.n, milliseconds, _mark(fit.contender), color=colour, label=fit.contender)
            if fit.linear:
                start, each = fit.line
                line = (start + each * np.array(fit.n)) * 1e3
                axes.plot(fit.n, line, "--", color=colour, linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        _plain_ticks(axes)
        axes.set_title(title, fontsize=9)
        axes.set_ylabel("ms")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    figure.suptitle(f"{result.suite}: dashed lines are fitted")
    return figure


def _bars(result: Result, figure_class: Any) -> Any:
    """What was measured over its limit, which is the line; red ones are on its wrong side."""
    bars = [b for b in result.bars if b.value is not None]
    figure = figure_class(figsize=(WIDTH, 1.2 + 0.35 * max(len(bars), 1)), layout="constrained")
    axes = figure.add_subplot()
    for place, bar in enumerate(bars):
        colour = "#2a7f3f" if bar.passed else OURS
        axes.barh(place, _part(bar), color=colour, height=0.6)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(bars)), [f"{b.what}\n{b.measured}" for b in bars], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("measured / limit; red: missed")
    figure.suptitle(result.suite)
    return figure


def _part(bar: Bar) -> float:
    assert bar.value is not None
    return bar.value / bar.limit if bar.limit else float(bar.value > 0)


def _plain_ticks(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def _place(name: str) -> int:
    known = name.split(" ")[0]
    return NAMES.index(known) if known in NAMES else len(NAMES)


def _mark(name: str) -> str:
    return MARKS[_place(name) % len(MARKS)]


def _colour(name: str) -> str:
    return OURS if name == NAMES[0] else PEERS[_place(name) % len(PEERS)]
