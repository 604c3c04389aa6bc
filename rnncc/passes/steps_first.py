"""Steps are summed before what is the same at every step is multiplied.

A gradient may contract what the loop puts out with something that has no steps: what a cell
attends to, the weights of a context's projection. The product of a sum is one contraction where
the sum of products is one for each step; and the sum itself is carried through the loop.

    >>> from rnncc.ir.builder import Builder
    >>> from rnncc.ir.program import Type, Value
    >>> from rnncc.ir.sizes import Size
    >>> n, k = Size.name("n"), Size.name("k")
    >>> b, d, keys = Builder(), Value("d", Type((n,), "BT")), Value("keys", Type((k,), "B"))
    >>> dU = b.contract(d, keys, ("n", "k", "nk"), over="BT")
    >>> db = b.sum_over(d, "BT")
    >>> [(op.opcode, op.attrs["over"]) for op in b.ops]
    [('contract', 'BT'), ('sum_over', 'BT')]
    >>> [(op.opcode, op.attrs["over"]) for op in first_steps(b.ops)[0]]
    [('sum_over', 'T'), ('contract', 'B'), ('sum_over', 'B')]

Non-Goals: sums of what two sequences are multiplied to (`defer` makes them one contraction).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rnncc.ir.builder import Builder
from rnncc.ir.program import Op, Program, Value
from rnncc.ir.rewrite import remap_program


def steps_first(program: Program) -> Program:
    after, same = first_steps(program.after)
    if tuple(after) == program.after:
        return program
    return remap_program(replace(program, after=tuple(after)), same)


def first_steps(ops: Sequence[Op]) -> tuple[list[Op], dict[Value, Value]]:
    """The ops, with a sum over steps for each sequence that some op multiplies by no other; and
    the values that are such a sum by now."""
    summed = {op: value for op in ops if (value := _only_sequence(op)) is not None}
    wanted = {*summed.values()}
    summed |= {op: op.operands[0] for op in ops if _sums_steps(op) and op.operands[0] in wanted}
    totals: dict[Value, Value] = {}
    same: dict[Value, Value] = {}
    b = Builder()
    for op in ops:
        source = summed.get(op)
        if source is None:
            b.ops.append(op)
            continue
        if source not in totals:
            totals[source] = b.emit("sum_over", source, over="T", name=source.name, span=op.span)
        rest = op.attrs["over"].replace("T", "")
        if op.opcode == "sum_over" and not rest:
            same[op.result] = totals[source]
            continue
        operands = tuple(totals[source] if o is source else o for o in op.operands)
        b.ops.append(replace(op, operands=operands, attrs={**op.attrs, "over": rest}))
    return b.ops, same


def _sums_steps(op: Op) -> bool:
    return op.opcode == "sum_over" and "T" in op.attrs["over"]


def _only_sequence(op: Op) -> Value | None:
    """Of a contraction over steps, the operand that has them, if the other has none."""
    if op.opcode != "contract" or "T" not in op.attrs["over"]:
        return None
    sequences = [o for o in op.operands if "T" in o.type.axes]
    return sequences[0] if len(sequences) == 1 else None
