"""Program -> Program the schedule can place: every contraction in a form a core takes.

A lane label shared by both operands becomes a product and a sum; an operand that must be read
lane by lane, but isn't laid out so, is copied first (`copy`). The meaning stays.

Non-Goals: speed tricks; these forms are rare in cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rnncc.ir.builder import Builder
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Program, Scan, Slice, Value
from rnncc.ir.rewrite import prune, remap, remap_program
from rnncc.ir.sizes import Size

MOVED = ("concat", "pad", "strided_slice", "strided_pad")  # by copies, element by element


@dataclass(frozen=True, slots=True)
class ViewPath:
    """A value as a view of a root: the root's axis behind each of its axes, and offsets."""

    root: Value
    axes: tuple[int | None, ...]
    starts: tuple[tuple[int, Size], ...] = ()
    part: bool = False  # a slice shortened an axis

    @property
    def lanes(self) -> bool:
        """Can be read vector by vector: contiguous, or the same for all lanes."""
        if not self.axes:
            return True
        return self.axes[-1] is None or self.axes[-1] == len(self.root.type.shape) - 1

    @property
    def whole(self) -> bool:
        return not self.part and self.axes == tuple(range(len(self.root.type.shape)))


def path_through(op: Op, inner: ViewPath) -> ViewPath | None:
    """The path of a view op's result, given its operand's; None when it is no view."""
    axes, starts, part = inner.axes, inner.starts, inner.part
    match op.opcode:
        case "stop_gradient" | "spread":
            return inner
        case "slice":
            axis = axes[op.attrs["axis"]]
            if axis is None:
                return ViewPath(inner.root, axes, starts, True)
            start = op.attrs["start"]
            merged = dict(starts)
            merged[axis] = merged.get(axis, Size.of(0)) + start
            kept = tuple(sorted((a, s) for a, s in merged.items() if s.terms))
            return ViewPath(inner.root, axes, kept, True)
        case "transpose":
            return ViewPath(inner.root, tuple(axes[i] for i in op.attrs["perm"]), starts, part)
        case "broadcast":
            spread: list[int | None] = [None] * len(op.attrs["shape"])
            for i, axis in enumerate(op.attrs["dims"]):
                spread[axis] = axes[i]
            return ViewPath(inner.root, tuple(spread), starts, part)
        case "reshape":
            return _reshape_path(op, inner)
    return None


def _reshape_path(op: Op, inner: ViewPath) -> ViewPath | None:
    """A reshape that only adds or drops axes of length 1."""
    one = Size.of(1)
    old = [(a, s) for a, s in zip(inner.axes, op.operands[0].type.shape, strict=True) if s != one]
    axes: list[int | None] = []
    for size in op.attrs["shape"]:
        if size == one:
            axes.append(None)
        elif old and old[0][1] == size:
            axes.append(old.pop(0)[0])
        else:
            return None
    return None if old else ViewPath(inner.root, tuple(axes), inner.starts, inner.part)


