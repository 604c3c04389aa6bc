"""Which parameters gradients reach: what `differentiate` would find out, without its Programs.

A gradient goes from a result through every op that has a vjp, to the operands the vjp makes one
for: not through a comparison, `sign` or `stop_gradient`, nor to what a `where` chooses by.

    >>> from rnncc.lowering.examples import example
    >>> cell = example("h[t] = where(h[t-1] @ U > 0, h[t-1], x[t] @ W)")
    >>> sorted(reached(cell) & {"U", "W"})
    ['W']

Non-Goals: gradients that are zero by their numbers, as those of `0 * w` are.
"""

from __future__ import annotations

from collections.abc import Iterable

from rnncc.ir.builder import Builder
from rnncc.ir.ops import OPS
from rnncc.ir.program import Op, Program, Value

_Flows = list[tuple[Value, list[Value]]]


def reached(program: Program) -> set[str]:
    """The names of the parameters that a gradient of any result reaches."""
    values = {r.value for r in program.results if r.role.kind != "residual"}
    _follow(_flows(program.after), values)
    if program.scan:
        scan, body = program.scan, _flows(program.scan.body)
        values.update(s.value for s in scan.ys if s.target in values)
        values.update(c.next for c in scan.carries if c.final in values)
        count = -1
        while count != len(values):
            count = len(values)
            _follow(body, values)
            values.update(c.next for c in scan.carries if c.value in values)
        # Of a sequence without steps, too: its last states are its first.
        values.update(c.init for c in scan.carries if c.value in values)
        values.update(s.source for s in scan.xs if s.value in values)
    _follow(_flows(program.before), values)
    return {p.value.name for p in program.params if p.value in values}


def _flows(ops: Iterable[Op]) -> _Flows:
    """Of each op, last first, its result and the operands that its gradient goes on to."""
    flows: _Flows = []
    asked: dict[tuple[str, int], list[bool]] = {}  # a rule's answer is of its op, not of values
    for op in reversed(list(ops)):
        if op.result.type.dtype != "float":
            continue
        key = op.opcode, len(op.operands)
        if key not in asked:
            asked[key] = _differentiated(op)
        pairs = zip(op.operands, asked[key], strict=True)
        flows.append(
            (op.result, [o for o, goes_on in pairs if goes_on and o.type.dtype == "float"])
        )
    return flows


def _follow(flows: _Flows, found: set[Value]) -> None:
    for result, operands in flows:
        if result in found:
            found.update(operands)


def _differentiated(op: Op) -> list[bool]:
    """For which operands an op's vjp makes a gradient."""
    rule = OPS[op.opcode].vjp
    if rule is None:
        return [False] * len(op.operands)
    return [d is not None for d in rule(Builder(), op, Value("d", op.result.type))]


def read_at(program: Program, name: str) -> list[Op]:
    """The ops that read a parameter; none if the Program hasn't it."""
    value = next((p.value for p in program.params if p.value.name == name), None)
    return [op for op in program.ops() if value in op.operands]
