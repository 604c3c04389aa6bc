"""Which lengths are the batch: those that differ between two readings of the same step.

A step is traced with two sizes of a batch; what it does has to be the same, equation by equation.
A length that is k times the batch in both is the batch with k numbers of each row behind it.

Non-Goals: whether rows stay apart (`rnncc.reading.recorder`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncc.jax.reading.flat import Flat, FlatEquation, Read, RefusedAt, is_plain
from rnncc.reading.graph import Origin
from rnncc.reading.traced import BATCH, Length, Merged

Shape = tuple[Length, ...]
SIZES = (7, 11)  # of the batch
# Parameters that say lengths: what they say is read off the shapes of results.
_LENGTHS = ("shape", "new_sizes", "limit_indices", "slice_sizes", "sizes")


class Shapes:
    """Shapes of a step's values, with the batch in its place; of what it calls, too."""

    def __init__(self) -> None:
        self._of: dict[int, list[Shape]] = {}

    def of(self, flat: Flat) -> list[Shape]:
        """By the numbers of values."""
        return self._of[id(flat)]

    def say(self, flat: Flat, shapes: list[Shape]) -> None:
        """They are these."""
        self._of[id(flat)] = shapes

    @classmethod
    def plain(cls, flat: Flat) -> Shapes:
        """Of a step without a batch."""
        found = cls()
        found._plain(flat)
        return found

    def _plain(self, flat: Flat) -> None:
        self._of[id(flat)] = [a.shape for a in flat.arrays]
        for e in flat.equations:
            for inner in (e.body, e.back):
                if inner is not None:
                    self._plain(inner)

    @classmethod
    def compared(cls, one: Flat, two: Flat) -> Shapes:
        """RefusedAt where the two differ in anything but the batch's length."""
        found = cls()
        found._compare(one, two, Origin("its code"))
        return found

    def _compare(self, one: Flat, two: Flat, origin: Origin) -> None:
        if [e.name for e in one.equations] != [e.name for e in two.equations]:
            raise RefusedAt(origin, _DEPENDS)
        for a, b in zip(one.equations, two.equations, strict=True):
            _same(a, b)
        places = {v: e.origin for e in one.equations for v in e.outputs}
        numbers = dict(_pairs(one, two))
        shapes: list[Shape] = [a.shape for a in one.arrays]
        for v, w in numbers.items():
            mine, other = one.arrays[v], two.arrays[w]
            if mine.dtype != other.dtype or len(mine.shape) != len(other.shape):
                raise RefusedAt(places.get(v, origin), _DEPENDS)
            lengths = zip(mine.shape, other.shape, strict=True)
            shapes[v] = tuple(_length(m, n, places.get(v, origin)) for m, n in lengths)
        self._of[id(one)] = shapes
        for a, b in zip(one.equations, two.equations, strict=True):
            for inner, again in ((a.body, b.body), (a.back, b.back)):
                if inner is not None and again is not None:
                    self._compare(inner, again, a.origin)


def refuse_row_counts(one: Flat, called: Flat, rows: int) -> None:
    """RefusedAt where the step, as it is called, with so many rows, isn't what it was with few."""
    asks = f"depends on the size of the batch (it is another one at {SIZES[0]} and {rows} rows)"
    origin = Origin("its code")
    if [e.name for e in one.equations] != [e.name for e in called.equations]:
        raise RefusedAt(origin, asks)
    for a, b in zip(one.equations, called.equations, strict=True):
        if not all(map(_alike, a.inputs, b.inputs)) or _kept(a.params) != _kept(b.params):
            raise RefusedAt(a.origin, asks)
        for inner, again in ((a.body, b.body), (a.back, b.back)):
            if inner is not None and again is not None:
                refuse_row_counts(inner, again, rows)


_DEPENDS = f"depends on the size of the batch (it is another one at {SIZES[0]} and {SIZES[1]} rows)"


def _pairs(one: Flat, two: Flat) -> Any:
    yield from zip(one.inputs, two.inputs, strict=True)
    for a, b in zip(one.equations, two.equations, strict=True):
        yield from zip(a.outputs, b.outputs, strict=True)


def _length(m: int, n: int, origin: Origin) -> Length:
    if m == n:
        return m
    if m % SIZES[0] or n % SIZES[1] or m // SIZES[0] != n // SIZES[1]:
        raise RefusedAt(origin, _DEPENDS)
    count = m // SIZES[0]
    return BATCH if count == 1 else Merged(count)


def _same(a: FlatEquation, b: FlatEquation) -> None:
    for x, y in zip(a.inputs, b.inputs, strict=True):
        if not _alike(x, y):
            raise RefusedAt(a.origin, _DEPENDS)
    mine, other = (_kept(e.params) for e in (a, b))
    if mine != other:
        raise RefusedAt(a.origin, _DEPENDS)


def _alike(x: Read, y: Read) -> bool:
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        return x.shape == y.shape and bool(np.array_equal(x, y, equal_nan=x.dtype.kind == "f"))
    return isinstance(x, int) and isinstance(y, int)


def _kept(params: dict[str, Any]) -> dict[str, Any]:
    """Those that mean something by themselves."""
    return {k: v for k, v in params.items() if k not in _LENGTHS and is_plain(v)}
