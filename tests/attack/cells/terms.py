"""What the generator knows of an expression: its shape, and between what its values are.

Non-Goals: expressions of what kind are made (`generate`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from tests.attack.cells.reference import Bound, Step
from tests.attack.cells.tree import Apply, Call, Case, Cell, Expr, Function, Num, Ref

# ---- sizes -----------------------------------------------------------------------------------

Monomial = tuple[str, ...]


@dataclass(frozen=True)
class Dim:
    """A polynomial of the names of sizes: rnncc holds two axes equal if these are."""

    terms: tuple[tuple[Monomial, int], ...]

    @staticmethod
    def of(value: int | str) -> Dim:
        return Dim((((value,), 1),)) if isinstance(value, str) else Dim((((), value),))

    @staticmethod
    def _collected(pairs: list[tuple[Monomial, int]]) -> Dim:
        total: dict[Monomial, int] = {}
        for names, count in pairs:
            total[names] = total.get(names, 0) + count
        return Dim(tuple(sorted((m, c) for m, c in total.items() if c)))

    def __add__(self, other: Dim) -> Dim:
        return self._collected([*self.terms, *other.terms])

    def __mul__(self, other: Dim | int) -> Dim:
        other = Dim.of(other) if isinstance(other, int) else other
        pairs = [(tuple(sorted((*m, *n))), c * d) for m, c in self.terms for n, d in other.terms]
        return self._collected(pairs)

    @property
    def is_one(self) -> bool:
        return self.terms == (((), 1),)

    def value(self, sizes: Mapping[str, int]) -> int:
        return sum(c * math.prod(sizes[n] for n in m) for m, c in self.terms)

    def expr(self) -> Expr:
        result: Expr | None = None
        for names, count in self.terms:
            term: Expr | None = Num(count) if count != 1 or not names else None
            for name in names:
                term = Ref(name) if term is None else Apply("*", (term, Ref(name)))
            assert term is not None
            result = term if result is None else Apply("+", (result, term))
        assert result is not None
        return result

    def parts(self) -> list[tuple[Dim, Dim]]:
        """Two sizes that add up to this one."""
        found = []
        for i, (names, count) in enumerate(self.terms):
            if len(self.terms) > 1:
                rest = self.terms[:i] + self.terms[i + 1 :]
                found.append((Dim((self.terms[i],)), Dim(rest)))
            elif count > 1:
                found.append((Dim(((names, 1),)), Dim(((names, count - 1),))))
        return found

    def factors(self) -> list[tuple[Dim, Dim]]:
        """Two sizes whose product this is, neither of them one."""
        if len(self.terms) != 1:
            return []
        ((names, count),) = self.terms
        found = []
        if names and count > 1:
            found.append((Dim.of(count), Dim(((names, 1),))))
        if len(names) > 1:
            found.append((Dim.of(names[0]), Dim(((names[1:], count),))))
        return found


ONE = Dim.of(1)
Dims = tuple[Dim, ...]


# ---- expressions -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """low, high: what values stay between. batched: whether rows differ."""

    expr: Expr
    shape: Dims
    low: float
    high: float
    batched: bool

    @property
    def most(self) -> float:
        return max(abs(self.low), abs(self.high))

    def now(self, expr: Expr, low: float, high: float) -> Term:
        return replace(self, expr=expr, low=low, high=high)


def number(value: float) -> Term:
    return Term(Num(value), (), float(value), float(value), False)


def products(a: Term, b: Term) -> tuple[float, float]:
    corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return min(corners), max(corners)


def quotients(a: Term, b: Term) -> tuple[float, float]:
    assert b.low > 0 or b.high < 0
    return products(a, b.now(b.expr, 1 / b.high, 1 / b.low))


def powers(a: Term, b: Term) -> tuple[float, float]:
    assert a.low > 0
    corners = [x**y for x in (a.low, a.high) for y in (b.low, b.high)]
    return min(corners), max(corners)


_NOTHING = Bound(Case(Cell("f", (), (), ()), Call({}, ())))
_POINTS = 65


def image(function: Function, *args: Term) -> tuple[float, float]:
    """What a function's values stay between, by trying them out."""
    axes = [torch.linspace(a.low, a.high, _POINTS, dtype=torch.float64) for a in args]
    grid = [g.reshape(1, -1) for g in torch.meshgrid(*axes, indexing="ij")]
    scope = dict(zip(function.params, grid))
    found = Step(_NOTHING, {}, {}, scope, 0, 1).value(function.body)
    low, high = float(found.min()), float(found.max())
    margin = 1e-6 + 0.05 * (high - low)
    # Functions that are never negative stay so.
    return (max(low - margin, 0.0) if low >= 0 else low - margin), high + margin
