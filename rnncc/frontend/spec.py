"""What a cell's text says, as frozen data: declarations in order, equations, what is returned.

    CellSpec := declaration* equation* returns
    Layout   := Shape(sizes) | LayoutChoice(option condition, Layout, Layout)
    Expr     := Number | Text | Name | Timed | Unary | Binary | Choice | Call | Item | Cut
                | Group | Lambda

Non-Goals: checks (`parse` and `names` do them), shapes with options bound (`elaborate`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from rnncc.ir.program import Span

# ---- expressions ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number:
    value: int | float | bool
    span: Span


@dataclass(frozen=True, slots=True)
class Text:
    value: str
    span: Span


@dataclass(frozen=True, slots=True)
class Name:
    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class Timed:
    """name[t - back]."""

    name: str
    back: int
    span: Span


@dataclass(frozen=True, slots=True)
class Unary:
    op: str  # - + not
    operand: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Binary:
    op: str  # + - * / // ** @ < <= > >= == != and or
    left: Expr
    right: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Conditional:
    """yes if condition else no."""

    condition: Expr
    yes: Expr
    no: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Keyword:
    name: str
    value: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    args: tuple[Expr, ...]
    keywords: tuple[Keyword, ...]
    span: Span
    function_span: Span


@dataclass(frozen=True, slots=True)
class Item:
    """value[indices]; never a time. An index is a place along an axis, or a `Cut`."""

    value: Expr
    indices: tuple[Expr, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Cut:
    """begin:end:step, an index of several places: only in an `Item`."""

    begin: Expr | None
    end: Expr | None
    step: Expr | None
    span: Span


@dataclass(frozen=True, slots=True)
class TupleExpr:
    """(a, b)."""

    items: tuple[Expr, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Lambda:
    params: tuple[str, ...]
    body: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Bad:
    """Text already reported as wrong: whatever reads it stays silent."""

    span: Span


Expr = (
    Number
    | Text
    | Name
    | Timed
    | Unary
    | Binary
    | Conditional
    | Call
    | Item
    | Cut
    | TupleExpr
    | Lambda
    | Bad
)

# ---- declarations --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    sizes: tuple[Expr, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class LayoutChoice:
    condition: Expr
    yes: Layout
    no: Layout
    span: Span


Layout = Shape | LayoutChoice


@dataclass(frozen=True, slots=True)
class Initializer:
    """`glorot_uniform` or `constant(0.5)`: a name and its arguments, positional ones unnamed."""

    name: str
    args: tuple[tuple[str | None, int | float | bool | str], ...]
    span: Span


@dataclass(frozen=True, slots=True)
class SizeDecl:
    name: str
    span: Span
    default: Expr | None
    kind: str = "size"


@dataclass(frozen=True, slots=True)
class ArrayDecl:
    """kind: input context state weight constant. `initial`: the weight or constant of a state."""

    kind: str
    name: str
    span: Span
    layout: Layout
    initializer: Initializer | None = None
    initial: Name | None = None


@dataclass(frozen=True, slots=True)
class FunctionDecl:
    name: str
    span: Span
    default: Name | Lambda | Bad
    kind: str = "function"


@dataclass(frozen=True, slots=True)
class OptionDecl:
    """rate: one that decides instead of a default: True where it isn't 0 when a layer is made."""

    name: str
    span: Span
    default: bool | int | float | str
    kind: str = "option"
    rate: Name | None = None


@dataclass(frozen=True, slots=True)
class RateDecl:
    name: str
    span: Span
    default: float
    kind: str = "rate"


Declaration = SizeDecl | ArrayDecl | FunctionDecl | OptionDecl | RateDecl
_D = TypeVar("_D", bound=Declaration)

# ---- equations and the whole ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """One name an equation sets. back: None for `z`, 0 for `h[t]`; anything else is refused."""

    name: str
    back: int | None
    span: Span


@dataclass(frozen=True, slots=True)
class Equation:
    targets: tuple[Target, ...]
    value: Expr
    span: Span


