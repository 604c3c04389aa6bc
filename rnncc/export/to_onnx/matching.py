"""Whether sums are those of a pattern, and what its weights, functions and numbers are then.

A pattern is a cell's sums, too: of weights that are codes, numbers no equation has, and functions
that stand for others (`recognition` says which). So the meaning of a node is written once, in the
cell that reads it.

Non-Goals: which patterns there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rnncc.export.to_onnx.linear import Entering, LanewiseAtom, LinearSum, Term, same
from rnncc.ir.program import Value

COMMUTES = ("add", "mul", "maximum", "minimum", "and", "or", "eq", "ne")
# What stands for the numbers of a function, and for any number there.
ALPHA, BETA, BOUND = 0.7310585786300049, 0.2689414213699951, 0.6570586426172123
NOTHING = np.zeros(0)
FIRST_CODE = 1000.0  # of a pattern's weights: whole numbers from here


@dataclass(frozen=True, slots=True)
class Bindings:
    """What is known so far. values: entering ones of the pattern -> of the cell. hole: what the
    argument of a function is, once it is known."""

    values: Mapping[Value, Value]
    arrays: Mapping[float, np.ndarray] = field(default_factory=dict)
    numbers: Mapping[float, float] = field(default_factory=dict)
    functions: Mapping[str, object] = field(default_factory=dict)
    hole: LinearSum | None = None

    def with_array(self, code: float, array: np.ndarray) -> Bindings:
        arrays = {**self.arrays, code: array}
        return Bindings(self.values, arrays, self.numbers, self.functions, self.hole)

    def with_number(self, marker: float, number: float) -> Bindings:
        numbers = {**self.numbers, marker: number}
        return Bindings(self.values, self.arrays, numbers, self.functions, self.hole)

    def with_function(self, marker: str, function: object) -> Bindings:
        functions = {**self.functions, marker: function}
        return Bindings(self.values, self.arrays, self.numbers, functions, self.hole)

    def with_hole(self, hole: LinearSum) -> Bindings:
        return Bindings(self.values, self.arrays, self.numbers, self.functions, hole)


# (its marker, the pattern of its argument, what is there, what is known) -> what may be known then
Function = Callable[[str, LinearSum, LinearSum, Bindings], Iterator[Bindings]]


@dataclass(frozen=True, slots=True)
class Matcher:
    """functions: by the opcode that stands for one. hole: in patterns of functions, the value that
    stands for the argument."""

    functions: Mapping[str, Function]
    hole: Value | None = None

    def sums(self, pattern: LinearSum, found: LinearSum, bound: Bindings) -> Iterator[Bindings]:
        marker = self._alone(pattern)
        if marker is not None:
            yield from self.functions[marker.opcode](
                marker.opcode, marker.operands[0], found, bound
            )
            return
        if self._is_of_hole(pattern):
            yield from self._argument(pattern, found, bound)
            return
        for known in self._factor(pattern.constant, found.constant, bound):
            yield from self._terms(pattern.terms, found.terms, known)

    def _alone(self, pattern: LinearSum) -> LanewiseAtom | None:
        """The function that the sum is, if it is one."""
        if len(pattern.terms) != 1 or pattern.constant.any():
            return None
        (term,) = pattern.terms
        atom = term.atom
        if not isinstance(atom, LanewiseAtom) or atom.opcode not in self.functions:
            return None
        return atom if not term.is_product and (term.factor == 1).all() else None

    # ---- terms ----

    def _terms(
        self, patterns: Sequence[Term], found: Sequence[Term], bound: Bindings
    ) -> Iterator[Bindings]:
        if not patterns:
            if not found:
                yield bound
            return
        first, rest = patterns[0], patterns[1:]
        for i, term in enumerate(found):
            for known in self._term(first, term, bound):
                yield from self._terms(rest, [*found[:i], *found[i + 1 :]], known)
        code = _code(first.factor)
        if code is not None and not first.is_product:  # a peephole may be missing
            if not bound.arrays.get(code, NOTHING).size:
                yield from self._terms(rest, found, bound.with_array(code, NOTHING))

    def _term(self, pattern: Term, found: Term, bound: Bindings) -> Iterator[Bindings]:
        if pattern.is_product != found.is_product:
            return
        a = pattern.atom
        if isinstance(a, LanewiseAtom) and a.opcode in self.functions:
            # A factor of its own may be the function's.
            rest = Term(found.atom, found.factor / pattern.factor[0])
            alone = LinearSum(np.zeros(len(rest.factor)), (rest,))
            yield from self.functions[a.opcode](a.opcode, a.operands[0], alone, bound)
            return
        for known in self._factor(pattern.factor, found.factor, bound):
            yield from self._atoms(pattern, found, known)

    def _atoms(self, pattern: Term, found: Term, bound: Bindings) -> Iterator[Bindings]:
        a, b = pattern.atom, found.atom
        if isinstance(a, Entering):
            if isinstance(b, Entering) and bound.values.get(a.value) is b.value and b.is_whole:
                yield bound
            return
        if isinstance(b, Entering) or a.opcode != b.opcode:
            return
        yield from self._operands(a.operands, b.operands, bound)
        if a.opcode in COMMUTES:
            yield from self._operands(a.operands, b.operands[::-1], bound)

    def _operands(
        self, patterns: Sequence[LinearSum], found: Sequence[LinearSum], bound: Bindings
    ) -> Iterator[Bindings]:
        if not patterns:
            yield bound
            return
        for known in self.sums(patterns[0], found[0], bound):
            yield from self._operands(patterns[1:], found[1:], known)

    # ---- numbers ----

    def _factor(
        self, pattern: np.ndarray, found: np.ndarray, bound: Bindings
    ) -> Iterator[Bindings]:
        code = _code(pattern)
        if code is not None:
            before = bound.arrays.get(code)
            if before is None:
                yield bound.with_array(code, found)
            elif np.array_equal(before, found):
                yield bound
            return
        wanted, number = _uniform(pattern), _uniform(found)
        if wanted is not None and number is not None:
            yield from _number(wanted, number, bound)

    def _is_of_hole(self, pattern: LinearSum) -> bool:
        if self.hole is None or len(pattern.terms) != 1:
            return False
        atom = pattern.terms[0].atom
        return isinstance(atom, Entering) and atom.value is self.hole

    def _argument(
        self, pattern: LinearSum, found: LinearSum, bound: Bindings
    ) -> Iterator[Bindings]:
        """b + a * argument, where the argument, a and b may be known or not."""
        a, b = (_uniform(v) for v in (pattern.terms[0].factor, pattern.constant))
        assert a is not None and b is not None
        if bound.hole is None:
            for slope, offset in _lines(a, b, found):
                for known in _number(a, slope, bound):
                    for both in _number(b, offset, known):
                        # A quotient of equal numbers is 1, a product with 1 / slope may not be.
                        terms = tuple(Term(t.atom, t.factor / slope) for t in found.terms)
                        constant = (found.constant - offset) / slope
                        yield both.with_hole(LinearSum(constant, terms))
            return
        ratio = _ratio(bound.hole, found)
        if b == 0 and ratio is not None:
            yield from _number(a, ratio, bound)


def _lines(a: float, b: float, found: LinearSum) -> Iterator[tuple[float, float]]:
    """Slopes and offsets that what is there may have, of those that a function lets choose: none,
    which leaves them to the weights, or those that leave alone what no weight multiplies."""
    slopes, offsets = [1.0], [0.0]
    for term in found.terms:
        slope = None if term.is_product else _uniform(term.factor)
        if slope and slope not in slopes:
            slopes.append(slope)
    offset = _uniform(found.constant)
    if offset:
        offsets.append(offset)
    free = (ALPHA, BETA)
    yield from itertools.product(slopes if a in free else [a], offsets if b in free else [b])


def _number(pattern: float, found: float, bound: Bindings) -> Iterator[Bindings]:
    """A number of a pattern, or one that stands for any other, perhaps with its sign changed."""
    for marker in (ALPHA, BETA, BOUND):
        if abs(pattern) == marker:
            found = found if pattern > 0 else -found
            known = bound.numbers.get(marker)
            if known is None:
                yield bound.with_number(marker, found)
            elif known == found:
                yield bound
            return
    if pattern == found:
        yield bound


def _uniform(array: np.ndarray) -> float | None:
    """The one number that it holds."""
    if array.ndim != 1 or not array.size or (array != array[0]).any():
        return None
    return float(array[0])


def _code(array: np.ndarray) -> float | None:
    if not array.size or array.flat[0] < FIRST_CODE or (array != array.flat[0]).any():
        return None
    return float(array.flat[0])


def _ratio(one: LinearSum, other: LinearSum) -> float | None:
    """By which number the first has to be multiplied."""
    if len(one.terms) != len(other.terms):
        return None
    for term in one.terms:
        for found in other.terms:
            if found.factor.shape != term.factor.shape:
                continue
            used = term.factor != 0
            # One of the quotients is the number itself, others may be off by a rounding.
            for ratio in np.unique(found.factor[used] / term.factor[used])[:8].tolist():
                if same(one.scaled(np.full(len(one.constant), ratio)), other):
                    return float(ratio)
    return None
