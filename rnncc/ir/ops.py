"""The op table: for every op its types, its NumPy meaning, its vector expression and its vjp.

To add a pointwise op, add one `OpDef` here. A new *kind* of op also needs a schedule rule.

NumPy meanings work on float64 arrays [B or 1, T or 1, *features] (see `interp`). Vector
expressions are text over `v`, the namespace of SIMD operations, and serve every backend.
A vjp builds ordinary IR with the builder `b`, so a gradient is optimised like anything else and
can be differentiated again. `dy` has the result's type; axes an operand lacks are summed by
`passes.differentiate`, not here (contractions name their own).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncc.ir.program import Op, Type, Value
from rnncc.ir.random import uniform
from rnncc.ir.sizes import Size, product

if TYPE_CHECKING:
    from rnncc.ir.builder import Builder

Attrs = Mapping[str, Any]
Vjp = Callable[["Builder", Op, Value], tuple[Value | None, ...]]


class Kind(Enum):
    LEAF = "leaf"  # no operands: constants, extents
    POINTWISE = "pointwise"  # lane by lane
    CONTRACTION = "contraction"  # sums products over labels, rows or steps
    REDUCTION = "reduction"  # over one feature axis
    LAYOUT = "layout"  # moves elements, computes nothing
    RANDOM = "random"  # drawn from a counter


class IRError(Exception):
    """An op applied to types it doesn't take: a defect of a pass, never of the user's text."""


@dataclass(frozen=True, slots=True)
class OpDef:
    name: str
    kind: Kind
    infer: Callable[..., Type]  # (attrs, *types) -> type
    numpy: Callable[..., np.ndarray]  # pointwise: (*arrays); others: (op, env, *arrays)
    expr: str = ""  # "v.exp({0})"
    vjp: Vjp | None = None  # None: the gradient is zero
    cost: int = 1  # rough cycles a vector, so that residuals know what is cheap to recompute


def union(*axes: str) -> str:
    return "".join(sorted(set("".join(axes))))


def _pointwise(dtype: str) -> Callable[..., Type]:
    def infer(attrs: Attrs, *types: Type) -> Type:
        if len({t.shape for t in types}) != 1:
            raise IRError(f"pointwise operands differ in shape: {', '.join(map(str, types))}")
        return Type(types[0].shape, union(*(t.axes for t in types)), dtype)

    return infer


OPS: dict[str, OpDef] = {}


def _define(opdef: OpDef) -> None:
    OPS[opdef.name] = opdef


def _elementwise(
    name: str,
    numpy: Callable[..., Any],
    expr: str,
    vjp: Callable[..., tuple[Value | None, ...]] | None = None,
    *,
    dtype: str = "float",
    cost: int = 1,
) -> None:
    """A pointwise op whose vjp is written as f(b, dy, y, *xs)."""

    def adapted(b: Builder, op: Op, dy: Value) -> tuple[Value | None, ...]:
        assert vjp is not None
        return vjp(b, dy, op.result, *op.operands)

    _define(
        OpDef(name, Kind.POINTWISE, _pointwise(dtype), numpy, expr, adapted if vjp else None, cost)
    )


def _np_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.where(
        x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))
    )


def _np_erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


# fmt: off
_elementwise("neg", np.negative, "-{0}", lambda b, dy, y, x: (b.neg(dy),))
_elementwise("add", np.add, "{0} + {1}", lambda b, dy, y, x, z: (dy, dy))
_elementwise("sub", np.subtract, "{0} - {1}", lambda b, dy, y, x, z: (dy, b.neg(dy)))
_elementwise("mul", np.multiply, "{0} * {1}", lambda b, dy, y, x, z: (b.mul(dy, z), b.mul(dy, x)))
_elementwise("div", np.divide, "{0} / {1}",
             lambda b, dy, y, x, z: (b.div(dy, z), b.neg(b.mul(b.div(dy, z), y))), cost=8)
_elementwise("pow", np.power, "v.pow({0}, {1})",
             lambda b, dy, y, x, z: (
                 b.mul(dy, b.mul(z, b.pow(x, b.sub(z, 1.0)))),
                 b.mul(dy, b.mul(y, b.log(b.where(b.gt(x, 0.0), x, b.like(1.0, x)))))), cost=100)
_elementwise("lt", np.less, "{0} < {1}", dtype="bool")
_elementwise("le", np.less_equal, "{0} <= {1}", dtype="bool")
_elementwise("gt", np.greater, "{0} > {1}", dtype="bool")
_elementwise("ge", np.greater_equal, "{0} >= {1}", dtype="bool")
_elementwise("eq", np.equal, "{0} == {1}", dtype="bool")
_elementwise("ne", np.not_equal, "{0} != {1}", dtype="bool")
_elementwise("and", np.logical_and, "{0} & {1}", dtype="bool")
_elementwise("or", np.logical_or, "{0} | {1}", dtype="bool")
_elementwise("not", np.logical_not, "~{0}", dtype="bool")
_elementwise("where", np.where, "v.select({0}, {1}, {2})",
             lambda b, dy, y, c, x, z: (
                 None, b.where(c, dy, b.like(0.0, dy)), b.where(c, b.like(0.0, dy), dy)))
_elementwise("abs", np.abs, "v.abs({0})", lambda b, dy, y, x: (b.mul(dy, b.sign(x)),))
_elementwise("sign", np.sign, "v.sign({0})", lambda b, dy, y, x: (None,))
_elementwise("exp", np.exp, "v.exp({0})", lambda b, dy, y, x: (b.mul(dy, y),), cost=20)
_elementwise("log", np.log, "v.log({0})", lambda b, dy, y, x: (b.div(dy, x),), cost=20)
_elementwise("log1p", np.log1p, "v.log1p({0})",
             lambda b, dy, y, x: (b.div(dy, b.add(x, 1.0)),), cost=30)
_elementwise("expm1", np.expm1, "v.expm1({0})",
             lambda b, dy, y, x: (b.mul(dy, b.add(y, 1.0)),), cost=30)
_elementwise("sqrt", np.sqrt, "v.sqrt({0})",
             lambda b, dy, y, x: (b.div(b.mul(dy, 0.5), y),), cost=10)
_elementwise("rsqrt", lambda x: 1 / np.sqrt(x), "v.rsqrt({0})",
             lambda b, dy, y, x: (b.mul(dy, b.mul(-0.5, b.mul(y, b.mul(y, y)))),), cost=18)
_elementwise("tanh", np.tanh, "v.tanh({0})",
             lambda b, dy, y, x: (b.mul(dy, b.sub(1.0, b.mul(y, y))),), cost=20)
_elementwise("sigmoid", _np_sigmoid, "v.sigmoid({0})",
             lambda b, dy, y, x: (b.mul(dy, b.mul(y, b.sub(1.0, y))),), cost=20)
_elementwise("log_sigmoid", lambda x: np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))),
             "v.log_sigmoid({0})",
             lambda b, dy, y, x: (b.mul(dy, b.sigmoid(b.neg(x))),), cost=40)
_elementwise("erf", _np_erf, "v.erf({0})",
             lambda b, dy, y, x: (
                 b.mul(dy, b.mul(2 / math.sqrt(math.pi), b.exp(b.neg(b.mul(x, x))))),), cost=100)
_elementwise("sin", np.sin, "v.sin({0})", lambda b, dy, y, x: (b.mul(dy, b.cos(x)),), cost=100)
_elementwise("cos", np.cos, "v.cos({0})",
             lambda b, dy, y, x: (b.neg(b.mul(dy, b.sin(x))),), cost=100)
_elementwise("maximum", np.maximum, "v.maximum({0}, {1})",
             lambda b, dy, y, x, z: _split_at_ties(b, dy, y, x, z))
_elementwise("minimum", np.minimum, "v.minimum({0}, {1})",
             lambda b, dy, y, x, z: _split_at_ties(b, dy, y, x, z))
_elementwise("stop_gradient", lambda x: x, "{0}", lambda b, dy, y, x: (None,))
# fmt: on


def _split_at_ties(b: Builder, dy: Value, y: Value, x: Value, z: Value) -> tuple[Value, Value]:
    """Where both operands are the extremum each gets half, as JAX and torch define it."""
    half = b.where(b.eq(x, z), b.mul(dy, 0.5), dy)
    nothing = b.like(0.0, half)
    return b.where(b.eq(x, y), half, nothing), b.where(b.eq(z, y), half, nothing)


# ---- leaves --------------------------------------------------------------------------------


def _np_full(op: Op, env: Any) -> np.ndarray:
    shape = [s.evaluate(env.sizes) for s in op.result.type.shape]
    return np.full([1, 1, *shape], op.attrs["value"])


_define(OpDef("full", Kind.LEAF, lambda attrs: attrs["type"], _np_full))


def _np_extent(op: Op, env: Any) -> np.ndarray:
    shape = [s.evaluate(env.sizes) for s in op.attrs["shape"]]
    return np.full([1, 1, *shape], float(op.attrs["size"].evaluate(env.sizes)))


# A size as a number.
_define(OpDef("extent", Kind.LEAF, lambda attrs: Type(attrs["shape"]), _np_extent))


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


def _vjp_contract(b: Builder, op: Op, dy: Value) -> tuple[Value, Value]:
    la, lb, out = op.attrs["labels"]
    x, z = op.operands

    def back(other: Value, other_labels: str, wanted: Value, labels: str) -> Value:
        over = "".join(a for a in union(dy.type.axes, other.type.axes) if a not in wanted.type.axes)
        return b.contract(dy, other, (out, other_labels, labels), over)

    return back(z, lb, x, la), back(x, la, z, lb)


_define(OpDef("contract", Kind.CONTRACTION, _infer_contract, _np_contract, vjp=_vjp_contract))


def _infer_sum_over(attrs: Attrs, x: Type) -> Type:
    return x.with_axes("".join(a for a in x.axes if a not in attrs["over"]))


_define(
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


def _along(b: Builder, op: Op, y: Value) -> Value:
    """A reduced value spread over the axis it was reduced along."""
    axis, shape = op.attrs["axis"], op.operands[0].type.shape
    return b.broadcast(y, shape, tuple(i for i in range(len(shape)) if i != axis))


def _vjp_extremum(b: Builder, op: Op, dy: Value) -> tuple[Value]:
    """The gradient is shared among all elements that attain the extremum (as in JAX)."""
    (x,) = op.operands
    hit = b.where(b.eq(x, _along(b, op, op.result)), b.like(1.0, x), b.like(0.0, x))
    share = b.div(dy, b.reduce("sum", hit, op.attrs["axis"]))
    return (b.mul(hit, _along(b, op, share)),)


for _name, _fn, _rule in (
    ("sum", np.sum, lambda b, op, dy: (_along(b, op, dy),)),
    ("max", np.max, _vjp_extremum),
    ("min", np.min, _vjp_extremum),
):
    _define(
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


_define(
    OpDef(
        "cumsum",
        Kind.REDUCTION,
        lambda attrs, x: x,
        _np_cumsum,
        vjp=lambda b, op, dy: (b.cumsum(dy, op.attrs["axis"], not op.attrs["reverse"]),),
    )
)


# ---- layout --------------------------------------------------------------------------------------


def _infer_reshape(attrs: Attrs, x: Type) -> Type:
    return Type(attrs["shape"], x.axes, x.dtype)


_define(
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


def _vjp_transpose(b: Builder, op: Op, dy: Value) -> tuple[Value]:
    perm = op.attrs["perm"]
    return (b.transpose(dy, tuple(perm.index(i) for i in range(len(perm)))),)


_define(
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


def _vjp_slice(b: Builder, op: Op, dy: Value) -> tuple[Value]:
    axis = op.attrs["axis"]
    return (b.pad(dy, axis, op.attrs["start"], op.operands[0].type.shape[axis]),)


def _vjp_pad(b: Builder, op: Op, dy: Value) -> tuple[Value]:
    axis = op.attrs["axis"]
    return (b.slice(dy, axis, op.attrs["start"], op.operands[0].type.shape[axis]),)


_define(OpDef("slice", Kind.LAYOUT, _infer_slice, _np_slice, vjp=_vjp_slice))
_define(OpDef("pad", Kind.LAYOUT, _infer_slice, _np_pad, vjp=_vjp_pad))


def _np_spread(op: Op, env: Any, x: np.ndarray) -> np.ndarray:
    # Inside a scan a value has no T, so only B is spread there.
    wide = [
        n if a in op.attrs["axes"] else 1 for n, a in zip((env.batch, env.time), "BT", strict=True)
    ]
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, (*wide, *[1] * (x.ndim - 2))))


# The same elements in a buffer of their own; only the schedule's legalisation makes one.
_define(
    OpDef(
        "copy",
        Kind.LAYOUT,
        lambda attrs, x: x,
        lambda op, env, x: x,
        vjp=lambda b, op, dy: (dy,),
    )
)


# The same value for every row or step: the counterpart of sum_over.
_define(
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


def _vjp_concat(b: Builder, op: Op, dy: Value) -> tuple[Value, ...]:
    axis, start, parts = op.attrs["axis"], Size.of(0), []
    for x in op.operands:
        parts.append(b.slice(dy, axis, start, x.type.shape[axis]))
        start = start + x.type.shape[axis]
    return tuple(parts)


_define(OpDef("concat", Kind.LAYOUT, _infer_concat, _np_concat, vjp=_vjp_concat))


def _np_broadcast(op: Op, env: Any, x: np.ndarray) -> np.ndarray:
    shape, dims = op.attrs["shape"], op.attrs["dims"]
    sizes = [s.evaluate(env.sizes) for s in shape]
    spread = [sizes[i] if i in dims else 1 for i in range(len(shape))]
    return np.broadcast_to(x.reshape([*x.shape[:2], *spread]), [*x.shape[:2], *sizes])


def _vjp_broadcast(b: Builder, op: Op, dy: Value) -> tuple[Value]:
    for axis in reversed(range(len(op.attrs["shape"]))):
        if axis not in op.attrs["dims"]:
            dy = b.reduce("sum", dy, axis)
    return (dy,)


# dims[i] is the axis of the result that axis i of the operand becomes (increasing).
_define(
    OpDef(
        "broadcast",
        Kind.LAYOUT,
        lambda attrs, x: Type(attrs["shape"], x.axes, x.dtype),
        _np_broadcast,
        vjp=_vjp_broadcast,
    )
)


# ---- random --------------------------------------------------------------------------------------


def _np_uniform(op: Op, env: Any, seed: np.ndarray) -> np.ndarray:
    shape = [s.evaluate(env.sizes) for s in op.attrs["shape"]]
    rows = env.batch if "B" in op.attrs["axes"] else 1
    steps = env.time if "T" in op.attrs["axes"] else 1
    first = env.step if op.attrs["per"] == "step" else 0
    lanes = int(np.prod(shape, dtype=int))
    drawn = uniform(
        int(seed.ravel()[0]),
        op.attrs["site"],
        np.arange(rows)[:, None, None],
        first + np.arange(steps)[None, :, None],
        np.arange(lanes)[None, None, :],
    )
    return drawn.reshape([rows, steps, *shape])


# Uniform in [0, 1). per="step" inside a scan takes its step from the scan.
_define(
    OpDef(
        "uniform",
        Kind.RANDOM,
        lambda attrs, seed: Type(attrs["shape"], attrs["axes"]),
        _np_uniform,
    )
)


def elements(value: Value) -> Size:
    """Elements of one row of a value."""
    return product(value.type.shape)
