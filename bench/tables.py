"""A result on a terminal: who took how long and by what path, fits, bars.

Non-Goals: what the figures mean (`bars`).
"""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.harness import Timing
from bench.race import Raced
from bench.result import Fit, Result, best_of_others

COLOURS = {"pass": "[green]pass[/]", "MISS": "[red]MISS[/]", "skipped": "skipped"}


def show(result: Result, console: Console) -> None:
    if result.roofline:
        console.print(result.roofline.line, markup=False)
    if result.races or result.timings:
        console.print(_timings(result))
    if result.fits:
        console.print(_fits(result.fits))
    if result.bars:
        console.print(_bars(result))
    for note in result.notes:
        console.print(note, markup=False)
    for failure in result.failures:
        console.print(f"[red]FAILED[/] {escape(failure)}")


def _timings(result: Result) -> Table:
    unit, seconds = result.unit
    table = Table(title=f"{result.suite}: {unit}, in turns", title_justify="left")
    for heading in ("what", "contender", "path"):
        table.add_column(heading)
    for heading in ("median", "p10-p90", "best peer / own", "roofline", "peak MiB", "error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, timings, raced in result.rows():
        best = best_of_others(timings)
        for place, timing in enumerate(timings):
            table.add_row(
                escape(label) if not place else "",
                timing.contender,
                escape(timing.path),
                *_figures(timing, best, raced, seconds),
            )
        table.add_section()
    return table


def _figures(
    timing: Timing, best: Timing | None, raced: Raced | None, seconds: float
) -> tuple[str, ...]:
    low, high = timing.spread
    shown = f"{best.median / timing.median:.2f}" if best else ""
    return (
        number(timing.median / seconds),
        f"{number(low / seconds)}-{number(high / seconds)}",
        f"[bold]{shown}[/]" if timing is best else shown,
        f"{raced.roofline(timing):.2f}" if raced and timing.peer else "",
        f"{timing.memory / 2**20:.0f}" if timing.memory else "",
        f"{timing.error:.1e}",
    )


def _fits(fits: list[Fit]) -> Table:
    table = Table(title="growth: milliseconds = start + each x n", title_justify="left")
    for heading in ("what grows", "contender", "n: ms"):
        table.add_column(heading)
    for heading in ("start", "each", "worst"):
        table.add_column(heading, justify="right", no_wrap=True)
    for fit in fits:
        pairs = zip(fit.n, fit.seconds, strict=True)
        measured = ", ".join(f"{n}: {number(s * 1e3)}" for n, s in pairs)
        table.add_row(fit.name, fit.contender, measured, *fit_figures(fit))
    return table


def fit_figures(fit: Fit) -> tuple[str, str, str]:
    """The line, and how far the worst point is from it; nothing for what isn't linear."""
    if not fit.linear:
        return "", "", ""
    start, each = fit.line
    return f"{start * 1e3:.3g}", f"{each * 1e3:.3g}", f"{fit.worst:.0%}"


def _bars(result: Result) -> Table:
    table = Table(title=f"{result.suite}: bars", title_justify="left")
    table.add_column("what")
    for heading in ("measured", "bar", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for bar in result.bars:
        table.add_row(escape(bar.what), bar.measured, bar.demand, COLOURS[bar.verdict])
    return table


def number(value: float) -> str:
    """Three digits or more: 0.0123, 1.23, 12.3, 1234."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
