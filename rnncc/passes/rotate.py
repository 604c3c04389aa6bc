"""A contraction that only feeds the next step's carry moves to the start of that step.

    next d_h = e + dz @ U'        becomes        carry dz (zeros at first), carry e
                                                 d_h = e + dz_before @ U'      at the start

The textbook adjoint of a gated cell has two dependent stages a step: the pointwise backward,
then dz @ U' for the step before. Rotated, both are one stage: the contraction fills the
accumulators, the pointwise backward is its epilogue. Entry and exit are peeled: the first step
receives the cotangent of the final state in e (the contraction of zeros is skipped), and the
contraction of the last step's dz runs after the loop, where it gives the gradient of the
initial state. The sum is kept `apart` from sums it is a term of, so that a sequence in pieces has
the bits of the whole.

A contraction may reach the carry through products with what the step knows otherwise, as
`(dz @ U') * mask` does. Then the products move with it, and their factors are handed on, too.

Programs run one step at least: a caller answers for none.

    >>> from rnncc.passes.differentiate import differentiate
    >>> from rnncc.lowering.examples import example, outline
    >>> _, pullback = differentiate(example("h[t] = x[t] @ W + h[t-1] @ U"), ["x"])
    >>> outline(pullback)
    scan, backwards in time:
      carry d_h_1, from d_final_h
      d_h_2 = d_h[t]
        d_h_3 = add(d_h_1, d_h_2)
        _0 = contract(d_h_3, U, labels=(l, kl, k))
        _1 = contract(d_h_3, W, labels=(l, kl, k))
      next d_h_1 = _0; last is d__h_1
      d_x[t] = _1
    >>> outline(rotate(pullback))
    before:
      _0 = full(value=0.0)
      _1 = spread(_0, axes=B)
    scan, backwards in time:
      carry d_h_1, from d_final_h
      carry d_h_2, from _1
      d_h_3 = d_h[t]
        _2 = contract(d_h_2, U, labels=(l, kl, k))
        d_h_4 = add(d_h_1, _2, apart=True)
        d_h_5 = add(d_h_4, d_h_3)
        _3 = contract(d_h_5, W, labels=(l, kl, k))
        d_h_6 = full(value=0.0)
      next d_h_1 = d_h_6; last is d_h_7
      next d_h_2 = d_h_5; last is d_h_8
      d_x[t] = _3

Non-Goals: contractions that something else reads too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from rnncc.ir.builder import Builder
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Carry, Op, Program, Scan, Value, uses
from rnncc.ir.rewrite import add_leaves, definitions, lines_of, prune, remap, sum_of


def rotate(program: Program) -> Program:
    scan = program.scan
    if scan is None:
        return program
    turn = _Rotation(program, scan)
    for carry in scan.carries:
        turn.carry(carry)
    return turn.result() if turn.names else program


class _Rotation:
    """The regions of the rotated program while they are being built."""

    def __init__(self, program: Program, scan: Scan) -> None:
        self.program, self.scan = program, scan
        self.single = {v for v, rs in uses(program).items() if len(rs) == 1}
        self.defs = definitions(scan.body)
        self.inner = set(scan.entering()) | set(self.defs)
        self.lines = lines_of(program)
        self.first, self.prefix, self.last = Builder(), Builder(), Builder()
        self.suffix: list[Op] = []
        self.carries: list[Carry] = []
        self.names: dict[Value, Value] = {}
        # (dz, what stands for it at first) -> (dz of the step before, the last dz)
        self.moved: dict[tuple[Value, float], tuple[Value, Value]] = {}

    def carry(self, carry: Carry) -> None:
        rotated = _split(carry.next, self.defs, self.single, self.inner)
        if rotated is None:
            self.carries.append(carry)
            return
        rest, moved = rotated
        line = self.lines.get(carry.next)
        b = Builder(line, carry.name)
        e = _add(b, rest)
        b.span = line
        if e is None:
            e = b.full(0.0, carry.value.type.shape)
        self.suffix += b.ops
        entry = Value(carry.name, carry.value.type)
        final = Value(carry.name, carry.final.type)
        self.carries.append(Carry(carry.name, carry.init, entry, e, final))
        terms = [entry]
        # What only enters at the first step has left after it, and there is a first step.
        final_terms = [final] if rest else []
        for term in moved:
            terms.append(self.again(self.prefix, term, 0))
            final_terms.append(self.again(self.last, term, 1))
        self.prefix.span = self.last.span = line
        self.names[carry.value] = _sum_apart(self.prefix, terms, carry.value.name)
        self.names[carry.final] = _sum_apart(self.last, final_terms, carry.final.name)

    def again(self, b: Builder, term: Op | _Scaled[Op], which: int) -> Value:
        """The term of what the step before (0) or the last step (1) handed on."""
        if isinstance(term, Op):
            u, w, flipped = _operands(term, self.inner)
            return _contract_again(b, term, self.move(u)[which], w, flipped)
        terms = [self.again(b, t, which) for t in term.terms]
        b.span = term.op.span
        total = sum_of(b, terms)
        factor = term.factor
        leaf = self.defs.get(factor)
        if leaf is not None and OPS[leaf.opcode].kind is Kind.LEAF:
            factor = b.emit(leaf.opcode, name=factor.name, span=leaf.span, **leaf.attrs)
        elif factor in self.inner:  # zeros over zeros are not zero, so what divides begins as ones
            factor = self.move(factor, 1.0 if term.op.opcode == "div" else 0.0)[which]
        return term.emit(b, total, factor)

    def move(self, u: Value, first: float = 0.0) -> tuple[Value, Value]:
        """u of the step before, and the last u: a carry hands it on, the same number at first."""
        if (u, first) not in self.moved:
            self.first.span = self.lines.get(u)
            number = self.first.full(first, u.type.shape)
            start = self.first.emit("spread", number, axes=u.type.axes) if u.type.axes else number
            before, last = self.moved[u, first] = (Value(u.name, u.type), Value(u.name, u.type))
            self.carries.append(Carry(u.name, start, before, u, last))
        return self.moved[u, first]

    def result(self) -> Program:
        names, scan, program = self.names, self.scan, self.program
        body = (*self.prefix.ops, *(remap(op, names) for op in (*scan.body, *self.suffix)))
        outer = {k: v for k, v in names.items() if k not in self.inner}
        results = tuple(replace(r, value=outer.get(r.value, r.value)) for r in program.results)
        rotated = replace(
            program,
            before=(*program.before, *self.first.ops),
            scan=Scan(
                tuple(replace(c, next=names.get(c.next, c.next)) for c in self.carries),
                scan.xs,
                body,
                tuple(replace(s, value=names.get(s.value, s.value)) for s in scan.ys),
                scan.reverse,
            ),
            after=(*self.last.ops, *(remap(op, outer) for op in program.after)),
            results=results,
        )
        return prune(rotated)


def _sum_apart(b: Builder, terms: list[Value], name: str) -> Value:
    """The terms' sum, which no other sum may take apart: where one run of the loop ends and the
    next goes on, its value is handed over as one number, and has to be the same number inside."""
    *most, last = terms
    return b.emit("add", sum_of(b, most), last, name=name, apart=True) if most else last


def _contract_again(b: Builder, op: Op, u: Value, w: Value, flipped: bool) -> Value:
    """The contraction, of another u."""
    b.span = op.span
    pair = (w, u) if flipped else (u, w)
    return b.contract(*pair, op.attrs["labels"], name=op.result.name, span=op.span)


Leaf = TypeVar("Leaf", Value, Op)
_DEEPEST = 50  # factors of factors of ... of what moves


@dataclass(frozen=True)
class _Scaled(Generic[Leaf]):
    """A sum times or over a factor; the op says which, and in which order."""

    op: Op
    terms: Sequence[Leaf | _Scaled[Leaf]]
    factor: Value

    def emit(self, b: Builder, total: Value, factor: Value) -> Value:
        b.span = self.op.span
        pair = (factor, total) if self.op.operands[0] is self.factor else (total, factor)
        return b.emit(self.op.opcode, *pair, name=self.op.result.name)


def _add(b: Builder, terms: Sequence[Value | _Scaled[Value]]) -> Value | None:
    """The sum of terms that stay; None of none."""
    values = []
    for term in terms:
        if isinstance(term, _Scaled):
            total = _add(b, term.terms)
            assert total is not None
            term = term.emit(b, total, term.factor)
        values.append(term)
    return sum_of(b, values) if values else None


def _split(
    value: Value, defs: dict[Value, Op], single: set[Value], inner: set[Value], depth: int = 0
) -> tuple[list[Value | _Scaled[Value]], list[Op | _Scaled[Op]]] | None:
    """The terms of a sum that stay, and those that move; None where none moves."""
    stay: list[Value | _Scaled[Value]] = []
    move: list[Op | _Scaled[Op]] = []
    for leaf in add_leaves(value, defs, single) if value in single else ():
        op = defs.get(leaf) if leaf in single else None
        scaled = _scaled(op, defs, single, inner, depth) if op is not None else None
        if op is not None and _rotatable(op, inner, defs):
            move.append(op)
        elif scaled is not None:
            stay += scaled[0]
            move += scaled[1]
        else:
            stay.append(leaf)
    return (stay, move) if move else None


def _scaled(
    op: Op, defs: dict[Value, Op], single: set[Value], inner: set[Value], depth: int
) -> tuple[list[_Scaled[Value]], list[_Scaled[Op]]] | None:
    """A product or quotient in two, where a part of what is multiplied moves."""
    if op.opcode not in ("mul", "div") or depth > _DEEPEST:
        return None
    for i in (0, 1) if op.opcode == "mul" else (0,):
        parts = _split(op.operands[i], defs, single, inner, depth + 1)
        if parts is not None:
            (stay, move), factor = parts, op.operands[1 - i]
            leaf = factor in defs and OPS[defs[factor].opcode].kind is Kind.LEAF
            if factor in inner and not leaf and "B" not in factor.type.axes:
                return None  # a carry has a value for each row
            return [_Scaled(op, stay, factor)] if stay else [], [_Scaled(op, move, factor)]
    return None


def _rotatable(op: Op, inner: set[Value], defs: dict[Value, Op]) -> bool:
    if op.opcode != "contract" or op.attrs["over"]:
        return False
    computed = [o for o in op.operands if o in defs]
    constant = [o for o in op.operands if o not in inner]
    return len(computed) == 1 and len(constant) == 1 and "B" in computed[0].type.axes


def _operands(op: Op, inner: set[Value]) -> tuple[Value, Value, bool]:
    a, b = op.operands
    return (a, b, False) if a in inner else (b, a, True)
