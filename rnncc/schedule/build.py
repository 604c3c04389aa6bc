"""Program -> Schedule: buffers for what lives across steps, regions for what happens in them,
kernels for what one launch runs.

Non-Goals: sizes, threads, machines: those are bound by the runtime, from what is printed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from rnncc.common.unrolling import steps_of_turn
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Program, Scan, Value, uses
from rnncc.ir.rewrite import definitions, filled_with
from rnncc.ir.verify import verify
from rnncc.schedule.accumulate import Sum
from rnncc.schedule.hoisted_inputs import find_starts
from rnncc.schedule.legalize import ViewPath, legalize, path_through
from rnncc.schedule.model import (
    Buffer,
    CarrySlot,
    GradStage,
    Group,
    Kernel,
    LaneStage,
    Level,
    Schedule,
    Stage,
    View,
    packs,
    written,
)
from rnncc.schedule.region import Identifiers, RegionInput, RegionOutput, build_region
from rnncc.schedule.verify import verify_schedule


def schedule(program: Program) -> Schedule:
    """The schedule of an optimised program."""
    return verify_schedule(_Build(verify(legalize(program))).run())


@dataclass
class _Build:
    """What is collected on the way to a Schedule."""

    program: Program
    names: Identifiers = field(default_factory=Identifiers)
    buffers: list[Buffer] = field(default_factory=list)
    places: dict[Value, View] = field(default_factory=dict)
    views: dict[Value, View] = field(default_factory=dict)  # what later regions read them by
    carries: list[CarrySlot] = field(default_factory=list)
    histories: dict[str, list[Value]] = field(default_factory=dict)
    kernels: list[Kernel] = field(default_factory=list)
    starts: dict[Value, Sum] = field(default_factory=dict)

    def run(self) -> Schedule:
        program = self.program
        readers = uses(program)
        self.single = {v for v, rs in readers.items() if len(rs) == 1}
        self.leaves = {op.result: op for op in program.ops() if OPS[op.opcode].kind is Kind.LEAF}
        for param in program.params:
            if param.role != "seed":
                self.new_buffer(param.value, "param")
        results = {r.value for r in program.results}
        self.joined = _joined(program, self.single)
        outer_defs = {op.result for op in (*program.before, *program.after)}
        leaving: dict[Value, list[View]] = {}
        parts = [o for op in self.joined.values() for o in op.operands]
        for value in dict.fromkeys(parts):
            leaving[value] = [_whole(self.new_buffer(value, "work"))]
        names = {r.value: r.name for r in reversed(program.results)}
        for value in dict.fromkeys(r.value for r in program.results):
            if value in self.joined:
                continue
            made_outside = value in outer_defs or value in {p.value for p in program.params}
            if made_outside:
                buffer = self.new_buffer(value, "result", value in outer_defs, names[value])
                leaving[value] = [_whole(buffer)]
        self.starts, taken = find_starts(program, self.single)
        crossing = self.crossing(program, taken)
        required = {
            v: leaving.get(v) or [_whole(self.new_buffer(v, "work"))]
            for v in crossing
            if v in {op.result for op in program.before}
        }
        required |= {v: leaving[v] for v in leaving if v in {op.result for op in program.before}}
        required |= {v: [_whole(self.new_buffer(v, "work"))] for v in self.numbers(program)}
        self.outer("before", tuple(op for op in program.before if op not in taken), required)
        if program.scan:
            self.scan(program.scan, results)
        before_values = {op.result for op in program.before}
        after_required = {v: w for v, w in leaving.items() if v not in before_values}
        joins = set(self.joined.values())
        self.outer("after", tuple(op for op in program.after if op not in joins), after_required)
        return Schedule(
            program,
            tuple(self.kernels),
            tuple(self.buffers),
            tuple(self.carries),
            MappingProxyType(self.places),
            MappingProxyType({name: tuple(stacks) for name, stacks in self.histories.items()}),
            MappingProxyType(self.joined),
            bool(program.scan and program.scan.reverse),
        )

    def new_buffer(
        self, value: Value, storage: str, place: bool = True, name: str = "value"
    ) -> Buffer:
        """name: of its buffer, where the value has none."""
        title = self.names(value.name if value.name.strip("_") else name)
        buffer = Buffer(title, value.type.shape, value.type.axes, storage, value)
        self.buffers.append(buffer)
        if place:
            self.places[value] = _whole(buffer)
        return buffer

    def crossing(self, program: Program, taken: set[Op]) -> list[Value]:
        """Values of `before` that the scan, with the starts it has taken over, or `after` reads
        from memory (not mere views)."""
        read: list[Value] = [o for op in (*program.after, *taken) for o in op.operands]
        if program.scan:
            read += [o for op in program.scan.body for o in op.operands]
            read += [s.source for s in program.scan.xs if s.value not in self.starts]
            read += [c.init for c in program.scan.carries]
            read += [c.next for c in program.scan.carries]
            read += [s.value for s in program.scan.ys]
        read += [r.value for r in program.results]
        defs = {v: op for v, op in definitions(program.before).items() if op not in taken}
        roots = _roots(program.before)
        values = [v for v in dict.fromkeys(roots.get(v, v) for v in read) if v in defs]
        return [v for v in values if not _is_zero(v, defs) and v not in self.leaves]

    def numbers(self, program: Program) -> list[Value]:
        """The numbers other than zero that carries start from."""
        defs = definitions(program.before)
        inits = dict.fromkeys(c.init for c in program.scan.carries) if program.scan else ()
        return [v for v in inits if filled_with(v, defs) not in (None, 0)]

    # ---- regions ----------------------------------------------------------------------------

    def outer(self, name: str, ops: tuple, required: Mapping[Value, Sequence[View]]) -> None:
        out = build_region(
            RegionInput(
                ops,
                {**self.places, **self.views},  # lanes are those of what a view is of (`legalize`)
                required,
                self.single,
                False,
                set(),
                self.leaves,
                self.names,
                {},
                late=name == "after",
            )
        )
        self.take(out)
        run: list[tuple[str, str, list[Stage]]] = []
        for level in out.levels:
            kinds: dict[tuple[str, str], list[Stage]] = {}
            for stage in level:
                kinds.setdefault(_kind(stage), []).append(stage)
            run += [(kind, axes, stages) for (kind, axes), stages in kinds.items()]
        for kind, axes, stages in run:
            last = self.kernels[-1] if self.kernels else None
            kernel = Kernel("", kind, axes, (Level(tuple(stages)),))
            joins = (
                last is not None
                and last.name.startswith(name)
                and (
                    (last.kind, last.axes) == (kind, axes)
                    and kind != "grads"
                    and last.is_plain == kernel.is_plain
                    and not (kind == "weights" and packs(stages) & {*written(last)})
                )
            )
            if joins and last is not None:
                self.kernels[-1] = replace(last, levels=last.levels + kernel.levels)
            else:
                self.kernels.append(replace(kernel, name=self.names(f"{name}_{kind}")))

    def take(self, out: RegionOutput) -> None:
        self.buffers += out.buffers
        self.views |= out.views
        for value, view in (*out.places.items(), *out.views.items()):
            self.places.setdefault(value, view)  # a result has rows of its own

    def scan(self, scan: Scan, results: set[Value]) -> None:
        known = {**self.places, **self.views}
        required: dict[Value, list[View]] = {}
        zero_start: set[Buffer] = set()
        before_defs = definitions(self.program.before)
        handed: dict[Value, View] = {}
        for c in scan.carries:
            leaf = self.leaves.get(c.next)
            entry = leaf is not None and leaf.attrs.get("value") == 0
            wide = Value(c.name, c.value.type)
            buffer = Buffer(self.names(c.value.name), c.value.type.shape, "B", "carry", wide)
            self.buffers.append(buffer)
            zero = _is_zero(c.init, before_defs)
            if zero:
                zero_start.add(buffer)
            axes = tuple(range(len(buffer.shape)))
            known[c.value] = View(buffer, axes, (), "in", entry)
            if not entry:
                out_view = View(buffer, axes, (), "out")
                required.setdefault(c.next, []).append(out_view)
                handed.setdefault(c.next, out_view)
            self.carries.append(CarrySlot(c.name, buffer, c.init, zero, entry, c.final))
            self.places[c.final] = View(buffer, axes, (), "final")
        for s in scan.xs:
            if s.value not in self.starts:
                known[s.value] = self.places[s.source]
        # A residual may be a carry's history; what the caller gets has rows of its own.
        outputs = {r.value for r in self.program.results if r.role.kind != "residual"}
        entering = {c.value: known[c.value] for c in scan.carries if not known[c.value].first_only}
        for ys in scan.ys:
            alias = None
            if ys.target not in outputs:
                alias = handed.get(ys.value) or entering.get(ys.value)
            if alias is not None:
                self.places[ys.target] = alias
                self.histories.setdefault(alias.buffer.name, []).append(ys.target)
                continue
            storage = "result" if ys.target in results else "work"
            buffer = self.new_buffer(ys.target, storage)
            required.setdefault(ys.value, []).append(_whole(buffer))
        out = build_region(
            RegionInput(
                scan.body,
                known,
                required,
                self.single,
                True,
                zero_start,
                self.leaves,
                self.names,
                self.starts,
            )
        )
        self.buffers += out.buffers
        self.make_starts(out)
        levels = tuple(Level(stages) for stages in out.levels)
        steps = steps_of_turn(self.program.unroll, len(scan.body))
        self.kernels.append(Kernel(self.names("scan"), "scan", "BT", levels, scan.reverse, steps))

    def make_starts(self, out: RegionOutput) -> None:
        """The kernel that makes every step's starts before the loop."""
        stages: list[Stage] = []
        for stage in (s for level in out.levels for s in level if isinstance(s, LaneStage)):
            for group in stage.groups:
                if group.start is None:
                    continue
                accs = tuple(
                    replace(a, segments=a.segments[: a.ahead], ops=a.ops[: a.ahead], ahead=0)
                    for a in group.accs
                )
                name, groups = self.names("stage"), (Group(accs, False),)
                stages.append(
                    LaneStage(name, stage.shape, "BT", groups, (), (), {}, tiled=group.start)
                )
        if stages:
            name = self.names("before_starts")
            self.kernels.append(Kernel(name, "rows", "BT", (Level(tuple(stages)),)))


