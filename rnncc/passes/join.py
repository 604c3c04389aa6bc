"""Gates side by side: contractions that share an operand become one.

    d_h = di @ Ui' + df @ Uf'       dW = concat(x' @ di, x' @ df)       db = concat(sum di, sum df)

        with dz = concat(di, df) becomes, where Ui and Uf are what U is made of,

    d_h = dz @ U'                   dW = x' @ dz                        db = sum dz

`simplify` takes such products apart, so that every spelling of a cell is one program and each gate
finds what it can be fused with. Once everything is where it stays, the gates that the loop hands
on, or out, are laid side by side again: one matrix product of all of them reads x once, where one
for each gate would read it as often as there are gates. A concat of gates costs nothing: each is
stored where it belongs in the row (`schedule.levels`).

Gates are joined only where nobody misses them one by one, and what products of two kinds read of
them in the same order: a step stores each gate once.

    >>> from rnncc.lowering.examples import example, outline
    >>> from rnncc.passes.pipeline import gradient, optimise
    >>> equations = "i, g = split(x[t] @ W + h[t-1] @ U, 2)", "h[t] = tanh(i) * g"
    >>> shapes = {"W": "features, 2 * units", "U": "units, 2 * units"}
    >>> _, pullback = gradient(example(*equations, **shapes), ["W", "x"])
    >>> outline(optimise(pullback))
    before:
      _1 = full(value=0.0)
      _2 = full(value=0.0)
      _3 = spread(_2, axes=B)
    scan, backwards in time:
      carry d_h_1, from d_final_h
      carry d_gates, from _3
      d_h_2 = d_h[t]
      g_1 = g[t]
      _4 = _0[t]
        _5 = contract(d_gates, U, labels=(l, kl, k))
        d_h_3 = add(d_h_1, _5, apart=True)
        d_h_4 = add(d_h_3, d_h_2)
        _6 = mul(d_h_4, g_1)
        d_g = mul(d_h_4, _4)
        _7 = mul(_4, _4)
        _8 = full(value=1.0)
        _9 = sub(_8, _7)
        d_i = mul(_6, _9)
        d_gates_1 = concat(d_i, d_g, axis=0)
      next d_h_1 = _1; last is d_h_5
      next d_gates = d_gates_1; last is d_gates_2
      d_gates_3[t] = d_gates_1
    after:
      _10 = contract(d_gates_3, W, labels=(l, kl, k))
      d_W = contract(d_gates_3, x, labels=(l, k, kl), over=BT)

Non-Goals: gates of the forward loop, whose sums are side by side in the lanes of a core
(`schedule.contractions`); weights that aren't parts of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from rnncc.ir.builder import Builder
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Carry, Op, Program, Scan, Span, Stack, Value, uses
from rnncc.ir.rewrite import (
    add_leaves,
    definitions,
    filled_with,
    inner_adds,
    prune,
    remap_program,
    sum_of,
)
from rnncc.ir.sizes import Size


def join(program: Program) -> Program:
    """After everything that moves ops: what crosses the loop's end is known."""
    if program.scan is None:
        return program
    joining = _Joining(program, program.scan)
    return joining.result() if joining.groups else program


@dataclass(frozen=True, eq=False, slots=True)
class _Group:
    """Terms of a sum, or neighbours in a concat, that one op makes of their gates side by side."""

    whole: Op  # the sum or the concat
    terms: tuple[Op, ...]  # in the order in which the gates lie
    gates: tuple[Value, ...]
    axis: int  # of a gate, along which they lie
    side: int  # which operand of a term the gate is
    weight: Value | None = None  # of which each term of a sum reads a part along an axis ...
    weight_axis: int = 0
    starts: tuple[Size, ...] = ()  # ... that begins here

    def run(self, first: int, end: int) -> _Group:
        """Some neighbours of them."""
        return replace(
            self,
            terms=self.terms[first:end],
            gates=self.gates[first:end],
            starts=self.starts[first:end],
        )


