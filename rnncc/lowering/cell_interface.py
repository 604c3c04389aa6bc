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
from pathlib import Path

from rnncc.frontend.diagnostics import Diagnostic, Reporter, SpecError
from rnncc.frontend.elaborate import OptionValue, bind_options, shape_of
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
from rnncc.lowering.lower import elaborate, examine
from rnncc.lowering.operands import SizeEquality

Shape = tuple[Size, ...]
Options = Mapping[str, object] | None
ANOTHER = "<another>"  # a text no choice compares with


def weight_shapes(
    spec: CellSpec, options: Options = None, functions: Options = None, *, kind: str = "weight"
) -> dict[str, tuple[Shape, Initializer | None]]:
    """The weights (or constants) that exist under these options, in order of declaration."""
    errors, program, _ = examine(spec, options, functions)
    if program is None:
        raise SpecError(errors, spec.text, spec.filename, spec)
    read = _read(spec, program)
    shapes = _shapes(spec, kind, options)
    return {d.name: (shapes[d.name], d.initializer) for d in _arrays(spec, kind) if d.name in read}


def constant_shapes(
    spec: CellSpec, options: Options = None, functions: Options = None
) -> dict[str, tuple[Shape, Initializer | None]]:
    return weight_shapes(spec, options, functions, kind="constant")


def state_shapes(
    spec: CellSpec, options: Options = None, functions: Options = None
) -> dict[str, Shape]:
    """Every state in the order of `initial_state`: declared ones, then delays (`_x_1`, `_h_2`)."""
    errors, program, _ = examine(spec, options, functions)
    if program is None:
        raise SpecError(errors, spec.text, spec.filename, spec)
    return {p.value.name: p.value.type.shape for p in program.params if p.role == "state"}


def initial_weights(spec: CellSpec) -> dict[str, str]:
    """The weight or constant each state starts from, for states that have one."""
    return {s.name: s.initial.name for s in spec.states if s.initial is not None}


def input_shapes(spec: CellSpec, options: Options = None) -> dict[str, Shape]:
    return _shapes(spec, "input", options)


def context_shapes(spec: CellSpec, options: Options = None) -> dict[str, Shape]:
    return _shapes(spec, "context", options)


def output_shapes(
    spec: CellSpec, options: Options = None, functions: Options = None
) -> dict[str, Shape]:
    """What is returned, by result name, in order."""
    program, _ = elaborate(spec, options, functions)
    return {r.name: r.value.type.shape for r in program.results if r.role == "output"}


def constraints(
    spec: CellSpec, options: Options = None, functions: Options = None
) -> list[SizeEquality]:
    """Sizes that must turn out equal once they are bound; each pair once."""
    _, equations = elaborate(spec, options, functions)
    unique: dict[tuple[Size, Size], SizeEquality] = {}
    for c in equations.constraints:
        unique.setdefault((c.left, c.right), c)
    return list(unique.values())


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
    try:
        spec = parse(text, filename)
    except SpecError as error:
        _check_partial(error)
        raise
    return check(spec)


@collecting_later()
def check_file(path: str | Path) -> CellSpec:
    """`parse_file` and `check` together: mistakes of both kinds in one SpecError."""
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
    found = [*error.diagnostics, *diagnose(error.partial, complete=False)]
    raise SpecError(found, error.text, error.filename, error.partial) from None


# ---- every folding ---------------------------------------------------------------------------


def diagnose(spec: CellSpec, *, complete: bool = True) -> list[Diagnostic]:
    """What is wrong with shapes, options and uses, under the defaults and every other choice.

    Of a spec that is not complete, nothing is said about what nobody reads.
    """
    found: dict[tuple[str, int, int], Diagnostic] = {}
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
            found.setdefault((d.code, d.span.line, d.span.col), noted)
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
    return [*found.values(), *reporter.diagnostics]


def examined(
    spec: CellSpec,
) -> Iterator[tuple[dict[str, OptionValue], list[Diagnostic], Program | None]]:
    """What is wrong under each of `foldings`, as far as `WORK` goes; its Program when nothing is.

    A layer is told what is wrong with its own choice in any case.
    """
    spent = 0
    for options in foldings(spec):
        errors, program, work = examine(spec, options)
        yield options, errors, program
        work += len(spec.declarations) + len(spec.equations)
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


def _shapes(spec: CellSpec, kind: str, options: Options) -> dict[str, Shape]:
    errors = Reporter()
    bound = bind_options(spec, options or {})
    shapes = {d.name: shape_of(spec, d.layout, bound, errors) for d in _arrays(spec, kind)}
    if errors.diagnostics:
        raise SpecError(errors.diagnostics, spec.text, spec.filename, spec)
    return {name: shape for name, shape in shapes.items() if shape is not None}
