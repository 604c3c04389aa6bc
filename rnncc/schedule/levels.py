"""One region of a Program -> the level, and the stage within it, that each of its ops belongs to.

A level begins only where an op needs *all* lanes of an earlier value. Within a level, ops over the
same lanes share a stage; what works on a whole row is a stage of its own.

A concat of what stages make lane by lane is no stage: each stores its part where it belongs.
What only later levels read goes down to them (`sinking`).

Non-Goals: memory, the stages themselves (`region`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import TypeGuard

from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Value
from rnncc.ir.rewrite import remap
from rnncc.ir.sizes import Size
from rnncc.schedule.accumulate import Node, Sum, accumulate
from rnncc.schedule.legalize import ViewPath, path_through
from rnncc.schedule.sinking import Statement, sunk

StageKey = tuple[object, ...]  # what ops of one level share when they share a stage


@dataclass(frozen=True, eq=False, slots=True)
class Placed:
    node: Node
    level: int
    key: StageKey
    is_row: bool  # its result is complete only at the next level
    is_join: bool = False  # nothing makes it: its parts are stored side by side


class Levels:
    """`placed` holds the region's ops in order, by result; `paths`, the values that are views;
    `outside`, the computed values that some other stage reads. kept: what is written to memory
    whoever reads it."""

    def __init__(
        self,
        ops: Iterable[Op],
        known: Set[Value],
        single: Set[Value],
        leaves: Mapping[Value, Op],
        in_scan: bool,
        starts: Mapping[Value, Sum],
        late: bool,
        kept: Set[Value] = frozenset(),
    ) -> None:
        self.known, self.kept = known, kept
        self.leaves = leaves
        self.in_scan, self.late = in_scan, late
        self.paths: dict[Value, ViewPath] = {}
        self.placed: dict[Value, Placed] = {}
        self.outside: set[Value] = set()
        computed = self._computed(ops)
        self.own = {op.result for op in computed}
        rows = self._is_constant_row
        for node in accumulate(computed, single, rows, self.by_row, starts, late):
            self._place(node)
        self._sink()
        for placed in self.placed.values():
            self._read(placed)

    def path(self, value: Value) -> ViewPath:
        if value not in self.paths:
            self.paths[value] = ViewPath(value, tuple(range(len(value.type.shape))))
        return self.paths[value]

    def plain(self, value: Value) -> Value:
        """The root itself where a view changes nothing, so that it is read from its register."""
        path = self.path(value)
        return path.root if path.whole or path.root in self.leaves else value

    def domain(self, value: Value) -> str:
        """The axes of the rows a value is computed for."""
        return "B" if self.in_scan else value.type.axes

    def by_row(self, weight: Value) -> bool:
        """Whether contractions read this weight where it is: it belongs to the row, or is made when
        weights have been packed."""
        return bool(weight.type.axes) or (self.late and self.path(weight).root in self.own)

    def _computed(self, ops: Iterable[Op]) -> tuple[Op, ...]:
        """The ops that compute something; the others' results get their paths."""
        computed: list[Op] = []
        for op in ops:
            if OPS[op.opcode].kind is Kind.LEAF:
                continue
            op = remap(op, {o: self.plain(o) for o in op.operands})
            path = path_through(op, self.path(op.operands[0])) if op.operands else None
            if path is not None:
                self.paths[op.result] = path
            else:
                computed.append(op)
        return tuple(computed)

    def _is_constant_row(self, value: Value) -> bool:
        """A row of constants that an accumulator can start from."""
        path = self.path(value)
        return (
            not value.type.axes
            and path.lanes
            and path.root in self.known
            and path.root not in self.own
            and bool(path.axes)
            and path.axes[-1] is not None
        )

    def _place(self, node: Node) -> None:
        result = node.result
        if self._is_join(node):
            parts = [self.placed[self.path(o).root] for o in node.operands]
            level = max(p.level for p in parts)
            self.placed[result] = Placed(node, level, ("join", result), True, is_join=True)
            return
        level = 0
        for operand in _operands(node):
            placed = self.placed.get(self.path(operand).root)
            if placed is not None:
                level = max(level, placed.level + (not self._by_lane(operand, node)))
        lane = _is_pointwise(node) or isinstance(node, Sum)
        shape, axes = result.type.shape, self.domain(result)
        key: StageKey = lane_key(shape, axes) if lane else ("row", result)
        self.placed[result] = Placed(node, level, key, not lane)

    def _by_lane(self, operand: Value, node: Node) -> bool:
        """Whether a node reads a value that the region makes as it is made, lane by lane."""
        path = self.path(operand)
        return (
            _is_pointwise(node)
            and path.whole
            and not self.placed[path.root].is_row
            and operand.type.shape == node.result.type.shape
            and self.domain(path.root) == self.domain(node.result)
        )

    def _sink(self) -> None:
        """Moves statements to where they are read."""
        readers: dict[Value, dict[Value, None]] = {value: {} for value in self.placed}
        whole: set[Value] = set()  # read otherwise than lane by lane
        reads: dict[Value, list[Value]] = {}
        for result, placed in self.placed.items():
            reads[result] = []
            for operand in _operands(placed.node):
                root = self.path(operand).root
                if root in self.placed:
                    readers[root][result] = None
                    reads[result].append(root)
                    if placed.is_join or not self._by_lane(operand, placed.node):
                        whole.add(root)
        levels = sunk(
            {
                value: Statement(
                    placed.key,
                    placed.level,
                    reads[value],
                    (*readers[value],),
                    value not in whole,
                    value in self.kept or not _is_pointwise(placed.node),
                    value in self.kept or placed.is_row,
                )
                for value, placed in self.placed.items()
            }
        )
        for value, placed in self.placed.items():
            if levels[value] != placed.level:
                self.placed[value] = replace(placed, level=levels[value])

    def _read(self, placed: Placed) -> None:
        """Notes what this reads that isn't in a register of its own stage."""
        if placed.is_join:
            return
        for operand in _operands(placed.node):
            root = self.path(operand).root
            source = self.placed.get(root)
            if source is None:
                continue
            here = (source.level, source.key) == (placed.level, placed.key)
            if not here or not self._by_lane(operand, placed.node):
                self.outside.add(root)

    def _is_join(self, node: Node) -> TypeGuard[Op]:
        """Whether this is a concat of what stages of its own rows make lane by lane."""
        if not isinstance(node, Op) or node.opcode != "concat":
            return False
        roots = [self.path(o).root for o in node.operands if self.path(o).whole]
        placed = [self.placed[r] for r in roots if r in self.placed]
        return (
            len({*roots}) == len(node.operands) == len(placed)
            and not any(m.is_row for m in placed)
            and all(self.domain(r) == self.domain(node.result) for r in roots)
        )


def _operands(node: Node) -> list[Value]:
    if isinstance(node, Op):
        return list(node.operands)
    operands = [o for c in node.contractions for o in c.operands]
    return operands + ([node.init] if node.init is not None else [])


def _is_pointwise(node: Node) -> bool:
    return isinstance(node, Op) and OPS[node.opcode].kind is Kind.POINTWISE


def lane_key(shape: tuple[Size, ...], axes: str) -> StageKey:
    return ("lanes", shape, axes)
