"""Formulas to LLVM IR: tan, inverses of sine, cosine and tangent, hyperbolic functions and their
inverses, logarithms and powers of 2 and 10, on vectors of any width.

As `vector_math`, whose functions these are made of: an element's bits depend on the element alone,
and errors are stated in ulp. Polynomials and rationals are those of Cephes and FreeBSD's msun.

Non-Goals: sin, cos and erf, which are libm calls a lane.
"""

import math
from fractions import Fraction

import numpy as np

from rnncc.runtime.cpu.intrinsics.rounding import where_rare
from rnncc.runtime.cpu.intrinsics.vector_math import (
    EXP2_TAIL,
    LOG2E,
    ROUNDER,
    Lanes,
    _log_edges,
    _log_split,
    _power_of_two,
    clamp,
    exp,
    expm1,
    fma,
    log,
    log1p,
    per_lane,
    polynomial,
    select,
    square_root,
)


def _magnitude(x: Lanes) -> Lanes:
    return x.intrinsic("fabs")


def _like(y: Lanes, x: Lanes) -> Lanes:
    """y with the sign of x."""
    return y.intrinsic("copysign", x)


def _parts(number: Fraction, bits: int, count: int) -> tuple[float, ...]:
    """A number as a sum of floats, each the nearest to what is left."""
    kind = np.float32 if bits == 32 else np.float64
    parts: list[float] = []
    for _ in range(count):
        parts.append(float(kind(float(number))))
        number -= Fraction(parts[-1])
    return tuple(parts)


_PI = Fraction(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534"
)
_LOG10_2 = Fraction("0.30102999566398119521373889472449302676818988146210854131042746112710818927")
_HALF_PI = {bits: _parts(_PI / 2, bits, 4) for bits in (32, 64)}
_LOG10E = Fraction("0.43429448190325182765112891891660508229439700580366656611445378316586464920")

# ---- powers and logarithms -------------------------------------------------------------------


def exp2(x: Lanes) -> Lanes:
    """1.5 ulp; exact for whole numbers."""
    bits = x.bits
    x = clamp(x, -152.0, 129.0) if bits == 32 else clamp(x, -1077.0, 1025.0)
    n = (x + ROUNDER[bits]) - ROUNDER[bits]
    f = x - n
    y = fma(f, polynomial(f, EXP2_TAIL[bits]), 1.0)
    half = fma(n, 0.5, ROUNDER[bits])
    rest = (n - (half - ROUNDER[bits])) + ROUNDER[bits]
    return y * _power_of_two(half) * _power_of_two(rest)


def log2(x: Lanes) -> Lanes:
    """2 ulp; exact for powers of 2."""
    e, m = _log_split(x)
    high, low = LOG2E[x.bits]
    return _log_edges(x, fma(m, high, fma(m, low, e)))


def log10(x: Lanes) -> Lanes:
    """2 ulp."""
    e, m = _log_split(x)
    high, low = _parts(_LOG10E, x.bits, 2)
    first, second = _parts(_LOG10_2, x.bits, 2)
    return _log_edges(x, fma(e, first, fma(m, high, fma(m, low, e * second))))


# ---- hyperbolic functions and their inverses ---------------------------------------------------


def _half_of_large_exp(size: Lanes) -> Lanes:
    """exp(size) / 2, where exp(size) itself may be beyond the largest float."""
    root = exp(size * 0.5)
    return (root * 0.5) * root


def _may_overflow(size: Lanes) -> Lanes:
    return size > (88.0 if size.bits == 32 else 709.0)


def sinh(x: Lanes) -> Lanes:
    """3 ulp."""
    size = _magnitude(x)
    e = expm1(size)
    y = (e + e / (e + 1.0)) * 0.5
    return _like(select(_may_overflow(size), _half_of_large_exp(size), y), x)


