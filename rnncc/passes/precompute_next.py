"""What a contraction needs of the carries alone is made at the end of the step before.

    z = x + drop(h) @ U        becomes        carry u, from drop(h0)
    next h = tanh(z)                          z = x + u @ U
                                              next h = tanh(z), next u = drop(next h)

A contraction needs every lane of its operand. Made at the start of a step, that operand is a stage
of its own, which the contraction waits for; at the end of the step before it is one more statement
where the carry is made. The first one is made before the loop.

A random draw of a step is drawn one step ahead. What else changes from step to step is not there
yet at the end of the step before: then the value stays where it is.

    >>> from rnncc.lowering.examples import example, outline
    >>> cell = example("h[t] = tanh(x[t] @ W + (0.5 * h[t-1]) @ U)")
    >>> outline(precompute_next(cell))
    before:
      _0 = full(value=0.5)
      _1 = mul(_0, h)
    scan:
      carry _h_1, from h
      carry _2, from _1
      x_1 = x[t]
        _3 = contract(x_1, W, labels=(k, kl, l))
        _4 = full(value=0.5)
        _5 = contract(_2, U, labels=(k, kl, l))
        _6 = add(_3, _5)
        h_1 = tanh(_6)
        _7 = mul(_4, h_1)
      next _h_1 = h_1; last is final_h
      next _2 = _7; last is _8
      h_2[t] = h_1

Non-Goals: reductions of carries; values in other lanes than their carries'.
"""

from __future__ import annotations

from dataclasses import replace

from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Carry, Op, Program, Scan, Slice, Value
from rnncc.ir.rewrite import definitions, prune, remap, remap_program


def precompute_next(program: Program) -> Program:
    """After `hoist`: by then what doesn't change is outside the loop."""
    if program.scan is None:
        return program
    turn = _Precomputation(program, program.scan)
    for value in turn.wanted():
        turn.move(value)
    return turn.result() if turn.names else program


class _Precomputation:
    """The regions of the program while values move."""

    def __init__(self, program: Program, scan: Scan) -> None:
        self.program, self.scan = program, scan
        self.defs = definitions(scan.body)
        self.carried = {c.value: c for c in scan.carries}
        before = definitions(program.before)
        draws = {s: before.get(s.source) for s in scan.xs}
        self.draws = {
            s.value: op
            for s, op in draws.items()
            if op is not None and op.opcode == "uniform" and not scan.reverse
        }
        self.inner = {*scan.entering(), *self.defs}
        self.first: list[Op] = []  # before the loop
        self.suffix: list[Op] = []
        self.slices: list[Slice] = []
        self.carries: list[Carry] = []
        self.names: dict[Value, Value] = {}
        # A value of the step -> the one before the loop; the one of the step to come.
        self.start = {c.value: c.init for c in scan.carries}
        self.coming = {c.value: c.next for c in scan.carries}

    def wanted(self) -> list[Value]:
        """Operands of contractions that carries alone make."""
        early, changing = self._early()
        self.coming |= {v: v for v in early - changing}  # every step has the same
        operands: dict[Value, None] = {}
        for op in self.scan.body:
            for operand in op.operands if op.opcode == "contract" else ():
                while operand in self.defs and OPS[self.defs[operand].opcode].kind is Kind.LAYOUT:
                    operand = self.defs[operand].operands[0]
                if operand in changing:
                    operands[operand] = None
        return list(operands)

    def _early(self) -> tuple[set[Value], set[Value]]:
        """Values of the body that could be made a step ahead, and those of them that change."""
        early: set[Value] = set()
        changing: set[Value] = set()
        for op in self.scan.body:
            inner = [o for o in op.operands if o in self.inner]
            kind = OPS[op.opcode].kind
            moves = kind is Kind.POINTWISE or (kind in (Kind.LEAF, Kind.LAYOUT) and not inner)
            if moves and all(o in early or o in self.carried or o in self.draws for o in inner):
                early.add(op.result)
                if any(o in changing or o in self.carried or o in self.draws for o in inner):
                    changing.add(op.result)
        return early, changing

    def move(self, value: Value) -> None:
        entering = Value(value.name, value.type)
        init, coming = self._at_start(value), self._to_come(value)
        final = Value(value.name, value.type)
        self.carries.append(Carry(value.name, init, entering, coming, final))
        self.names[value] = entering

    def _at_start(self, value: Value) -> Value:
        """What the first step would have made."""
        return self._again(value, self.start, self.first)

    def _to_come(self, value: Value) -> Value:
        """What the next step would make."""
        return self._again(value, self.coming, self.suffix)

    def _again(self, value: Value, known: dict[Value, Value], ops: list[Op]) -> Value:
        """The value out of others that stand for what it was made of."""
        rest = [value]
        while rest:  # operands before what is made of them
            each = rest[-1]
            op = self.defs.get(each)
            if each not in self.inner or each in known:
                rest.pop()
            elif op is None:
                self._draw(each)
            elif waits := [o for o in op.operands if o in self.inner and o not in known]:
                rest += waits[::-1]
            else:
                operands = tuple(known.get(o, o) for o in op.operands)
                type_ = OPS[op.opcode].infer(op.attrs, *(o.type for o in operands))
                known[each] = Value(each.name, type_)
                ops.append(replace(op, operands=operands, results=(known[each],)))
        return known.get(value, value)

    def _draw(self, value: Value) -> None:
        """The draw of the first step, and of every step the one after it."""
        op = self.draws[value]
        attrs = dict(op.attrs) | {"axes": op.attrs["axes"].replace("T", "")}
        self.start[value] = Value(value.name, value.type)
        self.first.append(replace(op, attrs=attrs, results=(self.start[value],)))
        ahead = Value(value.name, op.result.type)
        attrs = dict(op.attrs) | {"ahead": op.attrs.get("ahead", 0) + 1}
        self.first.append(replace(op, attrs=attrs, results=(ahead,)))
        self.coming[value] = Value(value.name, value.type)
        self.slices.append(Slice(self.coming[value], ahead))

    def result(self) -> Program:
        scan = self.scan
        names = self.names
        carries = tuple(replace(c, next=names.get(c.next, c.next)) for c in self.carries)
        body = (*scan.body, *(remap(op, names) for op in self.suffix))
        wide = Scan(
            (*scan.carries, *carries), (*scan.xs, *self.slices), body, scan.ys, scan.reverse
        )
        before = (*self.program.before, *self.first)
        return prune(remap_program(replace(self.program, before=before, scan=wide), names))
