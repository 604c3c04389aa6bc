"""What a layer asks of a cell: its weights, states and inputs with their shapes, its constraints,
and whether anything is wrong with it under any of its options.

Non-Goals: binding sizes, which is the layer's; initial values.
"""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from rnncc.common.progress import working
from rnncc.frontend.diagnostics import Diagnostic, Reporter, SpecError
from rnncc.frontend.elaborate import OptionValue
from rnncc.frontend.limits import FOLDINGS, WORK
from rnncc.frontend.parse import parse, parse_file
from rnncc.frontend.spec import (
    ArrayDecl,
    Binary,
    CellSpec,
    Initializer,
    Name,
    Number,
    Text,
    walk,
)
from rnncc.ir.program import Program
from rnncc.ir.sizes import Size
from rnncc.lowering.lower import Whole, elaborate, lower
from rnncc.lowering.operands import SizeEquality
from rnncc.lowering.randomness import SiteDraw

Shape = tuple[Size, ...]
Options = Mapping[str, object] | None
ANOTHER = "<another>"  # a text no choice compares with


class CellInterface:
    """What is asked of a cell with options and functions bound, all of it out of one lowering.

    ValueError and TypeError: a wrong option or function; SpecError: mistakes that these options
    and functions show. What depends on shapes that draws change, is lowered again.
    """

    def __init__(self, spec: CellSpec, options: Options = None, functions: Options = None) -> None:
        self.spec, self._given = spec, (options, functions)
        self._whole = Whole(spec, options, functions)
        if not self._whole.complete:
            raise SpecError(self._whole.errors, spec.text, spec.filename, spec)
        self.options, self.functions = (
            self._whole.equations.options,
            self._whole.equations.functions,
        )
        self._programs: dict[frozenset[SiteDraw], Program] = {}

    @cached_property
    def inputs(self) -> dict[str, Shape]:
        return self._declared("input")

    @cached_property
    def contexts(self) -> dict[str, Shape]:
        return self._declared("context")

    @cached_property
    def weights(self) -> dict[str, tuple[Shape, Initializer | None]]:
        """Those that exist under these options, in order of declaration."""
        return self._drawn("weight")

    @cached_property
    def constants(self) -> dict[str, tuple[Shape, Initializer | None]]:
        return self._drawn("constant")

    @cached_property
    def states(self) -> dict[str, Shape]:
        """In the order of `initial_state`: declared ones, then delays (`_x_1`, `_h_2`)."""
        params = self._with(training=True, rated=True).params
        return {p.value.name: p.value.type.shape for p in params if p.role == "state"}

    @cached_property
    def still(self) -> Program:
        """The cell where nothing is drawn: it reads what that reads, its results are of those
        shapes. A draw at a fixed rate that isn't left out by itself may still stand in it."""
        return self._with(training=False, rated=False)

    @cached_property
    def outputs(self) -> dict[str, Shape]:
        """What is returned, by result name, in order."""
        return {r.name: r.value.type.shape for r in self.still.results if r.role.kind == "output"}

    @cached_property
    def constraints(self) -> list[SizeEquality]:
        """Sizes that must turn out equal once they are bound; each pair once."""
        equations = self._whole.equations
        left_out = self._left_out(training=False, rated=False)
        if not all(d.can_be_left_out for d in left_out):
            asked = elaborate(self.spec, *self._given)[1].constraints
        else:
            others = {at for d in left_out for at in d.constraints}
            asked = [c for at, c in enumerate(equations.constraints) if at not in others]
        unique: dict[tuple[Size, Size], SizeEquality] = {}
        for c in asked:
            unique.setdefault((c.left, c.right), c)
        return list(unique.values())

    @cached_property
    def rates_at_inference(self) -> frozenset[str]:
        """The rates that matter without training, too."""
        params = self._with(training=False, rated=True).params
        return frozenset(p.value.name for p in params if p.role == "rate")

    @cached_property
    def draws(self) -> bool:
        """Whether training draws numbers when all rates are zero."""
        return any(p.role == "seed" for p in self._with(training=True, rated=False).params)

    def _with(self, *, training: bool, rated: bool) -> Program:
        """The Program as it is in training or out of it, with rates above zero or at zero, but
        for names and that a zoneout is one of training."""
        left_out = self._left_out(training=training, rated=rated)
        if not all(d.can_be_left_out for d in left_out):
            active = frozenset(r.name for r in self.spec.rates) if rated else frozenset()
            return lower(self.spec, *self._given, training=training, active_rates=active)
        if left_out not in self._programs:
            self._programs[left_out] = self._whole.program(left_out)
        return self._programs[left_out]

    def _left_out(self, *, training: bool, rated: bool) -> frozenset[SiteDraw]:
        """The draws that hand on what they are given: those of a rate at zero, and without
        training every drop, where zoneout mixes what it is given."""
        return frozenset(
            d
            for d in self._whole.equations.draws
            if (d.rated and not rated) or (d.function == "drop" and not training)
        )

    def _drawn(self, kind: str) -> dict[str, tuple[Shape, Initializer | None]]:
        read = _read(self.spec, self._with(training=True, rated=True))
        shapes = self._declared(kind)
        arrays = {d.name: d for d in _arrays(self.spec, kind)}
        return {n: (shapes[n], d.initializer) for n, d in arrays.items() if n in read}

    def _declared(self, kind: str) -> dict[str, Shape]:
        shapes = {d.name: self._whole.equations.shapes[d.name] for d in _arrays(self.spec, kind)}
        return {name: shape for name, shape in shapes.items() if shape is not None}


