"""Where a printed line comes from: equations and declarations of the user's text, by their lines.

    h_1 = tanh(_3)  # line 21       the equation of line 21
    param kernel                    the declaration of kernel
    carry _h_1, from h              the equation that sets h, and its declaration

A piece of the text that goes over several lines is known by its first.

Non-Goals: lines of a module, which are text (`module_lines`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rnncc.driver import Programs
from rnncc.frontend.diagnostics import Reporter
from rnncc.frontend.logical_lines import logical_lines
from rnncc.frontend.spec import ArrayDecl, CellSpec, Name, SizeDecl, Timed, walk
from rnncc.ir.printer import PrintedLine
from rnncc.ir.program import Op, Program, Scan, Value
from rnncc.schedule.model import LaneStage, Schedule


class CameFrom(NamedTuple):
    """First lines of the equations, and of the declarations, that something comes from."""

    equations: frozenset[int] = frozenset()
    declarations: frozenset[int] = frozenset()

    def joined(self, other: CameFrom) -> CameFrom:
        return CameFrom(self.equations | other.equations, self.declarations | other.declarations)


class LinkedLine(NamedTuple):
    """values: numbers of the values that it makes or names, the same in every stage. shared: it is
    over or around several others, and comes from all that they come from."""

    text: str
    source: CameFrom = CameFrom()
    values: tuple[int, ...] = ()
    shared: bool = False


class TextPieces:
    """The pieces of a text: equations, declarations, what is returned."""

    def __init__(self, spec: CellSpec) -> None:
        self.spec = spec
        lines = spec.text.split("\n")
        firsts = [line.first for line in logical_lines(lines, Reporter())]
        self._first: dict[int, int] = {}
        for first, behind in zip(firsts, [*firsts[1:], len(lines) + 1], strict=True):
            self._first.update(dict.fromkeys(range(first, behind), first))
        self.declared = {d.name: self.of(d.span.line) for d in spec.declarations}
        self.arrays = {
            d.name: self.declared[d.name] for d in spec.declarations if isinstance(d, ArrayDecl)
        }
        self.sets = {t.name: self.of(e.span.line) for e in spec.equations for t in e.targets}
        self.equations = sorted({self.of(e.span.line) for e in spec.equations})
        self.returned = self.of(spec.returns_span.line)

    def of(self, line: int) -> int:
        """The first line of the piece that has this line."""
        return self._first.get(line, line)

    def title(self, line: int) -> str:
        """What the equation of that line sets, as it is written: `c[t]`."""
        for equation in self.spec.equations:
            if self.of(equation.span.line) == line:
                return ", ".join(
                    t.name if t.back is None else f"{t.name}[t]" for t in equation.targets
                )
        return f"line {line}"

    def lines(self) -> Iterator[LinkedLine]:
        """The text itself. A declaration that no value is of comes from the equations, or the
        declarations, that name it."""
        uses = self._uses()
        for number, text in enumerate(self.spec.text.rstrip("\n").split("\n"), 1):
            first = self.of(number)
            blank = not text.strip() or text.lstrip().startswith("#")
            yield LinkedLine(text, CameFrom() if blank else uses.get(first, CameFrom()))

    def _uses(self) -> dict[int, CameFrom]:
        found = {line: CameFrom(frozenset({line})) for line in (*self.equations, self.returned)}
        for declaration in self.spec.declarations:
            line, name = self.declared[declaration.name], declaration.name
            if isinstance(declaration, ArrayDecl):
                found[line] = CameFrom(declarations=frozenset({line}))
            elif isinstance(declaration, SizeDecl):
                found[line] = CameFrom(declarations=frozenset(self._of_size(name)))
            else:
                found[line] = CameFrom(frozenset(self._naming(name)))
        return found

    def _of_size(self, name: str) -> Iterator[int]:
        for array in self.spec.declarations:
            if isinstance(array, ArrayDecl):
                if any(isinstance(n, Name) and n.name == name for n in walk(array.layout)):
                    yield self.declared[array.name]

    def _naming(self, name: str) -> Iterator[int]:
        lines = [self.of(e.span.line) for e in self.spec.equations]
        lines += [self.returned] * len(self.spec.returns)
        for line, nodes in zip(lines, self.spec.nodes, strict=True):
            named = {n.name for n in nodes if isinstance(n, Name | Timed)}
            if name in named | {getattr(n, "function", "") for n in nodes}:
                yield line


class Origins:
    """The sources of all values of some Programs: what they were told of goes on being known."""

    def __init__(self, pieces: TextPieces, programs: Programs) -> None:
        self.pieces = pieces
        self._sources: dict[Value, CameFrom] = {}
        self._reads: dict[Value, frozenset[int]] = {}  # declarations that a value is an array of
        self._numbers: dict[Value, int] = {}
        self._results: dict[str, CameFrom] = {}
        self.tell(programs.lowered)
        self._results = {r.name: self._sources[r.value] for r in programs.lowered.results}

    def tell(self, program: Program) -> None:
        """The program's values, from here on."""
        for param in program.params:
            self._param(param.value, param.of)
        for op in program.before:
            self._sources[op.result] = self.of_op(op)
        if program.scan:
            self._tell_scan(program.scan)
        for op in program.after:
            self._sources[op.result] = self.of_op(op)
        for result in program.results:
            line = self.pieces.declared.get(result.role.of)
            if result.role.is_gradient and line is not None:
                told = self._sources[result.value].joined(CameFrom(declarations=frozenset({line})))
                self._sources[result.value] = told

    def _tell_scan(self, scan: Scan) -> None:
        for xs in scan.xs:
            self._reads.setdefault(xs.value, self._reads.get(xs.source, frozenset()))
            self._sources[xs.value] = self._sources[xs.source]
        for _ in scan.carries:  # h[t-3] is what h[t-2] was, which is what h[t-1] was
            for c in scan.carries:
                line = self.pieces.declared.get(c.name)
                own = self._reads.get(c.next, frozenset()) if line is None else {line}
                self._reads[c.value] = frozenset(own)
        for op in scan.body:
            self._sources[op.result] = self.of_op(op)
        for _ in scan.carries:
            for c in scan.carries:
                made = self._sources.get(c.next, CameFrom()).equations
                declared = self._reads[c.value] | self._sources[c.init].declarations
                self._sources[c.value] = self._sources[c.final] = CameFrom(made, declared)
        for c in scan.carries:
            if self._sources[c.init] == CameFrom():  # nobody declared it
                self._sources[c.init] = self._sources[c.value]
        for ys in scan.ys:
            self._sources[ys.target] = self._sources[ys.value]

    def tell_schedule(self, schedule: Schedule) -> None:
        """What it keeps in memory beside the values of its Program."""
        self.tell(schedule.program)
        for carry in schedule.carries:
            self._sources.setdefault(carry.buffer.value, self._sources[carry.final])
        for stage in (s for k in schedule.kernels for level in k.levels for s in level.stages):
            if isinstance(stage, LaneStage):
                self._tell_stage(stage)

    def _tell_stage(self, stage: LaneStage) -> None:
        for op in stage.ops:
            self._sources.setdefault(op.result, self.of_op(op))
        for acc in (a for group in stage.groups for a in group.accs):
            self._sources.setdefault(acc.value, self.of(acc.ops))  # sums that it cut in two
            if acc.init is not None:  # a row that the loop's sums start from
                self._sources.setdefault(acc.init.buffer.value, self.of(acc.ops))
        for store in stage.stores:
            self._sources.setdefault(store.view.buffer.value, self.of([store.value]))
        if stage.tiled:
            self._sources.setdefault(stage.tiled.value, self.of(stage.all_ops))

    def _param(self, value: Value, of: str) -> None:
        line = self.pieces.declared.get(value.name)
        if of:
            told = self._results.get(of, CameFrom())
        elif line is not None:
            told = CameFrom(declarations=frozenset({line}))
            self._reads[value] = told.declarations
        else:
            told = CameFrom()
        self._sources.setdefault(value, told)  # a residual is the value that the forward made

    def of_op(self, op: Op) -> CameFrom:
        """What it is for, and what sets the name that its result has: gates that are made one by
        one are of the `split` that nothing else is left of."""
        lines = [op.span and self.pieces.of(op.span.line)]
        lines += [self.pieces.sets.get(v.name) for v in op.results]
        read = [self._reads.get(o, frozenset()) for o in op.operands]
        return CameFrom(frozenset(n for n in lines if n), frozenset().union(*read))

    def of(self, about: Iterable[Op | Value]) -> CameFrom:
        """What all of these come from."""
        told = CameFrom()
        for item in about:
            own = self.of_op(item) if isinstance(item, Op) else self._sources.get(item, CameFrom())
            told = told.joined(own)
        return told

    def linked(self, lines: Iterable[PrintedLine]) -> Iterator[LinkedLine]:
        """A heading has the sources of what it is over, and no values of its own."""
        for text, about in lines:
            ops = [item for item in about if isinstance(item, Op)]
            own = tuple(item for item in about if isinstance(item, Value))
            values = own if not ops else ops[0].results if len(ops) == 1 else ()
            numbers = [self._numbers.setdefault(v, len(self._numbers)) for v in values]
            yield LinkedLine(text, self.of(about), tuple(dict.fromkeys(numbers)), len(ops) > 1)
