"""Results as sections of a markdown file, each between two comments: a run replaces its own.

    text = with_sections(old text, results, date)

Non-Goals: prose; what isn't between the comments stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from bench.result import Result, best_of_others, machine
from bench.tables import fit_figures, number


def with_sections(text: str, results: Iterable[Result], day: date) -> str:
    """The text with each suite's section in its place, or behind everything where it has none."""
    for result in results:
        begin, end = f"<!-- {result.suite}: begin -->", f"<!-- {result.suite}: end -->"
        made = f"{begin}\n{section(result, day)}\n{end}"
        before, found, rest = text.partition(begin)
        if found and end in rest:
            text = before + made + rest.partition(end)[2]
        else:
            text = (text.rstrip() + "\n\n" if text.strip() else "") + made + "\n"
    return text


def section(result: Result, day: date) -> str:
    where = machine()
    packages = ", ".join(f"{n} {v}" for n, v in where["packages"].items() if v)
    lines = [
        f"### {result.suite}",
        "",
        f"{day.isoformat()}, {where['cpu']}, {where['cores']} cores, load {where['load']}, "
        f"Python {where['python']}; {packages}.",
    ]
    if result.roofline:
        lines += ["", f"{result.roofline.line[:1].upper()}{result.roofline.line[1:]}."]
    if any(result.rows()):
        lines += ["", *_timings(result)]
    if result.fits:
        lines += ["", *_fits(result)]
    if result.bars:
        lines += ["", "| demand | measured | bar | |", "| --- | --- | --- | --- |"]
        lines += [f"| {b.what} | {b.measured} | {b.demand} | {b.verdict} |" for b in result.bars]
    notes = [*result.notes, *(f"FAILED: {f.splitlines()[0]}" for f in result.failures)]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines)


def _timings(result: Result) -> list[str]:
    """A row a case, a column a contender: medians; of ours the 10th to 90th percentile, too."""
    rows = list(result.rows())
    names = list(dict.fromkeys(t.contender for _, timings, _ in rows for t in timings))
    unit, seconds = result.unit
    heads = [f"{unit}", *names, "best peer / ours", "roofline"]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    paths: dict[str, None] = {}
    for label, timings, raced in rows:
        by_name = {t.contender: t for t in timings}
        best = best_of_others(timings)
        cells = []
        for name in names:
            timing = by_name.get(name)
            shown = "" if timing is None else number(timing.median / seconds)
            if timing is timings[0]:
                low, high = (number(t / seconds) for t in timing.spread)
                shown += f" ({low}-{high})"
            cells.append(f"**{shown}**" if timing is not None and timing is best else shown)
        ratio = f"{best.median / timings[0].median:.2f}" if best else ""
        cells += [ratio, f"{raced.roofline():.2f}" if raced else ""]
        lines.append("| " + " | ".join([label, *cells]) + " |")
        paths |= dict.fromkeys(f"{t.contender}: {t.path}" for t in timings)
    return [*lines, "", "Paths: " + "; ".join(paths) + "."]


def _fits(result: Result) -> list[str]:
    lines = ["| what grows | contender | n: ms | start | each | worst |", "| --- " * 6 + "|"]
    for fit in result.fits:
        points = zip(fit.n, fit.seconds, strict=True)
        measured = ", ".join(f"{n}: {number(s * 1e3)}" for n, s in points)
        lines.append(
            "| " + " | ".join([fit.name, fit.contender, measured, *fit_figures(fit)]) + " |"
        )
    return lines
