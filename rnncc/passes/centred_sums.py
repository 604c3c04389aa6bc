"""A centred value sums to nothing: a pullback's sums leave it out.

What has had its mean taken away, as a layer norm does, adds up to zero over that axis, and so does
any multiple of it by the row. A gradient through the mean is such a sum, and it needs no other
sum's result then: both are taken in one go, and the rows in between are never made.

    >>> from rnncc.lowering.examples import example
    >>> from rnncc.passes.differentiate import differentiate
    >>> from rnncc.passes.simplify import simplify
    >>> cell = example("h[t] = layer_norm(h[t-1] + x[t] @ W)")
    >>> forward, pullback = differentiate(simplify(cell), ["x"])
    >>> pullback = centred_sums(forward, simplify(pullback))
    >>> [op.operands[0].name for op in pullback.scan.body if op.opcode == "sum"]
    ['d__', '_']

Layer norm (Ba et al. 2016): dz = r * (d - mean(d) - c * r^2 * mean(d * c)), r the row's 1 / std.

Non-Goals: sums of the forward, whose roundings are part of its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rnncc.ir.builder import Builder
from rnncc.ir.program import Op, Program, Scan, Value
from rnncc.ir.rewrite import definitions, filled_with, prune, remap


def centred_sums(forward: Program, pullback: Program) -> Program:
    """The pullback, whose slices of residuals are values of the forward's loop."""
    if forward.scan is None or pullback.scan is None:
        return pullback
    made = definitions(forward.scan.body)
    centred = {v: axis for v in made if (axis := _centred_axis(v, made)) is not None}
    if not centred:
        return pullback
    defs = definitions((*pullback.before, *pullback.scan.body))
    names: dict[Value, Value] = {}
    body: list[Op] = []
    for op in pullback.scan.body:
        op = remap(op, names)
        if op.opcode == "sum":
            b = Builder(op.span, op.result.name)
            total = _without_centred(op, {**defs, **definitions(body)}, centred, b)
            if total is not None:
                body += b.ops
                names[op.result] = total
                continue
        body.append(op)
    if not names:
        return pullback
    scan = pullback.scan
    carries = tuple(replace(c, next=names.get(c.next, c.next)) for c in scan.carries)
    ys = tuple(replace(s, value=names.get(s.value, s.value)) for s in scan.ys)
    return prune(replace(pullback, scan=Scan(carries, scan.xs, tuple(body), ys, scan.reverse)))


def _centred_axis(value: Value, defs: Mapping[Value, Op]) -> int | None:
    """The axis whose mean has been taken from a value."""
    op = defs[value]
    if op.opcode != "sub":
        return None
    whole, spread = op.operands
    mean = defs.get(spread)
    if mean is None or mean.opcode != "broadcast":
        return None
    quotient = defs.get(mean.operands[0])
    if quotient is None or quotient.opcode != "div":
        return None
    total, count = (defs.get(o) for o in quotient.operands)
    if total is None or total.opcode != "sum" or total.operands[0] is not whole:
        return None
    axis: int = total.attrs["axis"]
    others = tuple(i for i in range(len(whole.type.shape)) if i != axis)
    taken = count is not None and filled_with(count.result, defs) == whole.type.shape[axis]
    return axis if taken and mean.attrs["dims"] == others else None


def _without_centred(
    op: Op, defs: Mapping[Value, Op], centred: Mapping[Value, int], b: Builder
) -> Value | None:
    """The sum of the other terms, each by itself; None where none can be left out."""
    axis: int = op.attrs["axis"]
    terms = _terms(op.operands[0], defs)
    left = [(v, minus) for v, minus in terms if not _is_centred(v, axis, defs, centred)]
    if not left or len(left) == len(terms):
        return None
    total: Value | None = None
    for value, minus in left:
        term = b.reduce("sum", value, axis)
        if total is None:
            total = b.neg(term) if minus else term
        else:
            total = b.sub(total, term) if minus else b.add(total, term)
    return total


def _terms(value: Value, defs: Mapping[Value, Op]) -> list[tuple[Value, bool]]:
    """The terms of a value, and whether each is subtracted."""
    terms: list[tuple[Value, bool]] = []
    rest = [(value, False)]
    while rest:
        v, minus = rest.pop()
        op = defs.get(v)
        if op is not None and op.opcode in ("add", "sub"):
            left, right = op.operands
            rest += [(right, minus != (op.opcode == "sub")), (left, minus)]
        elif op is not None and op.opcode == "neg":
            rest.append((op.operands[0], not minus))
        else:
            terms.append((v, minus))
    return terms


def _is_centred(
    value: Value, axis: int, defs: Mapping[Value, Op], centred: Mapping[Value, int]
) -> bool:
    """Whether it is what a row is multiplied by, and that sums to nothing."""
    while centred.get(value) != axis:
        op = defs.get(value)
        if op is None or op.opcode != "mul":
            return False
        left, right = op.operands
        if _is_row(right, axis, defs):
            value = left
        elif _is_row(left, axis, defs):
            value = right
        else:
            return False
    return True


def _is_row(value: Value, axis: int, defs: Mapping[Value, Op]) -> bool:
    """Whether a value is the same all along an axis."""
    op = defs.get(value)
    return op is not None and op.opcode == "broadcast" and axis not in op.attrs["dims"]
