"""The layout rules of `simplify`: slices, pads, concats, reshapes, broadcasts go to the leaves.

A slice of a contraction is a contraction with a slice of its weight; a sum of pads that tile an
axis is a concat; a contraction over a concat is a sum of contractions. Contractions that
contract nothing are products.

    >>> from rnncc.lowering.examples import example, outline
    >>> from rnncc.passes.simplify import simplify
    >>> shape = "features, 2 * units"
    >>> cell = example("i, g = split(x[t] @ W, 2)", "h[t] = i * g + h[t-1]", W=shape)
    >>> outline(cell)
    scan:
      carry _h_1, from h
      x_1 = x[t]
        _0 = contract(x_1, W, labels=(k, kl, l))
        i = slice(_0, axis=0, start=0, size=units)
        g = slice(_0, axis=0, start=units, size=units)
        _1 = mul(i, g)
        h_1 = add(_1, _h_1)
      next _h_1 = h_1; last is final_h
      h_2[t] = h_1
    >>> outline(simplify(cell))
    scan:
      carry _h_1, from h
      x_1 = x[t]
        i = slice(W, axis=1, start=0, size=units)
        i_1 = contract(x_1, i, labels=(k, kl, l))
        g = slice(W, axis=1, start=units, size=units)
        g_1 = contract(x_1, g, labels=(k, kl, l))
        _0 = mul(i_1, g_1)
        h_1 = add(_0, _h_1)
      next _h_1 = h_1; last is final_h
      h_2[t] = h_1
"""

from __future__ import annotations

from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Value
from rnncc.ir.sizes import Size
from rnncc.passes.rules import Context, rule


def _only_sliced(ctx: Context, value: Value) -> bool:
    """True when every reader of a value slices it, so nobody misses the whole."""
    readers = ctx.readers.get(value, ())
    return bool(readers) and all(isinstance(r, Op) and r.opcode == "slice" for r in readers)


def _refilled(ctx: Context, leaf: Op, view: Op) -> Value:
    """A view of what is the same number all over: that number, in the view's shape."""
    shape = view.result.type.shape
    if leaf.opcode == "extent":
        return ctx.extent(leaf.attrs["size"], shape)
    return ctx.full(leaf.attrs["value"], shape, leaf.result.type.dtype)


@rule("slice")
def _slice(ctx: Context, op: Op) -> Value | None:
    (x,) = op.operands
    axis, start, size = op.attrs["axis"], op.attrs["start"], op.attrs["size"]
    if size == x.type.shape[axis]:
        return x
    producer = ctx.defs.get(x)
    if producer is None:
        return None
    if OPS[producer.opcode].kind is Kind.LEAF:
        return _refilled(ctx, producer, op)
    match producer.opcode:
        case "slice" if producer.attrs["axis"] == axis:
            return ctx.slice(producer.operands[0], axis, producer.attrs["start"] + start, size)
        case "concat" if producer.attrs["axis"] == axis:
            return _slice_concat(ctx, producer, start, size)
        case "spread":
            inner = ctx.slice(producer.operands[0], axis, start, size)
            return ctx.emit("spread", inner, axes=producer.attrs["axes"])
        case "broadcast":
            return _slice_broadcast(ctx, op, producer)
        case "contract" if _only_sliced(ctx, x):
            return _slice_contract(ctx, op, producer)
        case "transpose":
            inner_axis = producer.attrs["perm"][axis]
            inner = ctx.slice(producer.operands[0], inner_axis, start, size)
            return ctx.transpose(inner, producer.attrs["perm"])
    if OPS[producer.opcode].kind is Kind.POINTWISE and _only_sliced(ctx, x):
        parts = [ctx.slice(o, axis, start, size) for o in producer.operands]
        return ctx.emit(producer.opcode, *parts, span=producer.span, **producer.attrs)
    return None


@rule("strided_slice")
def _strided_slice(ctx: Context, op: Op) -> Value | None:
    """Of what is the same all along, that; steps of steps are longer steps."""
    producer = ctx.defs.get(op.operands[0])
    if producer is None:
        return None
    if OPS[producer.opcode].kind is Kind.LEAF:
        return _refilled(ctx, producer, op)
    axis = op.attrs["axis"]
    match producer.opcode:
        case "broadcast" if axis not in producer.attrs["dims"]:
            (x,) = producer.operands
            return ctx.broadcast(x, op.result.type.shape, producer.attrs["dims"])
        case "strided_slice" | "slice" if producer.attrs["axis"] == axis:
            inner = producer.attrs.get("step", 1)
            start = producer.attrs["start"] + op.attrs["start"] * inner
            step = op.attrs["step"] * inner
            return ctx.strided_slice(producer.operands[0], axis, start, step, op.attrs["size"])
    return None


