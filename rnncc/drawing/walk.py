"""One walk over a cell's expressions, that writes them in a script.

    h[t] = f * h[t-1] + W @ g        hₜ = f ⊙ hₜ₋₁ + W g

`*` of two values is the product of their elements, `@` stands as writers of papers do it, side by
side. It goes as deep as the language lets a text be (`frontend.limits`).

Non-Goals: how a script writes it (`latex`, `mathml`); declarations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from rnncc.drawing.chosen import ChosenCell
from rnncc.frontend.spec import (
    Binary,
    Call,
    Conditional,
    Cut,
    Expr,
    Item,
    Layout,
    Name,
    Number,
    Target,
    Text,
    Timed,
    TupleExpr,
    Unary,
)

# How closely parts hold together.
CHOICE, SUM, PRODUCT, UNARY, POWER, WHOLE = 0, 5, 6, 8, 9, 10
LEVELS = {
    "or": 1,
    "and": 2,
    "<": 4,
    "<=": 4,
    ">": 4,
    ">=": 4,
    "==": 4,
    "!=": 4,
    "+": SUM,
    "-": SUM,
    "*": PRODUCT,
    "/": PRODUCT,
    "//": PRODUCT,
    "%": PRODUCT,
    "@": 7,
}
Part = tuple[str, str]  # a sign, and what stands after it


class Script(ABC):
    """Writes what is put together; every argument but of the first four is written already."""

    @abstractmethod
    def name(self, text: str) -> str: ...

    @abstractmethod
    def number(self, value: int | float | bool) -> str: ...

    @abstractmethod
    def words(self, text: str) -> str: ...

    @abstractmethod
    def quoted(self, text: str) -> str: ...

    @abstractmethod
    def infix(self, first: str, rest: Sequence[Part]) -> str:
        """Signs are those of the language, and "." for a product with a number."""

    @abstractmethod
    def prefix(self, sign: str, value: str) -> str:
        """- + not."""

    @abstractmethod
    def fraction(self, above: str, below: str) -> str: ...

    @abstractmethod
    def power(self, base: str, exponent: str) -> str: ...

    @abstractmethod
    def below(self, base: str, subscript: str) -> str: ...

    @abstractmethod
    def root(self, value: str) -> str: ...

    @abstractmethod
    def bars(self, value: str) -> str: ...

    @abstractmethod
    def parentheses(self, value: str) -> str: ...

    @abstractmethod
    def brackets(self, value: str, parts: str) -> str: ...

    @abstractmethod
    def commas(self, parts: Sequence[str]) -> str: ...

    @abstractmethod
    def colons(self, parts: Sequence[str]) -> str: ...

    @abstractmethod
    def function(self, name: str) -> str: ...

    @abstractmethod
    def table(self, rows: Sequence[ShownRow]) -> str: ...


@dataclass(frozen=True, slots=True)
class ShownRow:
    """An equation; what is returned has no sign."""

    left: str
    sign: str
    right: str


def rows(cell: ChosenCell, script: Script) -> list[ShownRow]:
    """A row for each function of the cell's own, for each equation, and for what it returns."""
    found = []
    for name, function in cell.lambdas.items():
        inner = Walk(cell.inside(function), script)
        arguments = script.parentheses(script.commas([*map(script.name, function.params)]))
        found.append(ShownRow(script.name(name) + arguments, "=", inner.shown(function.body)))
    walk = Walk(cell, script)
    for equation in cell.equations:
        left = script.commas([walk.target(t) for t in equation.targets])
        found.append(ShownRow(left, "=", walk.shown(equation.value)))
    returned = script.commas([walk.shown(e) for e in cell.spec.returns])
    return [*found, ShownRow(script.words("return"), "", returned)]


def equations(cell: ChosenCell, script: Script) -> str:
    """All rows as one table."""
    return script.table(rows(cell, script))


