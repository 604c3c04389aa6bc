"""What only a gradient asks for goes, once nothing is differentiated any more.

A surrogate is its value: the slope that `differentiate` used in its place, and all that was
computed for it alone, is in the pullback by now, or nobody needs it.

    >>> from rnncc.lowering.examples import example, outline
    >>> cell = example("h[t] = surrogate(floor(h[t-1] + x[t] @ W), exp(h[t-1]), of=h[t-1])")
    >>> [op.opcode for op in cell.scan.body]
    ['contract', 'add', 'floor', 'exp', 'surrogate']
    >>> [op.opcode for op in settle(cell).scan.body]
    ['contract', 'add', 'floor']

Non-Goals: dead ops in general (`simplify`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rnncc.ir.program import Op, Program, Scan, Value
from rnncc.ir.rewrite import prune, remap_program


def settle(program: Program) -> Program:
    if all(op.opcode != "surrogate" for op in program.ops()):
        return program
    names: dict[Value, Value] = {}
    before, after = _settled(program.before, names), _settled(program.after, names)
    scan = program.scan
    if scan:
        body = _settled(scan.body, names)
        scan = Scan(scan.carries, scan.xs, body, scan.ys, scan.reverse)
    for value in names:
        while names[value] in names:
            names[value] = names[names[value]]
    settled = replace(program, before=before, scan=scan, after=after)
    return prune(remap_program(settled, names))


def _settled(ops: Iterable[Op], names: dict[Value, Value]) -> tuple[Op, ...]:
    kept = []
    for op in ops:
        if op.opcode != "surrogate":
            kept.append(op)
            continue
        value, result = op.operands[0], op.result
        lost = "".join(a for a in result.type.axes if a not in value.type.axes)
        if lost:  # the same in all rows, but stood for what isn't
            kept.append(replace(op, opcode="spread", operands=(value,), attrs={"axes": lost}))
        else:
            names[result] = value
    return tuple(kept)
