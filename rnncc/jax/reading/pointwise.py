"""Primitives that go element by element.

Non-Goals: shapes (`arrays`); products, sums (`products`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rnncc.jax.reading.primitive_call import PrimitiveCall, kind_of, word
from rnncc.reading.graph import Unreadable
from rnncc.reading.traced import Traced

_SAME = {  # JAX's name: the language's
    "add": "+", "add_any": "+", "sub": "-", "mul": "*", "max": "maximum", "min": "minimum",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "neg": "neg",
    "tanh": "tanh", "logistic": "sigmoid", "exp": "exp", "exp2": "exp2", "log": "log",
    "log1p": "log1p", "expm1": "expm1", "sqrt": "sqrt", "rsqrt": "rsqrt",
    "sign": "sign", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin", "acos": "arccos",
    "atan": "arctan", "sinh": "sinh", "cosh": "cosh", "asinh": "arcsinh", "acosh": "arccosh",
    "atanh": "arctanh", "atan2": "arctan2", "erf": "erf", "erfc": "erfc", "floor": "floor",
    "ceil": "ceil", "pow": "**", "square": "square",
}  # fmt: skip

ELEMENTWISE = frozenset(
    (*_SAME, "abs", "div", "rem", "integer_pow", "select_n", "clamp", "and", "or", "not", "xor",
     "round", "convert_element_type", "copy", "stop_gradient", "is_finite", "cbrt")
)  # fmt: skip


@word(*_SAME)
def _same(s: PrimitiveCall, *operands: Traced) -> Traced:
    return s.recorder.pointwise(_SAME[s.equation.name], *operands)


@word("abs")
def _absolute(s: PrimitiveCall, x: Traced) -> Traced:
    return _without_sign(s, x)


def _without_sign(s: PrimitiveCall, x: Traced) -> Traced:
    """JAX's slope at 0 is 1, the language's abs has 0."""
    r = s.recorder
    if x.kind != "float":
        return r.pointwise("abs", x)
    return r.pointwise("where", r.pointwise("<", x, Traced(0.0)), r.pointwise("neg", x), x)


@word("div")
def _divide(s: PrimitiveCall, a: Traced, b: Traced) -> Traced:
    quotient = s.recorder.pointwise("/", a, b)
    return s.recorder.convert(quotient, "int") if s.kind == "int" else quotient  # toward zero


@word("rem")
def _remainder(s: PrimitiveCall, a: Traced, b: Traced) -> Traced:
    """Of a's sign."""
    r = s.recorder
    rest = r.pointwise("mod", _without_sign(s, a), _without_sign(s, b))
    below = r.pointwise("<", a, Traced(0.0))
    return r.pointwise("where", below, r.pointwise("neg", rest), rest)


@word("integer_pow")
def _power(s: PrimitiveCall, x: Traced) -> Traced:
    r, power = s.recorder, s.params["y"]
    if power == 2:
        return r.pointwise("*", x, x)
    if x.kind != "float":
        found = x
        for _ in range(power - 1):
            found = r.pointwise("*", found, x)
        return found
    return r.pointwise("**", x, Traced(power))


@word("cbrt")
def _cube_root(s: PrimitiveCall, x: Traced) -> Traced:
    r = s.recorder
    root = r.pointwise("**", r.pointwise("abs", x), Traced(1 / 3))
    return r.pointwise("*", r.pointwise("sign", x), root)


@word("round")
def _round(s: PrimitiveCall, x: Traced) -> Traced:
    method = str(s.params["rounding_method"])
    if "EVEN" not in method and method != "1":
        raise Unreadable("rounds halves away from zero: take jnp.round, which rounds them to even")
    return s.recorder.pointwise("round", x)


@word("is_finite")
def _is_finite(s: PrimitiveCall, x: Traced) -> Traced:
    return s.recorder.pointwise("<", s.recorder.pointwise("abs", x), Traced(math.inf))