@dataclass(frozen=True)
class CellSpec:
    name: str
    doc: str
    text: str
    filename: str
    declarations: tuple[Declaration, ...]
    equations: tuple[Equation, ...]
    returns: tuple[Expr, ...]
    returns_span: Span
    # Names bound on lines that could not be read: nothing is said about their uses. All names of
    # such lines: nobody can say that they are never used.
    poisoned: frozenset[str] = frozenset()
    mentioned: frozenset[str] = frozenset()

    @cached_property
    def _found(self) -> dict[str, Declaration]:
        return {d.name: d for d in reversed(self.declarations)}  # of two, the first counts

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.split("\n")

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def _of(self, kind: type[_D]) -> tuple[_D, ...]:
        return tuple(d for d in self.declarations if isinstance(d, kind))

    @cached_property
    def _by_kind(self) -> dict[str, tuple[ArrayDecl, ...]]:
        arrays_by_kind: dict[str, list[ArrayDecl]] = {}
        for d in self._of(ArrayDecl):
            arrays_by_kind.setdefault(d.kind, []).append(d)
        return {kind: tuple(arrays) for kind, arrays in arrays_by_kind.items()}

    def _arrays(self, kind: str) -> tuple[ArrayDecl, ...]:
        return self._by_kind.get(kind, ())

    @property
    def sizes(self) -> tuple[SizeDecl, ...]:
        return self._of(SizeDecl)

    @property
    def inputs(self) -> tuple[ArrayDecl, ...]:
        return self._arrays("input")

    @property
    def contexts(self) -> tuple[ArrayDecl, ...]:
        return self._arrays("context")

    @property
    def states(self) -> tuple[ArrayDecl, ...]:
        return self._arrays("state")

    @property
    def weights(self) -> tuple[ArrayDecl, ...]:
        return self._arrays("weight")

    @property
    def constants(self) -> tuple[ArrayDecl, ...]:
        return self._arrays("constant")

    @property
    def functions(self) -> tuple[FunctionDecl, ...]:
        return self._of(FunctionDecl)

    @property
    def options(self) -> tuple[OptionDecl, ...]:
        return self._of(OptionDecl)

    @property
    def rates(self) -> tuple[RateDecl, ...]:
        return self._of(RateDecl)

    @cached_property
    def nodes(self) -> tuple[tuple[Expr | Layout, ...], ...]:
        """Every expression of each equation, then of each value returned, in the text's order."""
        roots = [*(e.value for e in self.equations), *self.returns]
        return tuple(tuple(walk(root)) for root in roots)

    def find(self, name: str) -> Declaration | None:
        return self._found.get(name)

    def line(self, number: int) -> str:
        """A line of the text, 1-based."""
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""


_CHILDREN: dict[type, Callable[[Any], tuple[Expr | Layout, ...]]] = {
    Unary: lambda e: (e.operand,),
    Binary: lambda e: (e.left, e.right),
    Conditional: lambda e: (e.condition, e.yes, e.no),
    LayoutChoice: lambda e: (e.condition, e.yes, e.no),
    Call: lambda e: (*e.args, *(k.value for k in e.keywords)) if e.keywords else e.args,
    Item: lambda e: (e.value, *e.indices),
    Cut: lambda e: tuple(x for x in (e.begin, e.end, e.step) if x is not None),
    TupleExpr: lambda e: e.items,
    Lambda: lambda e: (e.body,),
    Shape: lambda e: e.sizes,
}


def children(expr: Expr | Layout) -> tuple[Expr | Layout, ...]:
    """The expressions directly inside one."""
    inside = _CHILDREN.get(type(expr))
    return inside(expr) if inside else ()


def walk(expr: Expr | Layout) -> Iterator[Expr | Layout]:
    """An expression and everything inside it, in the order of the text."""
    rest = [expr]
    while rest:
        node = rest.pop()
        yield node
        rest.extend(reversed(children(node)))
