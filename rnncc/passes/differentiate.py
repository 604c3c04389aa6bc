"""Reverse mode, Program -> (Program with residuals, pullback Program).

The pullback runs the program backwards: the vjp of `after` becomes its `before`, the scan runs
the other way with the cotangents of the carries as its carries, the vjp of `before` its `after`.
What it needs of the forward it receives as residuals, at first all of it (`residuals` thins
that). A gradient of something that doesn't vary over steps leaves the scan as a sequence, which
`after` sums: no carry keeps the sum, so that no later pass has to know it for one. It applies to
any Program, pullbacks included.

    >>> from rnncc.lowering.examples import example, outline
    >>> cell = example("h[t] = tanh(x[t] @ W + h[t-1])")
    >>> outline(cell)
    scan:
      carry _h_1, from h
      x_1 = x[t]
        _0 = contract(x_1, W, labels=(k, kl, l))
        _1 = add(_0, _h_1)
        h_1 = tanh(_1)
      next _h_1 = h_1; last is final_h
      h_2[t] = h_1
    >>> _, pullback = differentiate(cell, ["x"])
    >>> outline(pullback)
    scan, backwards in time:
      carry d_h_1, from d_final_h
      d_h_2 = d_h[t]
      h_1 = h[t]
        d_h_3 = add(d_h_1, d_h_2)
        _0 = mul(h_1, h_1)
        _1 = full(value=1.0)
        _2 = sub(_1, _0)
        d__ = mul(d_h_3, _2)
        _3 = contract(d__, W, labels=(l, kl, k))
      next d_h_1 = d__; last is d__h_1
      d_x[t] = _3

Non-Goals: choosing what to save; making the result fast.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from rnncc.common.result_roles import ResultRole, gradient_kind, gradient_name
from rnncc.ir.builder import Builder
from rnncc.ir.ops import OPS
from rnncc.ir.program import (
    Carry,
    Op,
    Param,
    Program,
    Result,
    Scan,
    Slice,
    Span,
    Stack,
    Type,
    Value,
)
from rnncc.ir.rewrite import definitions, lines_of, prune, sum_of

Cotangents = dict[Value, Value]


def differentiate(
    program: Program, wrt: Collection[str], of: Collection[str] | None = None
) -> tuple[Program, Program]:
    """The program with residuals among its results, and its pullback.

    `wrt` names the parameters to differentiate. The pullback takes a cotangent `d_<result>` for
    every result in `of`, by default all that aren't residuals; those of others are zero. It
    returns the gradient `d_<param>` of every parameter.
    """
    active = _active_values(program, wrt)
    back = _Pullback(active, lines_of(program))
    roles = {p.value: p.role for p in program.params}
    results = [
        r for r in program.results if (r.role.kind != "residual" if of is None else r.name in of)
    ]
    cotangents = {r.name: Value(gradient_name(r.name), r.value.type) for r in results}
    cot: Cotangents = {}
    for r in results:
        if r.value in active:
            back.accumulate(cot, r.value, cotangents[r.name], back.at(r.value, back.first))
    back.ops(program.after, cot, back.first)
    scan = back.scan(program.scan, cot) if program.scan else None
    back.ops(program.before, cot, back.last)
    gradients = []
    for p in program.params:
        if p.value.name in wrt:
            b = back.at(p.value, back.last)
            gradient = back.spread(cot.get(p.value), p.value.type, b)
            gradients.append(Result(ResultRole(gradient_kind(p.role), p.value.name), gradient))
    pullback = Program(
        f"{program.name} pullback",
        tuple(Param(v, "cotangent", name) for name, v in cotangents.items()),
        tuple(back.first.ops),
        scan,
        tuple(back.last.ops),
        tuple(gradients),
        program.unroll,
    )
    return _connect(program, prune(pullback), roles)


class _Pullback:
    """The three regions of a pullback while they are being built."""

    def __init__(self, active: set[Value], lines: dict[Value, Span]) -> None:
        self.active, self.lines = active, lines
        self.first = Builder()
        self.last = Builder()
        self.inner: set[Value] | None = None  # values of the scan whose body is gone through
        # What is constant in it -> its cotangents, and the line of each.
        self.outside: dict[Value, list[tuple[Value, Span | None]]] = {}

    def at(self, value: Value, b: Builder) -> Builder:
        """The builder, where the user's text asks for a value."""
        b.span = self.lines.get(value)
        return b

    def accumulate(self, cot: Cotangents, value: Value, d: Value, b: Builder) -> None:
        if self.inner is not None and value not in self.inner:
            self.outside.setdefault(value, []).append((d, b.span))
            return
        extra = [a for a in d.type.axes if a not in value.type.axes]
        d = b.sum_over(d, "".join(extra))
        cot[value] = b.emit("add", cot[value], d, name=d.name) if value in cot else d

    def spread(self, d: Value | None, type_: Type, b: Builder) -> Value:
        """A cotangent, zeros when there is none, over all axes of what it is the cotangent of."""
        d = b.full(0.0, type_.shape) if d is None else d
        lost = "".join(a for a in type_.axes if a not in d.type.axes)
        return b.emit("spread", d, axes=lost) if lost else d

    def ops(self, ops: Iterable[Op], cot: Cotangents, b: Builder) -> None:
        """Run vjps backwards through straight-line ops, moving cotangents to their operands."""
        for op in reversed(list(ops)):
            dy = cot.pop(op.result, None)
            rule = OPS[op.opcode].vjp
            if dy is None or rule is None:
                continue
            b.span, b.name = op.span, "_"
            count = len(b.ops)
            gradients = rule(b, op, dy)
            for operand, dx in zip(op.operands, gradients, strict=True):
                if dx is not None and operand in self.active:
                    if len(b.ops) > count and gradients.count(dx) == 1:
                        dx = _named(b, dx, gradient_name(operand.name))
                    self.accumulate(cot, operand, dx, b)

    def scan(self, scan: Scan, cot: Cotangents) -> Scan:
        inner: Cotangents = {}
        b = Builder()
        carries, xs, ys = [], [], []
        entered = []
        self.inner = {*scan.entering(), *definitions(scan.body)}
        for c in scan.carries:
            if c.value not in self.active:
                continue
            wide = c.value.type
            init = self.spread(cot.pop(c.final, None), wide, self.at(c.final, self.first))
            value = Value(gradient_name(c.next.name), wide)
            entered.append((c, init, value))
            self.accumulate(inner, c.next, value, self.at(c.next, b))
        for stack in scan.ys:
            if stack.target in cot:
                source = cot.pop(stack.target)
                d = Value(source.name, source.type.inner())
                xs.append(Slice(d, source))
                self.accumulate(inner, stack.value, d, self.at(stack.value, b))
        self.ops(scan.body, inner, b)
        self.inner = None
        for c, init, value in entered:
            nxt = inner.pop(c.value, None) or self.at(c.value, b).full(0.0, value.type.shape)
            final = Value(gradient_name(c.value.name), value.type)
            carries.append(Carry(value.name, init, value, nxt, final))
            if c.init in self.active:
                self.accumulate(cot, c.init, final, self.at(c.init, self.last))
        for s in scan.xs:
            if s.value in inner and s.source in self.active:
                d = inner.pop(s.value)
                target = Value(gradient_name(s.source.name), s.source.type)
                ys.append(Stack(d, target))
                self.accumulate(cot, s.source, target, self.at(s.source, self.last))
        for const, ds in self.outside.items():
            if const in self.active:
                spans = [span for _, span in ds]
                stacks = [
                    Stack(d, Value(d.name, d.type.with_axes(d.type.axes + "T"))) for d, _ in ds
                ]
                ys += stacks
                total = self.summed(const, stacks[::-1], spans[::-1])
                self.accumulate(cot, const, total, self.at(const, self.last))
        return Scan(tuple(carries), tuple(xs), tuple(b.ops), tuple(ys), not scan.reverse)

    def summed(self, const: Value, stacks: Iterable[Stack], spans: Iterable[Span | None]) -> Value:
        """Cotangents of all steps, of what is the same at all of them."""
        b = self.last
        b.name = gradient_name(const.name)
        totals = []
        for stack, b.span in zip(stacks, spans, strict=True):
            d = stack.target
            totals.append(b.sum_over(d, "".join(set(d.type.axes) - set(const.type.axes))))
        return sum_of(self.at(const, b), totals)


