"""Words for what is done element by element.

Non-Goals: sums, axes (`along`); shapes (`layouts`).
"""

from __future__ import annotations

from typing import Any

from rnncc.reading.graph import Unreadable
from rnncc.reading.traced import Traced
from rnncc.torch.reading.words import Reads, in_dtype, value_of, word

_SAME = (
    "tanh sigmoid relu exp log log1p expm1 sqrt rsqrt abs sign sin cos erf mish floor ceil trunc "
    "log2 log10 exp2 tan sinh cosh erfc silu neg"
)
_ALIKE = {  # torch's name -> the language's
    **{name: name for name in _SAME.split()},
    "sgn": "sign",
    "hardsigmoid": "hard_sigmoid",
    "hardswish": "hard_silu",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "asinh": "arcsinh",
    "acosh": "arccosh",
    "atanh": "arctanh",
}
_TWO = {
    "maximum": "maximum",
    "minimum": "minimum",
    "gt": ">",
    "ge": ">=",
    "lt": "<",
    "le": "<=",
    "eq": "==",
    "ne": "!=",
    "logical_and": "and",
    "logical_or": "or",
    "atan2": "arctan2",
    "remainder": "mod",
    "mul": "*",
}


def _register() -> None:
    for name, own in _ALIKE.items():
        word(name)(lambda reads, x, own=own: reads.r.pointwise(own, value_of(x)))
    for name, own in _TWO.items():
        word(name)(lambda reads, a, b, own=own: reads.r.pointwise(own, value_of(a), value_of(b)))


_register()


# ---- arithmetic ----


@word("add")
def add(reads: Reads, a: Any, b: Any, alpha: Any = 1) -> Traced:
    return reads.r.pointwise("+", value_of(a), _times(reads, value_of(b), alpha))


@word("sub")
def _sub(reads: Reads, a: Any, b: Any, alpha: Any = 1) -> Traced:
    return reads.r.pointwise("-", value_of(a), _times(reads, value_of(b), alpha))


@word("rsub")
def _rsub(reads: Reads, a: Any, b: Any, alpha: Any = 1) -> Traced:
    return _sub(reads, b, a, alpha)


def _times(reads: Reads, x: Traced, factor: Any) -> Traced:
    return x if factor == 1 else reads.r.pointwise("*", x, value_of(factor))


@word("div")
def _div(reads: Reads, a: Any, b: Any, rounding_mode: str | None = None) -> Traced:
    quotient = reads.r.pointwise("/", value_of(a), value_of(b))
    return reads.r.pointwise(rounding_mode, quotient) if rounding_mode else quotient


@word("floor_divide")
def _floor_divide(reads: Reads, a: Any, b: Any) -> Traced:
    return _div(reads, a, b, "floor")


@word("fmod")
def _fmod(reads: Reads, a: Any, b: Any) -> Traced:
    r, (a, b) = reads.r, (value_of(a), value_of(b))
    turns = r.pointwise("trunc", r.pointwise("/", a, b))
    return r.pointwise("-", a, r.pointwise("*", r.stop_gradient(turns), b))


@word("frac")
def _frac(reads: Reads, x: Traced) -> Traced:
    return reads.r.pointwise("-", x, reads.r.pointwise("trunc", x))


@word("reciprocal")
def _reciprocal(reads: Reads, x: Traced) -> Traced:
    return reads.r.pointwise("/", Traced(1.0), x)


@word("square")
def _square(reads: Reads, x: Traced) -> Traced:
    return reads.r.pointwise("square", x)


@word("pow")
def _pow(reads: Reads, x: Any, exponent: Any) -> Traced:
    x, known = value_of(x), exponent if isinstance(exponent, int | float) else None
    if known == 2:
        return reads.r.pointwise("square", x)
    if known == 1:
        return x
    return reads.r.pointwise("**", x, value_of(exponent))


@word("lerp")
def _lerp(reads: Reads, a: Traced, b: Traced, weight: Any) -> Traced:
    r = reads.r
    return r.pointwise("+", a, r.pointwise("*", value_of(weight), r.pointwise("-", b, a)))


@word("addcmul")
def _addcmul(reads: Reads, x: Traced, a: Traced, b: Traced, value: Any = 1) -> Traced:
    return add(reads, x, reads.r.pointwise("*", a, b), value)


@word("addcdiv")
def _addcdiv(reads: Reads, x: Traced, a: Traced, b: Traced, value: Any = 1) -> Traced:
    return add(reads, x, reads.r.pointwise("/", a, b), value)


@word("fmax")
def _fmax(reads: Reads, a: Any, b: Any) -> Traced:
    """Of two that are alike, the first has the gradient; a NaN is the smaller."""
    return _chosen(reads, ">", value_of(a), value_of(b))


