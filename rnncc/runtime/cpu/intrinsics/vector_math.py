"""Formulas to LLVM IR: exp, tanh, log and their kin on vectors of any width, written as formulas.

`Lanes` wraps one LLVM vector so that Python's operators emit instructions; each function below
turns `Lanes` into `Lanes`. `FORMULAS` lists them by name for `simd`.

An element's bits depend on the element alone, never on the width: one formula for all widths,
explicit fma, IEEE division, no fast-math flags, no reciprocal estimates. NaN, infinities, overflow
and underflow come out as NumPy's do. Errors are stated in ulp on each function and held by
tests/runtime/cpu/kernels/test_simd.py.

Non-Goals: scalars (a width of 1 is one); rare functions, which are libm calls a lane (`LIBRARY`).
"""

import math

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from rnncc.common.formulas import (
    BIAS,
    EXP2_TAIL,
    EXP_TAIL,
    LN2,
    LOG2E,
    MANTISSA,
    ROUNDER,
    TANH_BOTTOM,
    TANH_BOUND,
    TANH_TOP,
)


class Lanes:
    """An LLVM vector of floats, integers or truth values, and the builder that emits more."""

    __slots__ = ("builder", "value")

    def __init__(self, builder: ir.IRBuilder, value: ir.Value):
        self.builder, self.value = builder, value

    @property
    def type(self) -> ir.VectorType:
        return self.value.type

    @property
    def bits(self) -> int:
        """Bits of one float."""
        return 64 if self.type.element == ir.DoubleType() else 32

    def of(self, other: "Lanes | float | int") -> "Lanes":
        """`other` as lanes of this type; a number is splatted, rounded to the element first."""
        if isinstance(other, Lanes):
            return other
        kind = self.type.element
        if isinstance(kind, ir.FloatType):
            other = float(np.float32(other))
        elif isinstance(kind, ir.IntType):
            # LLVM's integers have no sign: a constant is written as its bit pattern.
            other = int(other) & ((1 << kind.width) - 1)
        return Lanes(self.builder, ir.Constant(self.type, [other] * self.type.count))

    def _emit(self, instruction: str, *others) -> "Lanes":
        values = [self.of(other).value for other in others]
        return Lanes(self.builder, getattr(self.builder, instruction)(self.value, *values))

    def _is_integer(self) -> bool:
        return isinstance(self.type.element, ir.IntType)

    def __add__(self, other):
        return self._emit("add" if self._is_integer() else "fadd", other)

    def __sub__(self, other):
        return self._emit("sub" if self._is_integer() else "fsub", other)

    def __mul__(self, other):
        return self._emit("fmul", other)

    def __truediv__(self, other):
        return self._emit("fdiv", other)

    def __radd__(self, other):
        return self.of(other) + self

    def __rsub__(self, other):
        return self.of(other) - self

    def __rmul__(self, other):
        return self.of(other) * self

    def __rtruediv__(self, other):
        return self.of(other) / self

    def __neg__(self):
        return self._emit("fneg")

    def __and__(self, other):
        return self._emit("and_", other)

    def __or__(self, other):
        return self._emit("or_", other)

    def __invert__(self):
        return self._emit("not_")

    def __lshift__(self, count: int):
        return self._emit("shl", count)

    def __rshift__(self, count: int):
        """Zeros enter on the left."""
        return self._emit("lshr", count)

    def compare(self, relation: str, other) -> "Lanes":
        """False where either is NaN, except `!=`, which is then true."""
        other = self.of(other).value
        ask = self.builder.fcmp_unordered if relation == "!=" else self.builder.fcmp_ordered
        return Lanes(self.builder, ask(relation, self.value, other))

    def __lt__(self, other):
        return self.compare("<", other)

    def __gt__(self, other):
        return self.compare(">", other)

    def compare_whole(self, relation: str, other) -> "Lanes":
        """Of integers without a sign."""
        ask = self.builder.icmp_unsigned
        return Lanes(self.builder, ask(relation, self.value, self.of(other).value))

    def isnan(self) -> "Lanes":
        return self.compare("!=", self)

    def as_integer(self) -> "Lanes":
        return self._bitcast(ir.IntType(self.bits))

    def as_float(self) -> "Lanes":
        """Integer lanes' bits read as floats."""
        wide = self.type.element.width == 64
        return self._bitcast(ir.DoubleType() if wide else ir.FloatType())

    def _bitcast(self, element: ir.Type) -> "Lanes":
        kind = ir.VectorType(element, self.type.count)
        return Lanes(self.builder, self.builder.bitcast(self.value, kind))

    def intrinsic(self, name: str, *others) -> "Lanes":
        """A call to `llvm.<name>` on this type."""
        values = [self.value, *(self.of(other).value for other in others)]
        suffix = f"v{self.type.count}f{self.bits}"
        kind = ir.FunctionType(self.type, [self.type] * len(values))
        callee = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.{suffix}")
        return Lanes(self.builder, self.builder.call(callee, values))


