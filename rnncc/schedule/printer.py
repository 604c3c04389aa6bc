"""A Schedule as text, the form `rnncc explain` shows and golden tests hold.

    kernel scan: a step at a time
      level 0
        stage_1: lanes [units] of each B
          core 0:
            _3 += h_1.in @ recurrent_kernel over units  # line 20
          _2 = load(value)
          _4 = add(_2, _3)  # line 21
          h = tanh(_4)  # line 21
          h_1.out, h_2 <- h

`h_1.in` is a carry as it enters the step, `h_1.out` as it leaves; `load` reads a buffer.

`schedule_lines` says of each line what it tells of, as `ir.printer` does.

Non-Goals: sizes, tiles and threads, which are bound when a layer runs (`layer.plan()`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from rnncc.ir.ops import OPS, Kind
from rnncc.ir.printer import PrintedLine, ValueNames
from rnncc.ir.program import Op, Type, Value
from rnncc.schedule.model import (
    Acc,
    Buffer,
    GradStage,
    Kernel,
    LaneStage,
    RowStage,
    Schedule,
    Segment,
    Stage,
    View,
    ops_of,
)

_KINDS = {
    "scan": "a step at a time",
    "rows": "every row",
    "grads": "sums over rows",
    "weights": "once",
}


def print_schedule(schedule: Schedule) -> str:
    """Deterministic text: the same schedule prints the same, whatever was built before it."""
    return "".join(f"{line.text}\n" for line in schedule_lines(schedule))


def schedule_lines(schedule: Schedule) -> Iterator[PrintedLine]:
    """The lines of `print_schedule`."""
    return _Printer(schedule).lines()


class _Printer:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.values = ValueNames()
        for param in schedule.program.params:
            self.values(param.value)
        self.leaves = {
            op.result: op for op in schedule.program.ops() if OPS[op.opcode].kind is Kind.LEAF
        }

    def lines(self) -> Iterator[PrintedLine]:
        schedule = self.schedule
        yield PrintedLine(f"schedule {schedule.program.name}")
        for buffer in schedule.buffers:
            text = f"  {buffer.storage:<7} {buffer.name} : {_buffer_type(buffer)}"
            yield PrintedLine(text, (buffer.value,))
        for carry in schedule.carries:
            start = "zeros" if carry.zero_start else self.values(carry.init)
            entry = ", entering at the first step only" if carry.entry else ""
            text = f"  carry {carry.name} in {carry.buffer.name}, from {start}{entry}"
            yield PrintedLine(text, (carry.buffer.value, carry.init))
        for name, targets in schedule.histories.items():
            text = f"  history of {name}: {', '.join(map(self.values, targets))}"
            yield PrintedLine(text, tuple(targets))
        for kernel in schedule.kernels:
            yield from self.kernel(kernel)

    def kernel(self, kernel: Kernel) -> Iterator[PrintedLine]:
        backwards = ", backwards in time" if kernel.reverse else ""
        turns = f", {kernel.unroll} steps a turn" if kernel.unroll > 1 else ""
        kind = _KINDS.get(kernel.kind, kernel.kind)
        below = [[a for s in level.stages for a in _about(s)] for level in kernel.levels]
        heading = f"kernel {kernel.name}: {kind}{backwards}{turns}"
        yield PrintedLine(heading, tuple(itertools.chain(*below)))
        for number, level in enumerate(kernel.levels):
            yield PrintedLine(f"  level {number}", tuple(below[number]))
            for stage in level.stages:
                yield from (line.within("    ") for line in self.stage(stage))

    def stage(self, stage: Stage) -> Iterator[PrintedLine]:
        if isinstance(stage, LaneStage):
            yield from self.lane_stage(stage)
        elif isinstance(stage, RowStage):
            source = "" if stage.source is None else f"{view_text(stage.source)} -> "
            yield PrintedLine(f"{stage.name}: a row of {stage.axes or 'one'}", (stage.op,))
            text = f"  {_opcode(stage.op)}: {source}{view_text(stage.target)}{_line(stage.op)}"
            yield PrintedLine(text, (stage.op,))
            for before, after in stage.copies:
                text = f"  {view_text(after)} <- {view_text(before)}"
                yield PrintedLine(text, (before.buffer.value, stage.op))
        else:
            yield from self.grad_stage(stage)

    def lane_stage(self, stage: LaneStage) -> Iterator[PrintedLine]:
        lanes = ", ".join(map(str, stage.shape))
        direct = ", no epilogue" if stage.direct else ""
        text = f"{stage.name}: lanes [{lanes}] of each {stage.axes or 'one'}{direct}"
        yield PrintedLine(text, _about(stage))
        for number, group in enumerate(stage.groups):
            core = f"core {number}{', a weight a row' if group.rowwise else ''}"
            text = f"  {core}{f', or from {group.start.name}' if group.start else ''}:"
            yield PrintedLine(text, tuple(op for acc in group.accs for op in acc.ops))
            for acc in group.accs:
                yield from (line.within("    ") for line in self.acc(acc))
        yield from self.loads(stage)
        for op in stage.ops:
            yield PrintedLine(f"  {self.op(op)}", (op,))
        targets: dict[Value, list[str]] = {}
        for store in stage.stores:
            targets.setdefault(store.value, []).append(view_text(store.view))
        for value, views in targets.items():
            yield PrintedLine(f"  {', '.join(views)} <- {self.operand(value)}", (value,))
        if stage.tiled:
            text = f"  {stage.tiled.name} <- the tiles as they are"
            yield PrintedLine(text, tuple(stage.all_ops))

    def loads(self, stage: LaneStage) -> Iterator[PrintedLine]:
        """What the stage reads from memory and doesn't contract."""
        computed = {op.result for op in stage.ops}
        computed |= {acc.value for group in stage.groups for acc in group.accs}
        read = [o for op in stage.ops for o in op.operands] + [s.value for s in stage.stores]
        for value in dict.fromkeys(read):
            if value not in computed and value not in self.leaves:
                view = stage.reads.get(value) or self.schedule.places[value]
                text = f"  {self.values(value)} = load({view_text(view)})"
                yield PrintedLine(text, (value,))

    def operand(self, value: Value) -> str:
        leaf = self.leaves.get(value)
        if leaf is None:
            return self.values(value)
        return _attr(leaf.attrs["value" if "value" in leaf.attrs else "size"])

    def acc(self, acc: Acc) -> Iterator[PrintedLine]:
        name = self.values(acc.value)
        if acc.init is not None:
            text = f"{name} = {view_text(acc.init)}"
            yield PrintedLine(text, (acc.init.buffer.value, *acc.ops))
        for number, (segment, op) in enumerate(zip(acc.segments, acc.ops, strict=True)):
            there = ", which may be there already" if number < acc.ahead else ""
            yield PrintedLine(f"{name} += {_segment(segment)}{there}{_line(op)}", (op,))

    def grad_stage(self, stage: GradStage) -> Iterator[PrintedLine]:
        left = "" if stage.a is None else f"{view_text(stage.a)} x "
        kept = f", for each {stage.kept}" if stage.kept else ""
        yield PrintedLine(f"{stage.name}: over rows{kept}", (stage.op,))
        text = f"  {view_text(stage.target)} = {left}{view_text(stage.d)}{_line(stage.op)}"
        yield PrintedLine(text, (stage.op,))

    def op(self, op: Op) -> str:
        attrs = _attrs(op)
        inside = ", ".join([*map(self.operand, op.operands), *attrs])
        return f"{self.values(op.result)} = {op.opcode}({inside}){_line(op)}"


