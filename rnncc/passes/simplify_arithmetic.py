"""The arithmetic rules of `simplify`: constants folded, and what adds 0 or multiplies by 1 gone.

    >>> from rnncc.lowering.examples import example, outline
    >>> from rnncc.passes.simplify import simplify
    >>> cell = example("h[t] = -(-h[t-1]) * (3 - 2) + 0 * (x[t] @ W)")
    >>> outline(cell)
    scan:
      carry _h_1, from h
      x_1 = x[t]
        _0 = neg(_h_1)
        _1 = neg(_0)
        _2 = full(value=1.0)
        _3 = mul(_1, _2)
        _4 = contract(x_1, W, labels=(k, kl, l))
        _5 = full(value=0.0)
        _6 = mul(_5, _4)
        h_1 = add(_3, _6)
      next _h_1 = h_1; last is final_h
      h_2[t] = h_1
    >>> outline(simplify(cell))
    scan:
      h_1[t] = h

Non-Goals: reassociation.
"""

from __future__ import annotations

import numpy as np

from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Value
from rnncc.passes.rules import Context, rule


def fold_constants(ctx: Context, op: Op) -> Value | None:
    opdef = OPS[op.opcode]
    if opdef.kind is not Kind.POINTWISE or op.opcode == "stop_gradient":
        return None
    numbers = []
    for operand in op.operands:
        number = ctx.constant(operand)
        if number is None:
            return None
        numbers.append(number)
    with np.errstate(all="ignore"):
        value = opdef.numpy(*[np.asarray(n) for n in numbers])
    kind = op.result.type.dtype
    return ctx.full(bool(value) if kind == "bool" else float(value), op.result.type.shape, kind)


@rule("add")
def _add(ctx: Context, op: Op) -> Value | None:
    a, b = op.operands
    if ctx.constant(a) == 0:
        return b
    if ctx.constant(b) == 0:
        return a
    for zeros, other in ((a, b), (b, a)):
        spread = ctx.op(zeros, "spread")
        if spread and ctx.constant(spread.operands[0]) == 0 and other.type == op.result.type:
            return other
    negated = ctx.op(b, "neg")
    return ctx.sub(a, negated.operands[0]) if negated else None


@rule("sub")
def _sub(ctx: Context, op: Op) -> Value | None:
    a, b = op.operands
    if ctx.constant(b) == 0:
        return a
    return ctx.neg(b) if ctx.constant(a) == 0 else None


@rule("neg")
def _neg(ctx: Context, op: Op) -> Value | None:
    inner = ctx.op(op.operands[0], "neg")
    return inner.operands[0] if inner else None


@rule("mul")
def _mul(ctx: Context, op: Op) -> Value | None:
    for a, b in (op.operands, op.operands[::-1]):
        constant = ctx.constant(a)
        if constant == 1:
            return b
        if constant == 0:
            return a
        if constant == -1:
            return ctx.neg(b)
    return None


@rule("div")
def _div(ctx: Context, op: Op) -> Value | None:
    a, b = op.operands
    if ctx.constant(b) == 1:
        return a
    return a if ctx.constant(a) == 0 else None


@rule("pow")
def _pow(ctx: Context, op: Op) -> Value | None:
    x, exponent = op.operands[0], ctx.constant(op.operands[1])
    match exponent:
        case 0:
            return ctx.like(1.0, x)
        case 1:
            return x
        case 2:
            return ctx.mul(x, x)
        case 3:
            return ctx.mul(x, ctx.mul(x, x))
        case 0.5:
            return ctx.sqrt(x)
        case -0.5:
            return ctx.rsqrt(x)
        case -1:
            return ctx.div(ctx.like(1.0, x), x)
    return None


@rule("where")
def _where(ctx: Context, op: Op) -> Value | None:
    c, a, b = op.operands
    known = ctx.constant(c)
    if known is not None:
        return a if known else b
    if a is b:
        return a
    same = ctx.constant(a)
    return a if same is not None and same == ctx.constant(b) else None
