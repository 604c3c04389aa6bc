"""The op table: for every op its types, its NumPy meaning, its vector expression and its vjp.

To add a pointwise op, add one `OpDef` here. A new *kind* of op also needs a schedule rule.
Contractions and reductions are in `sum_ops`, moves of elements in `layout_ops`.

NumPy meanings work on float64 arrays [B or 1, T or 1, *features] (see `interp`). Vector
expressions are text over `v`, the namespace of SIMD operations, and serve every backend.
A vjp builds ordinary IR with the builder `b`, so a gradient is optimised like anything else and
can be differentiated again. `dy` has the result's type; axes an operand lacks are summed by
`passes.differentiate`, not here (contractions name their own).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from rnncc.ir import layout_ops, sum_ops  # noqa: F401  enter their ops in the table
from rnncc.ir.opdef import OPS, Emits, IRError, Kind, OpDef, define, union
from rnncc.ir.program import Op, Type, Value
from rnncc.ir.random import uniform

__all__ = ["OPS", "IRError", "Kind", "OpDef"]


def _pointwise(dtype: str) -> Callable[..., Type]:
    @lru_cache(maxsize=256)  # a program has few types, and verify asks for them again and again
    def typed(*types: Type) -> Type:
        if len({t.shape for t in types}) != 1:
            raise IRError(f"pointwise operands differ in shape: {', '.join(map(str, types))}")
        axes = {t.axes for t in types}
        over = axes.pop() if len(axes) == 1 else union(*axes)
        return Type(types[0].shape, over, dtype)

    def infer(attrs: Any, first: Type, *rest: Type) -> Type:
        # Almost always one type throughout, and then the very one: nothing to be hashed.
        if first.dtype != dtype:
            return typed(first, *rest)
        for other in rest:
            if other is not first:
                return typed(first, *rest)
        return first

    return infer


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

    def adapted(b: Emits, op: Op, dy: Value) -> tuple[Value | None, ...]:
        assert vjp is not None
        return vjp(b, dy, op.result, *op.operands)

    define(
        OpDef(name, Kind.POINTWISE, _pointwise(dtype), numpy, expr, adapted if vjp else None, cost)
    )


def _np_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.where(
        x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))
    )


def _np_erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _np_erfc(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erfc, otypes=[np.float64])(x)


# fmt: off
_elementwise("neg", np.negative, "-{0}", lambda b, dy, y, x: (b.neg(dy),))
_elementwise("add", np.add, "{0} + {1}", lambda b, dy, y, x, z: (dy, dy))
_elementwise("sub", np.subtract, "{0} - {1}", lambda b, dy, y, x, z: (dy, b.neg(dy)))
_elementwise("mul", np.multiply, "{0} * {1}", lambda b, dy, y, x, z: (b.mul(dy, z), b.mul(dy, x)))
_elementwise("div", np.divide, "{0} / {1}",
             lambda b, dy, y, x, z: (b.div(dy, z), b.neg(b.mul(b.div(dy, z), y))), cost=8)
_elementwise("pow", np.power, "v.pow({0}, {1})",
             lambda b, dy, y, x, z: _power_slopes(b, dy, y, x, z), cost=100)
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
_elementwise("hard_sigmoid", lambda x: np.clip(x + 3.0, 0.0, 6.0) / 6.0,
             "v.minimum(v.maximum({0} + 3.0, 0.0), 6.0) / 6.0",
             lambda b, dy, y, x: (
                 b.where(b.and_(b.gt(y, 0.0), b.lt(y, 1.0)), b.div(dy, 6.0), b.like(0.0, dy)),),
             cost=10)
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
# The first, as if it changed with the second by the third: what `differentiate` sees is the
# slope. It stays where it is until nothing is differentiated any more (`passes.settle`).
_elementwise("surrogate", lambda v, x, slope: np.broadcast_arrays(v, x, slope)[0], "{0}",
             lambda b, dy, y, v, x, slope: (None, b.mul(dy, slope), None))
_elementwise("exp2", np.exp2, "v.exp2({0})",
             lambda b, dy, y, x: (b.mul(dy, b.mul(math.log(2), y)),), cost=20)
_elementwise("log2", np.log2, "v.log2({0})",
             lambda b, dy, y, x: (b.div(dy, b.mul(math.log(2), x)),), cost=20)
_elementwise("log10", np.log10, "v.log10({0})",
             lambda b, dy, y, x: (b.div(dy, b.mul(math.log(10), x)),), cost=20)
_elementwise("erfc", _np_erfc, "v.erfc({0})",
             lambda b, dy, y, x: (
                 b.mul(dy, b.mul(-2 / math.sqrt(math.pi), b.exp(b.neg(b.mul(x, x))))),), cost=100)
_elementwise("tan", np.tan, "v.tan({0})",
             lambda b, dy, y, x: (b.mul(dy, b.add(b.mul(y, y), 1.0)),), cost=30)
_elementwise("sinh", np.sinh, "v.sinh({0})", lambda b, dy, y, x: (b.mul(dy, b.cosh(x)),), cost=50)
_elementwise("cosh", np.cosh, "v.cosh({0})", lambda b, dy, y, x: (b.mul(dy, b.sinh(x)),), cost=50)
_elementwise("arcsin", np.arcsin, "v.arcsin({0})",
             lambda b, dy, y, x: (b.mul(dy, b.rsqrt(_to_one(b, x))),), cost=30)
_elementwise("arccos", np.arccos, "v.arccos({0})",
             lambda b, dy, y, x: (b.neg(b.mul(dy, b.rsqrt(_to_one(b, x)))),), cost=30)
_elementwise("arctan", np.arctan, "v.arctan({0})",
             lambda b, dy, y, x: (b.div(dy, b.add(b.mul(x, x), 1.0)),), cost=30)
_elementwise("arctan2", np.arctan2, "v.arctan2({0}, {1})",
             lambda b, dy, y, x, z: _angle_slopes(b, dy, x, z), cost=40)
_elementwise("arcsinh", np.arcsinh, "v.arcsinh({0})",
             lambda b, dy, y, x: (b.mul(dy, b.rsqrt(b.add(b.mul(x, x), 1.0))),), cost=80)
_elementwise("arccosh", np.arccosh, "v.arccosh({0})",
             lambda b, dy, y, x: (
                 b.mul(dy, b.rsqrt(b.mul(b.sub(x, 1.0), b.add(x, 1.0)))),), cost=80)
_elementwise("arctanh", np.arctanh, "v.arctanh({0})",
             lambda b, dy, y, x: (b.div(dy, _to_one(b, x)),), cost=50)
# What goes in steps has no slope but 0; `round` is to even.
_elementwise("floor", np.floor, "v.floor({0})")
_elementwise("ceil", np.ceil, "v.ceil({0})")
_elementwise("round", np.round, "v.round({0})")
_elementwise("trunc", np.trunc, "v.trunc({0})")
_elementwise("floor_divide", np.floor_divide, "v.floor_divide({0}, {1})", cost=15)
_elementwise("mod", np.mod, "v.mod({0}, {1})",
             lambda b, dy, y, x, z: (dy, b.neg(b.mul(dy, b.floor_divide(x, z)))), cost=15)
# fmt: on


def _to_one(b: Emits, x: Value) -> Value:
    """1 - x ** 2, true near -1 and 1."""
    product: Value = b.mul(b.sub(1.0, x), b.add(x, 1.0))
    return product


def _angle_slopes(b: Emits, dy: Value, y: Value, x: Value) -> tuple[Value, Value]:
    """Of the angle of (x, y); 0 at the origin, where there is none."""
    square = b.add(b.mul(x, x), b.mul(y, y))
    at_origin = b.eq(square, 0.0)
    share = b.div(b.where(at_origin, 0.0, dy), b.where(at_origin, 1.0, square))
    return b.mul(share, x), b.neg(b.mul(share, y))


def _power_slopes(b: Emits, dy: Value, y: Value, x: Value, z: Value) -> tuple[Value, Value]:
    """Of x ** z: z x ** (z - 1), 0 where z is 0, whatever x is; and y log(x), which is -inf at
    0 ** z of negative z, 0 at other powers of 0, and 0 for negative x, where z has no slope."""
    one, zero = b.like(1.0, x), b.like(0.0, x)
    slope = b.mul(z, b.pow(x, b.sub(z, 1.0)))
    base = b.where(b.gt(x, 0.0), x, b.where(b.and_(b.eq(x, 0.0), b.lt(z, 0.0)), zero, one))
    flat = b.eq(z, 0.0)
    return b.mul(dy, b.where(flat, b.like(0.0, slope), slope)), b.mul(dy, b.mul(y, b.log(base)))


def _split_at_ties(b: Emits, dy: Value, y: Value, x: Value, z: Value) -> tuple[Value, Value]:
    """Where both operands are the extremum each gets half, as JAX and torch define it."""
    half = b.where(b.eq(x, z), b.mul(dy, 0.5), dy)
    nothing = b.like(0.0, half)
    return b.where(b.eq(x, y), half, nothing), b.where(b.eq(z, y), half, nothing)


# ---- leaves --------------------------------------------------------------------------------


def _np_full(op: Op, env: Any) -> np.ndarray:
    shape = [s.evaluate(env.sizes) for s in op.result.type.shape]
    return np.full([1, 1, *shape], op.attrs["value"])


define(OpDef("full", Kind.LEAF, lambda attrs: attrs["type"], _np_full))


def _np_extent(op: Op, env: Any) -> np.ndarray:
    shape = [s.evaluate(env.sizes) for s in op.attrs["shape"]]
    return np.full([1, 1, *shape], float(op.attrs["size"].evaluate(env.sizes)))


# A size as a number.
define(OpDef("extent", Kind.LEAF, lambda attrs: Type(attrs["shape"]), _np_extent))


# ---- random --------------------------------------------------------------------------------------


def _np_uniform(op: Op, env: Any, seed: np.ndarray) -> np.ndarray:
    shape = [s.evaluate(env.sizes) for s in op.attrs["shape"]]
    rows = env.batch if "B" in op.attrs["axes"] else 1
    steps = env.time if "T" in op.attrs["axes"] else 1
    ahead = op.attrs.get("ahead", 0)
    first = env.first_step + env.step + ahead if op.attrs["per"] == "step" else 0
    lanes = int(np.prod(shape, dtype=int))
    drawn = uniform(
        int(seed.ravel()[0]),
        op.attrs["site"],
        np.arange(rows)[:, None, None],
        first + np.arange(steps)[None, :, None],
        np.arange(lanes)[None, None, :],
    )
    return drawn.reshape([rows, steps, *shape])


# Uniform in [0, 1). per="step" inside a scan takes its step from the scan; `ahead`: so many later.
define(
    OpDef(
        "uniform",
        Kind.RANDOM,
        lambda attrs, seed: Type(attrs["shape"], attrs["axes"]),
        _np_uniform,
    )
)
