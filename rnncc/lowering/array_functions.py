"""split, concat, stack, reshape, broadcast, transpose, flip, roll and einsum -> primitive ops.

Non-Goals: indexing (`expressions`).
"""

from __future__ import annotations

from rnncc.frontend.limits import PARTS, RANK
from rnncc.ir.program import Value
from rnncc.ir.sizes import Size, at_least, product
from rnncc.lowering.expressions import Evaluator
from rnncc.lowering.functions import axis_of, function, size
from rnncc.lowering.operands import Operand, Refusal, Shape, show


@function
def split(ev: Evaluator, v: Operand, n: Operand, axis: Operand = None) -> Operand:
    """n equal parts, views in the order they stand."""
    x = ev.value(v)
    if type(n) is not int:
        raise Refusal("E510", what="the number of parts")
    at = axis_of(x, axis, "split")
    axis_size = x.type.shape[at]
    if n < 1 or (axis_size.is_constant and axis_size.constant % n):
        raise Refusal("E412", size=axis_size, n=n)
    part = axis_size // n
    if n > PARTS:
        raise Refusal("E421", n=n, most=PARTS)
    if not ev.same_size(part * n, axis_size, f"{axis_size} must be divisible by {n}"):
        raise Refusal("E412", size=axis_size, n=n)
    return tuple(ev.b.slice(x, at, part * i, part) for i in range(n))


@function
def concat(ev: Evaluator, *vs: Operand, axis: Operand = None) -> Operand:
    if len(vs) == 1 and isinstance(vs[0], tuple):
        vs = vs[0]
    xs = [ev.value(v) for v in vs]
    at = axis_of(xs[0], axis, "concat")
    first = xs[0].type.shape
    for i, x in enumerate(xs):
        own = x.type.shape
        same = len(own) == len(first) and all(
            j == at or ev.same_size(a, c) for j, (a, c) in enumerate(zip(first, own, strict=True))
        )
        if not same:
            raise Refusal("E417", left=show(first), right=show(own), axis=at)
        xs[i] = ev.fit(x, (*first[:at], own[at], *first[at + 1 :]))
    return ev.b.concat(tuple(xs), at)


@function
def stack(ev: Evaluator, *vs: Operand, axis: Operand = 0) -> Operand:
    """Values of one shape side by side, along an axis that is new."""
    if len(vs) == 1 and isinstance(vs[0], tuple):
        vs = vs[0]
    xs = [ev.value(v) for v in vs]
    first = xs[0].type.shape
    rank = len(first) + 1
    if type(axis) is not int:
        raise Refusal("E510", what="axis")
    if not -rank <= axis < rank:
        raise Refusal("E411", shape=f"a stack of {show(first)}", axis=axis)
    at = axis % rank
    if rank > RANK:
        raise Refusal("E423", n=rank, most=RANK)
    rows = []
    for x in xs:
        own = x.type.shape
        if len(own) != len(first) or not all(map(ev.same_size, first, own)):
            raise Refusal("E405", left=show(first), right=show(own))
        rows.append(ev.b.reshape(x, (*first[:at], Size.of(1), *first[at:])))
    return ev.b.concat(tuple(rows), at)


@function
def flip(ev: Evaluator, v: Operand, axis: Operand = None) -> Operand:
    """From the last to the first."""
    x = ev.value(v)
    at = axis_of(x, axis, "flip")
    n = x.type.shape[at]
    return ev.b.strided_slice(x, at, n - 1, -1, n)


@function
def roll(ev: Evaluator, v: Operand, shift: Operand, axis: Operand = None) -> Operand:
    """Each element `shift` places on, and what goes beyond the end to the beginning."""
    x = ev.value(v)
    at = axis_of(x, axis, "roll")
    n, by = x.type.shape[at], size(shift, "a shift")
    if n.is_constant and by.is_constant:
        by = Size.of(by.constant % n.constant)
    if not by.terms:
        return x
    least, most = at_least(by), at_least(-by)
    front = by if least is not None and least > 0 else n + by  # elements that come to the front
    if (least is None or least < 1) and (most is None or most < 1):
        raise Refusal("E510", what="which way a shift goes")
    text = f"{show(x.type.shape)} is too short to be rolled by {by}"
    ev.positive(n - front, text)
    ev.positive(front, text)
    last = ev.b.slice(x, at, n - front, front)
    return ev.b.concat((last, ev.b.slice(x, at, Size.of(0), n - front)), at)


@function
def reshape(ev: Evaluator, v: Operand, shape: Operand) -> Operand:
    x = ev.value(v)
    items = shape if isinstance(shape, tuple) else (shape,)
    if len(items) > RANK:
        raise Refusal("E423", n=len(items), most=RANK)
    free = [i for i, item in enumerate(items) if type(item) is int and item == -1]
    elements = product(x.type.shape)
    sizes = [Size.of(1) if i in free else size(item) for i, item in enumerate(items)]
    if len(free) > 1 or any(s.is_constant and s.constant < 1 for s in sizes):
        raise Refusal("E402", help="whole numbers, sizes, and at most one -1")
    if free:
        sizes[free[0]] = elements // product(tuple(sizes))
    wanted = tuple(sizes)
    count = product(wanted)
    message = f"{show(x.type.shape)} and {show(wanted)} must have as many elements"
    if not ev.same_size(elements, count, message):
        raise Refusal(
            "E414",
            left=show(x.type.shape),
            left_count=elements,
            right=show(wanted),
            right_count=count,
        )
    return ev.b.reshape(x, wanted)


