"""Numbers of the formulas for exp, sigmoid and tanh, by bits of a float, and of sums: every backend
that writes them out has the same.

Non-Goals: the formulas.
"""

import math

SUM_BLOCK = 96  # k's that are added one after another, see templates/cpu/cores.py.jinja
SCALE_GROUP = 64  # k's of int8 weights that share a scale

# e**r = 1 + r + r² q(r) on |r| <= ln2 / 2: minimax q (0.13 and 0.12 ulp of e**r).
EXP_TAIL = {
    32: (
        0.5,
        0.16666576266288757,
        0.041666556149721146,
        0.008363203145563602,
        0.0013926213141530752,
    ),
    64: (
        0.5000000000000001,
        0.16666666666666669,
        0.04166666666662399,
        0.008333333333330051,
        0.0013888888917281794,
        0.00019841269863105968,
        2.480152119021773e-05,
        2.7557268378684192e-06,
        2.7620138719733994e-07,
        2.5100424157005067e-08,
    ),
}
# ln2 in two parts: the high part has enough trailing zeros that n * high is exact.
LN2 = {
    32: (0.693359375, -2.12194440e-4),
    64: (6.93147180369123816490e-01, 1.90821492927058770002e-10),
}
# log2(e) as a float, and what that lacks.
LOG2E = {
    32: (1.4426950216293335, 1.9259629911266175e-08),
    64: (1.4426950408889634, 2.0355273740931033e-17),
}
# (2**f - 1) / f on |f| <= 1/2: the same polynomial.
EXP2_TAIL = {
    bits: tuple(c * math.log(2.0) ** n for n, c in enumerate((1.0, *tail), 1))
    for bits, tail in EXP_TAIL.items()
}
MANTISSA = {32: 23, 64: 52}
BIAS = {32: 127, 64: 1023}
# Adding it rounds a float to a whole number, left in the sum's low bits as two's complement.
ROUNDER = {32: 1.5 * 2.0**23, 64: 1.5 * 2.0**52}


# tanh(x) / x as a rational in x², fitted so that both constants are 1 (small x come out exact),
# that it never passes 1, and that it is 1 at the bound, so that infinity gives 1 exactly.
TANH_TOP = (
    1.0,
    0.134140282869339,
    0.003534862305969,
    2.126077924913261e-05,
    1.4274526449753466e-08,
)
TANH_BOTTOM = (
    1.0,
    0.4674735367298126,
    0.026026172563433647,
    0.00033500618883408606,
    8.149061727635853e-07,
)
TANH_BOUND = 8.169105529785156
