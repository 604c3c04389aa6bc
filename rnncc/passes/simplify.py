"""Constants folded, common subexpressions shared, layout pushed towards the leaves, dead ops gone.

The layout rules bring every spelling of a cell to one form: `split(x @ kernel, 4)` and four
separate products both become four contractions with (slices of) weights, so the schedule sees
the same program. `simplify_layout` holds those rules; this file holds arithmetic and the walk.

Non-Goals: reassociation (`hoist` does that where it matters), anything with a cost model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rnncc.ir.builder import Builder
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Program, Scan, Value, uses
from rnncc.passes.rewrite import prune, remap, remap_program

MAX_ROUNDS = 12


class Context(Builder):
    """A builder that shares equal ops and knows how values were made and who reads them."""

    def __init__(self, readers: Mapping[Value, Sequence[object]]) -> None:
        super().__init__()
        self.defs: dict[Value, Op] = {}
        self.readers = readers
        self._table: dict[Any, Value] = {}

    def emit(
        self, opcode: str, *operands: Value, name: str | None = None, span: Any = None, **attrs: Any
    ) -> Value:
        key = (opcode, operands, tuple(sorted(attrs.items(), key=lambda kv: kv[0])))
        if key not in self._table:
            value = super().emit(opcode, *operands, name=name, span=span, **attrs)
            self.defs[value] = self.ops[-1]
            self._table[key] = value
        return self._table[key]

    def keep(self, op: Op) -> Value:
        """The op as it is, or the value of an equal one. Its type follows its operands."""
        key = (op.opcode, op.operands, tuple(sorted(op.attrs.items(), key=lambda kv: kv[0])))
        if key not in self._table:
            type_ = OPS[op.opcode].infer(op.attrs, *(o.type for o in op.operands))
            if type_ != op.result.type:
                op = replace(op, results=(Value(op.result.name, type_),))
            self.ops.append(op)
            self.defs[op.result] = op
            self._table[key] = op.result
        return self._table[key]

    def scope(self) -> Context:
        """A context for a region that also sees this one's values."""
        inner = Context(self.readers)
        inner.defs = dict(self.defs)
        inner._table = dict(self._table)
        return inner

    def op(self, value: Value, opcode: str) -> Op | None:
        """The op that made a value, if it is of this opcode."""
        made = self.defs.get(value)
        return made if made is not None and made.opcode == opcode else None

    def constant(self, value: Value) -> Any:
        """The number a value is filled with, or None."""
        full = self.op(value, "full")
        return full.attrs["value"] if full else None

    def single(self, op: Op) -> bool:
        """True when only one reader waits for this result."""
        return len(self.readers.get(op.result, ())) <= 1


Rule = Callable[[Context, Op], Value | None]
RULES: dict[str, list[Rule]] = {}


def rule(*opcodes: str) -> Callable[[Rule], Rule]:
    def register(fn: Rule) -> Rule:
        for opcode in opcodes:
            RULES.setdefault(opcode, []).append(fn)
        return fn

    return register


def simplify(program: Program) -> Program:
    """Rewrites until nothing changes (or MAX_ROUNDS); the meaning stays to rounding."""
    import rnncc.passes.simplify_layout  # noqa: F401  registers its rules

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
    before = _rewrite(program.before, outer, names)
    scan = program.scan
    body: tuple[Op, ...] = ()
    if scan:
        body = _rewrite(scan.body, outer.scope(), names)
        _alias_stacks(scan, names)
    after = _rewrite(program.after, outer, names)[len(before) :]
    if scan:
        scan = Scan(scan.carries, scan.xs, body, scan.ys, scan.reverse)
    _close(names)
    new = remap_program(replace(program, before=before, scan=scan, after=after), names)
    return _shape_of(program) != _shape_of(new), new


def _shape_of(program: Program) -> list[tuple[Any, ...]]:
    return [(op.opcode, op.operands, op.results) for op in program.ops()]


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
        for fold in (_fold_constants, *RULES.get(op.opcode, ())):
            new = fold(ctx, op)
            if new is not None:
                break
        if new is None:
            new = ctx.keep(op)
        if new is not op.result:
            names[op.result] = new
    return tuple(ctx.ops)


def _fold_constants(ctx: Context, op: Op) -> Value | None:
    opdef = OPS[op.opcode]
    if opdef.kind is not Kind.POINTWISE or op.opcode == "stop_gradient":
        return None
    numbers = [ctx.constant(o) for o in op.operands]
    if any(n is None for n in numbers):
        return None
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