def fma(a: Lanes, b, c) -> Lanes:
    """a * b + c, rounded once."""
    return a.intrinsic("fma", b, c)


def select(mask: Lanes, a: Lanes, b) -> Lanes:
    b = a.of(b)
    return Lanes(a.builder, a.builder.select(mask.value, a.value, b.value))


def minimum(a: Lanes, b) -> Lanes:
    """As np.minimum: NaN where either is NaN."""
    b = a.of(b)
    return select(a.isnan(), a, select(a < b, a, b))


def maximum(a: Lanes, b) -> Lanes:
    """As np.maximum: NaN where either is NaN."""
    b = a.of(b)
    return select(a.isnan(), a, select(a > b, a, b))


def clamp(x: Lanes, low: float, high: float) -> Lanes:
    """x within [low, high]; NaN stays NaN (written so that each half is one x86 min or max)."""
    x = select(x > high, x.of(high), x)
    return select(x < low, x.of(low), x)


def polynomial(x: Lanes, coefficients) -> Lanes:
    """c0 + c1 x + c2 x² + …, by Estrin's scheme: pairs of pairs, so short chains of fma."""
    terms = [x.of(c) for c in coefficients]
    while len(terms) > 1:
        pairs = [fma(hi, x, lo) for lo, hi in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[len(pairs) * 2 :]
        x = x * x
    return terms[0]


def _power_of_two(rounded: Lanes) -> Lanes:
    """2**n for `rounded` = n + ROUNDER, n within the exponents of normal numbers."""
    bits = rounded.bits
    return ((rounded.as_integer() + BIAS[bits]) << MANTISSA[bits]).as_float()


def _reduce(x: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    """x = n ln2 + r as (n + ROUNDER, n, r)."""
    bits = x.bits
    high, low = LN2[bits]
    rounded = fma(x, 1.0 / math.log(2.0), ROUNDER[bits])
    n = rounded - ROUNDER[bits]
    return rounded, n, fma(n, -low, fma(n, -high, x))


def exp(x: Lanes) -> Lanes:
    """1 ulp; overflows to inf and underflows through the denormals to 0."""
    bits = x.bits
    # Past these the result is inf or 0 whatever x is.
    x = clamp(x, -105.0, 89.0) if bits == 32 else clamp(x, -746.0, 710.0)
    _, n, r = _reduce(x)
    y = fma(r * r, polynomial(r, EXP_TAIL[bits]), r + 1.0)
    # 2**n in two factors: n itself leaves the normal exponents on both sides.
    half = fma(n, 0.5, ROUNDER[bits])
    rest = (n - (half - ROUNDER[bits])) + ROUNDER[bits]
    return y * _power_of_two(half) * _power_of_two(rest)


def _expm1_bounded(x: Lanes) -> Lanes:
    """2**n (e**r - 1) + (2**n - 1): no cancellation for small x, where n = 0."""
    rounded, _, r = _reduce(x)
    small = fma(r * r, polynomial(r, EXP_TAIL[x.bits]), r)
    scale = _power_of_two(rounded)
    return fma(scale, small, scale - 1.0)


def expm1(x: Lanes) -> Lanes:
    """2 ulp."""
    top, bottom = (88.0, -20.0) if x.bits == 32 else (709.0, -40.0)
    # Near overflow "- 1" is far below an ulp, and exp scales in two steps.
    y = select(x > top, exp(x), _expm1_bounded(clamp(x, bottom, top)))
    return select(x.compare("==", 0.0), x, y)  # keeps the sign of zero


def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + exp(-x)): 2.5 ulp (float64: 3) while exp(-x) is finite, below that within a
    denormal of 0.

    Written for the time from x to the result, which a step of a small cell mostly is, a fifth
    less than by way of exp: -x log2(e) = n + f takes one fma, what log2(e) lacks as a float comes
    in where there is time, and 1 + 2**n + (2**n f) (2**f - 1) / f rounds once.
    """
    bits = x.bits
    bound = 87.0 if bits == 32 else 708.0
    high, low = LOG2E[bits]
    x = clamp(x, -bound, bound)
    rounded = fma(x, -high, ROUNDER[bits])
    f = fma(x, -high, -(rounded - ROUNDER[bits]))
    exact = fma(x, -low, f)
    first, second, *rest = EXP2_TAIL[bits]
    slope = fma(f * f, polynomial(f, rest), fma(exact, second, first))
    scale = _power_of_two(rounded)
    return 1.0 / fma(scale * exact, slope, scale + 1.0)


def tanh(x: Lanes) -> Lanes:
    """float32: a clamped rational, at most 5.1 ulp and 0.7 on average, never past 1.

    float64: expm1(2x) / (expm1(2x) + 2), 2.5 ulp.
    """
    if x.bits == 64:
        # By magnitude, so that the function is odd to the bit, as the rational is.
        size = x.intrinsic("fabs")
        e = _expm1_bounded(clamp(size + size, 0.0, 44.0))
        return (e / (e + 2.0)).intrinsic("copysign", x)
    y = clamp(x, -TANH_BOUND, TANH_BOUND)
    square = y * y
    # y enters the top while the bottom is being made, so that no product follows the quotient.
    one, cubic = polynomial(square, TANH_TOP[:2]), polynomial(square, TANH_TOP[2:4])
    fourth = square * square
    top = fma(y * fourth, fma(fourth, TANH_TOP[4], cubic), y * one)
    return top / polynomial(square, TANH_BOTTOM)


# FreeBSD's msun: log(1+f) = f - s (f - R), s = f / (2+f), R = z (L1 + L2 z + …), z = s².
_LOG = {
    32: (0.66666662693, 0.40000972152, 0.28498786688, 0.24279078841),
    64: (
        6.666666666666735130e-01,
        3.999999999940941908e-01,
        2.857142874366239149e-01,
        2.222219843214978396e-01,
        1.818357216161805012e-01,
        1.531383769920937332e-01,
        1.479819860511658591e-01,
    ),
}


def _exponent_and_rest(x: Lanes) -> tuple[Lanes, Lanes]:
    """x = 2**e (1 + f), f about as far below 0 as above; for normal or denormal x > 0."""
    bits = x.bits
    shift = MANTISSA[bits]
    tiny = x < float(2.0 ** (2 - BIAS[bits]))
    # Denormals are scaled up by 2**k first, and k is taken off the exponent below.
    k = shift + 2
    y = select(tiny, x * 2.0**k, x)
    # Offset the bits so that the mantissa falls in [sqrt(1/2), sqrt(2)).
    offset = BIAS[bits] << shift
    root = int(np.array(math.sqrt(0.5), f"f{bits // 8}").view(f"i{bits // 8}"))
    moved = y.as_integer() + (offset - root)
    # The biased exponent, read as the low bits of a float that is a whole number.
    anchor = 2.0**shift
    anchor_bits = int(np.array(anchor, f"f{bits // 8}").view(f"i{bits // 8}"))
    e = ((moved >> shift) | anchor_bits).as_float() - (anchor + BIAS[bits])
    m = ((moved & ((1 << shift) - 1)) + root).as_float()
    return select(tiny, e - float(k), e), m - 1.0


def _log_split(x: Lanes) -> tuple[Lanes, Lanes]:
    """Of normal or denormal x > 0 the exponent, and the logarithm of the rest, 1 ulp."""
    e, f = _exponent_and_rest(x)
    s = f / (f + 2.0)
    z = s * s
    halfsq = f * f * 0.5
    return e, f - (halfsq - s * (halfsq + z * polynomial(z, _LOG[x.bits])))


def _log_positive(x: Lanes, tail: "Lanes | None" = None) -> Lanes:
    """log(x + tail) for normal or denormal x > 0, tail within an ulp of x."""
    bits = x.bits
    e, f = _exponent_and_rest(x)
    s = f / (f + 2.0)
    z = s * s
    r = z * polynomial(z, _LOG[bits])
    halfsq = f * f * 0.5
    high, low = LN2[bits]
    low_part = e * low
    if tail is not None:
        low_part = low_part + tail / x
    return fma(e, high, f - (halfsq - fma(s, halfsq + r, low_part)))


def _log_edges(x: Lanes, y: Lanes) -> Lanes:
    """y = log(x) corrected where x is 0, negative, inf or NaN."""
    y = select(x.compare("==", math.inf), x, y)
    y = select(x.compare("==", 0.0), x.of(-math.inf), y)
    return select(x < 0.0, x.of(math.nan), select(x.isnan(), x, y))


def log(x: Lanes) -> Lanes:
    """1 ulp."""
    return _log_edges(x, _log_positive(x))


def log1p(x: Lanes) -> Lanes:
    """2 ulp: log of the rounded 1 + x, and the rounding error put back."""
    u = x + 1.0
    # Which of 1 and x is larger decides which rounding error is exact.
    error = select(x > 1.0, 1.0 - (u - x), x - (u - 1.0))
    y = _log_edges(u, _log_positive(u, error))
    return select(x.compare("==", 0.0), x, y)


def softplus(x: Lanes) -> Lanes:
    """log(1 + exp(x)), exact at both ends."""
    return maximum(x, 0.0) + log1p(exp(-x.intrinsic("fabs")))


def log_sigmoid(x: Lanes) -> Lanes:
    return -softplus(-x)


def sign(x: Lanes) -> Lanes:
    """-1, 0 or 1; NaN stays NaN."""
    y = select(x > 0.0, x.of(1.0), select(x < 0.0, x.of(-1.0), x))
    return select(x.compare("==", 0.0), x.of(0.0), y)


def square_root(x: Lanes) -> Lanes:
    return x.intrinsic("sqrt")


def per_lane(name: str):
    """libm's function on each lane; float32 goes through float64, whose rounding hides libm's."""

    def function(*args: Lanes) -> Lanes:
        first = args[0]
        builder, kind = first.builder, first.type
        callee = _lane_loop(builder.module, name, kind, len(args))
        return Lanes(builder, builder.call(callee, [first.of(a).value for a in args]))

    return function


def _lane_loop(module: ir.Module, name: str, kind: ir.VectorType, arity: int) -> ir.Function:
    """A function of vectors that calls libm's `name` lane by lane; one a module, never inlined."""
    title = f"rnncc.{name}.{kind.count}.{kind.element}"
    if title in module.globals:
        return module.globals[title]
    function = ir.Function(module, ir.FunctionType(kind, [kind] * arity), title)
    function.linkage = "internal"
    function.attributes.add("noinline")
    double = ir.DoubleType()
    scalar = cgutils.get_or_insert_function(module, ir.FunctionType(double, [double] * arity), name)
    builder = ir.IRBuilder(function.append_basic_block())
    result = ir.Constant(kind, ir.Undefined)
    for lane in range(kind.count):
        index = ir.Constant(ir.IntType(32), lane)
        values = [builder.extract_element(argument, index) for argument in function.args]
        if kind.element != double:
            values = [builder.fpext(value, double) for value in values]
        value = builder.call(scalar, values)
        if kind.element != double:
            value = builder.fptrunc(value, kind.element)
        result = builder.insert_element(result, value, index)
    builder.ret(result)
    return function


# Done lane by lane through libm: correct and slow, so `plan()` names them.
LIBRARY = frozenset({"erf", "erfc", "sin", "cos", "pow"})

FORMULAS = {
    "fma": (fma, 3),
    "minimum": (minimum, 2),
    "maximum": (maximum, 2),
    "abs": (lambda x: x.intrinsic("fabs"), 1),
    "sqrt": (square_root, 1),
    "rsqrt": (lambda x: 1.0 / square_root(x), 1),
    "sign": (sign, 1),
    "exp": (exp, 1),
    "expm1": (expm1, 1),
    "log": (log, 1),
    "log1p": (log1p, 1),
    "tanh": (tanh, 1),
    "sigmoid": (sigmoid, 1),
    "softplus": (softplus, 1),
    "log_sigmoid": (log_sigmoid, 1),
    **{name: (per_lane(name), 1) for name in sorted(LIBRARY - {"pow"})},
    "pow": (per_lane("pow"), 2),
}
