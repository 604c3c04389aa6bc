"""A chosen cell -> what is drawn of it: nodes, and arrows between them.

    h[t-1] ──→ [h W] ──→ z = ... ──→ h[t] ··→ h[t-1]       dense products by themselves, the rest of
               W ↗                                         an equation is pointwise work

Non-Goals: where nodes stand (`columns`), how they look (`picture`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rnncc.drawing.chosen import ChosenCell
from rnncc.drawing.density import dense_places
from rnncc.drawing.latex import Latex
from rnncc.drawing.walk import Walk
from rnncc.frontend.spec import (
    ArrayDecl,
    Binary,
    Call,
    Equation,
    Expr,
    Layout,
    Name,
    Target,
    Timed,
    children,
)

MOST_NODES = 300  # in a drawing that anybody can read


@dataclass(frozen=True, slots=True)
class DrawnNode:
    """kind: input, context, state (as it enters), weight, constant; dense; pointwise, next (a state
    as it leaves). labels: LaTeX, the first that fits is taken."""

    key: str
    kind: str
    labels: tuple[str, ...]
    returned: bool = False


@dataclass
class CellDrawing:
    """nodes by key; arrows between keys, each once. around: from a state as it leaves to the same
    as it enters the next step."""

    title: str
    nodes: dict[str, DrawnNode] = field(default_factory=dict)
    arrows: dict[tuple[str, str], None] = field(default_factory=dict)
    around: list[tuple[str, str]] = field(default_factory=list)


def drawing_of(cell: ChosenCell) -> CellDrawing:
    """What is drawn of a cell. ValueError for one of more nodes than a drawing has room for;
    SpecError for one that is wrong under its options."""
    maker = _Making(cell)
    for equation in cell.equations:
        maker.equation(equation)
        maker.check()
    for place, returned in enumerate(cell.spec.returns):
        maker.returned(place, returned)
        maker.check()
    maker.link_steps()
    return maker.drawing


class _Making:
    def __init__(self, cell: ChosenCell) -> None:
        self.cell, self.walk = cell, Walk(cell, Latex())
        self.drawing = CellDrawing(cell.spec.name)
        self.check(len(cell.equations))
        self.dense = dense_places(cell)
        self.set_by = {t.name: _key(e.targets[0]) for e in cell.equations for t in e.targets}
        self.set_now = {t.name for e in cell.equations for t in e.targets if t.back is None}
        self.arrays = {d.name: d for d in cell.spec.declarations if isinstance(d, ArrayDecl)}

    def check(self, least: int = 0) -> None:
        """least: how many nodes there are going to be."""
        if max(len(self.drawing.nodes), least) > MOST_NODES:
            name, count = self.cell.spec.name, len(self.cell.equations)
            raise ValueError(
                f"a drawing has room for {MOST_NODES} things, and {name}'s {count} equations make "
                "more: latex() has all of them"
            )

    def equation(self, equation: Equation) -> None:
        key = _key(equation.targets[0])
        left = ",".join(self.walk.target(t) for t in equation.targets)
        value = self.cell.resolved(equation.value)
        only_dense = self._is_dense(value)
        written = f"{left} = {self.walk.shown(value)}"
        is_next = any(t.back is not None for t in equation.targets)
        kind = "next" if is_next else "dense" if only_dense else "pointwise"
        self._add(DrawnNode(key, kind, (written, left)))
        if only_dense and not is_next:
            for inner in children(value):
                self._reads(inner, key)
        else:
            self._reads(value, key)

    def returned(self, place: int, expr: Expr) -> None:
        value = self.cell.resolved(expr)
        key = self._source(value)
        if key is None:
            key = f"returned {place}"
            self._add(DrawnNode(key, "pointwise", (self.walk.shown(value), "y")))
            self._reads(value, key)
        self.drawing.nodes[key] = replace(self.drawing.nodes[key], returned=True)

    def link_steps(self) -> None:
        """From each state as it leaves to the one that enters, where the cell reads it."""
        for name, key in self.set_by.items():
            entering = f"{name}[t-1]"
            if name not in self.set_now and entering in self.drawing.nodes:
                self.drawing.around.append((key, entering))

    def _reads(self, expr: Expr | Layout, key: str) -> None:
        """Arrows to a node from all that an expression reads; products in it are nodes."""
        waiting = [expr]
        while waiting:
            node = self.cell.resolved(waiting.pop())
            source = self._source(node)
            if source is not None:
                self.drawing.arrows[source, key] = None
            elif self._is_dense(node):
                written = self.walk.shown(node)
                product = f"product {written}"
                self.drawing.arrows[product, key] = None
                if product not in self.drawing.nodes:
                    self._add(DrawnNode(product, "dense", (written, r"\times")))
                    for inner in children(node):
                        self._reads(inner, product)
                    self.check()
            else:
                waiting.extend(children(node))

    def _source(self, node: Expr | Layout) -> str | None:
        """The node of what a name stands for, made if it isn't there; None of anything else, and of
        names that are no arrays."""
        match node:
            case Timed(name=name, back=0) | Name(name=name) if name in self.set_by:
                return self.set_by[name]
            case Timed(name=name, back=back) if name in self.arrays:
                key = f"{name}[t-{back}]" if back else name
                kind = "input" if self.arrays[name].kind == "input" else "state"
                return self._add(DrawnNode(key, kind, (self.walk.shown(node),)))
            case Name(name=name) if name in self.arrays:
                kind = self.arrays[name].kind
                return self._add(DrawnNode(name, kind, (self.walk.shown(node),)))
        return None

    def _add(self, node: DrawnNode) -> str:
        self.drawing.nodes.setdefault(node.key, node)
        return node.key

    def _is_dense(self, node: Expr | Layout) -> bool:
        """Only calls and operators are: a name that stands for one has a place of its own."""
        return isinstance(node, Binary | Call) and node.span in self.dense


def _key(target: Target) -> str:
    return target.name if target.back is None else f"{target.name}[t]"