def _about(stage: Stage) -> tuple[Op | Value, ...]:
    """A stage may only copy."""
    copied = [s.value for s in stage.stores] if isinstance(stage, LaneStage) else []
    return (*ops_of(stage), *copied)


def view_text(view: View) -> str:
    """`h.in`, `z[2 * units:]`, `bias[axes 1]`."""
    name = view.buffer.name + (f".{view.slot}" if view.slot else "")
    if view.first_only:
        name += " at first"
    notes = []
    starts = dict(view.starts)
    if starts:
        rank = len(view.buffer.shape)
        notes.append(", ".join(f"{starts[a]}:" if a in starts else ":" for a in range(rank)))
    if view.axes != tuple(range(len(view.axes))):
        notes.append("axes " + ", ".join("same" if a is None else str(a) for a in view.axes))
    return f"{name}[{'; '.join(notes)}]" if notes else name


def _segment(segment: Segment) -> str:
    over = ", ".join(map(str, segment.k_sizes)) or "1"
    text = f"{view_text(segment.a)} @ {view_text(segment.w)} over {over}"
    return text + (" but at the first step" if segment.skip_first else "")


def _opcode(op: Op) -> str:
    attrs = _attrs(op)
    return f"{op.opcode}({', '.join(attrs)})" if attrs else op.opcode


def _attrs(op: Op) -> list[str]:
    return [f"{k}={_attr(v)}" for k, v in op.attrs.items() if k != "type" and v != ""]


def _attr(value: object) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_attr, value)) + ")"
    return str(value)


def _buffer_type(buffer: Buffer) -> Type:
    return Type(buffer.shape, buffer.axes, buffer.value.type.dtype)


def _line(op: Op | None) -> str:
    return f"  # line {op.span.line}" if op is not None and op.span else ""