@function
def broadcast(ev: Evaluator, v: Operand, shape: Operand) -> Operand:
    """Repeated along axes that v hasn't, or has as one number."""
    x = ev.value(v)
    items = shape if isinstance(shape, tuple) else (shape,)
    if len(items) > RANK:
        raise Refusal("E423", n=len(items), most=RANK)
    wanted = tuple(map(size, items))
    if any(s.is_constant and s.constant < 1 for s in wanted):
        raise Refusal("E402", help="whole numbers and sizes")
    own = x.type.shape
    if ev.common_shape(own, wanted) != wanted or len(own) > len(wanted):
        raise Refusal("E405", left=show(own), right=show(wanted))
    return ev.stretch(x, wanted)


@function
def transpose(ev: Evaluator, v: Operand, axes: Operand = None) -> Operand:
    x = ev.value(v)
    rank = len(x.type.shape)
    if axes is None:
        return ev.b.transpose(x, tuple(reversed(range(rank))))
    perm = axes if isinstance(axes, tuple) else (axes,)
    if any(type(a) is not int for a in perm) or sorted(a % max(rank, 1) for a in perm) != list(
        range(rank)
    ):
        raise Refusal("E419", axes=axes, shape=show(x.type.shape))
    return ev.b.transpose(x, tuple(a % rank for a in perm))


@function
def einsum(ev: Evaluator, subscripts: Operand, *vs: Operand) -> Operand:
    """Operands are contracted from left to right, two at a time."""
    if not isinstance(subscripts, str):
        raise Refusal("E415", reason="the subscripts are a text")
    xs = [ev.value(v) for v in vs]
    labels, out = _labels(subscripts, xs)
    xs = _agree(ev, labels, xs)
    left, value = labels[0], xs[0]
    for i in range(1, len(xs)):
        needed = set(out).union(*labels[i + 1 :])
        right, other = labels[i], xs[i]
        left, value = _sum_alone(ev, left, value, needed | set(right))
        right, other = _sum_alone(ev, right, other, needed | set(left))
        both = dict.fromkeys(left + right)
        kept = out if i == len(xs) - 1 else "".join(c for c in both if c in needed)
        value = ev.b.contract(value, other, (left, right, kept))
        left = kept
    left, value = _sum_alone(ev, left, value, set(out))
    return ev.b.transpose(value, tuple(left.index(c) for c in out))


def _labels(subscripts: str, xs: list[Value]) -> tuple[list[str], str]:
    text = subscripts.replace(" ", "")
    inputs, arrow, out = text.partition("->")
    labels = inputs.split(",")

    def wrong(reason: str) -> Refusal:
        return Refusal("E415", reason=reason, help='as in einsum("k,kl->l", v, W)')

    if len(out) > RANK:
        raise Refusal("E423", n=len(out), most=RANK)
    if not arrow:
        raise wrong("the result's letters are missing after ->")
    if not all(c.isascii() and c.isalpha() for c in inputs.replace(",", "") + out):
        raise wrong("subscripts are letters")
    if len(labels) != len(xs):
        raise wrong(f"{len(labels)} subscripts for {len(xs)} operands")
    for label, x in zip(labels, xs, strict=True):
        if len(label) != len(x.type.shape):
            raise wrong(f"{label or 'no letter'} stands for {show(x.type.shape)}")
    for label in (*labels, out):
        if len(set(label)) != len(label):
            raise wrong(f"{label} repeats a letter")
    missing = [c for c in out if c not in inputs]
    if missing:
        raise wrong(f"{missing[0]} is in the result only")
    return labels, out


def _agree(ev: Evaluator, labels: list[str], xs: list[Value]) -> list[Value]:
    """Operands in which a letter always stands for the same size."""
    sizes: dict[str, Size] = {}
    fitted: list[Value] = []
    for label, x in zip(labels, xs, strict=True):
        for c, own in zip(label, x.type.shape, strict=True):
            if not ev.same_size(sizes.setdefault(c, own), own):
                raise Refusal("E415", reason=f"{c} is both {sizes[c]} and {own}")
        shape: Shape = tuple(sizes[c] for c in label)
        fitted.append(ev.fit(x, shape))
    return fitted


def _sum_alone(ev: Evaluator, labels: str, x: Value, needed: set[str]) -> tuple[str, Value]:
    """Sums the letters that nothing else reads."""
    for at in reversed(range(len(labels))):
        if labels[at] not in needed:
            x = ev.b.reduce("sum", x, at)
            labels = labels[:at] + labels[at + 1 :]
    return labels, x
