"""The functions of `v` on one lane, in terms of `math` and comparisons.

NaN and infinities go through as in NumPy. Every number is `F(...)`: a bare one is a double.

Non-Goals: load, store and what else is an instruction (`instructions`).
"""

from __future__ import annotations

import math

from rnncc.runtime.cuda.kernels.kernel_namespace import SIZE, F, v


def splat(x):
    return F(x)


def select(condition, x, y):
    return x if condition else y


def maximum(x, y):
    return x if x >= y or x != x else y


def minimum(x, y):
    return x if x <= y or x != x else y


def abs(x):
    return F(math.fabs(x))


def sign(x):
    if x > F(0.0):
        return F(1.0)
    if x < F(0.0):
        return F(-1.0)
    return x + F(0.0)  # zero, or NaN


def exp(x):
    return F(math.exp(x))


def expm1(x):
    return F(math.expm1(x))


def log(x):
    return F(math.log(x))


def log1p(x):
    return F(math.log1p(x))


def sqrt(x):
    return F(math.sqrt(x))


def rsqrt(x):
    return F(1.0) / F(math.sqrt(x))


def tanh(x):
    return F(math.tanh(x))


def sigmoid(x):
    return F(1.0) / (F(1.0) + F(math.exp(-x)))


def log_sigmoid(x):
    return v.minimum(x, F(0.0)) - F(math.log1p(F(math.exp(-F(math.fabs(x))))))


def erf(x):
    return F(math.erf(x))


def sin(x):
    return F(math.sin(x))


def cos(x):
    return F(math.cos(x))


def log2(x):
    return F(math.log2(x))


def log10(x):
    return F(math.log10(x))


def erfc(x):
    return F(math.erfc(x))


def tan(x):
    return F(math.tan(x))


def sinh(x):
    return F(math.sinh(x))


def cosh(x):
    return F(math.cosh(x))


def arcsin(x):
    return F(math.asin(x))


def arccos(x):
    return F(math.acos(x))


def arctan(x):
    return F(math.atan(x))


def arcsinh(x):
    return F(math.asinh(x))


def arccosh(x):
    return F(math.acosh(x))


def arctanh(x):
    return F(math.atanh(x))


def exp2(x):
    return F(math.pow(F(2.0), x))


def arctan2(y, x):
    return F(math.atan2(y, x))


def round(x):
    """To even: what is added and taken away leaves no place for a part of one."""
    edge = F(8388608.0) if SIZE == 4 else F(4503599627370496.0)
    size = F(math.fabs(x))
    return F(math.copysign((size + edge) - edge, x)) if size < edge else x


def floor(x):
    y = v.round(x)
    return y - F(1.0) if y > x else y


def ceil(x):
    y = v.round(x)
    return y + F(1.0) if y < x else y


def trunc(x):
    return F(math.copysign(v.floor(F(math.fabs(x))), x))


def mod(x, y):
    left = F(math.fmod(x, y))
    if left == F(0.0):
        return F(math.copysign(left, y))
    if (left < F(0.0)) != (y < F(0.0)) and left == left and y == y:
        return left + y
    return left


def floor_divide(x, y):
    left = F(math.fmod(x, y))
    if y == F(0.0):
        return x / y
    whole = (x - left) / y
    if left != F(0.0) and (left < F(0.0)) != (y < F(0.0)):
        whole = whole - F(1.0)
    return v.round(whole)


def pow(x, y):
    return F(math.pow(x, y))


def from_bits(bits):
    """24 bits as a number in [0, 1)."""
    return F(bits) * F(2.0**-24)


# ---- into shared memory, where a device can't do it on the side --------------------------------


def copy(place, address, inside):
    """An element of global memory, or zero."""
    x = v.splat(0.0)
    if inside:
        x = v.load(address)
    v.shared_store(place, x)


def copy4(place, address, inside):
    """Four neighbours, at a multiple of their size."""
    for e in range(4):
        v.copy(place + e, address + e * SIZE, inside)


def copied():
    """All that a thread has copied is there."""


# fmt: off
NAMES = (
    "splat", "select", "maximum", "minimum", "abs", "sign", "exp", "expm1", "log", "log1p", "sqrt",
    "rsqrt", "tanh", "sigmoid", "log_sigmoid", "erf", "sin", "cos",
    "log2", "log10", "exp2", "erfc", "tan", "sinh", "cosh", "arcsin", "arccos", "arctan", "arctan2",
    "arcsinh", "arccosh", "arctanh", "round", "floor",
    "ceil", "trunc", "mod", "floor_divide", "pow", "from_bits",
    "copy", "copy4", "copied",
)
# fmt: on
