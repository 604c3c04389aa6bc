"""CellSpec + options -> sizes and shapes of what is declared.

Non-Goals: which weights are used, which depends on the equations (`lowering.cell_interface`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping

from rnncc.common.unrolling import MOST_STEPS, fits_unroll
from rnncc.frontend.diagnostics import Reporter, an, nearest
from rnncc.frontend.limits import RANK, WHOLE
from rnncc.frontend.spec import (
    Bad,
    Binary,
    CellSpec,
    Conditional,
    Expr,
    Layout,
    LayoutChoice,
    Name,
    Number,
    SizeDecl,
    Text,
    Unary,
)
from rnncc.ir.sizes import FloorDiv, Size, TooLarge

OptionValue = bool | int | float | str
SIZE_OPERATORS: dict[str, Callable[[Size, Size], Size]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
}
_COMPARE: dict[str, Callable[[OptionValue, OptionValue], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,  # type: ignore[operator]
    "<=": lambda a, b: a <= b,  # type: ignore[operator]
    ">": lambda a, b: a > b,  # type: ignore[operator]
    ">=": lambda a, b: a >= b,  # type: ignore[operator]
}


def bind_options(spec: CellSpec, given: Mapping[str, object]) -> dict[str, OptionValue]:
    """Every option's value, defaults filled in; ValueError or TypeError for a wrong one."""
    values: dict[str, OptionValue] = {d.name: d.default for d in spec.options}
    for name, value in given.items():
        if name not in values:
            hint = nearest(name, values)
            raise ValueError(f"{spec.name} has no option {name}" + (f": {hint}" if hint else ""))
        values[name] = _checked(name, values[name], value)
    return values


def _checked(name: str, default: OptionValue, value: object) -> OptionValue:
    if name == "unroll":
        if not fits_unroll(value):
            raise ValueError(f"unroll is True, False or 1 to {MOST_STEPS} steps, not {value!r}")
        return value  # type: ignore[return-value]
    if isinstance(default, bool) or isinstance(value, bool):
        ok = isinstance(default, bool) and isinstance(value, bool)
    elif isinstance(default, float):
        ok = isinstance(value, int | float)
    else:
        ok = isinstance(value, type(default))
    if not ok:
        raise TypeError(f"option {name} is {an(type(default).__name__)}, not {value!r}")
    if isinstance(value, int) and abs(value) > WHOLE:
        raise ValueError(f"option {name} is at most 2**53, more can't be told apart")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"option {name} is a finite number, not {value!r}")
    return float(value) if isinstance(default, float) else value  # type: ignore[arg-type,return-value]


def sizes_of(
    spec: CellSpec,
    options: Mapping[str, OptionValue] | None = None,
    errors: Reporter | None = None,
) -> dict[str, Size | None]:
    """Every declared size with its default, in order; None when it has to be given or read off."""
    bound = bind_options(spec, options or {})
    errors = errors or Reporter()
    return {
        d.name: None if d.default is None else size_of(spec, d.default, bound, errors)
        for d in spec.sizes
    }


def size_of(
    spec: CellSpec, expr: Expr, options: Mapping[str, OptionValue], errors: Reporter
) -> Size | None:
    """A size expression's polynomial; None when it is none, which is reported."""
    match expr:
        case Number(value=int() as value) if not isinstance(value, bool):
            return Size.of(value)
        case Name(name=name):
            if name in options:
                option = options[name]
                if type(option) is int:
                    return Size.of(option)
            elif isinstance(spec.find(name), SizeDecl):
                return Size.name(name)
            else:
                return None  # `names` has said so
        case Conditional():
            chosen = fold(expr.condition, options)
            if isinstance(chosen, bool):
                return size_of(spec, expr.yes if chosen else expr.no, options, errors)
        case Binary(op="+" | "-" | "*" | "//"):
            left = size_of(spec, expr.left, options, errors)
            right = size_of(spec, expr.right, options, errors)
            if left is None or right is None:
                return None
            if expr.op == "//" and not right.terms:
                errors.add("E512", expr.span, reason="a size is divided by zero")
                return None
            try:
                return SIZE_OPERATORS[expr.op](left, right)
            except TooLarge as error:
                errors.add("E422", expr.span, reason=error)
                return None
        case Bad():
            return None
    errors.add("E402", expr.span, help="whole numbers, sizes and + - * //")
    return None


