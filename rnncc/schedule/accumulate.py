"""Sums of contractions become accumulators: one `Acc` takes every contraction of its sum.

    z = b + x @ W + h @ U + r      ->      acc = b; acc += x @ W; acc += h @ U;      z = acc + r

Non-Goals: deciding which sums exist (`passes.hoist` and `passes.rotate` do).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

from rnncc.ir.builder import Builder
from rnncc.ir.program import Op, Value
from rnncc.ir.rewrite import add_leaves, definitions, inner_adds


@dataclass(frozen=True, eq=False, slots=True)
class Sum:
    """An accumulator before it is placed: its contractions in order, and where it starts."""

    result: Value
    contractions: tuple[Op, ...]
    init: Value | None
    start: Sum | None = None  # a hoisted sum to go on from


Node = Op | Sum


def is_gemm(op: Op | None) -> bool:
    return op is not None and op.opcode == "contract" and not op.attrs["over"]


def accumulate(
    ops: tuple[Op, ...],
    single: Set[Value],
    is_constant_row: Callable[[Value], bool],
    by_row: Callable[[Value], bool],
    starts: Mapping[Value, Sum],
    late: bool,
) -> list[Node]:
    """The region with its contractions as Sums; order is kept. starts: terms that are hoisted sums
    for accumulators to go on from. by_row: of a weight, whether each row reads it for itself. late:
    rows that accumulators start from are packed before the region runs, so that a sum of two would
    come too late."""
    defs = definitions(ops)
    absorbed: set[Value] = set()
    plans: dict[Value, list[Node]] = {}
    for op in reversed(ops):
        if op.opcode != "add" or op.result in absorbed:
            continue
        leaves = add_leaves(op.result, defs, single)
        # Of weights alone, or of all steps at once, it is a number that each row adds, no more.
        like = [v for v in leaves if v.type == op.result.type]
        gemms = [defs[v] for v in like if is_gemm(defs.get(v)) and v in single]
        if not gemms:
            continue
        kind = by_row(gemms[0].operands[1])  # a weight of the row, or one for all rows
        gemms = [g for g in gemms if by_row(g.operands[1]) == kind]
        rest = [v for v in leaves if v not in {g.result for g in gemms}]
        rows = [v for v in rest if is_constant_row(v)]
        if late:
            del rows[1:]
        begin = next((v for v in rest if v in starts), None)
        if len(gemms) < 2 and not rows and begin is None:
            continue
        rest = [v for v in rest if v not in rows and v is not begin]
        b = Builder(op.span, f"{op.result.name}_start")
        init = rows[0] if rows else None
        for row in rows[1:]:  # two biases are one, worked out with the weights
            init = b.add(init, row)
        start = None if begin is None else starts[begin]
        plans[op.result] = [*b.ops, *_plan(op, gemms, init, start, rest)]
        absorbed.update(g.result for g in gemms)
        absorbed.update(inner_adds(op.result, defs, single))
    nodes: list[Node] = []
    for op in ops:
        if op.result in plans:
            nodes += plans[op.result]
        elif op.result in absorbed:
            continue
        elif is_gemm(op):
            nodes.append(Sum(op.result, (op,), None))
        else:
            nodes.append(op)
    return nodes


def _plan(
    op: Op, gemms: list[Op], init: Value | None, start: Sum | None, rest: list[Value]
) -> list[Node]:
    if not rest:
        return [Sum(op.result, tuple(gemms), init, start)]
    total = Value(f"{op.result.name}_acc", gemms[0].result.type)
    b = Builder(op.span, op.result.name)
    nodes: list[Node] = [Sum(total, tuple(gemms), init, start)]
    value = total
    for term in rest[:-1]:
        value = b.emit("add", value, term)
    last = Op("add", (value, rest[-1]), (op.result,), {}, op.span)
    return [*nodes, *b.ops, last]