class _Region:
    """One region being rewritten: its new ops, and the path of every value seen so far.

    early: what weights alone make is there before weights are packed.
    """

    def __init__(self, paths: dict[Value, ViewPath], early: bool = False) -> None:
        self.b = Builder()
        self.paths, self.early = paths, early
        self.earlier = {p.root for p in paths.values()}
        self.leaves: set[Value] = set()

    def path(self, value: Value) -> ViewPath:
        if value not in self.paths:
            self.paths[value] = ViewPath(value, tuple(range(len(value.type.shape))))
        return self.paths[value]

    def keep(self, op: Op) -> None:
        self.b.ops.append(op)
        self.see(op)

    def see(self, op: Op) -> None:
        if OPS[op.opcode].kind is Kind.LEAF:
            self.leaves.add(op.result)
        if op.operands:
            path = path_through(op, self.path(op.operands[0]))
            if path is not None:
                self.paths[op.result] = path
        self.path(op.result)

    def see_new(self, count: int) -> None:
        for op in self.b.ops[count:]:
            self.see(op)

    def by_row(self, weight: Value) -> bool:
        """Whether contractions read this weight where it is (`Levels.by_row`)."""
        root = self.path(weight).root
        return bool(weight.type.axes) or not (self.early or root in self.earlier)

    def copy(self, value: Value) -> Value:
        return self.b.emit("copy", value, name=value.name)

    def lanes(self, value: Value) -> Value:
        return value if self.path(value).lanes else self.copy(value)

    def whole(self, value: Value) -> Value:
        """A value that is a buffer's row as it stands: a copy of what isn't."""
        value = self.in_memory(value)
        return value if self.path(value).whole else self.copy(value)

    def in_memory(self, value: Value) -> Value:
        """A number has no buffer until something is computed of it."""
        if self.path(value).root not in self.leaves:
            return value
        zero = self.b.like(0.0, value)
        self.leaves.add(zero)
        return self.b.emit("add", value, zero, name=value.name)

    def last(self, value: Value, labels: str, lane: str) -> tuple[Value, str]:
        """The value with the axis `lane` last and contiguous."""
        path = self.path(value)
        position = labels.index(lane)
        if path.axes[position] == len(path.root.type.shape) - 1:
            return value, labels
        order = (*(i for i in range(len(labels)) if i != position), position)
        count = len(self.b.ops)
        turned = self.b.transpose(value, order)
        self.see_new(count)
        turned = self.whole(turned)
        return turned, "".join(labels[i] for i in order)


def legalize(program: Program) -> Program:
    paths: dict[Value, ViewPath] = {}
    names: dict[Value, Value] = {}
    for param in program.params:
        paths[param.value] = ViewPath(param.value, tuple(range(len(param.value.type.shape))))
    region = _Region(paths, early=True)
    before = _rewrite(program.before, region, names)
    scan = program.scan
    if scan:
        before, scan = _own_rows(scan, region, names)
        body_region = _Region(dict(paths))
        body_region.leaves |= region.leaves
        body = _rewrite(scan.body, body_region, names)
        scan = Scan(scan.carries, scan.xs, body, scan.ys, scan.reverse)
    after_region = _Region(dict(paths))
    after_region.leaves |= region.leaves
    after = _rewrite(program.after, after_region, names)
    program = remap_program(replace(program, before=before, scan=scan, after=after), names)
    return prune(_own_results(program))


def _own_rows(
    scan: Scan, region: _Region, names: dict[Value, Value]
) -> tuple[tuple[Op, ...], Scan]:
    """What enters the loop as a turned or spread view gets rows of its own: inside the step its
    slice, or the slot a carry starts from, is taken for rows as they stand. A number that a carry
    starts from is written there as it is (`build`)."""
    xs, carries = [], []
    for s in scan.xs:
        source = names.get(s.source, s.source)
        path = region.path(source)
        if path.axes != tuple(range(len(path.root.type.shape))):
            source = region.copy(source)
        xs.append(Slice(s.value, source))
    for c in scan.carries:
        init = names.get(c.init, c.init)
        path = region.path(init)
        own = path.whole and path.root.type.axes == init.type.axes
        if not own and path.root not in region.leaves:
            init = region.copy(init)
        carries.append(replace(c, init=init))
    return tuple(region.b.ops), replace(scan, carries=tuple(carries), xs=tuple(xs))


def _own_results(program: Program) -> Program:
    """What weights alone make is made once for them, but a result at every call: copied then."""
    from_weights = {op.result: op for op in program.before if not op.result.type.axes}
    b = Builder()
    names: dict[Value, Value] = {}
    for value in dict.fromkeys(r.value for r in program.results if r.value in from_weights):
        op = from_weights[value]
        if OPS[op.opcode].kind is Kind.LEAF:
            names[value] = Value(value.name, value.type)
            b.ops.append(replace(op, results=(names[value],)))
        else:
            names[value] = b.emit("copy", value, name=value.name, span=op.span)
    results = tuple(replace(r, value=names.get(r.value, r.value)) for r in program.results)
    return replace(program, after=(*program.after, *b.ops), results=results)


