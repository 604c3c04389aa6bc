"""What every pass needs: renaming operands, dropping what nobody reads, terms of a sum.

>>> from rnncc.lowering.examples import example, outline
>>> cell = example("h[t] = tanh(x[t] @ W + b + h[t-1])")
>>> outline(cell)
scan:
  carry _h_1, from h
  x_1 = x[t]
    _0 = contract(x_1, W, labels=(k, kl, l))
    _1 = add(_0, b)
    _2 = add(_1, _h_1)
    h_1 = tanh(_2)
  next _h_1 = h_1; last is final_h
  h_2[t] = h_1
>>> outline(remap_program(cell, {cell.param("b").value: cell.param("h").value}))
scan:
  carry _h_1, from h
  x_1 = x[t]
    _0 = contract(x_1, W, labels=(k, kl, l))
    _1 = add(_0, h)
    _2 = add(_1, _h_1)
    h_1 = tanh(_2)
  next _h_1 = h_1; last is final_h
  h_2[t] = h_1
>>> prune(replace(cell, results=())).scan is None
True
>>> last_add = [op for op in cell.scan.body if op.opcode == "add"][-1].result
>>> defs = definitions(cell.scan.body)
>>> [leaf.name for leaf in add_leaves(last_add, defs, set(defs))]
['_', 'b', '_h_1']
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import replace

from rnncc.ir.builder import Builder
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Carry, Op, Program, Result, Scan, Slice, Span, Stack, Value


def remap(op: Op, names: Mapping[Value, Value]) -> Op:
    """The op reading renamed operands; the op itself when nothing changes."""
    if names.keys().isdisjoint(op.operands):
        return op
    operands = tuple(names.get(o, o) for o in op.operands)
    return op if operands == op.operands else replace(op, operands=operands)


def remap_program(program: Program, names: Mapping[Value, Value]) -> Program:
    """Every reader of a value reads its replacement; definitions stay."""

    def new(value: Value) -> Value:
        return names.get(value, value)

    scan = program.scan
    if scan:
        scan = Scan(
            tuple(Carry(c.name, new(c.init), c.value, new(c.next), c.final) for c in scan.carries),
            tuple(Slice(s.value, new(s.source)) for s in scan.xs),
            tuple(remap(op, names) for op in scan.body),
            tuple(Stack(new(s.value), s.target) for s in scan.ys),
            scan.reverse,
        )
    return replace(
        program,
        before=tuple(remap(op, names) for op in program.before),
        scan=scan,
        after=tuple(remap(op, names) for op in program.after),
        results=tuple(Result(r.role, new(r.value)) for r in program.results),
    )


def definitions(ops: Iterable[Op]) -> dict[Value, Op]:
    return {result: op for op in ops for result in op.results}


def _live_ops(ops: tuple[Op, ...], live: set[Value]) -> tuple[Op, ...]:
    kept = []
    for op in reversed(ops):
        if not live.isdisjoint(op.results):
            live.update(op.operands)
            kept.append(op)
    return tuple(reversed(kept))


def prune(program: Program) -> Program:
    """Without the ops, carries, slices and stacks that no result depends on. Params stay."""
    live = {r.value for r in program.results}
    after = _live_ops(program.after, live)
    scan = program.scan
    if scan:
        before_count = -1
        body: tuple[Op, ...] = ()
        while len(live) != before_count:  # a carry's next may keep another carry alive
            before_count = len(live)
            for c in scan.carries:
                if c.final in live or c.value in live:
                    live.update((c.final, c.value, c.next, c.init))
            live.update(s.value for s in scan.ys if s.target in live)
            body = _live_ops(scan.body, live)
        carries = tuple(c for c in scan.carries if c.final in live)
        xs = tuple(s for s in scan.xs if s.value in live)
        ys = tuple(s for s in scan.ys if s.target in live)
        live.update(s.source for s in xs)
        scan = Scan(carries, xs, body, ys, scan.reverse) if carries or ys else None
    return replace(program, before=_live_ops(program.before, live), scan=scan, after=after)


def add_leaves(value: Value, defs: Mapping[Value, Op], single: Set[Value]) -> list[Value]:
    """The terms of a sum, left to right, looking through adds that only this sum reads."""
    op = defs.get(value)
    if op is None or op.opcode != "add":
        return [value]
    leaves: list[Value] = []
    rest = [*op.operands]
    while rest:  # the last terms first: sums are long to the left
        term = rest.pop()
        if is_inner_add(term, defs, single):
            rest += defs[term].operands
        else:
            leaves.append(term)
    return leaves[::-1]


def is_inner_add(value: Value, defs: Mapping[Value, Op], single: Collection[Value]) -> bool:
    """Whether a sum may take this term's terms for its own: `apart` says that it may not."""
    op = defs.get(value)
    return op is not None and op.opcode == "add" and value in single and not op.attrs.get("apart")


def inner_adds(value: Value, defs: Mapping[Value, Op], single: Collection[Value]) -> set[Value]:
    """The adds of a sum: the value itself and those only this sum reads."""
    adds = {value}
    rest = [value]
    while rest:
        inner = [o for o in defs[rest.pop()].operands if is_inner_add(o, defs, single)]
        adds.update(inner)
        rest += inner
    return adds


def filled_with(value: Value, defs: Mapping[Value, Op]) -> object:
    """What a value is filled with by construction: a number, a size, or None."""
    op = defs.get(value)
    while op is not None and op.opcode in ("spread", "broadcast"):
        op = defs.get(op.operands[0])
    if op is None or OPS[op.opcode].kind is not Kind.LEAF:
        return None
    return op.attrs["value"] if op.opcode == "full" else op.attrs["size"]


def lines_of(program: Program) -> dict[Value, Span]:
    """Where the user's text asks for each value: the line that makes it, or else the first that
    reads it. Values of no line are left out."""
    lines: dict[Value, Span] = {}
    for op in reversed([*program.ops()]):
        if op.span is not None:
            lines.update((operand, op.span) for operand in op.operands)
    made = {r: op.span for op in program.ops() for r in op.results if op.span is not None}
    lines.update(made)
    crossing: list[tuple[Value, Value]] = []
    if program.scan:
        for c in program.scan.carries:
            crossing += [(c.value, c.next), (c.final, c.next), (c.init, c.value)]
        for xs in program.scan.xs:
            crossing += [(xs.value, xs.source), (xs.source, xs.value)]
        for ys in program.scan.ys:
            crossing += [(ys.target, ys.value), (ys.value, ys.target)]
    for value, other in crossing:
        if value not in lines and other in lines:
            lines[value] = lines[other]
    return lines


def sum_of(b: Builder, terms: Sequence[Value]) -> Value:
    """The terms added left to right."""
    total = terms[0]
    for term in terms[1:]:
        total = b.emit("add", total, term)
    return total