class Walk:
    def __init__(self, cell: ChosenCell, script: Script) -> None:
        self.cell, self.script = cell, script

    def target(self, target: Target) -> str:
        return self._timed(target.name, target.back)

    def shown(self, expr: Expr | Layout, around: int = CHOICE) -> str:
        """In parentheses where what is around it holds closer together."""
        text, own = self._parts(self.cell.resolved(expr))
        return self.script.parentheses(text) if own < around else text

    def _parts(self, expr: Expr | Layout) -> tuple[str, int]:
        script = self.script
        match expr:
            case Name(name=name):
                return script.name(name), WHOLE
            case Timed(name=name, back=back):
                return self._timed(name, back), WHOLE
            case Number(value=value):
                return script.number(value), WHOLE if not value < 0 else SUM
            case Text(value=value):
                return script.quoted(value), WHOLE
            case TupleExpr(items=items):
                return script.commas([*map(self.shown, items)]), CHOICE
            case Item(value=value, indices=indices):
                inside = script.commas([*map(self.shown, indices)])
                return script.brackets(self.shown(value, WHOLE), inside), WHOLE
            case Cut(begin=begin, end=end, step=step):
                ends = [begin, end] if step is None else [begin, end, step]
                shown = ["" if e is None else self.shown(e, CHOICE + 1) for e in ends]
                return script.colons(shown), CHOICE
            case Call():
                return self._call(expr), WHOLE
            case Conditional(condition=condition, yes=yes, no=no):
                parts = [self.shown(e, 1) for e in (yes, condition, no)]
                words = (script.words(" if "), script.words(" else "))
                return words[0].join(parts[:2]) + words[1] + parts[2], CHOICE
            case Unary(op=op, operand=operand):
                own = UNARY if op == "not" else SUM
                return script.prefix(op, self.shown(operand, UNARY)), own
            case Binary(op="**", left=left, right=right):
                return script.power(self.shown(left, WHOLE), self.shown(right)), POWER
            case Binary():
                return self._chain(expr)
        raise ValueError(f"an expression that no text has: {expr!r}")

    def _timed(self, name: str, back: int | None) -> str:
        script = self.script
        if back is None:
            return script.name(name)
        step = script.name("t")
        if back:
            step = script.infix(step, [("-" if back > 0 else "+", script.number(abs(back)))])
        return script.below(script.name(name), step)

    def _chain(self, expr: Binary) -> tuple[str, int]:
        """a + b - c + ...: one line, and of products and quotients the first quotient a fraction:
        operators of one level hold from the left."""
        own = LEVELS[expr.op]
        links: list[Binary] = []
        node: Expr | Layout = expr
        while isinstance(node, Binary) and LEVELS.get(node.op) == own:
            links.append(node)
            node = self.cell.resolved(node.left)
            if own == LEVELS["<"]:
                break  # (a < b) < c needs its parentheses
        links.reverse()
        held = CHOICE if links[0].op == "/" else own + (own == LEVELS["<"])
        first = self.shown(links[0].left, held)
        of_number = self._is_number(links[0].left)
        rest: list[Part] = []
        has_fraction = False
        for link in links:
            if link.op == "/" and not has_fraction:
                has_fraction = True
                above = self.script.infix(first, rest) if rest else first
                first, rest = self.script.fraction(above, self.shown(link.right)), []
                continue
            by_number = link.op == "*" and (of_number or self._is_number(link.right))
            rest.append(("." if by_number else link.op, self.shown(link.right, own + 1)))
            of_number = False
        if not rest:
            return first, UNARY
        return self.script.infix(first, rest), own

    def _is_number(self, expr: Expr | Layout) -> bool:
        return isinstance(self.cell.resolved(expr), Number)

    def _call(self, call: Call) -> str:
        given = [self.shown(a, CHOICE) for a in call.args]
        if len(given) == 1 and not call.keywords:
            if call.function == "sqrt":
                return self.script.root(given[0])
            if call.function == "abs":
                return self.script.bars(given[0])
        for keyword in call.keywords:
            name = self.script.words(keyword.name)
            given.append(self.script.infix(name, [("==", self.shown(keyword.value, SUM))]))
        inside = self.script.parentheses(self.script.commas(given))
        return self.script.function(call.function) + inside