def _slice_concat(ctx: Context, concat: Op, start: Size, size: Size) -> Value | None:
    """A slice that lies within one part of a concat."""
    axis, offset = concat.attrs["axis"], Size.of(0)
    for part in concat.operands:
        extent = part.type.shape[axis]
        if offset == start and extent == size:
            return part
        inside = start - offset
        if inside.is_constant and extent.is_constant and size.is_constant:
            if inside.constant >= 0 and inside.constant + size.constant <= extent.constant:
                return ctx.slice(part, axis, inside, size)
        offset = offset + extent
    return None


def _slice_broadcast(ctx: Context, op: Op, made: Op) -> Value | None:
    dims, shape = made.attrs["dims"], op.result.type.shape
    (x,) = made.operands
    if op.attrs["axis"] in dims:
        x = ctx.slice(x, dims.index(op.attrs["axis"]), op.attrs["start"], op.attrs["size"])
    return ctx.broadcast(x, shape, dims)


def _slice_contract(ctx: Context, op: Op, made: Op) -> Value:
    la, lb, out = made.attrs["labels"]
    label = out[op.attrs["axis"]]
    operands = []
    for labels, operand in ((la, made.operands[0]), (lb, made.operands[1])):
        if label in labels:
            operand = ctx.slice(operand, labels.index(label), op.attrs["start"], op.attrs["size"])
        operands.append(operand)
    labels, over = made.attrs["labels"], made.attrs["over"]
    a, b = operands
    return ctx.contract(a, b, labels, over, span=made.span)


@rule("add")
def _add_pads(ctx: Context, op: Op) -> Value | None:
    """pad + pad + ... that tile an axis exactly are a concat."""
    pads = _pad_leaves(ctx, op)
    if pads is None or len(pads) < 2 or len({p.attrs["axis"] for p in pads}) != 1:
        return None
    axis = pads[0].attrs["axis"]
    rest, position, ordered = list(pads), Size.of(0), []
    while rest:
        here = [p for p in rest if p.attrs["start"] == position]
        if len(here) != 1:
            return None
        ordered.append(here[0].operands[0])
        position = position + here[0].operands[0].type.shape[axis]
        rest.remove(here[0])
    return ctx.concat(tuple(ordered), axis) if position == pads[0].attrs["size"] else None


def _pad_leaves(ctx: Context, op: Op) -> list[Op] | None:
    """The terms of a sum, if they all are pads; those that are nearest are looked at first."""
    pads: list[Op] = []
    rest = [*op.operands]
    while rest:
        producer = ctx.defs.get(rest.pop())
        if producer is not None and producer.opcode == "pad":
            pads.append(producer)
        elif producer is not None and producer.opcode == "add" and ctx.single(producer):
            rest += producer.operands
        else:
            return None
    return pads


@rule("reshape")
def _reshape(ctx: Context, op: Op) -> Value | None:
    (x,) = op.operands
    shape = op.attrs["shape"]
    if shape == x.type.shape:
        return x
    producer = ctx.defs.get(x)
    if producer is None:
        return None
    if producer.opcode == "reshape":
        return ctx.reshape(producer.operands[0], shape)
    if OPS[producer.opcode].kind is Kind.LEAF:
        return _refilled(ctx, producer, op)
    if producer.opcode == "contract" and ctx.single(producer):
        return _reshape_contract(ctx, producer, shape)
    return None


def _reshape_contract(ctx: Context, made: Op, shape: tuple[Size, ...]) -> Value | None:
    """reshape(a @ w) = a @ reshape(w), when the weight alone gives the result its shape."""
    la, lb, out = made.attrs["labels"]
    summed = len(lb) - len(out)
    if made.attrs["over"] or set(out) & set(la) or lb[summed:] != out:
        return None
    a, w = made.operands
    if w.type.axes:
        return None
    fresh = [x for x in "abcdefghijklmnopqrstuvwxyz" if x not in la + lb][: len(shape)]
    new = ctx.reshape(w, (*w.type.shape[:summed], *shape))
    labels = (la, lb[:summed] + "".join(fresh), "".join(fresh))
    return ctx.contract(a, new, labels, span=made.span)


@rule("transpose")
def _transpose(ctx: Context, op: Op) -> Value | None:
    (x,) = op.operands
    perm = op.attrs["perm"]
    producer = ctx.defs.get(x)
    if list(perm) == sorted(perm):
        return x
    if producer is None:
        return None
    if OPS[producer.opcode].kind is Kind.LEAF:
        return _refilled(ctx, producer, op)
    if producer.opcode == "transpose":
        return ctx.transpose(producer.operands[0], tuple(producer.attrs["perm"][i] for i in perm))
    if producer.opcode == "contract" and ctx.single(producer):
        la, lb, out = producer.attrs["labels"]
        labels = (la, lb, "".join(out[i] for i in perm))
        a, b = producer.operands
        return ctx.contract(a, b, labels, producer.attrs["over"], span=producer.span)
    return None