def cosh(x: Lanes) -> Lanes:
    """2.5 ulp."""
    size = _magnitude(x)
    e = exp(size)
    y = fma(e, 0.5, 0.5 / e)
    return select(_may_overflow(size), _half_of_large_exp(size), y)


def arcsinh(x: Lanes) -> Lanes:
    """3 ulp."""
    size = _magnitude(x)
    square = size * size
    y = log1p(size + square / (square_root(square + 1.0) + 1.0))
    large = size > (2.0**14 if x.bits == 32 else 2.0**28)
    return _like(select(large, log(size) + math.log(2.0), y), x)


def arccosh(x: Lanes) -> Lanes:
    """3 ulp; NaN below 1."""
    above = x - 1.0
    y = log1p(above + square_root(above * (above + 2.0)))
    large = x > (2.0**14 if x.bits == 32 else 2.0**28)
    return select(x < 1.0, x.of(math.nan), select(large, log(x) + math.log(2.0), y))


def arctanh(x: Lanes) -> Lanes:
    """3 ulp; infinite at -1 and 1, NaN beyond."""
    size = _magnitude(x)
    return _like(log1p((size + size) / (1.0 - size)) * 0.5, x)


# ---- tangent -----------------------------------------------------------------------------------

_TAN = {
    32: (
        3.33331568548e-1,
        1.33387994085e-1,
        5.34112807005e-2,
        2.44301354525e-2,
        3.11992232697e-3,
        9.38540185543e-3,
    ),
}
_TAN_TOP = (-1.79565251976484877988e7, 1.15351664838587416140e6, -1.30936939181383734205e4)
_TAN_BOTTOM = (
    -5.38695755929454629881e7,
    2.50083801823357915839e7,
    -1.32089234440210967447e6,
    1.36812963470692954678e4,
    1.0,
)


def tan(x: Lanes) -> Lanes:
    """2.5 ulp; beyond 1e5 (float64: 1e9) as libm's, a lane after another."""
    bits = x.bits
    rounded = fma(x, 2.0 / math.pi, ROUNDER[bits])
    n = rounded - ROUNDER[bits]
    r = x
    # What is taken away first leaves no rounding, the rest less than a part of the last place.
    for part in _HALF_PI[bits]:
        r = fma(-n, part, r)
    z = r * r
    if bits == 32:
        slope = polynomial(z, _TAN[32])
    else:
        slope = polynomial(z, _TAN_TOP) / polynomial(z, _TAN_BOTTOM)
    y = fma(r * z, slope, r)
    odd = ((rounded.as_integer()) & 1).compare_whole("!=", 0)
    y = select(odd, -1.0 / y, y)
    size = _magnitude(x)
    large = (size > (1e5 if bits == 32 else 1e9)) & (size < math.inf)
    y = select(x.compare("==", 0.0), x, y)
    return where_rare(large, y, lambda: per_lane("tan")(x))


# ---- inverses of sine, cosine and tangent ------------------------------------------------------

_ASIN_TOP = {
    32: (1.6666586697e-01, -4.2743422091e-02, -8.6563630030e-03),
    64: (
        1.66666666666666657415e-01,
        -3.25565818622400915405e-01,
        2.01212532134862925881e-01,
        -4.00555345006794114027e-02,
        7.91534994289814532176e-04,
        3.47933107596021167570e-05,
    ),
}
_ASIN_BOTTOM = {
    32: (1.0, -7.0662963390e-01),
    64: (
        1.0,
        -2.40339491173441421878e00,
        2.02094576023350569471e00,
        -6.88283971605453293030e-01,
        7.70381505559019352791e-02,
    ),
}


def _asin_slope(z: Lanes) -> Lanes:
    """(arcsin(s) - s) / s, where z is the square of s."""
    return z * polynomial(z, _ASIN_TOP[z.bits]) / polynomial(z, _ASIN_BOTTOM[z.bits])


