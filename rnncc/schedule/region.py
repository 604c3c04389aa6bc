"""One region of a Program -> its levels of stages.

Within a level, what has the same lanes is one stage: contractions first, then statements lane by
lane. A value that another stage reads, or that must leave, gets a place in memory; every other
lives in a register.

Non-Goals: where a level begins (`levels`); which rows or lanes a thread takes; kernels (`build`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Type, Value
from rnncc.ir.sizes import Size
from rnncc.schedule.accumulate import Sum
from rnncc.schedule.contractions import grad_stage, groups
from rnncc.schedule.levels import Levels, StageKey, lane_key
from rnncc.schedule.model import (
    Buffer,
    GradStage,
    Group,
    LaneStage,
    RowStage,
    Stage,
    Store,
    View,
    goes_straight,
)


@dataclass
class Identifiers:
    """Identifiers for buffers and stages, each once."""

    taken: dict[str, int] = field(default_factory=dict)

    def __call__(self, name: str) -> str:
        clean = "".join(c if c.isalnum() else "_" for c in name).strip("_") or "value"
        count = self.taken.get(clean, 0)
        self.taken[clean] = count + 1
        return clean if count == 0 else self(f"{clean}_{count}")


@dataclass(frozen=True, eq=False, slots=True)
class RegionInput:
    ops: tuple[Op, ...]
    known: Mapping[Value, View]  # where values from outside are
    required: Mapping[Value, Sequence[View]]  # where values must be written
    single: Set[Value]  # values with one reader
    in_scan: bool
    zero_start: Set[Buffer]  # carries that are zero at the first step
    leaves: Mapping[Value, Op]  # constants and extents of the whole program
    names: Identifiers
    starts: Mapping[Value, Sum]  # hoisted sums to go on from
    late: bool = False  # what it works out is there after weights are packed, as in a scan


@dataclass(frozen=True, eq=False, slots=True)
class RegionOutput:
    """views: how to read values that are views of others, whether or not they have rows, too."""

    levels: tuple[tuple[Stage, ...], ...]
    places: Mapping[Value, View]
    views: Mapping[Value, View]
    buffers: tuple[Buffer, ...]


@dataclass(eq=False, slots=True)
class _Lanes:
    """What is collected for a LaneStage."""

    name: str
    shape: tuple[Size, ...]
    axes: str
    groups: tuple[Group, ...] = ()
    ops: list[Op] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)


def build_region(given: RegionInput) -> RegionOutput:
    return _Region(given).build()


class _Region:
    def __init__(self, given: RegionInput) -> None:
        self.given = given
        self.ops = Levels(
            given.ops,
            given.known.keys(),
            given.single,
            given.leaves,
            given.in_scan,
            given.starts,
            given.late or given.in_scan,
            given.required.keys(),
        )
        self.places: dict[Value, View] = {}
        self.buffers: list[Buffer] = []
        self.stages: dict[tuple[int, StageKey], _Lanes | RowStage | GradStage] = {}

    def build(self) -> RegionOutput:
        self.compute(self.materialise())
        self.pass_through()
        count = 1 + max((level for level, _ in self.stages), default=-1)
        levels: list[list[Stage]] = [[] for _ in range(count)]
        for (level, _), stage in self.stages.items():
            levels[level].append(self.finished(stage) if isinstance(stage, _Lanes) else stage)
        views = {
            v: self.view(v)
            for v, path in self.ops.paths.items()
            if path.root is not v and (path.root in self.places or path.root in self.given.known)
        }
        full = tuple(tuple(stages) for stages in levels if stages)
        return RegionOutput(full, self.places, views, tuple(self.buffers))

    # ---- memory -----------------------------------------------------------------------------

    def work_place(self, value: Value) -> View:
        """Rows of its own for a value."""
        name, axes = self.given.names(value.name), self.ops.domain(value)
        buffer = Buffer(name, value.type.shape, axes, "work", value)
        self.buffers.append(buffer)
        return View(buffer, tuple(range(len(buffer.shape))))

    def materialise(self) -> dict[Value, list[View]]:
        """Where each computed value is written."""
        stores: dict[Value, list[View]] = {}
        for value, placed in self.ops.placed.items():
            wanted = list(self.given.required.get(value, ()))
            if not wanted and (value in self.ops.outside or placed.is_row):
                wanted = [self.work_place(value)]
            if wanted:
                stores[value] = wanted
                self.places[value] = wanted[0]
        for value, placed in self.ops.placed.items():
            if placed.is_join and isinstance(placed.node, Op):
                for part, target in self.parts(placed.node, stores[value]):
                    stores.setdefault(self.ops.path(part).root, []).append(target)
        return stores

    def parts(self, concat: Op, targets: Iterable[View]) -> Iterator[tuple[Value, View]]:
        """Each part of a concat, and where in its rows it belongs."""
        axis = concat.attrs["axis"]
        for target in targets:
            start = Size.of(0)
            for x in concat.operands:
                yield x, part_of(target, axis, start)
                start = start + x.type.shape[axis]

    def view(self, value: Value) -> View:
        """How to read a value that is in memory."""
        path = self.ops.path(value)
        root = self.places.get(path.root) or self.given.known[path.root]
        axes = tuple(None if a is None else root.axes[a] for a in path.axes)
        starts = dict(root.starts)
        for axis, start in path.starts:
            behind = root.axes[axis]
            if behind is not None:
                starts[behind] = starts.get(behind, Size.of(0)) + start
        ordered = tuple(sorted(starts.items(), key=lambda kv: kv[0]))
        return View(root.buffer, axes, ordered, root.slot, root.first_only)

    # ---- stages -----------------------------------------------------------------------------

    def lane_stage(self, level: int, shape: tuple[Size, ...], axes: str) -> _Lanes:
        """What the level's stage over these lanes has so far."""
        key = (level, lane_key(shape, axes))
        stage = self.stages.get(key)
        if stage is None:
            stage = self.stages[key] = _Lanes(self.given.names("stage"), shape, axes)
        assert isinstance(stage, _Lanes)
        return stage

    def compute(self, stores: Mapping[Value, Sequence[View]]) -> None:
        """A stage for everything that is computed."""
        sums: dict[_Lanes, list[Sum]] = {}
        for result, placed in self.ops.placed.items():
            if placed.is_join:
                continue
            if isinstance(placed.node, Op) and placed.is_row:
                stage = self.row_stage(placed.node, stores[result])
                self.stages[placed.level, placed.key] = stage
                continue
            lanes = self.lane_stage(placed.level, result.type.shape, self.ops.domain(result))
            if isinstance(placed.node, Sum):
                sums.setdefault(lanes, []).append(placed.node)
            else:
                lanes.ops.append(placed.node)
            lanes.stores += [Store(result, v) for v in stores.get(result, ())]
        for lanes, nodes in sums.items():
            side_by_side = groups(nodes, self.view, self.ops.by_row, self.given.zero_start)
            if goes_straight(side_by_side, lanes.ops, lanes.stores):  # so nothing is side by side
                side_by_side = [
                    Group((acc,), group.rowwise) for group in side_by_side for acc in group.accs
                ]
            lanes.groups = tuple(self.with_start(lanes, group) for group in side_by_side)

    def with_start(self, stage: _Lanes, group: Group) -> Group:
        """The group with rows for what may be added before the loop, as its tiles lie."""
        if not group.accs[0].ahead:
            return group
        shape = (Size.of(len(group.accs)), *stage.shape)
        value = Value(f"{stage.name}_start", Type(shape, "BT"))
        buffer = Buffer(self.given.names(value.name), shape, "BT", "work", value)
        self.buffers.append(buffer)
        return replace(group, start=buffer)

    def pass_through(self) -> None:
        """Values that leave as they came: carries handed on, sequences of inputs, constants."""
        lines = {op.result: op.span for op in self.given.ops}
        for required, views in self.given.required.items():
            if required in self.ops.placed:
                continue
            value = self.ops.plain(required)
            path = self.ops.path(value)
            placed = self.ops.placed.get(path.root)
            if placed is not None and path.root not in self.places:
                self.places[path.root] = self.work_place(path.root)
                stage = self.stages[placed.level, placed.key]
                assert isinstance(stage, _Lanes)
                stage.stores.append(Store(path.root, self.places[path.root]))
            level = 0 if placed is None else placed.level + 1
            for view in views:
                axes = "B" if self.given.in_scan else view.buffer.axes
                if value in self.given.leaves or self.view(value).lanes:
                    stage = self.lane_stage(level, value.type.shape, axes)
                    stage.stores.append(Store(value, view))
                    continue
                copied = (Value(value.name, value.type),)
                op = Op("copy", (value,), copied, span=lines.get(required))
                source = self.view(value)
                self.stages[level, ("move", value, view.buffer)] = RowStage(
                    self.given.names("move"), op, source, view, axes, ((source, view),)
                )

    def finished(self, stage: _Lanes) -> LaneStage:
        """The stage, with where it finds what it doesn't compute."""
        computed = {op.result for op in stage.ops}
        computed |= {acc.value for group in stage.groups for acc in group.accs}
        wanted = [o for op in stage.ops for o in op.operands]
        wanted += [store.value for store in stage.stores]
        reads = {
            value: self.view(value)
            for value in dict.fromkeys(wanted)
            if value not in computed and value not in self.given.leaves
        }
        return LaneStage(
            stage.name,
            stage.shape,
            stage.axes,
            stage.groups,
            tuple(stage.ops),
            tuple(stage.stores),
            MappingProxyType(reads),
        )

    def row_stage(self, op: Op, targets: Sequence[View]) -> RowStage | GradStage:
        name = self.given.names(op.opcode)
        if op.opcode in ("contract", "sum_over"):
            return grad_stage(name, op, targets[0], self.view)
        copies: list[tuple[View, View]] = []
        if op.opcode == "concat":
            copies += [(self.view(x), part) for x, part in self.parts(op, targets[:1])]
        elif op.opcode in ("pad", "strided_pad"):
            (x,) = op.operands
            copies.append((self.view(x), part_of(targets[0], op.attrs["axis"], op.attrs["start"])))
        elif op.opcode == "strided_slice":
            (x,) = op.operands
            copies.append((part_of(self.view(x), op.attrs["axis"], op.attrs["start"]), targets[0]))
        elif op.opcode in ("copy", "reshape"):
            copies.append((self.view(op.operands[0]), targets[0]))
        copies += [(targets[0], t) for t in targets[1:]]
        reads = op.operands and OPS[op.opcode].kind is not Kind.RANDOM  # a seed is in no buffer
        source = self.view(op.operands[0]) if reads else None
        return RowStage(name, op, source, targets[0], self.ops.domain(op.result), tuple(copies))


def part_of(target: View, axis: int, start: Size) -> View:
    """The view from `start` on along an axis."""
    behind = target.axes[axis]
    if behind is None:  # the same all along
        return target
    starts = dict(target.starts)
    starts[behind] = starts.get(behind, Size.of(0)) + start
    kept = tuple(sorted((a, s) for a, s in starts.items() if s.terms))
    return View(target.buffer, target.axes, kept, target.slot, target.first_only)