@dataclass(frozen=True, eq=False, slots=True)
class _Part:
    """A term of a sum that reads a part of a weight."""

    term: Op
    side: int  # of the gate
    weight: Value
    weight_axis: int
    start: Size
    size: Size

    @property
    def end(self) -> Size:
        return self.start + self.size

    @property
    def gate(self) -> Value:
        return self.term.operands[self.side]

    @property
    def axis(self) -> int:
        """The gate's axis that is summed with the weight's."""
        labels = self.term.attrs["labels"]
        label = labels[1 - self.side][self.weight_axis]
        return int(labels[self.side].index(label))

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for terms that differ in their gate and their part alone."""
        return (self.term.attrs["labels"], self.side, self.weight, self.weight_axis)


class _Joining:
    """The groups of a program, and the program while they are put together."""

    def __init__(self, program: Program, scan: Scan) -> None:
        self.program, self.scan = program, scan
        self.readers = uses(program)
        self.single = {v for v, rs in self.readers.items() if len(rs) == 1}
        self.before = definitions(program.before)
        self.body = definitions(scan.body)
        self.stacks = {s.target: s for s in scan.ys}
        self.carries = {v: c for c in scan.carries for v in (c.value, c.final)}
        groups = [*self.of_region(scan.body), *self.of_region(program.after)]
        groups = self.worthwhile([g for g in groups if self.is_made_side_by_side(g)])
        self.groups = [run for group in groups for run in self.stored_once(group, groups)]
        self.first = Builder()
        # Gates of a step, and the axis they lie along -> their concat.
        self.sides: dict[tuple[tuple[Value, ...], int], Value] = {
            (op.operands, op.attrs["axis"]): op.result for op in scan.body if op.opcode == "concat"
        }
        self.rows: dict[tuple[Value, ...], Value] = {}  # gates, as groups read them -> all of them
        self.made: dict[tuple[Op, ...], Value] = {}  # what groups of the same terms are
        self.slices: dict[tuple[Value, int, Size, Size], Value] = {}  # parts of weights
        self.concats: list[Op] = []
        self.more_carries: list[Carry] = []
        self.more_stacks: list[Stack] = []

    # ---- which gates --------------------------------------------------------------------------

    def of_region(self, ops: tuple[Op, ...]) -> Iterator[_Group]:
        defs = definitions(ops)
        inner: set[Value] = set()
        for op in reversed(ops):
            if op.opcode == "add" and op.result not in inner:
                inner |= inner_adds(op.result, defs, self.single)
                yield from self.of_sum(op, defs)
            elif op.opcode == "concat":
                yield from _of_concat(op, defs)

    def of_sum(self, op: Op, defs: Mapping[Value, Op]) -> Iterator[_Group]:
        """Runs of parts of one weight among the terms of a sum."""
        alike: dict[tuple[object, ...], list[_Part]] = {}
        for leaf in add_leaves(op.result, defs, self.single):
            part = self.part(defs.get(leaf))
            if part is not None and leaf in self.single:
                alike.setdefault(part.key, []).append(part)
        for parts in alike.values():
            for run in _runs(parts):
                yield _Group(
                    op,
                    tuple(p.term for p in run),
                    tuple(p.gate for p in run),
                    run[0].axis,
                    run[0].side,
                    run[0].weight,
                    run[0].weight_axis,
                    tuple(p.start for p in run),
                )

    def part(self, term: Op | None) -> _Part | None:
        """A contraction of a gate with a part of a weight, along an axis that is summed."""
        if term is None or term.opcode != "contract" or term.attrs["over"]:
            return None
        labels = term.attrs["labels"]
        for side, gate in enumerate(term.operands):
            part = self.before.get(term.operands[1 - side])
            if part is None or part.opcode != "slice" or not self.is_handed_out(gate):
                continue
            axis, start = part.attrs["axis"], part.attrs["start"]
            label = labels[1 - side][axis]
            if label in labels[side] and label not in labels[2]:
                return _Part(term, side, part.operands[0], axis, start, part.attrs["size"])
        return None

    def is_handed_out(self, gate: Value) -> bool:
        return gate in self.stacks or gate in self.carries

    def of_step(self, gate: Value) -> Value:
        """What the loop makes in a step, of which this is the stack, or what it hands on."""
        return self.stacks[gate].value if gate in self.stacks else self.carries[gate].next

    def is_made_side_by_side(self, group: _Group) -> bool:
        """Whether a step makes each of the gates lane by lane, and all leave it in the same way."""
        if not all(map(self.is_handed_out, group.gates)):
            return False
        if len({g.type.axes for g in group.gates}) > 1:
            return False
        producers = [self.body.get(self.of_step(g)) for g in group.gates]
        lanes = [op for op in producers if op is not None and OPS[op.opcode].kind is Kind.POINTWISE]
        if len({*lanes}) < len(group.gates):
            return False
        if any(g in self.stacks for g in group.gates):
            return all(g in self.stacks for g in group.gates)
        finals = {g is self.carries[g].final for g in group.gates}
        numbers = {filled_with(self.carries[g].init, self.before) for g in group.gates}
        return len(finals) == 1 and len(numbers) == 1 and all(isinstance(n, float) for n in numbers)

    def worthwhile(self, groups: list[_Group]) -> list[_Group]:
        """Those of whose gates nothing is left: every reader of each is a term of some group."""
        while True:
            wholes: dict[Op, set[Op]] = {}
            for group in groups:
                for term in group.terms:
                    wholes.setdefault(term, set()).add(group.whole)
            kept = [g for g in groups if all(self.is_gone(v, wholes) for v in g.gates)]
            if len(kept) == len(groups):
                return kept
            groups = kept

    def is_gone(self, gate: Value, wholes: Mapping[Op, set[Op]]) -> bool:
        faces = [gate]
        if gate in self.carries:
            faces = [self.carries[gate].value, self.carries[gate].final]
        terms = [reader for face in faces for reader in self.readers.get(face, ())]
        return all(
            isinstance(term, Op)
            and term in wholes
            and (term.result in self.single or {*self.readers[term.result]} <= wholes[term])
            for term in terms
        )

    def steps(self, group: _Group) -> tuple[Value, ...]:
        return tuple(map(self.of_step, group.gates))

    def stored_once(self, group: _Group, groups: list[_Group]) -> Iterator[_Group]:
        """Runs of gates that the same groups read: so a step stores each gate in one place. None
        of gates that others have side by side along another axis."""
        steps = self.steps(group)
        if any(g.axis != group.axis and not {*steps}.isdisjoint(self.steps(g)) for g in groups):
            return
        rows = {self.steps(g) for g in groups}
        readers = [{row for row in rows if step in row} for step in steps]
        ends = [i for i in range(1, len(readers)) if readers[i] != readers[i - 1]]
        for first, end in pairwise([0, *ends, len(readers)]):
            if end - first > 1:
                yield group.run(first, end)

    # ---- side by side -------------------------------------------------------------------------

    def result(self) -> Program:
        program, scan = self.program, self.scan
        names: dict[Value, Value] = {}
        body = self.rewritten(scan.body, names)
        after = self.rewritten(program.after, names)
        joined = replace(
            program,
            before=(*program.before, *self.first.ops),
            scan=Scan(
                (*scan.carries, *self.more_carries),
                scan.xs,
                (*body, *self.concats),
                (*scan.ys, *self.more_stacks),
                scan.reverse,
            ),
            after=after,
        )
        return prune(remap_program(joined, names))

    def rewritten(self, ops: tuple[Op, ...], names: dict[Value, Value]) -> tuple[Op, ...]:
        groups: dict[Op, list[_Group]] = {}
        for group in self.groups:
            groups.setdefault(group.whole, []).append(group)
        defs = definitions(ops)
        new: list[Op] = []
        for op in ops:
            if op not in groups:
                new.append(op)
                continue
            b = Builder(op.span, op.result.name)
            if op.opcode == "add":
                names[op.result] = self.sum(b, op, groups[op], defs)
            else:
                names[op.result] = self.concat(b, op, groups[op])
            new += b.ops
        return tuple(new)

    def sum(self, b: Builder, op: Op, groups: list[_Group], defs: Mapping[Value, Op]) -> Value:
        """The terms that nobody joins, and one for each group."""
        joined = {t.result for g in groups for t in g.terms}
        terms = [v for v in add_leaves(op.result, defs, self.single) if v not in joined]
        name = op.result.name if not terms and len(groups) == 1 else None
        terms += [self.emit(b, g, name) for g in groups]
        if len(terms) == 1:
            return terms[0]
        b.span = op.span
        *most, last = terms
        return b.emit("add", sum_of(b, most), last, name=op.result.name, **op.attrs)

    def concat(self, b: Builder, op: Op, groups: list[_Group]) -> Value:
        parts = list(op.operands)
        for group in groups:
            first, *rest = (t.result for t in group.terms)
            name = op.result.name if len(group.terms) == len(op.operands) else None
            parts[parts.index(first)] = self.emit(b, group, name)
            for value in rest:
                parts.remove(value)
        b.span = op.span
        return b.concat(tuple(parts), op.attrs["axis"])

    def emit(self, b: Builder, group: _Group, name: str | None) -> Value:
        """The op that makes all terms of a group; name: of its result, or else of the first."""
        gates, term = self.gates(group), group.terms[0]
        if group.terms in self.made:
            return self.made[group.terms]
        name, b.span = name or term.result.name, term.span
        if term.opcode == "sum_over":
            total = b.emit("sum_over", gates, over=term.attrs["over"], name=name)
            return self.made.setdefault(group.terms, total)
        other = term.operands[1 - group.side]
        if group.weight is not None:
            other = self.part_of(group.weight, group, gates.type.shape[group.axis])
        pair = (gates, other) if group.side == 0 else (other, gates)
        total = b.contract(*pair, term.attrs["labels"], term.attrs["over"], name=name)
        return self.made.setdefault(group.terms, total)

    def part_of(self, weight: Value, group: _Group, size: Size) -> Value:
        """The part of a weight that a group's terms read."""
        if size == weight.type.shape[group.weight_axis]:
            return weight
        key = (weight, group.weight_axis, group.starts[0], size)
        if key not in self.slices:
            self.first.span = group.terms[0].span
            self.slices[key] = self.first.slice(*key)
        return self.slices[key]

    def gates(self, group: _Group) -> Value:
        """All gates of a group as one value, where the group is."""
        if group.gates not in self.rows:
            line = group.terms[0].span
            side_by_side = self.step(self.steps(group), group.axis, line)
            if group.gates[0] in self.stacks:
                self.stack(group.gates, side_by_side)
            else:
                self.carry([self.carries[g] for g in group.gates], side_by_side, line)
        return self.rows[group.gates]

    def step(self, steps: tuple[Value, ...], axis: int, line: Span | None) -> Value:
        if (steps, axis) not in self.sides:
            b = Builder(line, _name(steps))
            self.sides[steps, axis] = b.concat(steps, axis)
            self.concats += b.ops
        return self.sides[steps, axis]

    def stack(self, gates: tuple[Value, ...], value: Value) -> None:
        for stack in self.scan.ys:
            if stack.value is value:
                self.rows[gates] = stack.target
                return
        axes = gates[0].type.axes
        self.rows[gates] = Value(value.name, value.type.with_axes(axes))
        self.more_stacks.append(Stack(value, self.rows[gates]))

    def carry(self, carries: list[Carry], value: Value, line: Span | None) -> None:
        b, self.first.span = self.first, line
        number, axes = filled_with(carries[0].init, self.before), carries[0].init.type.axes
        assert isinstance(number, float)
        start = b.full(number, value.type.shape)
        if axes:
            start = b.emit("spread", start, axes=axes)
        entering, leaving = Value(value.name, value.type), Value(value.name, value.type)
        self.more_carries.append(Carry(value.name, start, entering, value, leaving))
        self.rows[tuple(c.value for c in carries)] = entering
        self.rows[tuple(c.final for c in carries)] = leaving


