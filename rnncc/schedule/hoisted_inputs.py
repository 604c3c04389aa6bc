"""Hoisted sums that accumulators of the loop go on from.

    before:  z0 = b + x @ W              scan:  z = z0[t] + h @ U

Nobody else reads z0, so the loop's accumulator may begin where z0 ends: with rows of it made before
the loop, in the order the loop's tiles have, or with x @ W taken in the loop's own core call. The
order of the sum is the same, so are the bits; the runtime chooses by the sizes.

Accumulators over the same rows share core calls: all of them have such a start, or none.

Non-Goals: where a start is kept (`build`); which way it is made (`cpu.kernel_arguments`).
"""

from __future__ import annotations

from rnncc.ir.program import Op, Program, Scan, Value
from rnncc.ir.rewrite import add_leaves, definitions, inner_adds
from rnncc.schedule.accumulate import Sum, is_gemm

_VIEWS = ("slice", "transpose", "reshape", "broadcast")


def find_starts(program: Program, single: set[Value]) -> tuple[dict[Value, Sum], set[Op]]:
    """The starts by the value the scan knows them by, and the ops of `before` they consist of."""
    if program.scan is None:
        return {}, set()
    params = {p.value for p in program.params}
    defs = definitions(program.before)
    starts: dict[Value, Sum] = {}
    for s in program.scan.xs:
        if s.value in single and s.source in single and s.source in defs:
            start = _hoisted(s.source, defs, single, params)
            if start is not None:
                starts[s.value] = start
    starts = _shared(program.scan, single, starts)
    taken = {op for start in starts.values() for op in start.contractions}
    for s in program.scan.xs:
        if s.value in starts and defs[s.source].opcode == "add":
            adds = inner_adds(s.source, defs, single)
            taken |= {defs[v] for v in adds if v.type.axes}  # of rows: their sum is a constant
    return starts, taken


def _hoisted(
    value: Value, defs: dict[Value, Op], single: set[Value], params: set[Value]
) -> Sum | None:
    """The value as a sum of contractions with weights, on at most one row of constants: of two
    biases the sum, which is worked out with the weights."""
    sums = single - {v for v, op in defs.items() if op.opcode == "add" and not v.type.axes}
    leaves = add_leaves(value, defs, sums)
    gemms = [defs[v] for v in leaves if is_gemm(defs.get(v)) and v in single]
    rows = [v for v in leaves if not v.type.axes and _is_constant(v, defs, params)]
    if not gemms or len(rows) > 1 or len(gemms) + len(rows) < len(leaves):
        return None
    if value.type.axes != "BT" or len(value.type.shape) != 1:
        return None
    if any(g.operands[1].type.axes or g.operands[0].type.axes != "BT" for g in gemms):
        return None
    return Sum(value, tuple(gemms), rows[0] if rows else None)


def _is_constant(value: Value, defs: dict[Value, Op], params: set[Value]) -> bool:
    """Whether this is in memory before rows of constants are packed: a part of a weight, or a sum
    of such, which a kernel of weights makes."""
    root = _root(value, defs)
    if root in params:
        return True
    op = defs.get(root)
    return (
        op is not None
        and op.opcode == "add"
        and all(_is_constant(o, defs, params) for o in op.operands)
    )


def _root(value: Value, defs: dict[Value, Op]) -> Value:
    """What a part of a row is a part of."""
    while value in defs and defs[value].opcode == "slice":
        (value,) = defs[value].operands
    return value


def _shared(scan: Scan, single: set[Value], starts: dict[Value, Sum]) -> dict[Value, Sum]:
    """Those whose accumulators read rows that no accumulator without one reads."""
    defs = definitions(scan.body)
    rows: dict[tuple[Value, ...], list[Value | None]] = {}
    seen: set[Value] = set()
    for op in reversed(scan.body):
        if op.opcode == "add" and op.result not in seen:
            seen |= inner_adds(op.result, defs, single)
            leaves = add_leaves(op.result, defs, single)
        elif is_gemm(op) and op.result not in seen:
            leaves = [op.result]
        else:
            continue
        gemms = [defs[v] for v in leaves if is_gemm(defs.get(v))]
        seen |= {g.result for g in gemms}
        own = [v for v in leaves if v in starts]
        plain = any(_by_row(g.operands[1], defs) for g in gemms) or not gemms
        constant = any(not v.type.axes for v in leaves)
        start = own[0] if own and not plain and not constant else None
        for gemm in gemms:
            rows.setdefault(gemm.operands[:1], []).append(start)
    kept: dict[Value, Sum] = {}
    for row_starts in rows.values():
        read = {None if v is None else _reads(starts[v]) for v in row_starts}
        if len(read) == 1 and None not in read:
            kept |= {v: starts[v] for v in row_starts if v is not None}
    lost = {v for row_starts in rows.values() for v in row_starts if v not in kept}
    return {v: s for v, s in kept.items() if v not in lost}


def _by_row(weight: Value, defs: dict[Value, Op]) -> bool:
    """Whether each row of the loop reads this weight for itself, as one that the loop makes: a core
    that does reads all of its weights so, and can't take those of a start."""
    root = weight
    while root in defs and defs[root].opcode in _VIEWS:
        (root,) = defs[root].operands
    return bool(weight.type.axes) or root in defs


def _reads(start: Sum) -> tuple[Value, ...]:
    return tuple(c.operands[0] for c in start.contractions)
