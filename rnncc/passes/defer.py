"""What only leaves the loop is done after it, over all steps at once.

Contractions that feed nothing but sequences that leave become one over all steps (`dx = dz @ W'`);
where steps are summed (`dU = sum of h' dz`), one over rows and steps. Operands that the loop
computes are stacked, if they are not already. A step of the backward is left with the contraction
its carry needs.

    >>> from rnncc.passes.differentiate import differentiate
    >>> from rnncc.lowering.examples import example, outline
    >>> from rnncc.passes.simplify import simplify
    >>> _, pullback = differentiate(example("h[t] = x[t] @ W + h[t-1]"), ["x", "W"])
    >>> outline(pullback)
    scan, backwards in time:
      carry d_h_1, from d_final_h
      d_h_2 = d_h[t]
      x_1 = x[t]
        d_h_3 = add(d_h_1, d_h_2)
        _0 = contract(d_h_3, W, labels=(l, kl, k))
        d_W = contract(d_h_3, x_1, labels=(l, k, kl), over=B)
      next d_h_1 = d_h_3; last is d__h_1
      d_x[t] = _0
      d_W_1[t] = d_W
    after:
      d_W_2 = sum_over(d_W_1, over=T)
    >>> outline(simplify(defer(pullback)))
    scan, backwards in time:
      carry d_h_1, from d_final_h
      d_h_2 = d_h[t]
        d_h_3 = add(d_h_1, d_h_2)
      next d_h_1 = d_h_3; last is d__h_1
      d_h_4[t] = d_h_3
    after:
      _0 = contract(d_h_4, W, labels=(l, kl, k))
      d_W = contract(d_h_4, x, labels=(l, k, kl), over=BT)

Non-Goals: lane-by-lane work that only leaves the loop: it is cheapest where its operands are.
"""

from __future__ import annotations

from dataclasses import replace

from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Program, Scan, Stack, Value, uses
from rnncc.ir.rewrite import definitions, prune, remap, remap_program


def defer(program: Program) -> Program:
    scan = program.scan
    if scan is None:
        return program
    needed = _carry_needs(scan)
    readers = uses(program)
    inner = set(scan.entering()) | {op.result for op in scan.body}
    moving: dict[Op, None] = {}
    for op in scan.body:
        if op.result in needed:
            continue
        if _gains(op, inner) or any(o in moved.results for moved in moving for o in op.operands):
            moving[op] = None
    if not moving:
        return program
    constants = _constants(scan, inner)
    stacks = {s.value: s.target for s in scan.ys}
    outer: dict[Value, Value] = {s.value: s.source for s in scan.xs}
    ys = list(scan.ys)
    after: list[Op] = []

    def lift(value: Value) -> Value:
        """The whole sequence of an inner value; a constant is itself, or made again."""
        if value not in inner:
            return value
        if value not in outer:
            if value in constants:
                again = remap(constants[value], {o: lift(o) for o in constants[value].operands})
                outer[value] = Value(value.name, value.type)
                after.append(replace(again, results=(outer[value],)))
                return outer[value]
            if value not in stacks:
                stacks[value] = Value(value.name, value.type.with_axes(value.type.axes + "T"))
                ys.append(Stack(value, stacks[value]))
            outer[value] = stacks[value]
        return outer[value]

    for op in moving:
        lifted = remap(op, {o: lift(o) for o in op.operands})
        type_ = OPS[op.opcode].infer(op.attrs, *(o.type for o in lifted.operands))
        result = Value(op.result.name, type_)
        outer[op.result] = result
        after.append(replace(lifted, results=(result,)))
    names = {s.target: outer[s.value] for s in ys if s.value in {m.result for m in moving}}
    body = tuple(op for op in scan.body if op not in moving)
    scan = Scan(
        scan.carries, scan.xs, body, tuple(s for s in ys if s.target not in names), scan.reverse
    )
    assert all(len(readers.get(m.result, ())) for m in moving)
    program = remap_program(replace(program, scan=scan), names)
    return prune(replace(program, after=(*after, *program.after)))


def _constants(scan: Scan, inner: set[Value]) -> dict[Value, Op]:
    """Numbers and what they, or values from outside, are spread to: the same at every step."""
    constants: dict[Value, Op] = {}
    for op in scan.body:
        if OPS[op.opcode].kind in (Kind.LEAF, Kind.LAYOUT):
            if all(o not in inner or o in constants for o in op.operands):
                constants[op.result] = op
    return constants


def _gains(op: Op, inner: set[Value]) -> bool:
    """Contractions that are one large one when all steps are done at once. A matrix of the row's
    own gains nothing, and stacking it would cost its size every step."""
    if OPS[op.opcode].kind is not Kind.CONTRACTION:
        return False
    return bool(op.attrs["over"]) or any(o not in inner for o in op.operands)


def _carry_needs(scan: Scan) -> set[Value]:
    """Every inner value that some carry depends on."""
    defs = definitions(scan.body)
    needed: set[Value] = set()
    waiting = [c.next for c in scan.carries]
    while waiting:
        value = waiting.pop()
        if value not in needed:
            needed.add(value)
            if value in defs:
                waiting += defs[value].operands
    return needed