@word("fmin")
def _fmin(reads: Reads, a: Any, b: Any) -> Traced:
    return _chosen(reads, "<", value_of(a), value_of(b))


def _chosen(reads: Reads, sign: str, a: Traced, b: Traced) -> Traced:
    r = reads.r
    second = r.pointwise("or", r.pointwise(sign, b, a), r.pointwise("!=", a, a))
    return r.pointwise("where", second, b, a)


@word("round")
def _round(reads: Reads, x: Traced, decimals: int = 0) -> Traced:
    if decimals:
        raise Unreadable("rounds to decimals")
    return reads.r.pointwise("round", x)


@word("logaddexp")
def _logaddexp(reads: Reads, a: Traced, b: Traced) -> Traced:
    r = reads.r
    apart = r.pointwise("abs", r.pointwise("-", a, b))
    rest = r.pointwise("log1p", r.pointwise("exp", r.pointwise("neg", apart)))
    return r.pointwise("+", r.pointwise("maximum", a, b), rest)


# ---- activations ----


@word("softplus")
def _softplus(reads: Reads, x: Traced, beta: Any = 1, threshold: Any = 20) -> Traced:
    """A line above the threshold, which by then it is to 2e-9."""
    if threshold < 20:
        raise Unreadable(f"is linear from {threshold} on")
    if beta == 1:
        return reads.r.pointwise("softplus", x)
    scaled = reads.r.pointwise("softplus", reads.r.pointwise("*", x, value_of(beta)))
    return reads.r.pointwise("/", scaled, value_of(beta))


