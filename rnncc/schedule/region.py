"""One region of a Program -> its levels of stages.

A level begins only where an op needs *all* lanes of an earlier value. Within a level, what has
the same lanes is one stage: contractions first, then statements lane by lane. A value that
another stage reads, or that must leave, gets a place in memory; every other lives in a register.

Non-Goals: which rows or lanes a thread takes; kernels (`build`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Value
from rnncc.ir.sizes import Size
from rnncc.passes.rewrite import remap
from rnncc.schedule.accumulate import Node, Sum, accumulate
from rnncc.schedule.legalize import Path, path_through
from rnncc.schedule.model import (
    Acc,
    Buffer,
    GradStage,
    Group,
    LaneStage,
    RowStage,
    Segment,
    Stage,
    Store,
    View,
)

MAX_GROUP = 4


@dataclass
class Names:
    """Identifiers for buffers and stages, each once."""

    taken: dict[str, int] = field(default_factory=dict)

    def __call__(self, name: str) -> str:
        clean = "".join(c if c.isalnum() else "_" for c in name).strip("_") or "value"
        count = self.taken.get(clean, 0)
        self.taken[clean] = count + 1
        return clean if count == 0 else self(f"{clean}_{count}")


@dataclass
class RegionInput:
    ops: tuple[Op, ...]
    known: Mapping[Value, View]  # where values from outside are
    required: Mapping[Value, list[View]]  # where values must be written
    single: set[Value]  # values with one reader
    in_scan: bool
    zero_start: set[Buffer]  # carries that are zero at the first step
    leaves: Mapping[Value, Op]  # constants and extents of the whole program
    names: Names


@dataclass
class RegionOutput:
    levels: list[list[Stage]]
    places: dict[Value, View]
    buffers: list[Buffer]


@dataclass(eq=False)
class _Placed:
    node: Node
    level: int
    key: tuple[object, ...]
    is_row: bool  # its result is complete only at the next level


class _Region:
    def __init__(self, given: RegionInput) -> None:
        self.given = given
        self.paths: dict[Value, Path] = {}
        self.leaves = given.leaves
        self.placed: dict[Value, _Placed] = {}
        self.order: list[_Placed] = []
        self.places: dict[Value, View] = {}
        self.buffers: list[Buffer] = []
        self.outside: set[Value] = set()  # computed values that some other stage reads

    # ---- where a value comes from -------------------------------------------------------

    def path(self, value: Value) -> Path:
        if value not in self.paths:
            self.paths[value] = Path(value, tuple(range(len(value.type.shape))))
        return self.paths[value]

    def is_constant_row(self, value: Value) -> bool:
        """A row of constants that an accumulator can start from."""
        path = self.path(value)
        return (
            not value.type.axes
            and path.lanes
            and path.root in self.given.known
            and path.root not in self.placed
            and bool(path.axes)
            and path.axes[-1] is not None
        )

    # ---- levels -----------------------------------------------------------------------------

    def classify(self) -> None:
        plain: list[Op] = []
        for op in self.given.ops:
            kind = OPS[op.opcode].kind
            if kind is Kind.LEAF:
                continue
            op = remap(op, {o: self.plain(o) for o in op.operands})
            path = path_through(op, self.path(op.operands[0])) if op.operands else None
            if path is not None:
                self.paths[op.result] = path
            else:
                plain.append(op)
        for node in accumulate(tuple(plain), self.given.single, self.is_constant_row):
            self.place(node)

    def plain(self, value: Value) -> Value:
        """The root itself where a view changes nothing, so that it is read from its register."""
        path = self.path(value)
        return path.root if path.whole or path.root in self.leaves else value

    def domain(self, value: Value) -> str:
        return "B" if self.given.in_scan else value.type.axes

    def place(self, node: Node) -> None:
        result = node.result
        kind = OPS[node.opcode].kind if isinstance(node, Op) else None
        lane = kind is Kind.POINTWISE or isinstance(node, Sum)
        level = 0
        operands = (
            node.operands
            if isinstance(node, Op)
            else [o for c in node.contractions for o in c.operands]
        )
        for operand in operands:
            path = self.path(operand)
            made = self.placed.get(path.root)
            if made is None:
                continue
            same = (
                kind is Kind.POINTWISE
                and path.whole
                and not made.is_row
                and operand.type.shape == result.type.shape
                and self.domain(path.root) == self.domain(result)
            )
            level = max(level, made.level if same else made.level + 1)
            if not same:
                self.outside.add(path.root)
        key = ("lanes", result.type.shape, self.domain(result)) if lane else ("row", result)
        placed = _Placed(node, level, key, not lane)
        self.placed[result] = placed
        self.order.append(placed)
        if kind is Kind.POINTWISE:
            for operand in operands:  # read in a register only within one stage
                made = self.placed.get(self.path(operand).root)
                if made is not None and (made.level, made.key) != (level, key):
                    self.outside.add(self.path(operand).root)

    # ---- memory -----------------------------------------------------------------------------

    def work_buffer(self, value: Value) -> Buffer:
        axes = self.domain(value)
        buffer = Buffer(self.given.names(value.name), value.type.shape, axes, "work", value)
        self.buffers.append(buffer)
        return buffer

    def whole_view(self, buffer: Buffer) -> View:
        return View(buffer, tuple(range(len(buffer.shape))))

    def materialise(self) -> dict[Value, list[View]]:
        """Where each computed value is written."""
        stores: dict[Value, list[View]] = {}
        for value, made in self.placed.items():
            wanted = list(self.given.required.get(value, ()))
            if not wanted and (value in self.outside or made.is_row):
                wanted = [self.whole_view(self.work_buffer(value))]
            if wanted:
                stores[value] = wanted
                self.places[value] = wanted[0]
        return stores

    def view(self, value: Value) -> View:
        """How to read a value that is in memory."""
        path = self.path(value)
        root = self.places.get(path.root) or self.given.known[path.root]
        axes = tuple(None if a is None else root.axes[a] for a in path.axes)
        starts = dict(root.starts)
        for axis, start in path.starts:
            behind = root.axes[axis]
            if behind is not None:
                starts[behind] = starts.get(behind, Size.of(0)) + start
        return View(
            root.buffer,
            axes,
            tuple(sorted(starts.items(), key=lambda kv: kv[0])),
            root.slot,
            root.first_only,
        )

    # ---- stages -----------------------------------------------------------------------------

    def build(self) -> RegionOutput:
        self.classify()
        stores = self.materialise()
        stages: dict[tuple[object, ...], Stage] = {}
        sums: dict[tuple[object, ...], list[Sum]] = {}
        for made in self.order:
            key = (made.level, *made.key)
            if isinstance(made.node, Op) and made.is_row:
                stages[key] = self.row_stage(made.node, stores[made.node.result])
                continue
            stage = stages.get(key)
            if stage is None:
                shape, axes = made.key[1], made.key[2]
                stage = LaneStage(self.given.names("stage"), shape, axes)  # type: ignore[arg-type]
                stages[key] = stage
            assert isinstance(stage, LaneStage)
            if isinstance(made.node, Sum):
                sums.setdefault(key, []).append(made.node)
            else:
                stage.ops.append(made.node)
            stage.stores += [Store(made.node.result, v) for v in stores.get(made.node.result, ())]
        for key, nodes in sums.items():
            stage = stages[key]
            assert isinstance(stage, LaneStage)
            stage.groups = self.groups(nodes)
            if stage.direct:  # each result goes to its own rows, so nothing is side by side
                stage.groups = [
                    Group((acc,), group.rowwise) for group in stage.groups for acc in group.accs
                ]
        self.pass_through(stages)
        for stage in stages.values():
            if isinstance(stage, LaneStage):
                self.note_reads(stage)
        count = 1 + max((k[0] for k in stages), default=-1)  # type: ignore[type-var, operator]
        levels: list[list[Stage]] = [[] for _ in range(count)]
        for key, stage in stages.items():
            levels[key[0]].append(stage)  # type: ignore[index]
        views = {
            v: self.view(v)
            for v, path in self.paths.items()
            if path.root is not v and (path.root in self.places or path.root in self.given.known)
        }
        return RegionOutput([x for x in levels if x], {**views, **self.places}, self.buffers)

    def note_reads(self, stage: LaneStage) -> None:
        """Where the stage finds what it doesn't compute."""
        made = {op.result for op in stage.ops}
        made |= {acc.value for group in stage.groups for acc in group.accs}
        wanted = [o for op in stage.ops for o in op.operands]
        wanted += [store.value for store in stage.stores]
        for value in wanted:
            if value not in made and value not in self.leaves:
                stage.reads[value] = self.view(value)

    def pass_through(self, stages: dict[tuple[object, ...], Stage]) -> None:
        """Values that leave as they came: carries handed on, sequences of inputs, constants."""
        for value, views in self.given.required.items():
            if value in self.placed:
                continue
            value = self.plain(value)
            path = self.path(value)
            made = self.placed.get(path.root)
            if made is not None and path.root not in self.places:
                buffer = self.work_buffer(path.root)
                self.places[path.root] = self.whole_view(buffer)
                stage = stages[(made.level, *made.key)]
                assert isinstance(stage, LaneStage)
                stage.stores.append(Store(path.root, self.places[path.root]))
            level = 0 if made is None else made.level + 1
            for view in views:
                axes = "B" if self.given.in_scan else view.buffer.axes
                if not path.lanes and value not in self.leaves:
                    op = Op("copy", (value,), (Value(value.name, value.type),))
                    stages[(level, "move", value, view.buffer)] = RowStage(
                        self.given.names("move"),
                        op,
                        self.view(value),
                        view,
                        axes,
                        [(self.view(value), view)],
                    )
                    continue
                key = (level, "lanes", value.type.shape, axes)
                stage = stages.get(key)
                if stage is None:
                    stage = LaneStage(self.given.names("stage"), value.type.shape, axes)
                    stages[key] = stage
                assert isinstance(stage, LaneStage)
                stage.stores.append(Store(value, view))

    def row_stage(self, op: Op, targets: list[View]) -> Stage:
        name = self.given.names(op.opcode)
        if op.opcode in ("contract", "sum_over"):
            return self.grad_stage(name, op, targets[0])
        axes = self.domain(op.result)
        copies: list[tuple[View, View]] = []
        if op.opcode == "concat":
            start = Size.of(0)
            axis = op.attrs["axis"]
            for part in op.operands:
                copies.append((self.view(part), _part(targets[0], axis, start, part)))
                start = start + part.type.shape[axis]
        elif op.opcode == "pad":
            (x,) = op.operands
            part = _part(targets[0], op.attrs["axis"], op.attrs["start"], x)
            copies.append((self.view(x), part))
        elif op.opcode in ("copy", "reshape"):
            copies.append((self.view(op.operands[0]), targets[0]))
        copies += [(targets[0], t) for t in targets[1:]]
        reads = op.operands and OPS[op.opcode].kind is not Kind.RANDOM  # a seed is in no buffer
        source = self.view(op.operands[0]) if reads else None
        return RowStage(name, op, source, targets[0], axes, copies)

    def groups(self, sums: list[Sum]) -> list[Group]:
        by_key: dict[tuple[object, ...], list[Acc]] = {}
        for node in sums:
            segments = tuple(self.segment(c) for c in node.contractions)
            rowwise = any(s.w.buffer.axes for s in segments)
            init = self.view(node.init) if node.init is not None else None
            acc = Acc(node.result, segments, init, node.contractions[0])
            key: tuple[object, ...] = (rowwise, *(s.shape_key() for s in segments))
            if rowwise:
                key = (*key, node.result)
            by_key.setdefault(key, []).append(acc)
        return [
            Group(tuple(part), bool(key[0]))
            for key, accs in by_key.items()
            for part in _chunks(accs)
        ]

    def segment(self, op: Op) -> Segment:
        la, lb, out = op.attrs["labels"]
        a, b = op.operands
        summed = [x for x in la if x in lb and x not in out]

        def axis(labels: str, label: str) -> int | None:
            return labels.index(label) if label in labels else None

        view = self.view(a)
        skip = view.slot == "in" and view.buffer in self.given.zero_start
        sizes = dict(zip(la, a.type.shape, strict=True))
        return Segment(
            view,
            self.view(b),
            tuple((axis(la, x), axis(lb, x)) for x in out[:-1]),
            tuple((la.index(x), lb.index(x)) for x in summed),
            tuple(sizes[x] for x in summed),
            lb.index(out[-1]) if out else None,
            skip,
        )

    def grad_stage(self, name: str, op: Op, target: View) -> GradStage:
        over = op.attrs["over"]
        kept = "".join(a for a in op.operands[0].type.axes if a not in over)
        if op.opcode == "sum_over":
            (d,) = op.operands
            rank = len(d.type.shape)
            outer = tuple((None, i) for i in range(rank - 1))
            return GradStage(name, op, None, self.view(d), target, outer, None, (), kept)
        a, d = op.operands
        la, lb, out = op.attrs["labels"]
        kept = "".join(sorted({*a.type.axes, *d.type.axes} - set(over)))
        m = next((x for x in reversed(out[:-1]) if x in la and x not in lb), None)
        summed = [x for x in la if x in lb and x not in out]
        sizes = dict(zip(la, a.type.shape, strict=True))
        outer = tuple(
            (
                la.index(x) if x in la and x != m else None,
                lb.index(x) if x in lb else None,
            )
            for x in out[:-1]
        )
        return GradStage(
            name,
            op,
            self.view(a),
            self.view(d),
            target,
            outer,
            (la.index(m), out.index(m)) if m else None,
            tuple((la.index(x), lb.index(x), sizes[x]) for x in summed),
            kept,
        )


def _part(target: View, axis: int, start: Size, part: Value) -> View:
    behind = target.axes[axis]
    assert behind is not None
    starts = dict(target.starts)
    starts[behind] = starts.get(behind, Size.of(0)) + start
    kept = tuple(sorted((a, s) for a, s in starts.items() if s.terms))
    return View(target.buffer, target.axes, kept, target.slot)


def _chunks(accs: Iterable[Acc]) -> list[list[Acc]]:
    """At most four side by side, as even as can be: 5 is 3 and 2."""
    accs = list(accs)
    count = -(-len(accs) // MAX_GROUP)
    size = -(-len(accs) // count)
    return [accs[i : i + size] for i in range(0, len(accs), size)]


def build_region(given: RegionInput) -> RegionOutput:
    return _Region(given).build()
