"""Checks a Schedule against the Program it is made of: one that can't be right is never run.

In the order in which kernels, levels and stages run: nothing is read that nobody wrote, every
buffer is written once, rows are as long and vary over as much as the values they hold, weights are
packed when they are there. At the end: every result lies where it is looked for, with the axes of
its type, no work buffer was left unwritten, and every op of the Program was done by some stage.

It goes over a Schedule once. Non-Goals: which rows and lanes a thread takes; addresses (the runtime
and the text of kernels, which tests hold to the interpreter).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rnncc.ir.opdef import IRError
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Type, Value, line_of
from rnncc.ir.sizes import Size
from rnncc.schedule.accumulate import is_gemm
from rnncc.schedule.legalize import ViewPath, path_through
from rnncc.schedule.model import (
    Acc,
    Buffer,
    GradStage,
    Group,
    Kernel,
    LaneStage,
    RowStage,
    Schedule,
    Segment,
    Stage,
    View,
)


class ScheduleError(IRError):
    """A Schedule that can't be right."""


def verify_schedule(schedule: Schedule) -> Schedule:
    """The schedule itself, or ScheduleError naming the line of the first equation it breaks."""
    _Check(schedule).run()
    return schedule


@dataclass(frozen=True, slots=True)
class _Stored:
    """A part of a buffer's rows: where it begins along their one axis that is longer."""

    start: Size
    axis: int
    value: Value