def initial_weights(spec: CellSpec) -> dict[str, str]:
    """The weight or constant each state starts from, for states that have one."""
    return {s.name: s.initial.name for s in spec.states if s.initial is not None}


def check(spec: CellSpec) -> CellSpec:
    """The spec itself, or SpecError with what is wrong under any of its options."""
    errors = diagnose(spec)
    if errors:
        raise SpecError(errors, spec.text, spec.filename, spec)
    return spec


@contextmanager
def collecting_later() -> Iterator[None]:
    """What is made of a long text is kept: to look through all of it for what can go, again and
    again as it grows, took two fifths of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@collecting_later()
def check_text(text: str, filename: str = "<text>") -> CellSpec:
    """`parse` and `check` together: mistakes of both kinds in one SpecError."""
    with working(f"checking {filename}"):
        try:
            spec = parse(text, filename)
        except SpecError as error:
            _check_partial(error)
            raise
        return check(spec)


@collecting_later()
def check_file(path: str | Path) -> CellSpec:
    """`parse_file` and `check` together: mistakes of both kinds in one SpecError."""
    with working(f"checking {path}"):
        try:
            spec = parse_file(path)
        except SpecError as error:
            _check_partial(error)
            raise
        return check(spec)


def _check_partial(error: SpecError) -> None:
    """Raises the mistakes of reading together with those in what could be read."""
    if error.partial is None:
        return
    diagnostics = [*error.diagnostics, *diagnose(error.partial, complete=False)]
    raise SpecError(diagnostics, error.text, error.filename, error.partial) from None


# ---- every folding ---------------------------------------------------------------------------


def diagnose(spec: CellSpec, *, complete: bool = True) -> list[Diagnostic]:
    """What is wrong with shapes, options and uses, under the defaults and every other choice.

    Of a spec that is not complete, nothing is said about what nobody reads.
    """
    diagnostics: dict[tuple[str, int, int], Diagnostic] = {}
    read: set[str] = set()
    defaults = {d.name: d.default for d in spec.options}
    clean = True
    tried = 0
    for options, errors, program in examined(spec):
        tried += 1
        other = [
            f"with {k} = {v!r}" if v != ANOTHER else f"with another {k}"
            for k, v in options.items()
            if v != defaults[k]
        ]
        for d in errors:
            noted = Diagnostic(d.code, d.span, d.message, (*d.notes, *other), d.help)
            diagnostics.setdefault((d.code, d.span.line, d.span.col), noted)
        clean = clean and program is not None
        read |= _read(spec, program) if program else set()
    reporter = Reporter()
    if clean and complete and tried == _choices(spec):  # another choice may read it
        for array in (*spec.weights, *spec.constants):
            if array.name not in read:
                reporter.add(
                    "E316",
                    array.span,
                    kind=array.kind,
                    name=array.name,
                    help="nothing that is returned or kept depends on it",
                )
    return [*diagnostics.values(), *reporter.diagnostics]


def examined(
    spec: CellSpec,
) -> Iterator[tuple[dict[str, OptionValue], list[Diagnostic], Program | None]]:
    """What is wrong under each of `foldings`, as far as `WORK` goes; its Program when nothing is.

    A layer is told what is wrong with its own choice in any case.
    """
    spent = 0
    for options in foldings(spec):
        whole = Whole(spec, options)
        yield options, whole.errors, whole.program() if whole.complete else None
        work = whole.equations.work + len(spec.declarations) + len(spec.equations)
        spent += work
        if spent + work > WORK:
            return


def _choices(spec: CellSpec) -> int:
    return math.prod(map(len, _candidates(spec).values()))


def foldings(spec: CellSpec) -> Iterator[dict[str, OptionValue]]:
    """The defaults, then every other choice of options that equations tell apart: of more than
    `FOLDINGS`, those in which one or two options differ."""
    choices = _candidates(spec)
    if math.prod(map(len, choices.values())) <= FOLDINGS:
        for combination in itertools.product(*choices.values()):
            yield dict(zip(choices, combination, strict=True))
        return
    defaults = {name: values[0] for name, values in choices.items()}
    yield defaults
    flips = [(n, v) for n, values in choices.items() for v in values[1:]]
    for name, value in flips:
        yield defaults | {name: value}
    pairs = itertools.combinations(flips, 2)
    for (a, x), (b, y) in itertools.islice(pairs, FOLDINGS):
        if a != b:
            yield defaults | {a: x, b: y}


def _candidates(spec: CellSpec) -> dict[str, list[OptionValue]]:
    """Of each option the default first, then the values that turn a condition."""
    values: dict[str, list[OptionValue]] = {d.name: [d.default] for d in spec.options}
    for d in spec.options:
        if isinstance(d.default, bool) and d.name != "unroll":
            values[d.name].append(not d.default)
    for node in _expressions(spec) if values else ():
        if not isinstance(node, Binary):
            continue
        for here, there in ((node.left, node.right), (node.right, node.left)):
            if isinstance(here, Name) and here.name in values and here.name != "unroll":
                if not isinstance(values[here.name][0], bool):
                    values[here.name] += _turning(node.op, there)
    for own in values.values():
        if isinstance(own[0], str):
            own.append(ANOTHER)
    return {name: list(dict.fromkeys(own)) for name, own in values.items()}


def _turning(op: str, other: object) -> list[OptionValue]:
    match other:
        case Text(value=text) if op in ("==", "!="):
            return [text]
        case Number(value=number) if op in ("==", "!=", "<=", ">="):
            return [number]
        case Number(value=number) if op in ("<", ">"):
            return [number, number + 1 if op == ">" else number - 1]
    return []


def _expressions(spec: CellSpec) -> Iterator[object]:
    for nodes in spec.nodes:
        yield from nodes
    for d in spec.declarations:
        if isinstance(d, ArrayDecl):
            yield from walk(d.layout)


def _read(spec: CellSpec, program: Program) -> set[str]:
    """The weights and constants a Program reads, and those that states start from."""
    read = {p.value.name for p in program.params if p.role in ("weight", "constant")}
    return read | set(initial_weights(spec).values())


def _arrays(spec: CellSpec, kind: str) -> list[ArrayDecl]:
    return [d for d in spec.declarations if isinstance(d, ArrayDecl) and d.kind == kind]
