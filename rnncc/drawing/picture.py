"""A drawing of a cell by matplotlib: boxes in columns, arrows to the right, and around to the next
step.

Everything is measured in points, from the upper left corner.

Non-Goals: what is drawn (`graph`), in which order it stands (`columns`).
"""

from __future__ import annotations

import io
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rnncc.common.figures import new_figure
from rnncc.common.progress import working
from rnncc.drawing.chosen import ChosenCell
from rnncc.drawing.columns import Columns, columns_of, ranks_of
from rnncc.drawing.graph import CellDrawing, DrawnNode, drawing_of

FORMATS = ("svg", "png", "pdf")
DOTS = 110  # an inch, of a png
LETTERS, WIDEST = 11, 300
BOX, PLACE, BETWEEN, GAP, MARGIN, LANE, LEGEND = 28, 6, 14, 42, 18, 9, 30
FILLS = {
    "input": "#d5ecd0",
    "context": "#d5ecd0",
    "state": "#cfe0f6",
    "next": "#cfe0f6",
    "weight": "#ececec",
    "constant": "#ececec",
    "dense": "#f7cda6",
    "pointwise": "#ffffff",
}
LINE, AROUND = "#404040", "#3465a4"
MEANINGS = (
    ("input", "input"),
    ("state", "state"),
    ("weight", "weight"),
    ("dense", "dense product"),
    ("pointwise", "pointwise work"),
)


@dataclass(frozen=True, slots=True)
class BoxPlace:
    """x, y: of its middle."""

    x: float
    y: float
    width: float


def picture(cell: ChosenCell, format: str) -> bytes:
    """A file of one of `FORMATS`. ImportError without matplotlib; ValueError for a cell of more
    things than a drawing has room for."""
    file = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
    with working(f"drawing {cell.spec.name}"):
        figure(cell).savefig(file, format=format, dpi=DOTS, metadata=metadata)
    return file.getvalue()


def figure(cell: ChosenCell) -> Any:
    """matplotlib's. Raises as `picture`."""
    drawing = drawing_of(cell)
    new_figure(1, 1)  # before anything of matplotlib is asked
    labels = {key: _label(node) for key, node in drawing.nodes.items()}
    late = frozenset(n.key for n in drawing.nodes.values() if n.kind in ("weight", "constant"))
    columns = columns_of(ranks_of([*drawing.nodes], drawing.arrows, late), drawing.arrows)
    widths = {key: max(width + 16, BOX) for key, (_, width) in labels.items()}
    lanes = LANE * (1 + len(drawing.around))
    boxes = _boxes(columns, widths, lanes)
    right = max(b.x + b.width / 2 for b in boxes.values()) + GAP
    bottom = max(b.y for b in boxes.values()) + BOX / 2 + MARGIN + LEGEND
    right = max(right, 90.0 * len(MEANINGS))
    made = new_figure(right / 72, bottom / 72, arranged=False)
    axes = made.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, right), ylim=(bottom, 0))
    axes.set_axis_off()
    for arrow in drawing.arrows:
        _draw_arrow(axes, [boxes[key] for key in columns.ways[arrow]])
    for lane, (leaving, entering) in enumerate(drawing.around, 1):
        start = boxes[leaving]
        edge = max(b.x + b.width / 2 for b in boxes.values() if b.x == start.x)
        turn = edge + lane * GAP / (len(drawing.around) + 1)  # before the next column
        _draw_around(axes, start, boxes[entering], turn, lane * LANE)
    for key, node in drawing.nodes.items():
        _draw_box(axes, boxes[key], node, labels[key][0])
    _draw_legend(axes, drawing)
    return made


def _label(node: DrawnNode) -> tuple[str, float]:
    """The first that isn't too wide, and its width; of a name that is, the beginning."""
    from matplotlib.textpath import TextPath

    short = node.key[:24].replace("_", r"\_")
    for label in (*node.labels, rf"\mathrm{{{short}}}\ldots"):
        text = f"${label}$"
        if len(label) <= 40 * LETTERS:  # what is longer needs no measuring
            width = float(TextPath((0, 0), text, size=LETTERS).get_extents().width)
            if width <= WIDEST:
                break
    return text, width


