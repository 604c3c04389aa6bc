"""A cell as boxes: a box for each equation, what it reads above it, weights written into it.

What is drawn is what the options leave: an equation without ops has no box.

Non-Goals: where boxes lie (`layered`).
"""

from __future__ import annotations

from collections.abc import Iterator

from rnncc.drawing.density import kind_of
from rnncc.explaining.layered import Box, Drawing, layered
from rnncc.explaining.origins import CameFrom, Origins
from rnncc.ir.program import Op, Program, Value


def cell_drawing(program: Program, origins: Origins) -> Drawing:
    """Of a Program as it was lowered."""
    return _Cell(program, origins).drawing()


class _Cell:
    def __init__(self, program: Program, origins: Origins) -> None:
        self.program = program
        self.pieces = origins.pieces
        self.groups: dict[int, list[Op]] = {}
        self.home: dict[Value, str] = {}  # the box that a value is of
        for op in program.ops():
            line = self.pieces.of(op.span.line) if op.span else 0
            self.groups.setdefault(line, []).append(op)
            self.home[op.result] = f"line {line}"
        self.weights = {
            p.value: p.value.name for p in program.params if p.role in ("weight", "constant")
        }

    def drawing(self) -> Drawing:
        entering = list(self._entering())
        made = [self._equation(line, ops) for line, ops in sorted(self.groups.items())]
        arrows = [
            (self.home[o], f"line {line}")
            for line, ops in sorted(self.groups.items())
            for op in ops
            for o in op.operands
            if self.home.get(o, f"line {line}") != f"line {line}"
        ]
        read = {a for a, _ in arrows}
        return layered([*(b for b in entering if b.key in read), *made], arrows)

    def _entering(self) -> Iterator[Box]:
        """Inputs and states, as a step receives them."""
        declared = self.pieces.declared
        for param in self.program.params:
            if param.role in ("input", "context", "state", "valid", "rate", "seed"):
                name = param.value.name
                self.home[param.value] = name
                if param.role != "state":
                    timed = f"{name}[t]" if param.role == "input" else name
                    yield Box(name, (timed,), param.role, _declared(declared.get(name)))
        scan = self.program.scan
        for xs in scan.xs if scan else ():
            home = self.home.get(xs.source)
            if home:
                self.home[xs.value] = home
        for carry in scan.carries if scan else ():
            key = f"state {carry.name}"
            self.home[carry.value] = key
            is_theirs = carry.name in declared
            text = f"{carry.name}[t-1]" if is_theirs else carry.name
            yield Box(key, (text,), "state", _declared(declared.get(carry.name)))

    def _equation(self, line: int, ops: list[Op]) -> Box:
        kind = kind_of(ops)
        read = [self.weights[o] for op in ops for o in op.operands if o in self.weights]
        what = ", ".join([kind, *dict.fromkeys(read)])
        nexts = [c.next for c in self.program.scan.carries] if self.program.scan else []
        keeps = any(op.result in nexts for op in ops)
        style = f"{kind} kept" if keeps else kind
        title = self.pieces.title(line)
        lines = (_clipped(title), _clipped(what, 44))
        return Box(f"line {line}", lines, style, CameFrom(frozenset({line})))


def _declared(line: int | None) -> CameFrom:
    return CameFrom(declarations=frozenset({line} if line else ()))


def _clipped(text: str, most: int = 32) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