@word("elu")
def _elu(reads: Reads, x: Traced, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Traced:
    r = reads.r
    if input_scale == 1:
        y = r.pointwise("elu", x, **({} if alpha == 1 else {"alpha": float(alpha)}))
    elif scale == 1 and abs(alpha * input_scale - 1) < 1e-12:
        y = r.pointwise("celu", x, alpha=float(alpha))
    else:
        raise Unreadable(f"scales by {scale} and {input_scale}")
    return _times(reads, y, scale)


@word("celu")
def _celu(reads: Reads, x: Traced, alpha: Any = 1) -> Traced:
    return reads.r.pointwise("celu", x, alpha=float(alpha))


@word("hypot")
def _hypot(reads: Reads, a: Traced, b: Traced) -> Traced:
    r = reads.r
    squares = (r.pointwise("square", v) for v in (a, b))
    return root_of(reads, r.pointwise("+", *squares))


def root_of(reads: Reads, squares: Traced) -> Traced:
    """Of sums of squares. The slope at zeros is 0, as torch's; a root's own is infinite."""
    r = reads.r
    any_at_all = r.pointwise(">", squares, Traced(0.0))
    root = r.pointwise("sqrt", r.pointwise("where", any_at_all, squares, Traced(1.0)))
    return r.pointwise("where", any_at_all, root, Traced(0.0))


@word("leaky_relu")
def _leaky_relu(reads: Reads, x: Traced, negative_slope: Any = 0.01) -> Traced:
    return reads.r.pointwise("leaky_relu", x, negative_slope=float(negative_slope))


@word("_prelu_kernel")
def _prelu(reads: Reads, x: Traced, slope: Traced) -> Traced:
    r = reads.r
    above = r.pointwise(">", x, Traced(0.0))
    return r.pointwise("where", above, x, r.pointwise("*", slope, x))


@word("gelu")
def _gelu(reads: Reads, x: Traced, approximate: str = "none") -> Traced:
    return reads.r.pointwise("gelu", x, approximate=approximate == "tanh")


@word("hardtanh")
def _hardtanh(reads: Reads, x: Traced, low: Any = -1, high: Any = 1) -> Traced:
    """Other than a clip's, its slope at the bounds is 0."""
    r, low, high = reads.r, value_of(low), value_of(high)
    below = r.pointwise("where", r.pointwise("<", x, high), x, high)
    return r.pointwise("where", r.pointwise(">", x, low), below, low)


@word("hardshrink")
def _hardshrink(reads: Reads, x: Traced, threshold: Any = 0.5) -> Traced:
    return reads.r.pointwise("hard_shrink", x, threshold=float(threshold))


@word("softshrink")
def _softshrink(reads: Reads, x: Traced, threshold: Any = 0.5) -> Traced:
    return reads.r.pointwise("soft_shrink", x, threshold=float(threshold))


@word("threshold")
def _threshold(reads: Reads, x: Traced, threshold: Any, value: Any) -> Traced:
    return reads.r.pointwise("threshold", x, value_of(threshold), value_of(value))


@word("log_sigmoid_forward")
def _log_sigmoid(reads: Reads, x: Traced) -> list[Any]:
    return [reads.r.pointwise("log_sigmoid", x), None]


# ---- conditions and choices ----


@word("clamp")
def _clamp(reads: Reads, x: Traced, low: Any = None, high: Any = None, **named: Any) -> Traced:
    """Other than a clip's, its slope at the bounds is 1."""
    r = reads.r
    low, high = named.get("min", low), named.get("max", high)
    if low is not None:
        low = value_of(low)
        x = r.pointwise("where", r.pointwise("<", x, low), low, x)
    if high is not None:
        high = value_of(high)
        x = r.pointwise("where", r.pointwise(">", x, high), high, x)
    return x


@word("clamp_min")
def _clamp_min(reads: Reads, x: Traced, low: Any) -> Traced:
    return _clamp(reads, x, low)


@word("clamp_max")
def _clamp_max(reads: Reads, x: Traced, high: Any) -> Traced:
    return _clamp(reads, x, None, high)


@word("where.self", "where.ScalarSelf", "where.ScalarOther", "where.Scalar")
def _where(reads: Reads, condition: Traced, a: Any, b: Any) -> Traced:
    return reads.r.pointwise("where", condition, value_of(a), value_of(b))


@word("masked_fill")
def _masked_fill(reads: Reads, x: Traced, mask: Traced, value: Any) -> Traced:
    return reads.r.pointwise("where", mask, value_of(value), x)


@word("index_put")
def _index_put(
    reads: Reads, x: Traced, indices: Any, values: Traced, accumulate: bool = False
) -> Traced:
    """x[mask] = number."""
    mask = indices[0] if len(indices) == 1 else None
    if mask is None or mask.kind != "bool" or mask.shape != x.shape or values.shape or accumulate:
        raise Unreadable("writes at places: choose with torch.where")
    return reads.r.pointwise("where", mask, values, x)


@word("logical_not")
def _logical_not(reads: Reads, x: Traced) -> Traced:
    return reads.r.pointwise("not", x)


def _differ(reads: Reads, a: Traced, b: Traced) -> Traced:
    return reads.r.pointwise("!=", reads.r.convert(a, "bool"), reads.r.convert(b, "bool"))


word("logical_xor")(_differ)


def _of_conditions(name: str, own: str) -> None:
    def bitwise(reads: Reads, *operands: Any) -> Traced:
        values = [value_of(o) for o in operands]
        if any(v.kind != "bool" for v in values):
            raise Unreadable("works on bits of numbers")
        return reads.r.pointwise(own, *values)

    word(name)(bitwise)


for _name, _own in (("and", "and"), ("or", "or"), ("not", "not"), ("xor", "!=")):
    _of_conditions(f"bitwise_{_name}", _own)


@word("isnan")
def _isnan(reads: Reads, x: Traced) -> Traced:
    return reads.r.pointwise("!=", x, x)


@word("heaviside")
def _heaviside(reads: Reads, x: Traced, at_zero: Traced) -> Traced:
    r = reads.r
    above = r.pointwise("where", r.pointwise(">", x, Traced(0.0)), Traced(1.0), Traced(0.0))
    return r.pointwise("where", r.pointwise("==", x, Traced(0.0)), r.stop_gradient(at_zero), above)


# ---- the same numbers ----


@word("clone", "alias", "contiguous", "lift_fresh", "view_as_real_copy")
def _same(reads: Reads, x: Traced, **_: Any) -> Traced:
    return x


@word("detach")
def _detach(reads: Reads, x: Traced) -> Traced:
    return reads.r.stop_gradient(x) if x.kind == "float" else x


@word("_to_copy")
def _to_copy(reads: Reads, x: Traced, dtype: Any = None, **_: Any) -> Traced:
    return in_dtype(reads, x, dtype)


@word("copy")
def _copy(reads: Reads, x: Traced, source: Traced, non_blocking: bool = False) -> Traced:
    return source


@word("fill")
def _fill(reads: Reads, x: Traced, value: Any) -> Traced:
    return value_of(value)


@word("zero")
def _zero(reads: Reads, x: Traced) -> Traced:
    return Traced(0.0)


@word("glu")
def _glu(reads: Reads, x: Traced, dim: int = -1) -> Traced:
    r, axis = reads.r, x.positive(dim)
    half = x.row[x.own_axis(axis)] // 2
    a, b = r.slice(x, axis, slice(0, half)), r.slice(x, axis, slice(half, 2 * half))
    return r.pointwise("*", a, r.pointwise("sigmoid", b))