@word("and", "or", "not", "xor")
def _logic(s: PrimitiveCall, *operands: Traced) -> Traced:
    name, r = s.equation.name, s.recorder
    if s.kind != "bool":
        raise Unreadable("works on bits of whole numbers")
    if name == "xor":
        a, b = (r.convert(o, "int") for o in operands)
        return r.pointwise("!=", a, b)
    return r.pointwise(name, *operands)


@word("select_n")
def _select(s: PrimitiveCall, which: Traced, *cases: Traced) -> Traced:
    r = s.recorder
    if which.kind == "bool":
        return r.pointwise("where", which, cases[1], cases[0])
    found = cases[-1]
    for i, case in reversed([*enumerate(cases[:-1])]):
        found = r.pointwise("where", r.pointwise("<=", which, Traced(i)), case, found)
    return found


@word("clamp")
def _clamp(s: PrimitiveCall, low: Traced, x: Traced, high: Traced) -> Traced:
    """Its slope at the bounds is 0."""
    r = s.recorder
    below = r.pointwise("where", r.pointwise("<", x, high), x, high)
    return r.pointwise("where", r.pointwise(">", x, low), below, low)


@word("convert_element_type")
def _convert(s: PrimitiveCall, x: Traced) -> Traced:
    before, after = s.read[0].dtype, s.arrays[0].dtype
    kind = kind_of(after)
    if kind == "float" and before.kind == "f" and before != after and s.known[0] is None:
        raise Unreadable(
            f"makes {after} of {before}: a step counts in one kind of floats; convert what goes in"
        )
    return s.recorder.convert(x, kind)


@word("copy", "copy_p", "optimization_barrier", "sharding_constraint", "reduce_precision", "name")
def _itself(s: PrimitiveCall, *operands: Traced) -> list[Traced]:
    if s.equation.name == "reduce_precision":
        raise Unreadable("rounds numbers to fewer bits")
    return [*operands]


@word("stop_gradient")
def _stop(s: PrimitiveCall, x: Traced) -> Traced:
    return s.recorder.stop_gradient(x) if isinstance(s.known[0], type(None)) else x


@word("zeros_like", "full_like")
def _zeros(s: PrimitiveCall, *_: Any) -> Traced:
    return s.recorder.broadcast(Traced(0.0), s.shape)


def folded(name: str, params: dict[str, Any], values: list[np.ndarray]) -> np.ndarray | None:
    """Whole numbers and conditions that depend on nothing: what loops' counters and comparisons of
    constants come to. None where that isn't known."""
    computed = _FOLDED.get(name)
    if computed is None or any(v.dtype.kind not in "biu" for v in values):
        return None
    return np.asarray(computed(params, *values))


def _broadcast(params: dict[str, Any], a: np.ndarray) -> np.ndarray:
    lengths = [1] * len(params["shape"])
    for axis, place in enumerate(params["broadcast_dimensions"]):
        lengths[place] = a.shape[axis]
    return np.broadcast_to(a.reshape(lengths), params["shape"])


_FOLDED: dict[str, Any] = {
    "add": lambda _, a, b: a + b,
    "sub": lambda _, a, b: a - b,
    "mul": lambda _, a, b: a * b,
    "max": lambda _, a, b: np.maximum(a, b),
    "min": lambda _, a, b: np.minimum(a, b),
    "neg": lambda _, a: -a,
    "eq": lambda _, a, b: a == b,
    "ne": lambda _, a, b: a != b,
    "lt": lambda _, a, b: a < b,
    "le": lambda _, a, b: a <= b,
    "gt": lambda _, a, b: a > b,
    "ge": lambda _, a, b: a >= b,
    "and": lambda _, a, b: a & b,
    "or": lambda _, a, b: a | b,
    "not": lambda _, a: ~a,
    "select_n": lambda _, c, *cases: np.choose(c.astype(int), cases),
    "broadcast_in_dim": lambda p, a: _broadcast(p, a),
    "squeeze": lambda p, a: np.squeeze(a, p["dimensions"]),
    "convert_element_type": lambda p, a: a.astype(p["new_dtype"]),
    "take_row": lambda p, a: a[p["index"] : p["index"] + 1],
    "stop_gradient": lambda _, a: a,
    "copy": lambda _, a: a,
}
