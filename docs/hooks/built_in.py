"""The page of built-in cells: equations, a drawing, the file, and figures of each.

    cells()       each cell: what it is, its equations, figures, a drawing, its file
    at_a_glance() all of them in a table
    drawings()    names and texts of the SVG files that the page shows

Times are those of the section `cells` of bench/RESULTS.md; the other figures are counted.

Non-Goals: measuring (`python -m bench cells`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FEATURES, UNITS = 28, 64  # of the bench's cases
TITLES = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "SimpleRNN", "slstm": "sLSTM"}  # the bench's


@dataclass(frozen=True, slots=True)
class Times:
    """Of one mode, in one race: milliseconds of ours, of an LSTM of ours, of a loop in torch."""

    ours: float
    lstm: float
    torch: float


@dataclass(frozen=True, slots=True)
class Figures:
    """parameters, products (multiply-adds a step): None where the cell has sizes of its own."""

    parameters: int | None
    products: int | None
    forward: Times | None
    training: Times | None


def paths() -> list[Path]:
    return sorted((ROOT / "rnncc/cells").glob("*.rnn"))


@cache
def figures_of(path: Path) -> Figures:
    from bench.case import FORWARD, Case, all_sizes, spec_of
    from bench.work import work_of
    from rnncc.lowering.cell_interface import CellInterface

    case = Case(path.stem, FORWARD, 1, 1, FEATURES, UNITS)
    interface, sizes = CellInterface(spec_of(case)), all_sizes(case)
    parameters = products = None
    if {d.name for d in spec_of(case).sizes} <= {*sizes}:
        parameters = 0
        for shape, _ in interface.weights.values():
            elements = 1
            for size in shape:
                elements *= size.evaluate(sizes)
            parameters += elements
        products = round(work_of(case).flops / 2)
    measured = times()
    name = TITLES.get(path.stem, path.stem)
    return Figures(
        parameters, products, measured.get((name, "forward")), measured.get((name, "training"))
    )


@cache
def times() -> dict[tuple[str, str], Times]:
    """By the bench's name of a cell, and the mode."""
    found = {}
    for name, mode, ours, lstm, torch in re.findall(
        rf"^\| (\w+) (forward|training) \(64, 28, {FEATURES}, {UNITS}\)"
        r" \| ([\d.]+) \([^|]*\) \| ([\d.]+) \| \*\*([\d.]+)\*\* \|",
        section(),
        re.MULTILINE,
    ):
        found[name, mode] = Times(float(ours), float(lstm), float(torch))
    return found


def section() -> str:
    text = (ROOT / "bench/RESULTS.md").read_text("utf-8")
    return text.split("<!-- cells: begin -->")[1].split("<!-- cells: end -->")[0]


def at_a_glance() -> Iterator[str]:
    where = re.search(r"^(\d{4}-\d\d-\d\d, [^;]*), Python", section(), re.MULTILINE)
    speed = re.search(r"FMA \d+ GFLOP/s on \d+ cores", section())
    assert where and speed
    yield (
        f"At {FEATURES} features and {UNITS} units: parameters, and multiply-adds of the products "
        "of a step. Times are of 64 rows of 28 steps in float32, as parts of our own LSTM's in the "
        "same turns; the last two columns say how many times as long a loop in torch takes (of "
        "LSTM and GRU, `torch.nn`'s own). "
        f"Measured on {where[1]} ({speed[0]}): `python -m bench cells`."
    )
    headings = ("cell", "parameters", "multiply-adds", "inference", "training")
    headings += ("torch, inference", "torch, training")
    yield from ("", f"| {' | '.join(headings)} |", "| --- " * len(headings) + "|")
    for path in paths():
        f = figures_of(path)
        forward, training = f.forward, f.training
        cells = (
            f"[{path.stem}](#{path.stem})",
            count(f.parameters),
            count(f.products),
            ratio(forward and forward.ours / forward.lstm),
            ratio(training and training.ours / training.lstm),
            ratio(forward and forward.torch / forward.ours),
            ratio(training and training.torch / training.ours),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield (
        "What goes element by element comes on top of multiply-adds, as does the matrix that "
        "`fast_weights` writes anew at every step. `nested` has five sizes of its own; it and "
        "`gru_d` take several inputs, which this suite doesn't."
    )


def count(n: int | None) -> str:
    return "" if n is None else f"{n:,}"


def ratio(of: float | None) -> str:
    return "" if of is None else f"{of:.2f}" if of < 1 else f"{of:.1f}"


def cells() -> Iterator[str]:
    from rnncc.drawing.chosen import chosen_cell
    from rnncc.drawing.mathml import MathML
    from rnncc.drawing.walk import equations
    from rnncc.lowering.cell_interface import check_text

    yield from ("## At a glance", "", *at_a_glance(), "")
    for path in paths():
        text = path.read_text("utf-8")
        title = re.match(r'"""(.*?)"""', text, re.DOTALL)
        assert title, path
        yield from (f"## {path.stem}", "", " ".join(title[1].split()), "")
        shown = equations(chosen_cell(check_text(text, path.name)), MathML())
        yield from (f'<div style="overflow-x:auto">{shown}</div>', "")
        drawn = (
            f'<img src="pictures/cells/{path.stem}.svg" alt="a step of {path.stem}" loading="lazy">'
        )
        yield from (f"<details><summary>A drawing of a step</summary>{drawn}</details>", "")
        yield f'```rnn title="{path.name}"'
        yield from text[title.end() :].strip("\n").split("\n")
        yield from ("```", "")


def drawings() -> Iterator[tuple[str, str]]:
    """`pictures/cells/lstm.svg` and what it holds: see `rnncc.plot.drawing`."""
    import matplotlib

    matplotlib.use("Agg")
    import rnncc
    import rnncc.plot

    for path in paths():
        figure = rnncc.plot.drawing(rnncc.compile(path.stem))
        made = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rnncc"}):
            figure.savefig(made, format="svg", metadata={"Date": None})
        yield f"pictures/cells/{path.stem}.svg", made.getvalue()
