"""Constants folded, common subexpressions shared, layout pushed towards the leaves, dead ops gone.

The layout rules bring every spelling of a cell to one form: `split(x @ kernel, 4)` and four
separate products both become four contractions with (slices of) weights, so the schedule sees
the same program. The rules are in `simplify_arithmetic` and `simplify_layout`; here is the walk.

    >>> from rnncc.lowering.examples import example, outline
    >>> cell = example("z = 1 * (x[t] @ W)", "h[t] = h[t-1] + (z + x[t] @ W)")
    >>> outline(cell)
    scan:
      carry _h_1, from h
      x_1 = x[t]
        _0 = contract(x_1, W, labels=(k, kl, l))
        _1 = full(value=1.0)
        z = mul(_1, _0)
        _2 = contract(x_1, W, labels=(k, kl, l))
        _3 = add(z, _2)
        h_1 = add(_h_1, _3)
      next _h_1 = h_1; last is final_h
      h_2[t] = h_1
    >>> outline(simplify(cell))
    scan:
      carry _h_1, from h
      x_1 = x[t]
        _0 = contract(x_1, W, labels=(k, kl, l))
        _1 = add(_0, _0)
        h_1 = add(_h_1, _1)
      next _h_1 = h_1; last is final_h
      h_2[t] = h_1

Non-Goals: reassociation (`hoist` does that where it matters), anything with a cost model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from rnncc.ir.program import Op, Program, Scan, Slice, Value, uses
from rnncc.ir.rewrite import prune, remap, remap_program
from rnncc.passes import simplify_layout  # noqa: F401  enters its rules in the table
from rnncc.passes.rules import RULES, Context
from rnncc.passes.simplify_arithmetic import fold_constants

MAX_ROUNDS = 12


def simplify(program: Program) -> Program:
    """Rewrites until nothing changes (or MAX_ROUNDS); the meaning stays to rounding."""
    program = prune(program)
    for _ in range(MAX_ROUNDS):
        changed, program = _round(program)
        program = prune(program)
        if not changed:
            break
    return program


def _round(program: Program) -> tuple[bool, Program]:
    names: dict[Value, Value] = {}
    outer = Context(uses(program))
    _rewrite(program.before, outer, names)
    scan = program.scan
    body: tuple[Op, ...] = ()
    if scan:
        _unchanging(scan, names)
        scan = _with_types(scan, outer, names)
    count = len(outer.ops)
    if scan:
        body = _rewrite(scan.body, outer.scope(), names)
        _alias_stacks(scan, names)
    _rewrite(program.after, outer, names)
    results = tuple(replace(r, value=_as_typed(outer, r.value, names)) for r in program.results)
    if scan:
        scan = Scan(scan.carries, scan.xs, body, scan.ys, scan.reverse)
    _close(names)
    before, after = tuple(outer.ops[:count]), tuple(outer.ops[count:])
    new = replace(program, before=before, scan=scan, after=after, results=results)
    new = remap_program(new, names)
    return _shape_of(program) != _shape_of(new), new


def _shape_of(program: Program) -> list[tuple[Any, ...]]:
    return [(op.opcode, op.operands, op.results) for op in program.ops()]


def _unchanging(scan: Scan, names: dict[Value, Value]) -> None:
    """A carry handed on as it came is what it started from: such are cotangents of sums."""
    for c in scan.carries:
        if c.next is c.value and c.init.type == c.value.type == c.final.type:
            names[c.value] = names[c.final] = names.get(c.init, c.init)


def _with_types(scan: Scan, ctx: Context, names: dict[Value, Value]) -> Scan:
    """What enters the loop may vary over less than it did: its slices do, too, its carries don't.

    A step of what is the same at every step is that: such are cotangents of sums over steps.
    """
    xs = []
    for s in scan.xs:
        source = names.get(s.source, s.source)
        spread = ctx.op(source, "spread")
        if spread is not None and "T" not in spread.operands[0].type.axes:
            axes, ctx.span = spread.attrs["axes"].replace("T", ""), spread.span
            (same,) = spread.operands
            names[s.value] = ctx.emit("spread", same, axes=axes) if axes else same
        elif "T" not in source.type.axes:
            names[s.value] = source
        else:
            if source.type.inner() != s.value.type:
                names[s.value] = Value(s.value.name, source.type.inner())
            xs.append(Slice(names.get(s.value, s.value), source))
    carries = tuple(replace(c, init=_as_typed(ctx, c.init, names)) for c in scan.carries)
    return replace(scan, xs=tuple(xs), carries=carries)


def _as_typed(ctx: Context, value: Value, names: dict[Value, Value]) -> Value:
    """What is read in a value's place, over as many axes as the value itself."""
    new = names.get(value, value)
    lost = "".join(a for a in value.type.axes if a not in new.type.axes)
    ctx.span = ctx.defs[new].span if new in ctx.defs else None
    return ctx.emit("spread", new, axes=lost) if lost else new


def _alias_stacks(scan: Scan, names: dict[Value, Value]) -> None:
    """Stacking what was sliced gives the sequence itself; stacking a value twice, one stack."""
    seen: dict[Value, Value] = {}
    sources = {s.value: s.source for s in scan.xs}
    for ys in scan.ys:
        value = names.get(ys.value, ys.value)
        if value in sources:
            names[ys.target] = sources[value]
        elif value in seen:
            names[ys.target] = seen[value]
        else:
            seen[value] = ys.target


def _close(names: dict[Value, Value]) -> None:
    for value in list(names):
        target = names[value]
        while target in names and names[target] is not target:
            target = names[target]
        names[value] = target


def _rewrite(ops: Iterable[Op], ctx: Context, names: dict[Value, Value]) -> tuple[Op, ...]:
    for op in ops:
        op = remap(op, names)
        ctx.span, ctx.name = op.span, op.result.name
        new = None
        for fold in (fold_constants, *RULES.get(op.opcode, ())):
            new = fold(ctx, op)
            if new is not None:
                break
        if new is None:
            new = ctx.keep(op)
        if new is not op.result:
            names[op.result] = new
    return tuple(ctx.ops)