def _runs(parts: list[_Part]) -> Iterator[list[_Part]]:
    """Parts that follow one another, two at least."""
    ends = {p.end for p in parts}
    rest = list(parts)
    for head in [p for p in parts if p.start not in ends]:
        run = [head]
        while following := [p for p in rest if p.start == run[-1].end and p not in run]:
            run.append(following[0])
        rest = [p for p in rest if p not in run]
        if len(run) > 1:
            yield run


def _of_concat(op: Op, defs: Mapping[Value, Op]) -> Iterator[_Group]:
    """Runs of sums over rows, among the parts of a concat, that differ in their gate alone."""
    run: list[tuple[Op, int, int]] = []
    for part in (*op.operands, None):
        term = _of_rows(defs.get(part), op.attrs["axis"]) if part is not None else None
        if run and (term is None or _differs(term, run[0]) or term[0] in [t for t, *_ in run]):
            if len(run) > 1:
                yield _concat_group(op, run)
            run = []
        if term is not None:
            run.append(term)


def _of_rows(term: Op | None, axis: int) -> tuple[Op, int, int] | None:
    """A sum over rows: the op, the side of the operand that the axis is of, its axis there."""
    if term is None or not term.attrs.get("over"):
        return None
    if term.opcode == "sum_over":
        return term, 0, axis
    labels = term.attrs["labels"]
    label = labels[2][axis]
    sides = [side for side in (0, 1) if label in labels[side]]
    return (term, sides[0], labels[sides[0]].index(label)) if len(sides) == 1 else None


def _differs(one: tuple[Op, int, int], other: tuple[Op, int, int]) -> bool:
    """Whether two sums over rows differ in more than their gate."""
    (a, side, axis), (b, *there) = one, other
    if (a.opcode, side, axis) != (b.opcode, *there) or a.attrs != b.attrs:
        return True
    return a.opcode == "contract" and a.operands[1 - side] is not b.operands[1 - side]


def _concat_group(op: Op, run: list[tuple[Op, int, int]]) -> _Group:
    _, side, axis = run[0]
    terms = tuple(t for t, *_ in run)
    return _Group(op, terms, tuple(t.operands[side] for t in terms), axis, side)


def _name(gates: tuple[Value, ...]) -> str:
    """What their names begin with, if that says anything."""
    begin = []
    for words in zip(*(g.name.split("_") for g in gates), strict=False):
        if len({*words}) > 1 or not words[0] or words[0].isdigit():
            break
        begin.append(words[0])
    return "_".join(begin if len(begin) > 1 else [*begin, "gates"])