@rule("broadcast")
def _broadcast(ctx: Context, op: Op) -> Value | None:
    (x,) = op.operands
    shape, dims = op.attrs["shape"], op.attrs["dims"]
    if shape == x.type.shape:
        return x
    producer = ctx.defs.get(x)
    if producer is None:
        return None
    if OPS[producer.opcode].kind is Kind.LEAF:
        return _refilled(ctx, producer, op)
    if producer.opcode == "broadcast":
        inner = producer.attrs["dims"]
        return ctx.broadcast(producer.operands[0], shape, tuple(dims[i] for i in inner))
    return None


@rule("spread")
def _spread(ctx: Context, op: Op) -> Value | None:
    (x,) = op.operands
    return x if set(op.attrs["axes"]) <= set(x.type.axes) else None


@rule("contract")
def _contract(ctx: Context, op: Op) -> Value | None:
    la, lb, out = op.attrs["labels"]
    over = op.attrs["over"]
    a, b = op.operands
    if lost := "".join(x for x in over if x not in a.type.axes + b.type.axes):
        return ctx.contract(ctx.emit("spread", a, axes=lost), b, (la, lb, out), over)
    if not over and set(out) == set(la) | set(lb):
        return _product(ctx, op)
    if ones := _axes_of_one(op):
        return _contract_without(ctx, op, ones)
    if _gives_one_lane(op):
        return _summed_product(ctx, op)
    for side in (0, 1):
        producer = ctx.defs.get(op.operands[side])
        if producer is None:
            continue
        number = ctx.constant(op.operands[side])
        if number == 0:
            return ctx.full(0.0, op.result.type.shape)
        if number is not None:
            return _contract_full(ctx, op, side, number)
        if producer.opcode == "transpose":
            labels = (la, lb)[side]
            turned = [""] * len(labels)
            for i, axis in enumerate(producer.attrs["perm"]):
                turned[axis] = labels[i]
            return _contract_with(ctx, op, side, producer.operands[0], "".join(turned))
        if producer.opcode == "concat":
            return _contract_concat(ctx, op, side, producer)
    return None


def _contract_full(ctx: Context, op: Op, side: int, number: float) -> Value:
    """With what is one number all over: so many times a sum of the other, which no core reads."""
    own, other, out = op.attrs["labels"][side], op.attrs["labels"][1 - side], op.attrs["labels"][2]
    full, x, over = op.operands[side], op.operands[1 - side], op.attrs["over"]
    x = ctx.sum_over(x, over) if over else x
    for axis in reversed(range(len(other))):
        if other[axis] not in out:
            x = ctx.reduce("sum", x, axis)
    places = [out.index(label) for label in other if label in out]
    x = ctx.transpose(x, tuple(sorted(range(len(places)), key=places.__getitem__)))
    x = ctx.mul(ctx.broadcast(x, op.result.type.shape, tuple(sorted(places))), number)
    for label, size in zip(own, full.type.shape, strict=True):
        if label not in other + out:
            x = ctx.mul(x, ctx.extent(size))
    return x


def _axes_of_one(op: Op) -> set[str]:
    """Labels of one element that needn't be there: those summed; and where a row has matrices of
    its own, those of the result, which would be its only lane."""
    *sides, out = op.attrs["labels"]
    if op.attrs["over"]:
        return set()
    lengths = {
        label: size
        for labels, x in zip(sides, op.operands, strict=True)
        for label, size in zip(labels, x.type.shape, strict=True)
    }
    ones = {label for label, size in lengths.items() if size.is_constant and size.constant == 1}
    return ones if all(x.type.axes for x in op.operands) else ones.difference(out)


def _gives_one_lane(op: Op) -> bool:
    """Whether a weight has no lanes, or one: a core would leave the vector's others empty."""
    la, lb, _ = op.attrs["labels"]
    a, w = op.operands
    lanes = [n for label, n in zip(lb, w.type.shape, strict=True) if label not in la]
    few = all(n.is_constant and n.constant == 1 for n in lanes)
    return few and bool(a.type.axes) and not w.type.axes and not op.attrs["over"]


