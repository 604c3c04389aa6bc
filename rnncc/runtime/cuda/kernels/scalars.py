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
    "rsqrt", "tanh", "sigmoid", "log_sigmoid", "erf", "sin", "cos", "pow", "from_bits",
    "copy", "copy4", "copied",
)
# fmt: on
