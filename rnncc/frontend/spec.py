"""What a cell's text says, as frozen data: declarations in order, equations, what is returned.

    CellSpec := declaration* equation* returns
    Layout   := Shape(sizes) | LayoutChoice(option condition, Layout, Layout)
    Expr     := Number | Text | Name | Timed | Unary | Binary | Choice | Call | Item | Group
                | Lambda

Non-Goals: checks (`parse` and `names` do them), shapes with options bound (`elaborate`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

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
class Choice:
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
    """value[indices]; never a time."""

    value: Expr
    indices: tuple[Expr, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Group:
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


Expr = Number | Text | Name | Timed | Unary | Binary | Choice | Call | Item | Group | Lambda | Bad

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
    name: str
    span: Span
    default: bool | int | float | str
    kind: str = "option"


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

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def _of(self, kind: type[_D]) -> tuple[_D, ...]:
        return tuple(d for d in self.declarations if isinstance(d, kind))

    def _arrays(self, kind: str) -> tuple[ArrayDecl, ...]:
        return tuple(d for d in self._of(ArrayDecl) if d.kind == kind)

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

    def find(self, name: str) -> Declaration | None:
        return next((d for d in self.declarations if d.name == name), None)

    def line(self, number: int) -> str:
        """A line of the text, 1-based."""
        lines = self.text.split("\n")
        return lines[number - 1] if 0 < number <= len(lines) else ""


def children(expr: Expr | Layout) -> tuple[Expr | Layout, ...]:
    """The expressions directly inside one."""
    match expr:
        case Unary():
            return (expr.operand,)
        case Binary():
            return (expr.left, expr.right)
        case Choice() | LayoutChoice():
            return (expr.condition, expr.yes, expr.no)
        case Call():
            return (*expr.args, *(k.value for k in expr.keywords))
        case Item():
            return (expr.value, *expr.indices)
        case Group():
            return expr.items
        case Lambda():
            return (expr.body,)
        case Shape():
            return expr.sizes
    return ()


def walk(expr: Expr | Layout) -> Iterator[Expr | Layout]:
    """An expression and everything inside it, in the order of the text."""
    yield expr
    for child in children(expr):
        yield from walk(child)