def fold(expr: Expr, options: Mapping[str, OptionValue]) -> OptionValue | None:
    """The value of a condition over options; None when it isn't one."""
    match expr:
        case Number() | Text():
            return expr.value
        case Name(name=name):
            return options.get(name)
        case Unary(op="not"):
            value = fold(expr.operand, options)
            return None if value is None else not value
        case Unary(op="-"):
            value = fold(expr.operand, options)
            return -value if isinstance(value, int | float) else None
        case Binary(op="and" | "or"):
            left, right = fold(expr.left, options), fold(expr.right, options)
            if left is None or right is None:
                return None
            return (left and right) if expr.op == "and" else (left or right)
        case Binary(op=op) if op in _COMPARE:
            left, right = fold(expr.left, options), fold(expr.right, options)
            if left is None or right is None:
                return None
            if isinstance(left, str) != isinstance(right, str) and op not in ("==", "!="):
                return None
            return _COMPARE[op](left, right)
    return None


def shape_of(
    spec: CellSpec, layout: Layout, options: Mapping[str, OptionValue], errors: Reporter
) -> tuple[Size, ...] | None:
    """A declared shape with its options bound; None when part of it is wrong."""
    while isinstance(layout, LayoutChoice):
        chosen = fold(layout.condition, options)
        if not isinstance(chosen, bool):
            if not isinstance(layout.condition, Bad):
                errors.add("E504", layout.condition.span)
            return None
        layout = layout.yes if chosen else layout.no
    if len(layout.sizes) > RANK:
        errors.add("E423", layout.span, n=len(layout.sizes), most=RANK)
        return None
    sizes: list[Size] = []
    for expr in layout.sizes:
        size = size_of(spec, expr, options, errors)
        if size is None:
            return None
        if size.is_constant and size.constant < 1:
            errors.add("E403", expr.span, text=str(size))
            return None
        sizes.append(size)
    return tuple(sizes)


def substitute(size: Size, values: Mapping[str, Size]) -> Size:
    """A size with some of its names replaced."""
    total = Size.of(0)
    for monomial, coefficient in size.terms:
        term = Size.of(coefficient)
        for atom in monomial:
            if isinstance(atom, FloorDiv):
                term = term * (
                    substitute(atom.numerator, values) // substitute(atom.denominator, values)
                )
            else:
                term = term * values.get(atom, Size.name(atom))
        total = total + term
    return total


class Defaults:
    """Sizes in terms of the names that have no default, as far as defaults reach.

    A default that would become `TooLarge` on the way is reported, and stays a name.
    """

    def __init__(
        self, spec: CellSpec, declared: Mapping[str, Size | None], errors: Reporter
    ) -> None:
        self._known: dict[str, Size] = {}
        self._expanded: dict[Size, Size] = {}
        defaults = {name: size for name, size in declared.items() if size is not None}
        for name in left({name: sorted(size.names) for name, size in defaults.items()}):
            try:
                self._known[name] = substitute(defaults[name], self._known)
            except TooLarge as error:
                declaration = spec.find(name)
                assert isinstance(declaration, SizeDecl) and declaration.default is not None
                errors.add("E422", declaration.default.span, reason=f"{error}, written out")

    def expand(self, size: Size) -> Size:
        """TooLarge where what sizes stand for is."""
        if size not in self._expanded:
            self._expanded[size] = substitute(size, self._known)
        return self._expanded[size]


def left(reads: Mapping[str, Iterable[str]]) -> list[str]:
    """The names in the order in which a walk through what they read leaves them."""
    done: list[str] = []
    seen: set[str] = set()
    for name in reads:
        stack = [] if name in seen else [(name, iter(reads[name]))]
        seen.add(name)
        while stack:
            at, rest = stack[-1]
            following = next((r for r in rest if r in reads and r not in seen), None)
            if following is None:
                done.append(at)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(reads[following])))
    return done
