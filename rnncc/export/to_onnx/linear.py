"""A cell's values as sums of terms, whichever way its equations write them.

    constant + factor * atom + atom @ matrix + ...

An atom is what enters the step (an input, a state) or a function of such sums. Packed gates,
transposed weights, `concat(x, h) @ W`, scales and signs all come out the same. Weights are numbers
here; places of a value are picked by an array of indices, so that every slice and reshape is one.

Non-Goals: what sums mean (`recognition`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from rnncc.ir.interp import Env, constants_of
from rnncc.ir.opdef import OPS, Kind
from rnncc.ir.program import Op, Program, Value
from rnncc.ir.rewrite import definitions

MOVES = ("reshape", "transpose", "slice", "strided_slice", "broadcast", "copy")


class Unlike(Exception):
    """A value that is no such sum."""


@dataclass(frozen=True, slots=True, eq=False)
class Entering:
    """What enters the step, or those of its elements that `places` are."""

    value: Value
    places: np.ndarray

    @property
    def is_whole(self) -> bool:
        return np.array_equal(self.places, np.arange(len(self.places)))


@dataclass(frozen=True, slots=True, eq=False)
class LanewiseAtom:
    """A function, lane by lane."""

    opcode: str
    operands: tuple[LinearSum, ...]


Atom = Entering | LanewiseAtom


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """factor: [lanes], or of a product with a matrix [elements of the atom, lanes]."""

    atom: Atom
    factor: np.ndarray

    @property
    def is_product(self) -> bool:
        return self.factor.ndim == 2


@dataclass(frozen=True, slots=True, eq=False)
class LinearSum:
    """constant: [lanes]."""

    constant: np.ndarray
    terms: tuple[Term, ...] = ()

    def scaled(self, factor: np.ndarray) -> LinearSum:
        terms = tuple(Term(t.atom, t.factor * factor) for t in self.terms)
        return LinearSum(self.constant * factor, terms)

    def plus(self, other: LinearSum) -> LinearSum:
        terms = [*self.terms]
        for term in other.terms:
            for i, own in enumerate(terms):
                if own.atom is term.atom and own.is_product == term.is_product:
                    terms[i] = Term(own.atom, own.factor + term.factor)
                    break
            else:
                terms.append(term)
        return LinearSum(self.constant + other.constant, tuple(terms))

    def times(self, matrix: np.ndarray) -> LinearSum:
        """sum @ matrix"""
        terms = (
            Term(t.atom, t.factor @ matrix if t.is_product else t.factor[:, None] * matrix)
            for t in self.terms
        )
        return LinearSum(self.constant @ matrix, tuple(terms))


class LinearForms:
    """Of a simplified Program's step. arrays: of weights, constants and rates."""

    def __init__(
        self, program: Program, sizes: Mapping[str, int], arrays: Mapping[str, np.ndarray]
    ) -> None:
        assert program.scan is not None
        self.program, self.scan, self.sizes = program, program.scan, sizes
        self.known = constants_of(program, arrays, sizes, self.scan.body)
        self.made = definitions([*program.before, *self.scan.body])
        self._sums: dict[tuple[Value, bytes], LinearSum] = {}

    def of(self, value: Value, places: np.ndarray | None = None) -> LinearSum:
        """places: of its elements, all of them if None. Raises Unlike."""
        places = np.arange(self.count(value)) if places is None else places
        key = value, places.tobytes()
        if key not in self._sums:
            self._sums[key] = self._sum(value, places)
        return self._sums[key]

    def shape(self, value: Value) -> list[int]:
        return [s.evaluate(self.sizes) for s in value.type.shape]

    def count(self, value: Value) -> int:
        return int(np.prod(self.shape(value), dtype=int))

    def _sum(self, value: Value, places: np.ndarray) -> LinearSum:
        if value in self.known:
            return LinearSum(np.asarray(self.known[value], np.float64).reshape(-1)[places])
        op = self.made.get(value)
        if op is None:
            ones = np.ones(len(places))
            return LinearSum(0 * ones, (Term(Entering(value, places), ones),))
        if op.opcode in MOVES:
            return self.of(op.operands[0], self._moved(op)[places])
        if op.opcode == "concat":
            return self._part(op, places)
        if op.opcode == "contract":
            return self._contracted(op, places)
        if OPS[op.opcode].kind is Kind.POINTWISE:
            return self._pointwise(op, places)
        raise Unlike(op.opcode)

    def _moved(self, op: Op) -> np.ndarray:
        """Which element of its operand each element of the result is: the op of their numbers."""
        (x,) = op.operands
        index = np.arange(self.count(x)).reshape(1, 1, *self.shape(x))
        return np.asarray(OPS[op.opcode].numpy(op, Env(self.sizes, 1, 1), index)).reshape(-1)

    def _part(self, op: Op, places: np.ndarray) -> LinearSum:
        """Of the one operand of a concat that all places are in."""
        index, first = [], 0
        for operand in op.operands:
            count = self.count(operand)
            numbers = np.arange(first, first + count)
            index.append(numbers.reshape(1, 1, *self.shape(operand)))
            first += count
        joined = np.asarray(OPS["concat"].numpy(op, Env(self.sizes, 1, 1), *index)).reshape(-1)
        chosen, first = joined[places], 0
        for operand in op.operands:
            count = self.count(operand)
            if ((chosen >= first) & (chosen < first + count)).all():
                return self.of(operand, chosen - first)
            first += count
        raise Unlike("concat")

    def _contracted(self, op: Op, places: np.ndarray) -> LinearSum:
        """A vector times a matrix of weights."""
        (a, b), (la, lb, out) = op.operands, op.attrs["labels"]
        if a in self.known:
            a, b, la, lb = b, a, lb, la
        if b not in self.known or len(la) != 1 or la in out or op.attrs.get("over"):
            raise Unlike("contract")
        weight = np.asarray(self.known[b], np.float64).reshape(self.shape(b))
        matrix = np.einsum(f"{lb}->{la}{out}", weight).reshape(weight.shape[lb.index(la)], -1)
        return self._product(a, matrix[:, places])

    def _product(self, value: Value, matrix: np.ndarray) -> LinearSum:
        op = self.made.get(value)
        if op is None or op.opcode != "concat":
            return self.of(value).times(matrix)
        parts, first = [], 0
        for operand in op.operands:
            count = self.count(operand)
            parts.append(self._product(operand, matrix[first : first + count]))
            first += count
        return reduce(LinearSum.plus, parts)

    def _pointwise(self, op: Op, places: np.ndarray) -> LinearSum:
        xs = [self.of(v, places) for v in op.operands]
        if op.opcode == "stop_gradient":
            return xs[0]
        if op.opcode == "neg":
            return xs[0].scaled(-np.ones(len(places)))
        if op.opcode in ("add", "sub"):
            sign = np.full(len(places), 1.0 if op.opcode == "add" else -1.0)
            return xs[0].plus(xs[1].scaled(sign))
        if op.opcode == "mul" and not all(x.terms for x in xs):
            one, other = xs if xs[0].terms else xs[::-1]
            return one.scaled(other.constant)
        if op.opcode == "div" and not xs[1].terms:
            return xs[0].scaled(1 / xs[1].constant)
        opcode, factor = op.opcode, np.ones(len(places))
        if opcode == "mul":
            xs, factor = _apart(xs)
        elif opcode == "log_sigmoid":  # -softplus(-x): so that a softplus has no sign of its own
            opcode, xs, factor = "softplus", [xs[0].scaled(-factor)], -factor
        return LinearSum(0 * factor, (Term(LanewiseAtom(opcode, tuple(xs)), factor),))


