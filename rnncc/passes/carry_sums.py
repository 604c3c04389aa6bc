"""What a loop puts out only to be summed over all steps is summed step by step, in a carry.

A sequence takes memory for every step, is written there and read again; a sum of the steps so far
takes a row. Rows are summed after the loop, as before, if they are. So the gradient of a weight
that is multiplied lane by lane needs no more memory for more steps.

    >>> from rnncc.passes.differentiate import differentiate
    >>> from rnncc.lowering.examples import example, outline
    >>> cell = example("h[t] = b * h[t-1] + x[t] @ W")
    >>> _, pullback = differentiate(cell, ["b"])
    >>> outline(carry_sums(pullback))
    before:
      _0 = full(value=0.0)
      _1 = spread(_0, axes=B)
    scan, backwards in time:
      carry d_h_1, from d_final_h
      carry d_b, from _1
      d_h_2 = d_h[t]
      _h_1_1 = _h_1[t]
        d_h_3 = add(d_h_1, d_h_2)
        _2 = mul(d_h_3, _h_1_1)
        d__h_1 = mul(d_h_3, b)
        d_b_1 = add(d_b, _2)
      next d_h_1 = d__h_1; last is d__h_1_1
      next d_b = d_b_1; last is d_b_2
    after:
      d_b_3 = sum_over(d_b_2, over=B)

Non-Goals: sequences that something else reads, too, such as what a product of all steps is made of:
they are there anyway, and a sum over them costs next to nothing.
"""

from __future__ import annotations

from dataclasses import replace

from rnncc.ir.builder import Builder
from rnncc.ir.program import Carry, Op, Program, Stack, Type, Value, uses
from rnncc.ir.rewrite import definitions, remap_program
from rnncc.passes.simplify import simplify


def carry_sums(program: Program) -> Program:
    scan = program.scan
    if scan is None:
        return program
    sums = _sums_of_steps(program)
    if not sums:
        return program
    before, body = Builder(), Builder()
    carries = list(scan.carries)
    after: dict[Op, Op] = {}
    of_rows: dict[Value, Value] = {}  # sums that are the rows' own
    zeros: dict[Type, Value] = {}
    for op, stack in sums.items():
        value = stack.value
        before.span = body.span = op.span
        if value.type not in zeros:
            row = before.full(0.0, value.type.shape)
            zeros[value.type] = before.emit("spread", row, axes=value.type.axes)
        name = op.result.name
        so_far, final = Value(name, value.type), Value(name, value.type)
        total = body.emit("add", so_far, value, name=name)
        carries.append(Carry(name, zeros[value.type], so_far, total, final))
        if op.attrs["over"] == "T":
            of_rows[op.result] = final
        else:
            after[op] = replace(op, operands=(final,), attrs={**op.attrs, "over": "B"})
    gone = set(sums.values())
    scan = replace(
        scan,
        carries=tuple(carries),
        body=(*scan.body, *body.ops),
        ys=tuple(s for s in scan.ys if s not in gone),
    )
    carried = replace(
        program,
        before=(*program.before, *before.ops),
        scan=scan,
        after=tuple(after.get(op, op) for op in program.after if op.result not in of_rows),
    )
    carried = remap_program(carried, of_rows)
    return simplify(carried)  # other zeros may be there


def _sums_of_steps(program: Program) -> dict[Op, Stack]:
    """Sums over rows and steps of what nobody else reads, and what puts it out."""
    assert program.scan is not None
    readers, made = uses(program), definitions(program.scan.body)
    stacks = {s.target: s for s in program.scan.ys}
    return {
        op: stacks[source]
        for op in program.after
        if op.opcode == "sum_over" and "T" in op.attrs["over"]
        for source in op.operands
        if source in stacks
        and readers[source] == [op]
        and stacks[source].value in made
        and stacks[source].value.type.axes == "B"
    }