class _Check:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.program = schedule, schedule.program
        self.carries = {c.buffer: c for c in schedule.carries}
        self.leaves = {
            v for op in self.program.ops() if OPS[op.opcode].kind is Kind.LEAF for v in op.results
        }
        self.made: set[Value] = set()  # by the stages so far
        self.segments = 0  # of contractions, so far
        self.ready: set[tuple[Buffer, str]] = set()  # what earlier levels wrote, by slot
        self.coming: dict[tuple[Buffer, str], Stage] = {}  # what this level writes
        self.parts: dict[tuple[Buffer, str], list[_Stored]] = {}  # what has been stored in parts
        self.early: set[Buffer] = set()  # made of weights alone
        self.packable: set[Buffer] = set()  # of these, what kernels before this one made
        self.kernel = Kernel("", "", "", ())
        self.op: Op | None = None  # where an error is

    def fail(self, what: str) -> ScheduleError:
        where = self.kernel.name or "its buffers"
        return ScheduleError(
            f"{self.program.name}{line_of(self.op)}: the schedule can't be right in {where}: {what}"
            " (a defect of rnncc, not of the cell)"
        )

    def run(self) -> None:
        self.params()
        for kernel in self.schedule.kernels:
            self.kernel = kernel
            if kernel.kind == "scan":
                self.enter()
            for level in kernel.levels:
                for stage in level.stages:
                    self.stage(stage)
                self.ready |= self.coming.keys() | {b for b in self.parts if self.is_full(b)}
                self.coming = {}
            self.packable |= self.early
            if kernel.kind == "scan":
                self.leave()
        self.kernel = Kernel("", "", "", ())
        for result in self.program.results:
            self.result(result.value, result.name)
        for b in self.schedule.buffers:
            if b.storage == "work" and (b, "") not in self.ready:
                raise self.fail(f"nobody writes {b.name}")
        self.ops()

    # ---- what is there before the first kernel ----

    def params(self) -> None:
        wanted = {p.value for p in self.program.params if p.role != "seed"}
        buffers = [b for b in self.schedule.buffers if b.storage == "param"]
        if Counter(b.value for b in buffers) != Counter(wanted):
            raise self.fail("its parameters aren't the program's")
        for name, count in Counter(b.name for b in self.schedule.buffers).items():
            if count > 1:
                raise self.fail(f"{count} buffers are called {name}")
        for b in buffers:
            self.holds(View(b, tuple(range(len(b.shape)))), b.value.type)
            self.ready.add((b, ""))
            if not b.axes:
                self.early.add(b)
        self.packable |= self.early

    def enter(self) -> None:
        """The first slot of each carry."""
        for c in self.schedule.carries:
            if (c.buffer.shape, c.buffer.axes) != (c.init.type.shape, c.init.type.axes):
                raise self.fail(f"carry {c.name} in {_typed(c.buffer)} starts from {c.init}")
            if not c.zero_start:
                self.reads(self.place(c.init), c.init.type, "B", whole=True)
            self.ready.add((c.buffer, "in"))

    def leave(self) -> None:
        """The last slot of each carry, and of its history."""
        for c in self.schedule.carries:
            if not c.entry and (c.buffer, "out") not in self.ready:
                raise self.fail(f"nothing hands on carry {c.name}")
            self.ready.add((c.buffer, "final"))

    # ---- stages ----

    def stage(self, stage: Stage) -> None:
        if isinstance(stage, LaneStage):
            self.lane_stage(stage)
        elif isinstance(stage, RowStage):
            self.row_stage(stage)
        else:
            self.grad_stage(stage)

    def lane_stage(self, stage: LaneStage) -> None:
        own: set[Value] = set()
        for group in stage.groups:
            for acc in group.accs:
                self.op = acc.ops[0]
                self.acc(stage, group, acc)
                own.add(self.makes(acc.value, stage))
        for op in stage.ops:
            self.op = op
            for operand in op.operands:
                self.lane(stage, operand, own)
            if op.result.type.shape != stage.shape:
                raise self.fail(f"{op.result} in a stage over {_shape(stage.shape)}")
            own.add(self.makes(op.result, stage))
        for store in stage.stores:
            self.lane(stage, store.value, own)
            self.writes(store.view, store.value, stage.axes, stage)
        if stage.tiled:
            self.writes(View(stage.tiled, ()), None, stage.axes, stage)

    def lane(self, stage: LaneStage, value: Value, own: set[Value]) -> None:
        """A value that a statement reads: made above, a number, or in memory."""
        if value.type.shape != stage.shape:
            raise self.fail(f"{value} in a stage over {_shape(stage.shape)}")
        if value in own or value in self.leaves:
            return
        view = stage.reads.get(value)
        if view is None:
            raise self.fail(f"nothing makes {value} before it is read")
        if not view.lanes:
            raise self.fail(f"{value} can't be read lane by lane")
        self.reads(view, value.type, stage.axes)

    def acc(self, stage: LaneStage, group: Group, acc: Acc) -> None:
        if acc.value.type.shape != stage.shape:
            raise self.fail(f"{acc.value} in a stage over {_shape(stage.shape)}")
        for segment in acc.segments:
            self.segment(stage, group, segment)
        if acc.init is not None:
            self.packed(acc.init)
        if group.start and (group.start, "") not in self.ready:
            raise self.fail(f"nothing begins {acc.value} before the loop")
        self.segments += 0 if stage.tiled else len(acc.segments)

    def segment(self, stage: LaneStage, group: Group, segment: Segment) -> None:
        a, w = segment.a, segment.w
        a_axes = [i for i, _ in (*segment.outer, *segment.k) if i is not None]
        w_axes = [i for _, i in (*segment.outer, *segment.k) if i is not None]
        w_axes += [] if segment.lane is None else [segment.lane]
        for view, axes in ((a, a_axes), (w, w_axes)):
            if sorted(axes) != [*range(len(view.axes))]:
                raise self.fail(f"a contraction leaves out an axis of {view.buffer.name}")
        self.reads(a, None, stage.axes)
        if group.rowwise:
            self.reads(w, None, stage.axes)
            if segment.lane is not None:
                self.side_by_side(w, segment.lane)
        else:
            self.packed(w)

    def side_by_side(self, view: View, axis: int) -> None:
        """Whether a vector of lanes along an axis of the view can be read as it lies."""
        if view.axes[axis] != len(view.buffer.shape) - 1:
            raise self.fail(f"lanes of {view.buffer.name} are read vector by vector, but lie apart")

    def packed(self, view: View) -> None:
        """What is put in the order of cores once a version of the weights."""
        if view.buffer not in self.packable:
            raise self.fail(f"{view.buffer.name} isn't there when weights are packed")

    def row_stage(self, stage: RowStage) -> None:
        op = self.op = stage.op
        if stage.source is not None:
            self.reads(stage.source, op.operands[0].type, stage.axes)
        # What a carry was may become a part of what it is: the same buffer in another slot.
        own = stage.target.buffer, stage.target.slot
        copied = [v for v, _ in stage.copies if (v.buffer, v.slot) != own]
        for view in copied:
            self.reads(view, None, stage.axes)
        if OPS[op.opcode].kind is not Kind.RANDOM:
            # Of what is the same all along an axis, two parts are one view.
            if max(len(copied), int(stage.source is not None)) < len({*op.operands}):
                raise self.fail(f"{op.opcode} reads fewer than its operands")
        self.writes(stage.target, op.result, stage.axes, stage)
        for _, target in stage.copies:
            if target.buffer is not stage.target.buffer:
                self.writes(target, op.result, stage.axes, stage)
        self.makes(op.result, stage)

    def grad_stage(self, stage: GradStage) -> None:
        op = self.op = stage.op
        *a, d = op.operands
        self.reads(stage.d, d.type, "BT")
        if (stage.a is None) != (not a):
            raise self.fail(f"{op.opcode} reads fewer than its operands")
        if stage.a is not None:
            self.reads(stage.a, a[0].type, "BT")
        if d.type.shape:
            labels = op.attrs.get("labels")
            self.side_by_side(stage.d, labels[1].index(labels[2][-1]) if labels else -1)
        self.writes(stage.target, op.result, stage.kept, stage)
        self.makes(op.result, stage)

    # ---- values and memory ----

    def makes(self, value: Value, stage: Stage) -> Value:
        if isinstance(stage, LaneStage) and stage.tiled:
            return value  # what the loop goes on from
        if value in self.made:
            raise self.fail(f"{value} is made twice")
        self.made.add(value)
        return value

    def place(self, value: Value) -> View:
        if value not in self.schedule.places:
            raise self.fail(f"{value} is nowhere")
        return self.schedule.places[value]

    def rows(self, view: View) -> str:
        """The axes that the rows of a view vary over."""
        if view.buffer not in self.carries:
            return view.buffer.axes
        outside = self.kernel.kind != "scan" and view.slot in ("in", "out")
        return "BT" if outside else "B"  # a history, or the step's slot

    def reads(self, view: View, type_: Type | None, axes: str, whole: bool = False) -> None:
        """A view read by a stage over rows of these axes, as a value of this type."""
        b = view.buffer
        if (b, view.slot) not in self.ready:
            raise self.fail(f"{b.name} is read before anything is written there")
        steps = "T" if self.kernel.kind == "scan" else ""
        if not set(self.rows(view)) <= set(axes + steps):
            raise self.fail(f"{_typed(b)} is read for each {axes or 'call'}")
        if self.kernel.kind == "weights" and self.is_early and b not in self.early:
            raise self.fail(f"{b.name} isn't there when weights change")
        if type_ is not None:
            self.fits(view, type_)
        if whole and not view.is_whole:
            raise self.fail(f"{b.name} is read as it lies, but is a part or turned")

    @property
    def is_early(self) -> bool:
        """Whether the kernel runs once a version of the weights."""
        return self.kernel.kind == "weights" and self.kernel.name.startswith("before")

    def writes(self, view: View, value: Value | None, axes: str, stage: Stage) -> None:
        """A value written by a stage over rows of these axes, as a buffer's rows or a part of
        them."""
        b = view.buffer
        if b.storage == "param":
            raise self.fail(f"{b.name} is the caller's")
        slot = view.slot
        if (b, slot) in self.ready or (b, slot) in self.coming:
            raise self.fail(f"{b.name} is written twice")
        own = self.rows(view)
        steps = "T" if self.kernel.kind == "scan" and b.storage != "carry" else ""
        if not set(axes) <= set(own) or not set(own) <= set(axes + steps):
            raise self.fail(f"{_typed(b)} is written for each {axes or 'call'}")
        if self.is_early:
            if b.storage != "work" or own:
                raise self.fail(f"{_typed(b)} is written only when weights change")
            self.early.add(b)
        if value is not None and value.type.shape != b.shape:
            self.holds_part(view, value)
            return
        if value is not None:
            self.holds(view, value.type)
        if (b, slot) in self.parts:
            raise self.fail(f"{b.name} is written twice")
        self.coming[b, slot] = stage

    def holds(self, view: View, type_: Type) -> None:
        """Whether a buffer's rows are those of a value, element for element."""
        b = view.buffer
        if not view.is_whole or b.shape != type_.shape or not set(type_.axes) <= {*b.axes, "T"}:
            raise self.fail(f"{_typed(b)} is to hold {type_}")

    def holds_part(self, view: View, value: Value) -> None:
        """Whether a value has a place among a row's parts that no other has."""
        b, shape = view.buffer, value.type.shape
        starts = dict(view.starts)
        longer = [i for i, (n, m) in enumerate(zip(b.shape, shape, strict=False)) if n != m]
        if (
            view.axes != tuple(range(len(b.shape)))
            or len(shape) != len(b.shape)
            or len(longer) != 1
            or not {*starts} <= {*longer}
            or not set(value.type.axes) <= {*b.axes, "T"}
        ):
            raise self.fail(f"{_typed(b)} is to hold {value.type} as a part")
        (axis,) = longer
        stored = _Stored(starts.get(axis, Size.of(0)), axis, value)
        parts = self.parts.setdefault((b, view.slot), [])
        if any(p.axis != axis or p.start == stored.start for p in parts):
            raise self.fail(f"a part of {b.name} is written twice")
        parts.append(stored)

    def is_full(self, place: tuple[Buffer, str]) -> bool:
        """Whether parts that don't overlap fill the rows."""
        return self.in_order(place) is not None

    def in_order(self, place: tuple[Buffer, str]) -> list[Value] | None:
        """The values of a buffer's parts, from its rows' beginning to their end."""
        parts = {p.start: p for p in self.parts[place]}
        values, at = [], Size.of(0)
        while (part := parts.pop(at, None)) is not None:
            values.append(part.value)
            at = part.start + part.value.type.shape[part.axis]
            axis = part.axis
        is_complete = bool(values) and not parts and at == place[0].shape[axis]
        return values if is_complete else None

    def fits(self, view: View, type_: Type) -> None:
        """Whether a value can be read so."""
        b, starts = view.buffer, dict(view.starts)
        if len(view.axes) != len(type_.shape):
            raise self.fail(f"{type_} is read from {_typed(b)}")
        for size, axis in zip(type_.shape, view.axes, strict=True):
            if axis is None:
                continue
            rest = b.shape[axis] - size - starts.get(axis, 0)
            if rest.is_constant and rest.constant < 0:
                raise self.fail(f"{type_} is read from {_typed(b)}")

    # ---- the end ----

    def result(self, value: Value, name: str) -> None:
        """Whether a result lies where it is looked for."""
        self.op = next((op for op in self.program.ops() if value in op.results), None)
        joined = self.schedule.joined.get(value)
        for part in joined.operands if joined else (value,):
            view = self.place(part)
            axes = self.rows(view)
            if (view.buffer, view.slot) not in self.ready:
                raise self.fail(f"nothing writes result {name}")
            if not view.is_whole or (view.buffer.shape, axes) != (part.type.shape, part.type.axes):
                raise self.fail(f"result {name} of {part.type} is {_typed(view.buffer)}")

    def ops(self) -> None:
        """Whether every op was done by some stage: made, a view, or a term of a sum that was."""
        gemms = 0
        joined = [v for place in self.parts if (v := self.in_order(place)) is not None]
        if len(joined) < len(self.parts):
            raise self.fail("some rows are written in part")
        for region in self.regions():
            paths = _paths(region)
            done = self.made | self.leaves | paths.keys() | self.summed(region, paths)
            for op in region:
                gemms += is_gemm(op)
                if op.opcode == "concat" and [_root(paths, o) for o in op.operands] in joined:
                    continue
                if op.result not in done and op not in self.schedule.joined.values():
                    self.op = op
                    raise self.fail(f"nothing makes {op.result}")
        if gemms != self.segments:
            self.op = None
            raise self.fail(f"{gemms} contractions are done in {self.segments} parts of sums")

    def summed(self, region: tuple[Op, ...], paths: dict[Value, ViewPath]) -> set[Value]:
        """Terms of sums that were made, or that the loop goes on from."""
        begun = self.program.scan.xs if self.program.scan else ()
        terms = {s.source for s in begun} if region is self.program.before else set()
        for op in reversed(region):
            if op.opcode == "add" and (op.result in self.made or op.result in terms):
                terms.update(_root(paths, o) for o in op.operands)
        return terms

    def regions(self) -> Iterator[tuple[Op, ...]]:
        yield self.program.before
        if self.program.scan:
            yield self.program.scan.body
        yield self.program.after


def _root(paths: dict[Value, ViewPath], value: Value) -> Value:
    return paths[value].root if value in paths else value


def _paths(region: tuple[Op, ...]) -> dict[Value, ViewPath]:
    """The values of a region that are views."""
    paths: dict[Value, ViewPath] = {}
    for op in region:
        for operand in op.operands[:1]:
            rank = len(operand.type.shape)
            inner = paths.get(operand) or ViewPath(operand, tuple(range(rank)))
            path = path_through(op, inner)
            if path is not None:
                paths[op.result] = path
    return paths


def _typed(buffer: Buffer) -> str:
    return f"{buffer.name} : {Type(buffer.shape, buffer.axes, buffer.value.type.dtype)}"


def _shape(shape: Iterable[object]) -> str:
    return f"[{', '.join(map(str, shape))}]"
