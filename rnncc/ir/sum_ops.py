"""The ops that add: contractions over labels, rows and steps; reductions over a feature axis.

Non-Goals: how a contraction is placed (`schedule`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncc.ir.opdef import Attrs, Emits, IRError, Kind, OpDef, define, union
from rnncc.ir.program import Op, Type, Value
from rnncc.ir.sizes import Size


def _check_over(over: str, axes: str) -> None:
    """What is the same in every row would be counted once."""
    if not set(over) <= set(axes):
        raise IRError(f"a sum over {over} of what varies over {axes or 'nothing'}")


# ---- contraction -----------------------------------------------------------------------------


def _infer_contract(attrs: Attrs, a: Type, b: Type) -> Type:
    la, lb, out = attrs["labels"]
    if len(la) != len(a.shape) or len(lb) != len(b.shape):
        raise IRError(f"contract {attrs['labels']} does not fit {a} and {b}")
    sizes: dict[str, Size] = {}
    for label, size in [*zip(la, a.shape, strict=True), *zip(lb, b.shape, strict=True)]:
        if sizes.setdefault(label, size) != size:
            raise IRError(f"contract: {label} is {sizes[label]} and {size}")
    if len({*la}) != len(la) or len({*lb}) != len(lb) or not {*out} <= {*la, *lb}:
        raise IRError(f"contract {attrs['labels']}: a repeated or unknown label")
    if ({*la} - {*lb} - {*out}) or ({*lb} - {*la} - {*out}):
        raise IRError(f"contract {attrs['labels']}: a label summed in one operand only")
    _check_over(attrs["over"], union(a.axes, b.axes))
    axes = "".join(x for x in union(a.axes, b.axes) if x not in attrs["over"])
    return Type(tuple(sizes[x] for x in out), axes)


def _np_contract(op: Op, env: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    la, lb, out = op.attrs["labels"]
    over = op.attrs["over"]
    ta, tb = (v.type.axes for v in op.operands)
    # Axes a value lacks have length 1 here; einsum must see them only where they are real.
    a = a.reshape([n for n, x in zip(a.shape[:2], "BT", strict=True) if x in ta] + [*a.shape[2:]])
    b = b.reshape([n for n, x in zip(b.shape[:2], "BT", strict=True) if x in tb] + [*b.shape[2:]])
    kept = "".join(x for x in union(ta, tb) if x not in over)
    y = np.einsum(f"{ta}{la},{tb}{lb}->{kept}{out}", a, b, optimize=True)
    lead = iter(y.shape)
    return y.reshape([next(lead) if x in kept else 1 for x in "BT"] + [*y.shape[len(kept) :]])


def _vjp_contract(b: Emits, op: Op, dy: Value) -> tuple[Value, Value]:
    la, lb, out = op.attrs["labels"]
    x, z = op.operands

    def back(other: Value, other_labels: str, wanted: Value, labels: str) -> Value:
        over = "".join(a for a in union(dy.type.axes, other.type.axes) if a not in wanted.type.axes)
        dx = b.contract(dy, other, (out, other_labels, labels), over)
        # Of what is summed over rows that the other operand doesn't have, each row gets the same.
        lost = "".join(
            a for a in op.attrs["over"] if a in wanted.type.axes and a not in dx.type.axes
        )
        return b.emit("spread", dx, axes=lost) if lost else dx

    return back(z, lb, x, la), back(x, la, z, lb)


define(OpDef("contract", Kind.CONTRACTION, _infer_contract, _np_contract, vjp=_vjp_contract))


def _infer_sum_over(attrs: Attrs, x: Type) -> Type:
    _check_over(attrs["over"], x.axes)
    return x.with_axes("".join(a for a in x.axes if a not in attrs["over"]))


define(
    OpDef(
        "sum_over",
        Kind.CONTRACTION,
        _infer_sum_over,
        lambda op, env, x: x.sum(
            axis=tuple("BT".index(a) for a in op.attrs["over"]), keepdims=True
        ),
        vjp=lambda b, op, dy: (b.emit("spread", dy, axes=op.attrs["over"]),),
    )
)


# ---- reductions over one feature axis ----------------------------------------------------------


def _infer_reduce(attrs: Attrs, x: Type) -> Type:
    axis = attrs["axis"]
    return Type(x.shape[:axis] + x.shape[axis + 1 :], x.axes)


def _along(b: Emits, op: Op, y: Value) -> Value:
    """A reduced value spread over the axis it was reduced along."""
    axis, shape = op.attrs["axis"], op.operands[0].type.shape
    return b.broadcast(y, shape, tuple(i for i in range(len(shape)) if i != axis))


def _vjp_extremum(b: Emits, op: Op, dy: Value) -> tuple[Value]:
    """The gradient is shared among all elements that attain the extremum (as in JAX)."""
    (x,) = op.operands
    hit = b.where(b.eq(x, _along(b, op, op.result)), b.like(1.0, x), b.like(0.0, x))
    share = b.div(dy, b.reduce("sum", hit, op.attrs["axis"]))
    return (b.mul(hit, _along(b, op, share)),)


def _vjp_prod(b: Emits, op: Op, dy: Value) -> tuple[Value]:
    """Of each element the product of all others, made anew: of n elements n * n factors, but right
    where some are 0, and so are derivatives of any order."""
    (x,) = op.operands
    axis, shape = op.attrs["axis"], op.operands[0].type.shape
    n = shape[axis]
    place = b.cumsum(b.full(1.0, (n,)), 0)
    square = (*shape[: axis + 1], n, *shape[axis + 1 :])  # [.., which, of what, ..]
    which, of_what = (b.broadcast(place, square, (i,)) for i in (axis, axis + 1))
    kept = tuple(i for i in range(len(square)) if i != axis)
    others = b.where(b.eq(which, of_what), 1.0, b.broadcast(x, square, kept))
    rest = b.reduce("prod", others, axis + 1)
    return (b.mul(_along(b, op, dy), rest),)


for _name, _fn, _rule in (
    ("sum", np.sum, lambda b, op, dy: (_along(b, op, dy),)),
    ("max", np.max, _vjp_extremum),
    ("min", np.min, _vjp_extremum),
    ("prod", np.prod, _vjp_prod),
):
    define(
        OpDef(
            _name,
            Kind.REDUCTION,
            _infer_reduce,
            lambda op, env, x, fn=_fn: fn(x, axis=op.attrs["axis"] + 2),
            vjp=_rule,
        )
    )


def _np_cumsum(op: Op, env: Any, x: np.ndarray) -> np.ndarray:
    axis = op.attrs["axis"] + 2
    if op.attrs["reverse"]:
        return np.flip(np.cumsum(np.flip(x, axis), axis), axis)
    return np.cumsum(x, axis)


define(
    OpDef(
        "cumsum",
        Kind.REDUCTION,
        lambda attrs, x: x,
        _np_cumsum,
        vjp=lambda b, op, dy: (b.cumsum(dy, op.attrs["axis"], not op.attrs["reverse"]),),
    )
)