def _joined(program: Program, single: set[Value]) -> dict[Value, Op]:
    """Results that only join parts: the caller's copy joins them, no kernel has to."""
    # What another program reads must lie in one piece.
    results = {r.value for r in program.results if r.role.kind != "residual"}
    computed = {op.result for op in program.after}
    return {
        op.result: op
        for op in program.after
        if op.opcode == "concat"
        and op.result in results
        and op.result in single
        and all(o in computed and o in single for o in op.operands)
        and len(set(op.operands)) == len(op.operands)
    }


def _whole(buffer: Buffer) -> View:
    return View(buffer, tuple(range(len(buffer.shape))))


def _roots(ops: tuple[Op, ...]) -> dict[Value, Value]:
    """What each view of a region is a view of."""
    paths: dict[Value, ViewPath] = {}
    for op in ops:
        for operand in op.operands[:1]:
            inner = paths.get(operand) or ViewPath(operand, tuple(range(len(operand.type.shape))))
            path = path_through(op, inner)
            if path is not None:
                paths[op.result] = path
    return {v: p.root for v, p in paths.items()}


def _is_zero(value: Value, defs: dict[Value, Op]) -> bool:
    """Zeros by construction: they are never computed, the runtime clears the slot."""
    return filled_with(value, defs) == 0


def _kind(stage: Stage) -> tuple[str, str]:
    if isinstance(stage, GradStage):
        return "grads", stage.kept
    if not stage.axes:
        return "weights", ""
    return "rows", stage.axes