def _named(b: Builder, value: Value, name: str) -> Value:
    """Give the op just built a name a reader can follow."""
    if b.ops and b.ops[-1].results == (value,) and value.name == "_":
        named = Value(name, value.type)
        b.ops[-1] = replace(b.ops[-1], results=(named,))
        return named
    return value


def _active_values(program: Program, wrt: Collection[str]) -> set[Value]:
    """The float values that depend on the parameters in `wrt`."""
    active = {p.value for p in program.params if p.value.name in wrt}

    def run(ops: Iterable[Op]) -> None:
        for op in ops:
            if active.intersection(op.operands) and op.result.type.dtype == "float":
                active.add(op.result)

    run(program.before)
    if program.scan:
        count = -1
        while count != len(active):
            count = len(active)
            active.update(s.value for s in program.scan.xs if s.source in active)
            for c in program.scan.carries:
                if c.init in active or c.next in active:
                    active.add(c.value)
            run(program.scan.body)
        for c in program.scan.carries:
            if c.value in active or c.next in active:
                active.add(c.final)
        active.update(s.target for s in program.scan.ys if s.value in active)
    run(program.after)
    return active


def _connect(
    program: Program, pullback: Program, roles: dict[Value, str]
) -> tuple[Program, Program]:
    """Give the pullback every forward value it reads: parameters as they are, the rest saved."""
    scan, sources = pullback.scan, {}
    forward_inner: set[Value] = set()
    if program.scan:
        forward_inner = set(program.scan.entering()) | set(definitions(program.scan.body))
        sources = {s.value: s.target for s in program.scan.ys}
        sources |= {s.value: s.source for s in program.scan.xs}
    reads = _missing(pullback)
    needed = dict.fromkeys(v for v in reads if v not in forward_inner)
    extra_xs, stacks = [], []
    for value in dict.fromkeys(v for v in reads if v in forward_inner):
        source = sources.get(value)
        if source is None:
            source = Value(value.name, value.type.with_axes(value.type.axes + "T"))
            stacks.append(Stack(value, source))
        extra_xs.append(Slice(value, source))
        needed[source] = None
    saved = {v: f"{v.name}.{i}" for i, v in enumerate(needed) if v not in roles}
    params = [Param(v, roles.get(v, "residual")) for v in needed]
    if stacks:
        assert program.scan is not None
        program = replace(program, scan=replace(program.scan, ys=(*program.scan.ys, *stacks)))
    known = {r.value for r in program.results if r.role.kind == "residual"}
    residuals = (Result(ResultRole("residual", n), v) for v, n in saved.items() if v not in known)
    program = replace(program, results=(*program.results, *residuals))
    if scan:
        scan = replace(scan, xs=(*scan.xs, *extra_xs))
    return program, replace(pullback, params=(*params, *pullback.params), scan=scan)


def _missing(pullback: Program) -> list[Value]:
    """What a pullback reads and doesn't define."""
    scan = pullback.scan
    defined = {p.value for p in pullback.params}
    defined.update(r for op in pullback.ops() for r in op.results)
    reads = [o for op in pullback.ops() for o in op.operands]
    if scan:
        defined.update(scan.entering())
        defined.update(c.final for c in scan.carries)
        defined.update(s.target for s in scan.ys)
        reads += [v for c in scan.carries for v in (c.init, c.next)]
        reads += [s.source for s in scan.xs] + [s.value for s in scan.ys]
    reads += [r.value for r in pullback.results]
    return [v for v in reads if v not in defined]
