"""Pointwise ops of the IR -> operators of ONNX: one table.

What ONNX hasn't (log1p, expm1, ...) is composed so that small arguments keep their digits.

Non-Goals: ops that move or add elements (`arrays`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from rnncc.emit.onnx.graph import GraphWriter

Spelling = Callable[..., str]  # (writer, *operands) -> value


def _plain(op: str) -> Spelling:
    return lambda w, *xs: w.node(op, *xs)


def _not_equal(w: GraphWriter, x: str, y: str) -> str:
    return w.node("Not", w.node("Equal", x, y))


def _rsqrt(w: GraphWriter, x: str) -> str:
    return w.node("Reciprocal", w.node("Sqrt", x))


def _exp2(w: GraphWriter, x: str) -> str:
    return w.node("Pow", w.number(2.0), x)


def _log_of(base: float) -> Spelling:
    return lambda w, x: w.node("Div", w.node("Log", x), w.number(math.log(base)))


def _log1p(w: GraphWriter, x: str) -> str:
    """log(u) * x / (u - 1), u = 1 + x as it was rounded; large x are log(u)."""
    one = w.number(1.0)
    u = w.node("Add", x, one)
    log, step = w.node("Log", u), w.node("Sub", u, one)
    none = w.node("Equal", step, w.number(0.0))
    safe = w.node("Where", none, one, step)
    near = w.node("Where", none, x, w.node("Mul", log, w.node("Div", x, safe)))
    return w.node("Where", w.node("Less", w.node("Abs", x), one), near, log)


def _expm1(w: GraphWriter, x: str) -> str:
    """2 t / (1 - t), t = tanh(x / 2); elsewhere exp(x) - 1."""
    one = w.number(1.0)
    t = w.node("Tanh", w.node("Mul", x, w.number(0.5)))
    near = w.node("Div", w.node("Add", t, t), w.node("Sub", one, t))
    far = w.node("Sub", w.node("Exp", x), one)
    return w.node("Where", w.node("Less", w.node("Abs", x), one), near, far)


def _log_sigmoid(w: GraphWriter, x: str) -> str:
    rest = _log1p(w, w.node("Exp", w.node("Neg", w.node("Abs", x))))
    return w.node("Sub", w.node("Min", x, w.number(0.0)), rest)


def _hard_sigmoid(w: GraphWriter, x: str) -> str:
    line = w.node("Add", x, w.number(3.0))
    held = w.node("Min", w.node("Max", line, w.number(0.0)), w.number(6.0))
    return w.node("Div", held, w.number(6.0))


def _erfc(w: GraphWriter, x: str) -> str:
    return w.node("Sub", w.number(1.0), w.node("Erf", x))


def _tan(w: GraphWriter, x: str) -> str:
    return w.node("Div", w.node("Sin", x), w.node("Cos", x))


def _sinh(w: GraphWriter, x: str) -> str:
    """e + e / (e + 1), halved, of e = exp(x) - 1."""
    e = _expm1(w, w.node("Abs", x))
    ratio = w.node("Div", e, w.node("Add", e, w.number(1.0)))
    # Beyond the largest number this is inf / inf.
    ratio = w.node("Where", w.node("IsNaN", ratio), w.number(1.0), ratio)
    half = w.node("Mul", w.node("Add", e, ratio), w.number(0.5))
    return w.node("Mul", w.node("Sign", x), half)


def _cosh(w: GraphWriter, x: str) -> str:
    e = w.node("Exp", w.node("Abs", x))
    return w.node("Mul", w.node("Add", e, w.node("Reciprocal", e)), w.number(0.5))


def _arcsinh(w: GraphWriter, x: str) -> str:
    """log1p(a + a * a / (1 + sqrt(a * a + 1))) of a = |x|, with its sign."""
    a, one = w.node("Abs", x), w.number(1.0)
    # Squares of what is beyond this would be infinite.
    large = w.node("Greater", a, w.number(1e9))
    safe = w.node("Where", large, one, a)
    square = w.node("Mul", safe, safe)
    root = w.node("Add", one, w.node("Sqrt", w.node("Add", square, one)))
    near = _log1p(w, w.node("Add", safe, w.node("Div", square, root)))
    far = w.node("Add", w.node("Log", a), w.number(math.log(2)))
    return w.node("Mul", w.node("Sign", x), w.node("Where", large, far, near))


def _arccosh(w: GraphWriter, x: str) -> str:
    """log1p(u + sqrt(u * (u + 2))) of u = x - 1."""
    large = w.node("Greater", x, w.number(1e9))
    safe = w.node("Where", large, w.number(1.0), x)
    u = w.node("Sub", safe, w.number(1.0))
    root = w.node("Sqrt", w.node("Mul", u, w.node("Add", u, w.number(2.0))))
    far = w.node("Add", w.node("Log", x), w.number(math.log(2)))
    return w.node("Where", large, far, _log1p(w, w.node("Add", u, root)))


def _arctanh(w: GraphWriter, x: str) -> str:
    """log1p(2 x / (1 - x)) / 2"""
    ratio = w.node("Div", w.node("Add", x, x), w.node("Sub", w.number(1.0), x))
    return w.node("Mul", _log1p(w, ratio), w.number(0.5))


def _arctan2(w: GraphWriter, y: str, x: str) -> str:
    """Of the smaller by the larger, which is in [0, 1], turned into its octant."""
    zero, one = w.number(0.0), w.number(1.0)
    a, b = w.node("Abs", y), w.node("Abs", x)
    low, high = w.node("Min", a, b), w.node("Max", a, b)
    origin = w.node("Equal", high, zero)
    angle = w.node("Atan", w.node("Div", low, w.node("Where", origin, one, high)))
    steep = w.node("Greater", a, b)
    angle = w.node("Where", steep, w.node("Sub", w.number(math.pi / 2), angle), angle)
    behind = w.node("Sub", w.number(math.pi), angle)
    angle = w.node("Where", _is_negative(w, x), behind, angle)
    return w.node("Where", _is_negative(w, y), w.node("Neg", angle), angle)


def _is_negative(w: GraphWriter, x: str) -> str:
    """-0.0 is, too: its reciprocal tells."""
    zero = w.number(0.0)
    return w.node("Or", w.node("Less", x, zero), w.node("Less", w.node("Reciprocal", x), zero))


def _trunc(w: GraphWriter, x: str) -> str:
    down = w.node("Less", x, w.number(0.0))
    return w.node("Where", down, w.node("Ceil", x), w.node("Floor", x))


def _mod(w: GraphWriter, x: str, y: str) -> str:
    """Of the divisor's sign, as Python has it; exact, as x - y * floor(x / y) isn't."""
    zero = w.number(0.0)
    rest = w.node("Mod", x, y, fmod=1)
    other = w.node("Less", w.node("Mul", w.node("Sign", rest), w.node("Sign", y)), zero)
    return w.node("Where", other, w.node("Add", rest, y), rest)


def _floor_divide(w: GraphWriter, x: str, y: str) -> str:
    """What `_mod` leaves out is a whole number of times; the quotient may be just beside it."""
    return w.node("Round", w.node("Div", w.node("Sub", x, _mod(w, x, y)), y))


POINTWISE: dict[str, Spelling] = {
    "neg": _plain("Neg"),
    "add": _plain("Add"),
    "sub": _plain("Sub"),
    "mul": _plain("Mul"),
    "div": _plain("Div"),
    "pow": _plain("Pow"),
    "lt": _plain("Less"),
    "le": _plain("LessOrEqual"),
    "gt": _plain("Greater"),
    "ge": _plain("GreaterOrEqual"),
    "eq": _plain("Equal"),
    "ne": _not_equal,
    "and": _plain("And"),
    "or": _plain("Or"),
    "not": _plain("Not"),
    "where": _plain("Where"),
    "abs": _plain("Abs"),
    "sign": _plain("Sign"),
    "exp": _plain("Exp"),
    "log": _plain("Log"),
    "log1p": _log1p,
    "expm1": _expm1,
    "sqrt": _plain("Sqrt"),
    "rsqrt": _rsqrt,
    "tanh": _plain("Tanh"),
    "sigmoid": _plain("Sigmoid"),
    "hard_sigmoid": _hard_sigmoid,
    "log_sigmoid": _log_sigmoid,
    "erf": _plain("Erf"),
    "sin": _plain("Sin"),
    "cos": _plain("Cos"),
    "maximum": _plain("Max"),
    "minimum": _plain("Min"),
    "stop_gradient": _plain("Identity"),
    "exp2": _exp2,
    "log2": _log_of(2),
    "log10": _log_of(10),
    "erfc": _erfc,
    "tan": _tan,
    "sinh": _sinh,
    "cosh": _cosh,
    "arcsin": _plain("Asin"),
    "arccos": _plain("Acos"),
    "arctan": _plain("Atan"),
    "arctan2": _arctan2,
    "arcsinh": _arcsinh,
    "arccosh": _arccosh,
    "arctanh": _arctanh,
    "floor": _plain("Floor"),
    "ceil": _plain("Ceil"),
    "round": _plain("Round"),
    "trunc": _trunc,
    "floor_divide": _floor_divide,
    "mod": _mod,
}