def _rewrite(ops: Iterable[Op], region: _Region, names: dict[Value, Value]) -> tuple[Op, ...]:
    for op in ops:
        op = remap(op, names)
        region.b.span, region.b.name = op.span, op.result.name
        kind = OPS[op.opcode].kind
        new: Value | None = None
        if op.opcode == "contract":
            new = _contract(region, op)
        elif op.opcode == "sum_over":
            region.keep(replace(op, operands=(region.whole(op.operands[0]),)))
        elif kind is Kind.POINTWISE and op.opcode != "stop_gradient":
            region.keep(replace(op, operands=tuple(map(region.lanes, op.operands))))
        elif op.opcode == "cumsum" and op.attrs["axis"] < len(op.result.type.shape) - 1:
            new = _cumsum(region, op)
        elif kind is Kind.REDUCTION:
            region.keep(replace(op, operands=(region.whole(op.operands[0]),)))
        elif op.opcode in MOVED:
            region.keep(replace(op, operands=tuple(map(region.in_memory, op.operands))))
        else:
            region.keep(op)
        if new is not None:
            names[op.result] = new
    return tuple(region.b.ops)


def _cumsum(region: _Region, op: Op) -> Value:
    """Along another axis than the last: turned, so that it is the last, and back."""
    (x,) = op.operands
    rank = len(x.type.shape)
    order = (*(i for i in range(rank) if i != op.attrs["axis"]), op.attrs["axis"])
    count = len(region.b.ops)
    turned = region.b.transpose(x, order)
    region.see_new(count)
    total = region.b.cumsum(region.whole(turned), rank - 1, op.attrs["reverse"])
    count = len(region.b.ops)
    back = region.b.transpose(total, tuple(order.index(i) for i in range(rank)))
    region.see_new(count)
    return back


def _contract(region: _Region, op: Op) -> Value:
    la, lb, out = op.attrs["labels"]
    over = op.attrs["over"]
    a, b = op.operands
    lane = out[-1] if out else ""
    if (lane and lane in la and lane in lb) or (not out and over):
        return _as_product(region, op)
    if lane and lane in la:  # the operand that owns the lanes comes second
        a, b, la, lb = b, a, lb, la
    elif not lane and not region.by_row(a):
        a, b, la, lb = b, a, lb, la
    if lane and (over or region.by_row(b)):
        b, lb = region.last(b, lb, lane)
    elif not lane and region.by_row(b):
        return _as_product(region, op)
    return region.b.contract(a, b, (la, lb, out), over, name=op.result.name)


def _as_product(region: _Region, op: Op) -> Value:
    """Multiply lane by lane over all labels, then sum: for the forms no core takes."""
    la, lb, out = op.attrs["labels"]
    summed = [x for x in la + lb if x not in out]
    every = "".join(dict.fromkeys([*out, *summed]))
    sizes = dict(
        zip(la + lb, [*op.operands[0].type.shape, *op.operands[1].type.shape], strict=True)
    )
    shape = tuple(sizes[x] for x in every)
    b = region.b
    count = len(b.ops)
    factors = []
    for labels, operand in zip((la, lb), op.operands, strict=True):
        places = [every.index(x) for x in labels]
        turned = b.transpose(operand, tuple(sorted(range(len(labels)), key=places.__getitem__)))
        spread = b.broadcast(turned, shape, tuple(sorted(places)))
        region.see_new(count)
        count = len(b.ops)
        factors.append(region.lanes(spread))
        count = len(b.ops)
    total = b.emit("mul", *factors)
    for _ in range(len(every) - len(out)):
        total = b.reduce("sum", total, len(total.type.shape) - 1)
    return b.sum_over(total, op.attrs["over"])