def _boxes(columns: Columns, widths: Mapping[str, float], top: float) -> dict[str, BoxPlace]:
    """Where everything stands; columns are in the middle of each other at first, then each thing
    goes to the middle of its neighbours as far as there is room."""
    near: dict[str, list[str]] = {}
    for way in columns.ways.values():
        for a, b in itertools.pairwise(way):
            near.setdefault(a, []).append(b)
            near.setdefault(b, []).append(a)
    y: dict[str, float] = {}
    for column in columns.columns:
        at = -sum(_height(n, widths) + BETWEEN for n in column) / 2
        for name in column:
            y[name] = at + _height(name, widths) / 2
            at += _height(name, widths) + BETWEEN
    for _ in range(8):
        for column in (*columns.columns, *reversed(columns.columns)):
            wanted = [statistics.fmean(y[m] for m in near.get(n, [n])) for n in column]
            apart = [
                (_height(a, widths) + _height(b, widths)) / 2 + BETWEEN
                for a, b in itertools.pairwise(column)
            ]
            y.update(zip(column, _spread(wanted, apart), strict=True))
    highest = min(y.values()) - BOX / 2
    boxes, x = {}, float(MARGIN + top)
    for column in columns.columns:
        width = max((widths.get(n, 0) for n in column), default=0)
        for name in column:
            own = widths.get(name, width)
            boxes[name] = BoxPlace(x + width / 2, y[name] - highest + MARGIN + top, own)
        x += width + GAP
    return boxes


def _height(name: str, widths: Mapping[str, float]) -> float:
    return BOX if name in widths else PLACE


def _spread(wanted: Sequence[float], apart: Sequence[float]) -> list[float]:
    """As near to what is wanted as can be, so far apart at least, in this order."""
    down, up = [*wanted], [*wanted]
    for i in range(1, len(wanted)):
        down[i] = max(down[i], down[i - 1] + apart[i - 1])
    for i in range(len(wanted) - 2, -1, -1):
        up[i] = min(up[i], up[i + 1] - apart[i])
    return [(a + b) / 2 for a, b in zip(down, up, strict=True)]


def _draw_arrow(axes: Any, way: Sequence[BoxPlace]) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    points, codes = [(way[0].x + way[0].width / 2, way[0].y)], [Path.MOVETO]
    for box in way[1:]:
        (x, y), left = points[-1], box.x - box.width / 2
        middle = (x + left) / 2
        points += [(middle, y), (middle, box.y), (left, box.y)]
        codes += [Path.CURVE4] * 3
        if box is not way[-1]:
            points.append((box.x + box.width / 2, box.y))
            codes.append(Path.LINETO)
    shape: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 8, "linewidth": 0.8}
    axes.add_patch(FancyArrowPatch(path=Path(points, codes), color=LINE, fill=False, **shape))
    end = points[-1]
    tip = FancyArrowPatch((end[0] - 3, end[1]), end, color=LINE, shrinkA=0, shrinkB=0, **shape)
    axes.add_patch(tip)


def _draw_around(
    axes: Any, leaving: BoxPlace, entering: BoxPlace, turn: float, lane: float
) -> None:
    """Out to the right, over everything, in from the left."""
    right, left = leaving.x + leaving.width / 2, entering.x - entering.width / 2
    xs = [right, turn, turn, MARGIN + lane, MARGIN + lane, left - 4]
    ys = [leaving.y, leaving.y, MARGIN / 2 + lane, MARGIN / 2 + lane, entering.y, entering.y]
    axes.plot(xs, ys, color=AROUND, linewidth=1, linestyle=(0, (4, 2)), zorder=0)
    head: dict[str, Any] = {"arrowstyle": "-|>", "color": AROUND, "mutation_scale": 8}
    head |= {"shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (left, entering.y), (left - 6, entering.y), arrowprops=head)


def _draw_box(axes: Any, box: BoxPlace, node: DrawnNode, label: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    rounding = 3 if node.kind in ("weight", "constant", "dense") else 10
    shape = FancyBboxPatch(
        (box.x - box.width / 2, box.y - BOX / 2),
        box.width,
        BOX,
        boxstyle=f"round,pad=0,rounding_size={rounding}",
        facecolor=FILLS[node.kind],
        edgecolor="black" if node.returned else LINE,
        linewidth=2.2 if node.returned else 0.8,
        zorder=2,
    )
    axes.add_patch(shape)
    axes.text(box.x, box.y, label, size=LETTERS, ha="center", va="center", zorder=3)


def _draw_legend(axes: Any, drawing: CellDrawing) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    held = {n.kind for n in drawing.nodes.values()}
    marks: list[Any] = [
        Patch(facecolor=FILLS[kind], edgecolor=LINE, linewidth=0.8, label=said)
        for kind, said in MEANINGS
        if kind in held
    ]
    marks.append(Patch(facecolor="white", edgecolor="black", linewidth=2.2, label="returned"))
    if drawing.around:
        marks.append(Line2D([], [], color=AROUND, linestyle=(0, (4, 2)), label="to the next step"))
    where: dict[str, Any] = {"loc": "lower center", "ncols": len(marks), "borderpad": 0.4}
    axes.legend(handles=marks, frameon=False, fontsize=8, **where)
