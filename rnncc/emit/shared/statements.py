"""A LaneStage's epilogue as statements over one vector of lanes, each citing its equation.

Non-Goals: the loops around them.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType

from rnncc.emit.shared.addresses import Addresses
from rnncc.emit.shared.kernel_names import unpack_lines
from rnncc.emit.shared.views import WIDTH, Loop, StatementLoop
from rnncc.ir.ops import OPS
from rnncc.ir.program import Op, Value
from rnncc.ir.sizes import Size
from rnncc.schedule.model import Buffer, LaneStage, Store, View

SLOW = 15  # cycles a vector from which an op is an activation others wait for
WORTH_SPLITTING = 3  # activations in a stage
NO_SELECTS: Mapping[Op, Store] = MappingProxyType({})
SPILLS = 8  # values that may cross from loop to loop without a place of their own


class Statements:
    def __init__(
        self,
        at: Addresses,
        stage: LaneStage,
        outer: list[Loop],
        registers: dict[Value, str],
        leaves: Mapping[Value, Op],
        left_out: Set[Buffer] = frozenset(),
        column: int = 0,
        selected: Mapping[Op, Store] = NO_SELECTS,
    ) -> None:
        """column: where the statements stand. selected: selects by a flag of the row of which the
        last operand alone is stored, since rows that have the flag are written over later."""
        self.at = at
        self.stage = stage
        self.outer = outer
        self.column = column
        self.registers = registers
        self.row_lines: list[tuple[str, str]] = []  # a row's addresses: name, and where it is
        self.streamed: set[str] = set()  # of these, what has a row of its own for every step
        self.addresses: set[str] = set()  # their names
        self.used: set[str] = set()  # of them, by the loop at hand
        self.late: dict[Value, int] = {}  # made in an earlier loop: the number of its place
        self.lines: list[str] = []
        self.row_pointers: dict[tuple[object, ...], str] = {}
        self.leaves = leaves
        self.made = {op.result: op for op in stage.ops}
        self.reads: dict[Value, int] = {}
        for op in stage.ops:
            for operand in op.operands:
                self.reads[operand] = self.reads.get(operand, 0) + 1
        self.stores = [s for s in stage.stores if s.view.buffer not in left_out]
        self.stored = {s.value for s in self.stores}
        # Where a later loop finds what an earlier one made: rows that hold all of its vector.
        self.kept = {s.value: s.view for s in self.stores if not self._is_part(s.view)}
        self.selected = selected
        self.kept = {op.operands[-1]: s.view for op, s in selected.items()} | self.kept

    def run(self, split: bool) -> list[StatementLoop]:
        """The statements, in one loop, or split where one activation waits for another.

        A chain of activations is bound by latency: each waits for the last. Loops that each hold
        one link of every chain keep the machine busy with other rows meanwhile; what crosses from
        loop to loop goes through memory that the stage has just written (measured: half the time
        of an LSTM's epilogue).
        """
        fused = self._fused()
        links = self._links() if split else {}
        count = max(links.values(), default=0) + 1
        crossing = self._crossing(links, fused)
        if len(crossing) > SPILLS:
            links, count, crossing = {}, 1, {}
        registers = dict(self.registers)
        loops: list[tuple[list[str], set[str]]] = []
        for link in range(count):
            self.lines, self.used = [], set()
            self.registers = dict(registers)
            self.late = {v: n for v, (at, n) in crossing.items() if at < link}
            for op in self.stage.ops:
                if op not in fused and links.get(op, 0) == link:
                    self._statement(op, fused, crossing)
            if link == count - 1:
                for store in self.stores:
                    if store.value not in self.made:
                        self._store(store.value)
            loops.append((self.lines, self.used))
        self._arrange([used for _, used in loops])
        return [StatementLoop(self._pointer_lines(used), lines) for lines, used in loops]

    def _arrange(self, loops: list[set[str]]) -> None:
        """Addresses that a loop reads stand side by side, as far as others let them."""
        reading = {n: [i for i, used in enumerate(loops) if n in used] for n, _ in self.row_lines}
        self.row_lines.sort(key=lambda line: (max(reading[line[0]]), min(reading[line[0]])))

    def _pointer_lines(self, used: set[str]) -> list[str]:
        """The statement that reads a row's addresses, from the first to the last that are used."""
        names = [name for name, _ in self.row_lines]
        places = sorted(names.index(name) for name in used)
        if not places:
            return []
        first, last = places[0], places[-1]
        place = f"row + {first} * 8" if first else "row"
        return unpack_lines(names[first : last + 1], place, WIDTH - self.column)

    def _statement(self, op: Op, fused: set[Op], crossing: dict[Value, tuple[int, int]]) -> None:
        if op in self.selected:
            self.registers[op.result] = self.read(op.operands[-1])
            self._store(op.result)
            return
        self._bind_operands(op)
        text = self._expression(op, fused)
        name = self._name(op.result)
        self.registers[op.result] = name
        self.lines.append(f"{name} = {text}{self._citation(op)}")
        self._store(op.result)
        if op.result in crossing and op.result not in self.kept:
            address = self._spill(crossing[op.result][1])
            self.lines.append(f"v.store({address}, {self._as_number(op.result)})")

    def _links(self) -> dict[Op, int]:
        """Which link of its chain of activations each op belongs to; all 0 where few wait."""
        depth: dict[Value, int] = {}
        links: dict[Op, int] = {}
        slow = [op for op in self.stage.ops if OPS[op.opcode].cost >= SLOW]
        if len(slow) < WORTH_SPLITTING:
            return {}
        for op in self.stage.ops:
            before = max((depth.get(o, 0) for o in op.operands), default=0)
            depth[op.result] = before + (OPS[op.opcode].cost >= SLOW)
            links[op] = max(depth[op.result] - 1, 0)
        return links

    def _crossing(self, links: dict[Op, int], fused: set[Op]) -> dict[Value, tuple[int, int]]:
        """Values a later loop reads: the loop that makes them, and a number for their place."""
        crossing: dict[Value, tuple[int, int]] = {}
        for op in self.stage.ops:
            if op in fused:
                continue
            producers = [self.made[o] for o in op.operands if o in self.made]
            read = [*op.operands, *(o for m in producers if m in fused for o in m.operands)]
            for value in read:
                source = self.made.get(value)
                if source is None or source in fused or value in crossing:
                    continue
                if links.get(source, 0) < links.get(op, 0):
                    crossing[value] = (links[source], len(crossing))
        return crossing

    def _spill(self, number: int) -> str:
        return f"scratch + SPILLS_AT + {number} * TILE_BYTES + spot * VB"

    def _reload(self, value: Value) -> str:
        """A value of an earlier loop, from where that stored it."""
        if value in self.kept:  # its own vector, also where all lanes are the same
            place = f"{self.row_pointer(self.kept[value])} + q"
        else:
            place = self._spill(self.late[value])
        text = f"v.load({place})"
        return f"({text} != 0.0)" if value.type.dtype == "bool" else text

    def _as_number(self, value: Value) -> str:
        text = self.registers[value]
        if value.type.dtype == "bool":
            return f"v.select({text}, v.splat(1.0), v.splat(0.0))"
        return text

    def _fused(self) -> set[Op]:
        """Products that only one sum reads: a fused multiply-add does both. Of two, the one that is
        ready last, so that nothing waits for the other's rounding."""
        ready = self._ready_times()
        fused: set[Op] = set()
        for op in self.stage.ops:
            if op.opcode not in ("add", "sub"):
                continue
            given = op.operands[:: 1 if op.opcode == "add" else -1]
            for operand in sorted(given, key=lambda o: -ready.get(o, 0)):
                producer = self.made.get(operand)
                if producer is None or producer.opcode != "mul" or producer in fused:
                    continue
                if self.reads[operand] == 1 and operand not in self.stored:
                    if any(o in self.leaves for o in producer.operands):
                        continue
                    fused.add(producer)
                    break
        return fused

    def _ready_times(self) -> dict[Value, int]:
        """The cost of the longest chain of ops up to each value."""
        ready: dict[Value, int] = {}
        for op in self.stage.ops:
            before = max((ready.get(o, 0) for o in op.operands), default=0)
            ready[op.result] = before + OPS[op.opcode].cost
        return ready

    def _expression(self, op: Op, fused: set[Op]) -> str:
        if op.opcode in ("add", "sub"):
            x, y = op.operands
            for product, other, first in ((x, y, True), (y, x, False)):
                producer = self.made.get(product)
                if producer is None or producer not in fused:
                    continue
                a, b = (self.read(o) for o in producer.operands)
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
        if value in self.late:
            text = self._reload(value)
            name = self.registers[value] = self._name(value)
            self.lines.append(f"{name} = {text}")
            return name
        return self.literal(value) or self.load(value)

    def literal(self, value: Value) -> str | None:
        leaf = self.leaves.get(value)
        if leaf is None:
            return None
        if leaf.opcode == "extent":
            return f"float({self.at.size(leaf.attrs['size'])})"
        number = leaf.attrs["value"]
        return repr(number) if isinstance(number, bool) else repr(float(number))

    def load(self, value: Value) -> str:
        return self._load(value, self.stage.reads[value])

    def _load(self, value: Value, view: View) -> str:
        address = self.row_pointer(view)
        lanes = bool(view.axes) and view.axes[-1] is not None
        text = f"v.load({address} + q)" if lanes else f"v.broadcast({address})"
        return f"({text} != 0.0)" if value.type.dtype == "bool" else text

    def row_pointer(self, view: View) -> str:
        starts = tuple((a, str(s)) for a, s in view.starts)
        key = (view.buffer, view.slot, view.axes[:-1], starts)
        if key not in self.row_pointers:
            terms = self.at.row_terms(view)
            terms += self.at.outer_terms(view, self.outer) if view.axes else ""
            base = self.at.pointer(view)
            if terms or not base.isidentifier():
                slot = f"_{view.slot}" if view.slot else ""
                name = self.at.words.fresh_of(f"{view.buffer.name}{slot}", "r")
                self.addresses.add(name)
                self.row_lines.append((name, base + terms))
                if "T" in view.buffer.axes:
                    self.streamed.add(name)
                self.row_pointers[key] = name
            else:
                self.row_pointers[key] = base
        name = self.row_pointers[key]
        if name in self.addresses:
            self.used.add(name)
        return name

    def _store(self, value: Value) -> None:
        for store in self.stores:
            if store.value is not value:
                continue
            text = self.read(value)
            if value in self.leaves:
                number = self.leaves[value].attrs.get("value")
                text = f"v.splat({float(number) if isinstance(number, bool) else text})"
            elif value.type.dtype == "bool":
                text = f"v.select({text}, v.splat(1.0), v.splat(0.0))"
            self.lines.append(self._stored(store.view, f"{self.row_pointer(store.view)} + q", text))

    def _stored(self, view: View, address: str, text: str) -> str:
        """Of a part of a row no lane is written behind its end, where the next part begins."""
        if not self._is_part(view):
            return f"v.store({address}, {text})"
        return f"v.store_part({address}, {text}, {self.at.size(self._lanes)} * SIZE - q)"

    @property
    def _lanes(self) -> Size:
        """How many lanes the stage has: a number has one, and may be a part of a row."""
        return self.stage.shape[-1] if self.stage.shape else Size.of(1)

    def _is_part(self, view: View) -> bool:
        """Whether the stage's lanes are fewer than those of the buffer's rows."""
        return bool(view.buffer.shape) and view.buffer.shape[-1] != self._lanes

    def _name(self, value: Value) -> str:
        return self.at.words.fresh_of(value.name.rstrip("_"), "")

    def _citation(self, op: Op) -> str:
        return f"  # line {op.span.line}" if op.span else ""
