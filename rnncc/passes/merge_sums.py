"""Sums over rows and steps that are only added up become one sum, of what the loop has added.

A weight that a step reads in several places has a gradient from each: a sum of sums. Added in the
loop they are one sequence, or one carry, where there was one for each of them; an equation that is
unfolded six times would have six. They are added in the order in which the loop makes them, so that
no more than the sum so far waits for the next.

    >>> from rnncc.lowering.examples import example, outline
    >>> from rnncc.passes.differentiate import differentiate
    >>> from rnncc.passes.defer import defer
    >>> from rnncc.passes.simplify import simplify
    >>> cell = example("a = b * h[t-1]", "h[t] = b * a + x[t] @ W")
    >>> _, pullback = differentiate(cell, ["b"])
    >>> outline(merge_sums(simplify(defer(pullback))))
    scan, backwards in time:
      carry d_h_1, from d_final_h
      d_h_2 = d_h[t]
      a_1 = a[t]
      _h_1_1 = _h_1[t]
        d_h_3 = add(d_h_1, d_h_2)
        _0 = mul(d_h_3, a_1)
        d_a = mul(d_h_3, b)
        _1 = mul(d_a, _h_1_1)
        d__h_1 = mul(d_a, b)
        d_b = add(_0, _1)
      next d_h_1 = d__h_1; last is d__h_1_1
      d_b_1[t] = d_b
    after:
      d_b_2 = sum_over(d_b_1, over=BT)

Non-Goals: sums that something else reads, too; contractions, each of which has operands of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rnncc.ir.builder import Builder
from rnncc.ir.program import Op, Program, Stack, Value, uses
from rnncc.ir.rewrite import definitions, prune

Term = tuple[bool, Value]  # whether it is subtracted


def merge_sums(program: Program) -> Program:
    scan = program.scan
    if scan is None:
        return program
    readers: dict[Value, list[Any]] = {**uses(program)}
    made = definitions(scan.body)
    stacks = {s.target: s for s in scan.ys if s.value in made}
    body = Builder()
    place = {value: i for i, value in enumerate(made)}
    terms: dict[Value, list[Term]] = {}  # of what is summed
    sums: dict[Value, Op] = {}  # that nobody but one addition reads, of what the loop alone leaves
    after: list[Op] = []
    new: list[Stack] = []
    for op in program.after:
        pair = _pair(op, sums, stacks)
        if pair is not None:
            left, right = (terms.get(v) or [(False, v)] for v in pair)
            right = [(minus != (op.opcode == "sub"), v) for minus, v in right]
            joined = sorted([*left, *right], key=lambda term: place[term[1]])
            body.span = op.span
            total = _added(joined, body, op.result.name)
            terms[total] = joined
            target = Value(op.result.name, stacks[sums[op.operands[0]].operands[0]].target.type)
            op = replace(sums[op.operands[0]], results=op.results, operands=(target,))
            stacks[target] = Stack(total, target)
            new.append(stacks[target])
            readers[target] = [op]
        if _is_sum_of_loop(op, stacks, readers) and len(readers.get(op.result, ())) == 1:
            sums[op.result] = op
        after.append(op)
    if not new:
        return program
    scan = replace(scan, body=(*scan.body, *body.ops), ys=(*scan.ys, *new))
    return prune(replace(program, scan=scan, after=tuple(after)))


def _is_sum_of_loop(
    op: Op, stacks: dict[Value, Stack], readers: Mapping[Value, Sequence[object]]
) -> bool:
    """Whether it sums steps of a sequence that nobody else reads."""
    if op.opcode != "sum_over" or "T" not in op.attrs["over"]:
        return False
    (source,) = op.operands
    return source in stacks and readers[source] == [op]


def _pair(op: Op, sums: dict[Value, Op], stacks: dict[Value, Stack]) -> tuple[Value, Value] | None:
    """What the two sums that this adds, or subtracts, are sums of: values of a step."""
    if op.opcode not in ("add", "sub") or not all(o in sums for o in op.operands):
        return None
    left, right = (sums[o] for o in op.operands)
    if left is right or left.attrs["over"] != right.attrs["over"]:
        return None
    first, second = (stacks[s.operands[0]].value for s in (left, right))
    return None if first.type != second.type else (first, second)


def _added(terms: Sequence[Term], body: Builder, name: str) -> Value:
    """Their sum, in order."""
    if all(minus for minus, _ in terms):
        return body.emit("neg", _added([(False, v) for _, v in terms], body, name), name=name)
    (minus, total), *rest = terms
    if minus:
        total = body.emit("neg", total, name=name)
    for minus, value in rest:
        total = body.emit("sub" if minus else "add", total, value, name=name)
    return total
