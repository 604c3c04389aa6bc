"""A LaneStage's epilogue as statements over one vector of lanes, each citing its equation.

Non-Goals: the loops around them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Value
from rnncc.schedule.model import LaneStage, View

if TYPE_CHECKING:
    from rnncc.emit.kernel_view import KernelWriter, Loop


class Statements:
    def __init__(
        self,
        writer: KernelWriter,
        stage: LaneStage,
        outer: list[Loop],
        registers: dict[Value, str],
    ) -> None:
        self.writer = writer
        self.stage = stage
        self.outer = outer
        self.registers = registers
        self.row_lines: list[tuple[str, str]] = []
        self.lines: list[str] = []
        self.row_pointers: dict[tuple[object, ...], str] = {}
        self.names: dict[str, int] = {}
        self.leaves = {
            op.result: op
            for op in writer.schedule.program.ops()
            if OPS[op.opcode].kind is Kind.LEAF
        }
        self.made = {op.result: op for op in stage.ops}
        self.reads: dict[Value, int] = {}
        for op in stage.ops:
            for operand in op.operands:
                self.reads[operand] = self.reads.get(operand, 0) + 1
        self.stored = {s.value for s in stage.stores}

    def run(self) -> tuple[list[str], list[tuple[str, str]]]:
        """(statements, the addresses a row needs before them: name and place)."""
        fused = self._fused()
        for op in self.stage.ops:
            if op in fused:
                continue
            self._bind_operands(op)
            text = self._expression(op, fused)
            name = self._name(op.result)
            self.registers[op.result] = name
            self.lines.append(f"{name} = {text}{self._citation(op)}")
            self._store(op.result)
        for store in self.stage.stores:
            if store.value not in self.made:
                self._store(store.value)
        return self.lines, self.row_lines

    def _fused(self) -> set[Op]:
        """Products that only one sum reads: a fused multiply-add does both."""
        found: set[Op] = set()
        for op in self.stage.ops:
            if op.opcode not in ("add", "sub"):
                continue
            for operand in op.operands[:: 1 if op.opcode == "add" else -1]:
                made = self.made.get(operand)
                if made is None or made.opcode != "mul" or made in found:
                    continue
                if self.reads[operand] == 1 and operand not in self.stored:
                    if any(o in self.leaves for o in made.operands):
                        continue
                    found.add(made)
                    break
        return found

    def _expression(self, op: Op, fused: set[Op]) -> str:
        if op.opcode in ("add", "sub"):
            x, y = op.operands
            for product, other, first in ((x, y, True), (y, x, False)):
                made = self.made.get(product)
                if made is None or made not in fused:
                    continue
                a, b = (self.read(o) for o in made.operands)
                c = self.read(other)
                if op.opcode == "add":
                    return f"v.fma({a}, {b}, {self._wide(other, c)})"
                if first:
                    return f"v.fma({a}, {b}, -{self._wide(other, c)})"
                return f"v.fma(-{a}, {b}, {self._wide(other, c)})"
        operands = [self.read(o) for o in op.operands]
        literal = [o in self.leaves for o in op.operands]
        if op.opcode == "where" and all(literal[1:]):
            operands[1] = f"v.splat({operands[1]})"
        if all(literal):
            operands[0] = f"v.splat({operands[0]})"
        return OPS[op.opcode].expr.format(*operands)

    def _wide(self, value: Value, text: str) -> str:
        return f"v.splat({text})" if value in self.leaves else text

    def _bind_operands(self, op: Op) -> None:
        """Loads that more than one statement needs get a name first."""
        operands = [op, *(self.made[o] for o in op.operands if o in self.made)]
        for value in (o for p in operands for o in p.operands):
            if value in self.registers or value in self.leaves or value in self.made:
                if value in self.registers and self.registers[value].startswith("v.load("):
                    if self.reads.get(value, 0) + (value in self.stored) > 1:
                        self._name_register(value)
                continue
            if self.reads.get(value, 0) > 1 or value in self.stored:
                self.registers[value] = self.load(value)
                self._name_register(value)

    def _name_register(self, value: Value) -> None:
        name = self._name(value)
        self.lines.append(f"{name} = {self.registers[value]}")
        self.registers[value] = name

    def read(self, value: Value) -> str:
        if value in self.registers:
            return self.registers[value]
        return self.literal(value) or self.load(value)

    def literal(self, value: Value) -> str | None:
        leaf = self.leaves.get(value)
        if leaf is None:
            return None
        if leaf.opcode == "extent":
            return f"float({self.writer.size(leaf.attrs['size'])})"
        number = leaf.attrs["value"]
        return repr(number) if isinstance(number, bool) else repr(float(number))

    def load(self, value: Value) -> str:
        view = self._view(value)
        address = self.row_pointer(view)
        lanes = bool(view.axes) and view.axes[-1] is not None
        text = f"v.load({address} + q)" if lanes else f"v.broadcast({address})"
        return f"({text} != 0.0)" if value.type.dtype == "bool" else text

    def _view(self, value: Value) -> View:
        return self.writer.resolve(value)

    def row_pointer(self, view: View) -> str:
        starts = tuple((a, str(s)) for a, s in view.starts)
        key = (view.buffer, view.slot, view.axes[:-1], starts)
        if key not in self.row_pointers:
            terms = self.writer.row_terms(view, ("r0", "r1")).replace("r1 *", "r *")
            terms += self.writer.outer_terms(view, self.outer) if view.axes else ""
            base = self.writer.pointer(view)
            if terms:
                name = self.writer.words.fresh(f"{view.buffer.name}_r")
                self.row_lines.append((name, base + terms))
                self.row_pointers[key] = name
            else:
                self.row_pointers[key] = base
        return self.row_pointers[key]

    def _store(self, value: Value) -> None:
        for store in self.stage.stores:
            if store.value is not value:
                continue
            text = self.read(value)
            if value in self.leaves:
                text = (
                    f"v.splat({text})"
                    if value.type.dtype != "bool"
                    else f"v.splat({float(eval(text))})"
                )
            elif value.type.dtype == "bool":
                text = f"v.select({text}, v.splat(1.0), v.splat(0.0))"
            self.lines.append(f"v.store({self.row_pointer(store.view)} + q, {text})")

    def _name(self, value: Value) -> str:
        return self.writer.words.fresh(value.name.strip("_") or "x")

    def _citation(self, op: Op) -> str:
        return f"  # line {op.span.line}" if op.span else ""
