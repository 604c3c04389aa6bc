"""Formulas to LLVM IR: rounding, quotients that are whole numbers and what they leave.

As `vector_math`: an element's bits depend on the element alone.

Non-Goals: what is rarely asked for and dear: a lane after another (`where_rare`).
"""

import math

from llvmlite import ir
from numba.core import cgutils

from rnncc.runtime.cpu.intrinsics.vector_math import MANTISSA, Lanes, fma, per_lane, select


def _any(mask: Lanes) -> ir.Value:
    kind = ir.FunctionType(ir.IntType(1), [mask.type])
    name = f"llvm.vector.reduce.or.v{mask.type.count}i1"
    callee = cgutils.get_or_insert_function(mask.builder.module, kind, name)
    return mask.builder.call(callee, [mask.value])


def where_rare(mask: Lanes, y: Lanes, otherwise) -> Lanes:
    """y, but where the mask is true what `otherwise` makes: worked out only if it is anywhere."""
    builder = y.builder
    common = builder.block
    with builder.if_then(_any(mask), likely=False):
        rare = select(mask, otherwise(), y)
        at = builder.block
    met = builder.phi(y.type)
    met.add_incoming(y.value, common)
    met.add_incoming(rare.value, at)
    return Lanes(builder, met)


def _divided(x: Lanes, y: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    """floor(x / y), what is left, exact while the quotient is a whole number of few bits, and
    where it isn't.

    A quotient is never rounded below a whole number, but up to one: then what is left has the
    wrong sign. It is made anew, so that it is rounded once, if at all."""
    quotient = x / y
    q = quotient.intrinsic("floor")
    left = fma(-q, y, x)
    q = select(select(y < 0.0, -left, left) < 0.0, q - 1.0, q)
    left = fma(-q, y, x)
    large = quotient.intrinsic("fabs") > 2.0 ** MANTISSA[x.bits]
    return q, left, large


def mod(x: Lanes, y: Lanes) -> Lanes:
    """x - floor(x / y) * y, with the sign of y: 0.5 ulp; as np.mod, for what isn't finite, too."""
    _, left, large = _divided(x, y)
    left = select(left.compare("==", 0.0), (left * 0.0).intrinsic("copysign", y), left)
    endless = y.intrinsic("fabs").compare("==", math.inf)
    opposite = select(x < 0.0, -y, y) < 0.0
    kept = select((x.compare("!=", 0.0)) & opposite, y, x)
    finite = x.intrinsic("fabs") < math.inf
    left = select(endless & finite, kept, left)

    def exactly() -> Lanes:
        rest = per_lane("fmod")(x, y)
        turned = (rest.compare("!=", 0.0)) & (select(y < 0.0, -rest, rest) < 0.0)
        return select(turned, rest + y, rest)

    return where_rare(large & finite & y.compare("!=", 0.0), left, exactly)


def floor_divide(x: Lanes, y: Lanes) -> Lanes:
    """floor(x / y), of the exact quotient while that is a number of few bits; as np's."""
    q, _, large = _divided(x, y)
    endless = y.intrinsic("fabs").compare("==", math.inf) & (x.intrinsic("fabs") < math.inf)
    opposite = (x.compare("!=", 0.0)) & (select(x < 0.0, -y, y) < 0.0)
    q = select(endless, select(opposite, x.of(-1.0), x.of(0.0)), q)
    q = select(large | y.compare("==", 0.0), x / y, q)
    beyond = (x.intrinsic("fabs").compare("==", math.inf)) & y.compare("!=", 0.0)
    return select(beyond, x.of(math.nan), q)


FORMULAS = {
    "floor": (lambda x: x.intrinsic("floor"), 1),
    "ceil": (lambda x: x.intrinsic("ceil"), 1),
    "round": (lambda x: x.intrinsic("roundeven"), 1),
    "trunc": (lambda x: x.intrinsic("trunc"), 1),
    "mod": (mod, 2),
    "floor_divide": (floor_divide, 2),
}
