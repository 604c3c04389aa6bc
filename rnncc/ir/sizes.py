"""Symbolic sizes: integer polynomials over the names a cell declares, in one normal form.

`4 * units` and `units + units * 3` are the same `Size`; equality is structural. Floor division
that doesn't come out even symbolically stays as an atom and is decided when sizes are bound.
A polynomial has few terms of few factors: what would have more is `TooLarge`.

Non-Goals: inequalities, solving.

    >>> units = Size.name("units")
    >>> 4 * units == units + 3 * units, str(2 * units + 1), (4 * units) // 2 == 2 * units
    (True, '2 * units + 1', True)
    >>> (units // 2).evaluate({"units": 7})
    3
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction

TERMS = 32  # of a size
FACTORS = 32  # of a term, with those in its quotients
WHOLE = 2**53  # numbers up to here are floats, too


class TooLarge(ValueError):
    """A size beyond what sizes of a cell need: the rest of a sentence that begins with one."""


@dataclass(frozen=True)
class FloorDiv:
    """An undecided quotient, kept as an atom of a polynomial."""

    numerator: Size
    denominator: Size

    @cached_property
    def factors(self) -> int:
        """How many names and numbers it is made of."""
        return self.numerator.factors + self.denominator.factors

    def __str__(self) -> str:
        return f"({_grouped(self.numerator)} // {_grouped(self.denominator)})"


Atom = str | FloorDiv
Monomial = tuple[Atom, ...]


@dataclass(frozen=True)
class Size:
    """A polynomial: sorted pairs of (product of atoms, integer coefficient), none of them zero."""

    terms: tuple[tuple[Monomial, int], ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.terms)

    @cached_property
    def factors(self) -> int:
        """How many names and numbers it is made of."""
        return sum(1 + sum(map(_factors, monomial)) for monomial, _ in self.terms)

    @staticmethod
    def name(name: str) -> Size:
        return Size((((name,), 1),))

    @staticmethod
    def of(value: Size | int) -> Size:
        if isinstance(value, Size):
            return value
        return Size((((), int(value)),) if value else ())

    @staticmethod
    def _collect(pairs: list[tuple[Monomial, int]]) -> Size:
        total: dict[Monomial, int] = {}
        for monomial, coefficient in pairs:
            total[monomial] = total.get(monomial, 0) + coefficient
        kept = [(m, c) for m, c in total.items() if c]
        if len(kept) > TERMS:
            raise TooLarge(f"has more than {TERMS} terms")
        for monomial, coefficient in kept:
            if not -WHOLE <= coefficient <= WHOLE:
                raise TooLarge("goes beyond 2**53")
            if monomial and sum(map(_factors, monomial)) > FACTORS:
                raise TooLarge(f"has a term of more than {FACTORS} factors")
        if len(kept) < 2:
            return Size(tuple(kept))
        return Size(tuple(sorted(kept, key=lambda t: (-len(t[0]), tuple(map(str, t[0]))))))

    def __add__(self, other: Size | int) -> Size:
        return self._collect([*self.terms, *Size.of(other).terms])

    def __neg__(self) -> Size:
        return Size(tuple((m, -c) for m, c in self.terms))

    def __sub__(self, other: Size | int) -> Size:
        return self + -Size.of(other)

    def __rsub__(self, other: int) -> Size:
        return Size.of(other) - self

    def __mul__(self, other: Size | int) -> Size:
        if isinstance(other, int) and 0 < other < WHOLE:  # as in the parts of a split
            scaled = Size(tuple((m, c * other) for m, c in self.terms))
            if all(-WHOLE <= c <= WHOLE for _, c in scaled.terms):
                return scaled
        terms = Size.of(other).terms
        if len(self.terms) * len(terms) > 4 * TERMS:  # before they are multiplied
            raise TooLarge(f"has more than {TERMS} terms")
        return self._collect(
            [
                (tuple(sorted((*m, *n), key=str)) if m and n else m or n, c * d)
                for m, c in self.terms
                for n, d in terms
            ]
        )

    __radd__ = __add__
    __rmul__ = __mul__

    def __floordiv__(self, other: Size | int) -> Size:
        divisor = Size.of(other)
        if not divisor.terms:
            raise ZeroDivisionError("a size divided by zero")
        exact = self._exact_quotient(divisor)
        if exact is not None:
            return exact
        if self.is_constant and divisor.is_constant:
            return Size.of(self.constant // divisor.constant)
        return self._collect([((FloorDiv(self, divisor),), 1)])

    def _exact_quotient(self, divisor: Size) -> Size | None:
        """self / divisor when the divisor is one term that divides every term of self."""
        if self == divisor:
            return Size.of(1)
        if len(divisor.terms) != 1:
            return None
        (monomial, coefficient) = divisor.terms[0]
        pairs: list[tuple[Monomial, int]] = []
        for m, c in self.terms:
            rest = list(m)
            for atom in monomial:
                if atom not in rest:
                    return None
                rest.remove(atom)
            if c % coefficient:
                return None
            pairs.append((tuple(rest), c // coefficient))
        return self._collect(pairs)

    @property
    def is_constant(self) -> bool:
        return all(not m for m, _ in self.terms)

    @property
    def constant(self) -> int:
        """The value of a constant size; ValueError for any other."""
        if not self.is_constant:
            raise ValueError(f"{self} is not a constant")
        return self.terms[0][1] if self.terms else 0

    @cached_property
    def names(self) -> frozenset[str]:
        names: set[str] = set()
        for monomial, _ in self.terms:
            for atom in monomial:
                if isinstance(atom, str):
                    names.add(atom)
                else:
                    names |= atom.numerator.names | atom.denominator.names
        return frozenset(names)

    @property
    def has_quotient(self) -> bool:
        """True when equality with another size may be undecidable before sizes are bound."""
        return any(isinstance(a, FloorDiv) for m, _ in self.terms for a in m)

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The size as a number. KeyError names a size that is not bound."""
        total = 0
        for monomial, coefficient in self.terms:
            product = coefficient
            for atom in monomial:
                if isinstance(atom, str):
                    product *= sizes[atom]
                else:
                    product *= atom.numerator.evaluate(sizes) // atom.denominator.evaluate(sizes)
            total += product
        return total

    def exactly(self, sizes: Mapping[str, int]) -> Fraction:
        """The size where quotients aren't rounded down."""
        from fractions import Fraction  # only where sizes are compared, not at every start

        total = Fraction(0)
        for monomial, coefficient in self.terms:
            product = Fraction(coefficient)
            for atom in monomial:
                if isinstance(atom, str):
                    product *= sizes[atom]
                else:
                    product *= atom.numerator.exactly(sizes) / atom.denominator.exactly(sizes)
            total += product
        return total

    def __str__(self) -> str:
        if not self.terms:
            return "0"
        parts = []
        for monomial, coefficient in self.terms:
            factors = [str(a) for a in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append(" * ".join(factors))
        return " + ".join(parts).replace("+ -", "- ")

    __repr__ = __str__


def _factors(atom: Atom) -> int:
    return 1 if isinstance(atom, str) else atom.factors


def _grouped(size: Size) -> str:
    text = str(size)
    return text if text.isidentifier() or text.isdecimal() else f"({text})"


def product(sizes: tuple[Size, ...]) -> Size:
    """The number of elements of a shape; 1 for rank 0."""
    total = Size.of(1)
    for size in sizes:
        total = total * size
    return total


def at_least(size: Size) -> int | None:
    """What a size isn't below, where names stand for 1 or more and quotients for 0 or more; None
    where nothing is known. Of `2 * units - 1`: 1.

    >>> units = Size.name("units")
    >>> at_least(2 * units - 1), at_least(units // 2 + 3), at_least(3 - units)
    (1, 3, None)
    """
    least = 0
    for monomial, coefficient in size.terms:
        if monomial and coefficient < 0:
            return None
        has_quotient = any(isinstance(atom, FloorDiv) for atom in monomial)
        least += 0 if has_quotient else coefficient
    return least


def can_be_meant(left: Size, right: Size) -> bool:
    """Whether two sizes are one where every quotient comes out even, or whatever is divided.

    Others may turn out equal by chance: `units // heads` and `heads`.
    """
    names = sorted(left.names | right.names)
    drawn = random.Random(1)
    points = [{name: drawn.randrange(2**16, 2**17) for name in names} for _ in range(4)]
    try:
        return all(left.exactly(p) == right.exactly(p) for p in points) or all(
            left.evaluate(p) == right.evaluate(p) for p in points
        )
    except ZeroDivisionError:
        return True  # reported where sizes are bound
