"""The page: all stages of a cell with what links their lines, as one file of HTML.

It has its styles, its script and its data in it, and asks no network for anything. What it shows
of the user's text is JSON or escaped: no cell can put markup or a script into it.

Non-Goals: what lights up at a click (templates/page/script.jinja).
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rnncc.artifact.cell import plain_variants
from rnncc.common.machine import Missing, host
from rnncc.common.template_loader import render
from rnncc.common.user_text import Code, comment
from rnncc.common.version import __version__
from rnncc.drawing.density import DENSE, kind_of
from rnncc.driver import Derivation, Optimised
from rnncc.explaining.cell_drawing import cell_drawing
from rnncc.explaining.layered import PlacedBox
from rnncc.explaining.module_lines import module_lines
from rnncc.explaining.origins import CameFrom, LinkedLine, Origins, TextPieces
from rnncc.explaining.step_drawing import StepDrawing, step_drawing
from rnncc.explaining.unseen import reasons
from rnncc.ir.printer import printed_lines
from rnncc.schedule.printer import schedule_lines

NOT_DRAWN = "Left out: there are too many arrows to make anything out."
PARTS = ("forward", "training", "pullback")  # of a `Programs`, in the order of their making
TITLES = {"forward": "forward", "training": "training forward", "pullback": "pullback"}


def page_of(derivation: Derivation, dtype: str = "float32") -> str:
    """The page's text. Kernels are of the plain cell: nothing is masked or drawn."""
    pages = PageMaker(derivation)
    return render("page/explain.html.jinja", m=pages.view(dtype))


@dataclass(frozen=True)
class BoxView:
    """e, d: lines of equations and of declarations that it comes from, separated by blanks."""

    kind: str
    e: str
    d: str
    x: int
    y: int
    width: int
    height: int
    text: list[tuple[int, int, Code]]


@dataclass(frozen=True)
class FrameView:
    title: Code
    x: int
    width: int
    height: int
    waits: tuple[int, ...]
    boxes: list[BoxView]


@dataclass(frozen=True)
class DrawingView:
    """A cell's `boxes` and `paths`, or the `frames` of a step's kernels."""

    title: str
    width: int
    height: int
    boxes: list[BoxView]
    paths: tuple[str, ...]
    frames: list[FrameView]

    @property
    def least(self) -> int:
        """Pixels that it is wide where there is little room: letters can be read still."""
        return self.width * 7 // 10


@dataclass(frozen=True)
class PageView:
    name: Code
    doc: Code
    about: Code
    cell: DrawingView
    no_cell: str
    steps: list[DrawingView]
    data: Code


class PageMaker:
    def __init__(self, derivation: Derivation) -> None:
        self.derivation = derivation
        self.pieces = TextPieces(derivation.spec)
        self.programs = derivation.plain
        self.origins = Origins(self.pieces, self.programs)

    def view(self, dtype: str) -> PageView:
        spec = self.derivation.spec
        cell = cell_drawing(self.programs.lowered, self.origins)
        boxes = list(map(_box_view, cell.boxes))
        data = self.data(dtype)  # first: all values are known then
        bound = {**self.derivation.options, **self.derivation.functions}
        said = ", ".join([dtype, *(f"{name} = {value}" for name, value in bound.items())])
        return PageView(
            name=_shown(spec.name),
            doc=_shown(" ".join(spec.doc.split())),
            about=_shown(f"rnncc {__version__}: {said}"),
            cell=DrawingView("the cell", cell.width, cell.height, boxes, cell.paths, []),
            no_cell=NOT_DRAWN if not boxes else "",
            steps=[
                _step_view(TITLES[part], step_drawing(self._part(part).schedule, self.origins))
                for part in PARTS
            ],
            data=Code(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),
        )

    def data(self, dtype: str) -> dict[str, Any]:
        """Every stage's lines: text, lines of equations, of declarations, numbers of values, and
        whether several lines share these. unseen: of each equation, why a stage has no line."""
        text = self.derivation.module(
            dtype, plain_variants(unroll=self.derivation.unroll), on_demand=True
        )
        parts = [{"name": TITLES[part], **self._stages(self._part(part))} for part in PARTS]
        core, of_core = self._core(dtype)
        return {
            "source": _listed(self.pieces.lines()),
            "parts": parts,
            "module": _listed(module_lines(text, self.pieces)),
            "core": _listed(core),
            "of_core": of_core,
            "unseen": reasons(self.derivation, self.pieces),
        }

    def _part(self, part: str) -> Optimised:
        optimised: Optimised = getattr(self.programs, part)
        return optimised

    def _stages(self, optimised: Optimised) -> dict[str, Any]:
        passes: list[dict[str, Any]] = []
        before = None
        for name, program in optimised.passes:
            if program is before:
                passes.append({"name": name, "lines": None})  # nothing has changed
                continue
            self.origins.tell(program)
            lines = _listed(self.origins.linked(printed_lines(program)))
            shown = (
                "differentiate" if not passes and optimised is not self.programs.forward else name
            )
            passes.append({"name": shown, "lines": lines})
            before = program
        schedule = optimised.schedule
        self.origins.tell_schedule(schedule)
        return {
            "passes": passes,
            "schedule": _listed(self.origins.linked(schedule_lines(schedule))),
        }

    def _core(self, dtype: str) -> tuple[list[LinkedLine], str]:
        """Machine code of the widest core here, which comes from all that is multiplied."""
        ops = [
            op for part in PARTS for op in self._part(part).program.ops() if kind_of([op]) == DENSE
        ]
        source = CameFrom(self.origins.of(ops).equations)
        if not ops:
            return [], "left out: the cell multiplies no matrices"
        from rnncc.runtime.cpu.kernels.microkernels import cores

        try:
            made = cores(dtype, host())
        except Missing as error:
            return [], f"left out: {error}"
        rows, vectors = made.max_rows(4), 4
        text = made.kernel(rows, vectors).assembly()
        lines = [
            LinkedLine(line.replace("\t", "  "), source, shared=True)
            for line in text.rstrip().split("\n")
        ]
        return lines, f"the core of {rows} rows and {vectors} vectors, as this machine runs it"


def _listed(lines: Iterable[LinkedLine]) -> list[list[Any]]:
    return list(map(list, _rows(lines)))


def _rows(lines: Iterable[LinkedLine]) -> Iterator[tuple[Any, ...]]:
    for text, (equations, declarations), values, shared in lines:
        yield comment(text), sorted(equations), sorted(declarations), list(values), int(shared)


def _shown(text: str) -> Code:
    return Code(html.escape(str(comment(text))))


def _box_view(placed: PlacedBox) -> BoxView:
    box = placed.box
    e, d = (" ".join(map(str, sorted(n))) for n in box.source)
    text = [(x, y, _shown(line)) for x, y, line in placed.text]
    return BoxView(box.kind, e, d, placed.x, placed.y, box.width, box.height, text)


def _step_view(title: str, step: StepDrawing) -> DrawingView:
    frames = [
        FrameView(_shown(f.title), f.x, f.width, f.height, f.waits, list(map(_box_view, f.boxes)))
        for f in step.kernels
    ]
    return DrawingView(title, step.width, step.height, [], (), frames)