def arcsin(x: Lanes) -> Lanes:
    """2 ulp; NaN beyond -1 and 1."""
    size = _magnitude(x)
    high, low, *_ = _HALF_PI[x.bits]
    outer = size > 0.5
    z = select(outer, (1.0 - size) * 0.5, size * size)
    s = select(outer, square_root(z), size)
    near = fma(s, _asin_slope(z), s)
    return _like(select(outer, high - (fma(near, 2.0, -low)), near), x)


def arccos(x: Lanes) -> Lanes:
    """2 ulp; NaN beyond -1 and 1."""
    size = _magnitude(x)
    high, low, *_ = _HALF_PI[x.bits]
    outer = size > 0.5
    z = select(outer, (1.0 - size) * 0.5, size * size)
    s = select(outer, square_root(z), x)
    near = fma(s, _asin_slope(z), s)
    twice = near + near
    left = 2.0 * high - (twice - 2.0 * low)
    inner = high - (near - low)
    return select(outer, select(x < 0.0, left, twice), inner)


_ATAN = {32: (-3.33329491539e-1, 1.99777106478e-1, -1.38776856032e-1, 8.05374449538e-2)}
_ATAN_TOP = (
    -6.485021904942025371773e1,
    -1.228866684490136173410e2,
    -7.500855792314704667340e1,
    -1.615753718733365076637e1,
    -8.750608600031904122785e-1,
)
_ATAN_BOTTOM = (
    1.945506571482613964425e2,
    4.853903996359136964868e2,
    4.328810604912902668951e2,
    1.650270098316988542046e2,
    2.485846490142306297962e1,
    1.0,
)


def _atan_below_one(x: Lanes) -> Lanes:
    """Of 0 to 1."""
    bits = x.bits
    upper = x > (math.sqrt(2.0) - 1.0 if bits == 32 else 0.66)
    t = select(upper, (x - 1.0) / (x + 1.0), x)
    z = t * t
    if bits == 32:
        slope = polynomial(z, _ATAN[32])
    else:
        slope = polynomial(z, _ATAN_TOP) / polynomial(z, _ATAN_BOTTOM)
    high, low, *_ = (part / 2 for part in _HALF_PI[bits])
    bent = z * slope
    return select(upper, high + (fma(t, bent, low) + t), fma(t, bent, t))


def arctan(x: Lanes) -> Lanes:
    """2.5 ulp."""
    size = _magnitude(x)
    high, low, *_ = _HALF_PI[x.bits]
    outer = size > 1.0
    y = _atan_below_one(select(outer, 1.0 / size, size))
    return _like(select(outer, high - (y - low), y), x)


def arctan2(y: Lanes, x: Lanes) -> Lanes:
    """3 ulp: the angle of the point (x, y), from -pi to pi."""
    high, low, *_ = _HALF_PI[x.bits]
    width, height = _magnitude(x), _magnitude(y)
    steep = height > width
    quotient = select(steep, width, height) / select(steep, height, width)
    quotient = select(height.compare("==", width), quotient.of(1.0), quotient)
    quotient = select(height.compare("==", 0.0), height, quotient)
    angle = _atan_below_one(quotient)
    angle = select(steep, high - (angle - low), angle)
    behind = _like(x.of(1.0), x) < 0.0
    angle = select(behind, 2.0 * high - (angle - 2.0 * low), angle)
    unknown = select(x.isnan(), x, y)
    return select(x.isnan() | y.isnan(), unknown, _like(angle, y))


FORMULAS = {
    "exp2": (exp2, 1),
    "log2": (log2, 1),
    "log10": (log10, 1),
    "sinh": (sinh, 1),
    "cosh": (cosh, 1),
    "arcsinh": (arcsinh, 1),
    "arccosh": (arccosh, 1),
    "arctanh": (arctanh, 1),
    "tan": (tan, 1),
    "arcsin": (arcsin, 1),
    "arccos": (arccos, 1),
    "arctan": (arctan, 1),
    "arctan2": (arctan2, 2),
}