def _apart(xs: Sequence[LinearSum]) -> tuple[list[LinearSum], np.ndarray]:
    """Factors of a product without the signs of those that are -1 times an atom; and these. Signs
    of weights say nothing."""
    sign, kept = np.ones(len(xs[0].constant)), []
    for x in xs:
        alone = len(x.terms) == 1 and not x.constant.any() and not x.terms[0].is_product
        if alone and (x.terms[0].factor == -1).all():
            x, sign = x.scaled(-np.ones_like(sign)), -sign
        kept.append(x)
    return kept, sign


def same(one: LinearSum, other: LinearSum) -> bool:
    """Whether two sums of one step are the same in every number."""
    if one is other:
        return True
    if len(one.terms) != len(other.terms) or not np.array_equal(one.constant, other.constant):
        return False
    return all(any(_same_term(t, u) for u in other.terms) for t in one.terms)


def _same_term(one: Term, other: Term) -> bool:
    if one.factor.shape != other.factor.shape or not np.array_equal(one.factor, other.factor):
        return False
    a, b = one.atom, other.atom
    if a is b:
        return True
    if isinstance(a, LanewiseAtom) and isinstance(b, LanewiseAtom):
        return a.opcode == b.opcode and all(map(same, a.operands, b.operands))
    if isinstance(a, LanewiseAtom) or isinstance(b, LanewiseAtom):
        return False
    return a.value is b.value and np.array_equal(a.places, b.places)
