"""The ops that move elements and compute nothing.

Non-Goals: which of them become views (`schedule.legalize`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncc.ir.opdef import Attrs, Emits, Kind, OpDef, define, union
from rnncc.ir.program import Op, Type, Value
from rnncc.ir.sizes import Size


def _infer_reshape(attrs: Attrs, x: Type) -> Type:
    return Type(attrs["shape"], x.axes, x.dtype)


define(
    OpDef(
        "reshape",
        Kind.LAYOUT,
        _infer_reshape,
        lambda op, env, x: x.reshape(
            [*x.shape[:2], *(s.evaluate(env.sizes) for s in op.attrs["shape"])]
        ),
        vjp=lambda b, op, dy: (b.reshape(dy, op.operands[0].type.shape),),
    )
)


def _vjp_transpose(b: Emits, op: Op, dy: Value) -> tuple[Value]:
    perm = op.attrs["perm"]
    return (b.transpose(dy, tuple(perm.index(i) for i in range(len(perm)))),)


define(
    OpDef(
        "transpose",
        Kind.LAYOUT,
        lambda attrs, x: Type(tuple(x.shape[i] for i in attrs["perm"]), x.axes, x.dtype),
        lambda op, env, x: x.transpose([0, 1, *(i + 2 for i in op.attrs["perm"])]),
        vjp=_vjp_transpose,
    )
)


def _infer_slice(attrs: Attrs, x: Type) -> Type:
    axis = attrs["axis"]
    return Type((*x.shape[:axis], attrs["size"], *x.shape[axis + 1 :]), x.axes, x.dtype)


def _np_slice(op: Op, env: Any, x: np.ndarray) -> np.ndarray:
    start = op.attrs["start"].evaluate(env.sizes)
    index = [slice(None)] * x.ndim
    index[op.attrs["axis"] + 2] = slice(start, start + op.attrs["size"].evaluate(env.sizes))
    return x[tuple(index)]


def _np_pad(op: Op, env: Any, x: np.ndarray) -> np.ndarray:
    axis, start = op.attrs["axis"] + 2, op.attrs["start"].evaluate(env.sizes)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (start, op.attrs["size"].evaluate(env.sizes) - start - x.shape[axis])
    return np.pad(x, widths)


def _vjp_slice(b: Emits, op: Op, dy: Value) -> tuple[Value]:
    axis = op.attrs["axis"]
    return (b.pad(dy, axis, op.attrs["start"], op.operands[0].type.shape[axis]),)


def _vjp_pad(b: Emits, op: Op, dy: Value) -> tuple[Value]:
    axis = op.attrs["axis"]
    return (b.slice(dy, axis, op.attrs["start"], op.operands[0].type.shape[axis]),)


define(OpDef("slice", Kind.LAYOUT, _infer_slice, _np_slice, vjp=_vjp_slice))
define(OpDef("pad", Kind.LAYOUT, _infer_slice, _np_pad, vjp=_vjp_pad))


def _every(op: Op, env: Any, length: int) -> tuple[slice | np.ndarray, ...]:
    """The places along an axis that a stepped slice reads, in their order."""
    start, size = op.attrs["start"].evaluate(env.sizes), length
    places = start + op.attrs["step"] * np.arange(size)
    return (*[slice(None)] * (op.attrs["axis"] + 2), places)


def _np_strided_slice(op: Op, env: Any, x: np.ndarray) -> np.ndarray:
    return x[_every(op, env, op.attrs["size"].evaluate(env.sizes))]


def _np_strided_pad(op: Op, env: Any, x: np.ndarray) -> np.ndarray:
    axis = op.attrs["axis"] + 2
    shape = [*x.shape]
    shape[axis] = op.attrs["size"].evaluate(env.sizes)
    y = np.zeros(shape)
    y[_every(op, env, x.shape[axis])] = x
    return y


def _vjp_strided_slice(b: Emits, op: Op, dy: Value) -> tuple[Value]:
    x, step = op.operands[0], op.attrs["step"]
    place = {"axis": op.attrs["axis"], "start": op.attrs["start"], "step": step}
    size = x.type.shape[op.attrs["axis"]]
    if step == -1 and size == op.attrs["size"]:  # all of it the other way round: so back
        return (b.emit("strided_slice", dy, **place, size=size),)
    return (b.emit("strided_pad", dy, **place, size=size),)


def _vjp_strided_pad(b: Emits, op: Op, dy: Value) -> tuple[Value]:
    axis = op.attrs["axis"]
    place = {"axis": axis, "start": op.attrs["start"], "step": op.attrs["step"]}
    return (b.emit("strided_slice", dy, **place, size=op.operands[0].type.shape[axis]),)


# x[start], x[start + step] ... along an axis, `size` of them; a step may be negative. It is a copy:
# a `slice` is a view. And its adjoint: zeros, with x at those places.
define(
    OpDef(
        "strided_slice",
        Kind.LAYOUT,
        _infer_slice,
        _np_strided_slice,
        vjp=_vjp_strided_slice,
    )
)
define(OpDef("strided_pad", Kind.LAYOUT, _infer_slice, _np_strided_pad, vjp=_vjp_strided_pad))


def _np_spread(op: Op, env: Any, x: np.ndarray) -> np.ndarray:
    # Inside a scan a value has no T, so only B is spread there.
    wide = [
        n if a in op.attrs["axes"] else 1 for n, a in zip((env.batch, env.time), "BT", strict=True)
    ]
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, (*wide, *[1] * (x.ndim - 2))))


# The same elements in a buffer of their own; only the schedule's legalisation makes one.
define(
    OpDef(
        "copy",
        Kind.LAYOUT,
        lambda attrs, x: x,
        lambda op, env, x: x,
        vjp=lambda b, op, dy: (dy,),
    )
)


# The same value for every row or step: the counterpart of sum_over.
define(
    OpDef(
        "spread",
        Kind.LAYOUT,
        lambda attrs, x: x.with_axes(union(x.axes, attrs["axes"])),
        _np_spread,
        vjp=lambda b, op, dy: (dy,),
    )
)


def _infer_concat(attrs: Attrs, *xs: Type) -> Type:
    axis = attrs["axis"]
    total = Size.of(0)
    for x in xs:
        total = total + x.shape[axis]
    shape = (*xs[0].shape[:axis], total, *xs[0].shape[axis + 1 :])
    return Type(shape, union(*(x.axes for x in xs)), xs[0].dtype)


def _np_concat(op: Op, env: Any, *xs: np.ndarray) -> np.ndarray:
    lead = np.broadcast_shapes(*(x.shape[:2] for x in xs))
    return np.concatenate(
        [np.broadcast_to(x, (*lead, *x.shape[2:])) for x in xs], axis=op.attrs["axis"] + 2
    )


def _vjp_concat(b: Emits, op: Op, dy: Value) -> tuple[Value, ...]:
    axis, start, parts = op.attrs["axis"], Size.of(0), []
    for x in op.operands:
        parts.append(b.slice(dy, axis, start, x.type.shape[axis]))
        start = start + x.type.shape[axis]
    return tuple(parts)


define(OpDef("concat", Kind.LAYOUT, _infer_concat, _np_concat, vjp=_vjp_concat))


def _np_broadcast(op: Op, env: Any, x: np.ndarray) -> np.ndarray:
    shape, dims = op.attrs["shape"], op.attrs["dims"]
    sizes = [s.evaluate(env.sizes) for s in shape]
    spread = [sizes[i] if i in dims else 1 for i in range(len(shape))]
    return np.broadcast_to(x.reshape([*x.shape[:2], *spread]), [*x.shape[:2], *sizes])


def _vjp_broadcast(b: Emits, op: Op, dy: Value) -> tuple[Value]:
    for axis in reversed(range(len(op.attrs["shape"]))):
        if axis not in op.attrs["dims"]:
            dy = b.reduce("sum", dy, axis)
    return (dy,)


# dims[i] is the axis of the result that axis i of the operand becomes (increasing).
define(
    OpDef(
        "broadcast",
        Kind.LAYOUT,
        lambda attrs, x: Type(attrs["shape"], x.axes, x.dtype),
        _np_broadcast,
        vjp=_vjp_broadcast,
    )
)
