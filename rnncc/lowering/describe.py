"""CellSpec + options + functions + dtype -> Cell, the description a layer and a module carry.

Non-Goals: programs and kernels; reading text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath

from rnncc.artifact.cell import Array, CellDescription, Constraint, Rate, SizeDescription
from rnncc.common import initializers
from rnncc.frontend.diagnostics import Diagnostic, SpecError
from rnncc.frontend.elaborate import sizes_of
from rnncc.frontend.spec import (
    Binary,
    Call,
    CellSpec,
    Conditional,
    Cut,
    Expr,
    Initializer,
    Item,
    Lambda,
    Name,
    Number,
    Text,
    Timed,
    TupleExpr,
    Unary,
)
from rnncc.ir.program import Program
from rnncc.ir.sizes import FloorDiv, Size
from rnncc.lowering.cell_interface import CellInterface, Shape, initial_weights
from rnncc.lowering.reach import reached, read_at

Given = Mapping[str, object] | None


def describe(
    spec: CellSpec, options: Given = None, functions: Given = None, dtype: str = "float32"
) -> CellDescription:
    """The cell as its layers see it.

    ValueError and TypeError: a wrong option or function; SpecError: mistakes that these options
    and functions show, or an initializer's.
    """
    return description_of(CellInterface(spec, options, functions), dtype)


def description_of(interface: CellInterface, dtype: str = "float32") -> CellDescription:
    """SpecError: an initializer's mistake."""
    spec, bound = interface.spec, interface.options
    starts = initial_weights(spec)
    return CellDescription(
        name=spec.name,
        dtype=dtype,
        doc=spec.doc,
        sizes=tuple(
            SizeDescription(name, None if size is None else size_text(size))
            for name, size in sizes_of(spec, bound).items()
        ),
        arguments=tuple(
            d.name
            for d in spec.declarations
            if d.name in interface.inputs or d.name in interface.contexts
        ),
        inputs=_arrays(interface.inputs),
        contexts=_arrays(interface.contexts),
        states=tuple(
            Array(name, _shape(shape), default=starts.get(name))
            for name, shape in interface.states.items()
        ),
        weights=_drawn(spec, interface.weights),
        constants=_drawn(spec, interface.constants),
        outputs=_arrays(interface.outputs),
        options=tuple(bound.items()),
        functions=tuple((n, function_text(f)) for n, f in interface.functions.items()),
        rates=tuple(
            Rate(r.name, r.default, r.name in interface.rates_at_inference) for r in spec.rates
        ),
        draws=interface.draws,
        rated_options=tuple((d.name, d.rate.name) for d in spec.options if d.rate is not None),
        constraints=tuple(
            Constraint(size_text(c.left), size_text(c.right), f"{c.message} (line {c.span.line})")
            for c in interface.constraints
        ),
        unlearned=tuple(_unlearned(spec, interface.still)),
        source=PurePath(spec.filename).name,
        sha256=spec.sha256,
    )


def _unlearned(spec: CellSpec, program: Program) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """Weights that no gradient reaches, but those that stop_gradient is written around."""
    learned = reached(program)
    learned |= {weight for state, weight in initial_weights(spec).items() if state in learned}
    for weight in spec.weights:
        if weight.name in learned:
            continue
        starts = [
            s.initial.span for s in spec.states if s.initial and s.initial.name == weight.name
        ]
        spans = [op.span for op in read_at(program, weight.name) if op.opcode != "stop_gradient"]
        lines = {span.line for span in (*spans, *starts) if span is not None}
        if lines:
            yield weight.name, weight.span.line, tuple(sorted(lines))


def _shape(shape: Shape) -> tuple[str, ...]:
    return tuple(map(size_text, shape))


def _arrays(shapes: Mapping[str, Shape]) -> tuple[Array, ...]:
    return tuple(Array(name, _shape(shape)) for name, shape in shapes.items())


def _drawn(
    spec: CellSpec, shapes: Mapping[str, tuple[Shape, Initializer | None]]
) -> tuple[Array, ...]:
    return tuple(
        Array(name, _shape(shape), None if initializer is None else _initializer(spec, initializer))
        for name, (shape, initializer) in shapes.items()
    )


def _initializer(spec: CellSpec, given: Initializer) -> tuple[object, ...]:
    positional = tuple(v for k, v in given.args if k is None)
    keywords = {k: v for k, v in given.args if k is not None}
    try:
        values = initializers.arguments(given.name, positional, keywords)
    except ValueError as error:
        wrong = Diagnostic("E218", given.span, str(error))
        raise SpecError([wrong], spec.text, spec.filename, spec) from None
    return (given.name, *values)


# ---- sizes and functions as Python text --------------------------------------------------------


def size_text(size: Size) -> str:
    """A size as Python reads it back: every quotient in brackets of its own.

    >>> size_text(3 * (Size.name("units") // 2) - 1), size_text(Size.name("units") // 2)
    ('3 * (units // 2) - 1', 'units // 2')
    """
    match size.terms:
        case (((FloorDiv() as alone,), 1),):
            return _atom_text(alone)[1:-1]
    text = ""
    for monomial, coefficient in size.terms:
        factors = [_atom_text(a) for a in monomial]
        if abs(coefficient) != 1 or not factors:
            factors.insert(0, str(abs(coefficient)))
        sign = "-" if coefficient < 0 else "+"
        lead = f" {sign} " if text else sign.strip("+")
        text += lead + " * ".join(factors)
    return text or "0"


def _atom_text(atom: str | FloorDiv) -> str:
    if isinstance(atom, str):
        return atom
    sides = [size_text(atom.numerator), size_text(atom.denominator)]
    left, right = (s if s.isidentifier() or s.isdigit() else f"({s})" for s in sides)
    return f"({left} // {right})"


def function_text(function: str | Lambda) -> str:
    """A bound function: a name of the library, or a lambda as text."""
    return function if isinstance(function, str) else _expr(function)


def _expr(node: Expr) -> str:
    """An expression as text, brackets around every operation inside another."""
    match node:
        case Number() | Text():
            return repr(node.value)
        case Name():
            return node.name
        case Timed():
            return f"{node.name}[t]" if not node.back else f"{node.name}[t-{node.back}]"
        case Unary():
            return f"{node.op}{' ' if node.op == 'not' else ''}{_inner(node.operand)}"
        case Binary():
            return f"{_inner(node.left)} {node.op} {_inner(node.right)}"
        case Conditional():
            condition, yes, no = map(_inner, (node.condition, node.yes, node.no))
            return f"{yes} if {condition} else {no}"
        case Call():
            arguments = [
                *map(_expr, node.args),
                *(f"{k.name}={_expr(k.value)}" for k in node.keywords),
            ]
            return f"{node.function}({', '.join(arguments)})"
        case Item():
            return f"{_inner(node.value)}[{', '.join(map(_expr, node.indices))}]"
        case Cut():
            begin, end = ("" if x is None else _expr(x) for x in (node.begin, node.end))
            return f"{begin}:{end}" + ("" if node.step is None else f":{_expr(node.step)}")
        case TupleExpr():
            items = ", ".join(map(_expr, node.items))
            return f"({items},)" if len(node.items) == 1 else f"({items})"
        case Lambda():
            return f"lambda {', '.join(node.params)}: {_expr(node.body)}"
    raise TypeError(f"not an expression: {node!r}")


def _inner(node: Expr) -> str:
    text = _expr(node)
    nested = isinstance(node, Unary | Binary | Conditional | Lambda)
    nested = nested or (isinstance(node, Number) and node.value < 0)
    return f"({text})" if nested else text