def _summed_product(ctx: Context, op: Op) -> Value:
    """Scores, gates of one element: the row times the weight, summed along its lanes."""
    la, lb, out = op.attrs["labels"]
    a, w = op.operands
    shared = [i for i, label in enumerate(lb) if label in la]
    w = ctx.reshape(w, tuple(w.type.shape[i] for i in shared))
    places = [la.index(lb[i]) for i in shared]
    w = ctx.transpose(w, tuple(sorted(range(len(places)), key=places.__getitem__)))
    x = ctx.mul(a, ctx.broadcast(w, a.type.shape, tuple(sorted(places))))
    for axis in reversed(range(len(la))):
        if la[axis] not in out:
            x = ctx.reduce("sum", x, axis)
    left = [out.index(label) for label in la if label in out]
    x = ctx.transpose(x, tuple(sorted(range(len(left)), key=left.__getitem__)))
    return ctx.reshape(x, op.result.type.shape)


def _contract_without(ctx: Context, op: Op, ones: set[str]) -> Value:
    """As batched products of matrices are written: (n, 1) @ (1, m), (n, m) @ (m, 1)."""

    def without(side: int) -> tuple[Value, str]:
        own, x = op.attrs["labels"][side], op.operands[side]
        kept = [i for i, label in enumerate(own) if label not in ones]
        less = ctx.reshape(x, tuple(x.type.shape[i] for i in kept))
        return less, "".join(own[i] for i in kept)

    (a, la), (b, lb) = without(0), without(1)
    out = "".join(label for label in op.attrs["labels"][2] if label not in ones)
    return ctx.reshape(ctx.contract(a, b, (la, lb, out), ""), op.result.type.shape)


def _contract_with(ctx: Context, op: Op, side: int, operand: Value, labels: str) -> Value:
    operands, all_labels = list(op.operands), list(op.attrs["labels"])
    operands[side], all_labels[side] = operand, labels
    la, lb, out = all_labels
    return ctx.contract(operands[0], operands[1], (la, lb, out), op.attrs["over"])


def _contract_concat(ctx: Context, op: Op, side: int, concat: Op) -> Value:
    """Over a concat: a sum of contractions where the label is summed, else a concat of them."""
    labels = op.attrs["labels"]
    label = labels[side][concat.attrs["axis"]]
    start, parts = Size.of(0), []
    other_side = 1 - side
    for part in concat.operands:
        extent = part.type.shape[concat.attrs["axis"]]
        other = op.operands[other_side]
        if label in labels[other_side]:
            other = ctx.slice(other, labels[other_side].index(label), start, extent)
        pair = (part, other) if side == 0 else (other, part)
        parts.append(ctx.contract(*pair, labels, op.attrs["over"]))
        start = start + extent
    if label in labels[2]:
        return ctx.concat(tuple(parts), labels[2].index(label))
    total = parts[0]
    for part in parts[1:]:
        total = ctx.add(total, part)
    return total


def _product(ctx: Context, op: Op) -> Value:
    """Nothing is summed: an outer or diagonal product, lane by lane."""
    out, shape = op.attrs["labels"][2], op.result.type.shape
    factors = []
    for labels, operand in zip(op.attrs["labels"][:2], op.operands, strict=True):
        places = [out.index(x) for x in labels]
        order = tuple(sorted(range(len(labels)), key=places.__getitem__))
        operand = ctx.transpose(operand, order)
        dims = tuple(sorted(places))
        factors.append(ctx.broadcast(operand, shape, dims))
    return ctx.mul(factors[0], factors[1])


@rule("sum_over")
def _sum_over(ctx: Context, op: Op) -> Value | None:
    (x,) = op.operands
    over = op.attrs["over"]
    if ctx.constant(x) == 0:
        return x
    if lost := "".join(a for a in over if a not in x.type.axes):
        return ctx.sum_over(ctx.emit("spread", x, axes=lost), over)
    producer = ctx.defs.get(x)
    if producer is not None and ctx.single(producer):
        if producer.opcode in ("contract", "sum_over"):
            joined = "".join(sorted(producer.attrs["over"] + over))
            if producer.opcode == "sum_over":
                return ctx.sum_over(producer.operands[0], joined)
            a, b = producer.operands
            return ctx.contract(a, b, producer.attrs["labels"], joined, span=producer.span)
        if producer.opcode in ("concat", "pad", "reshape", "transpose", "sum"):
            parts = [ctx.sum_over(o, over) for o in producer.operands]
            return ctx.emit(producer.opcode, *parts, **producer.attrs)
    return None


@rule("sum")
def _sum(ctx: Context, op: Op) -> Value | None:
    """The sum of a broadcast along the axis it was spread over is a multiple."""
    producer = ctx.op(op.operands[0], "broadcast")
    axis = op.attrs["axis"]
    if producer is None or axis in producer.attrs["dims"]:
        return None
    size = producer.attrs["shape"][axis]
    dims = tuple(d - (d > axis) for d in producer.attrs["dims"])
    inner = ctx.broadcast(producer.operands[0], op.result.type.shape, dims)
    return ctx.mul(inner, ctx.extent(size, inner.type.shape))
