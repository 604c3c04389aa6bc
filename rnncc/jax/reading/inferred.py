"""Where the batch is, read off one trace: of a step that closes over arrays with its length, which
can't be traced with another one.

Axes that an operation keeps side by side are one axis. What is one with the leading axis of a leaf
that has a batch is the batch; other axes of that length aren't.

Non-Goals: steps that may be traced with another batch (`batch`); whether rows stay apart
(`rnncc.reading.recorder`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rnncc.jax.reading.batch import Shape, Shapes
from rnncc.jax.reading.flat import Flat, FlatEquation
from rnncc.reading.traced import BATCH

Axis = tuple[int, int]  # a value's number, and which of its axes


class _Axes:
    """Which axes are one."""

    def __init__(self) -> None:
        self._parent: dict[Axis, Axis] = {}

    def of(self, axis: Axis) -> Axis:
        """The one that stands for it."""
        parent = self._parent.get(axis, axis)
        if parent == axis:
            return axis
        found = self._parent[axis] = self.of(parent)
        return found

    def join(self, a: Axis, b: Axis) -> None:
        self._parent[self.of(a)] = self.of(b)


def inferred(flat: Flat, rows: Sequence[bool], size: int) -> Shapes:
    """rows: of each input whether its first axis is the batch. size: of the batch."""
    axes = _Axes()
    for e in flat.equations:
        for a, b in _pairs(flat, e):
            axes.join(a, b)
    first = [(v, 0) for v, has in zip(flat.inputs, rows, strict=True) if has]
    batch = {axes.of(a) for a in first}
    shapes: list[Shape] = [
        tuple(BATCH if n == size and axes.of((v, i)) in batch else n for i, n in enumerate(a.shape))
        for v, a in enumerate(flat.arrays)
    ]
    found = Shapes.plain(flat)
    found.say(flat, shapes)
    for e in flat.equations:
        for inner in (e.body, e.back):
            if inner is not None and isinstance(e.inputs[0], int):
                _within(found, inner, flat.arrays[e.inputs[0]].shape, shapes[e.inputs[0]])
    return found


def _within(found: Shapes, inner: Flat, plain: tuple[int, ...], shape: Shape) -> None:
    """What is called goes element by element."""
    found.say(inner, [shape if a.shape == plain else a.shape for a in inner.arrays])


def _pairs(flat: Flat, e: FlatEquation) -> Iterator[tuple[Axis, Axis]]:
    """Axes of an equation that are one."""
    inputs = [v for v in e.inputs if isinstance(v, int)]
    shape = {v: flat.arrays[v].shape for v in (*inputs, *e.outputs)}
    special = _SPECIAL.get(e.name)
    if special is not None:
        if len(inputs) == len(e.inputs):
            for (i, a), (j, b) in special(e, [shape[v] for v in (*inputs, *e.outputs)]):
                values = (*inputs, *e.outputs)
                yield (values[i], a), (values[j], b)
        return
    for out in e.outputs:
        for v in inputs:
            if len(shape[v]) == len(shape[out]):
                same = zip(shape[v], shape[out], strict=True)
                yield from (((v, i), (out, i)) for i, (m, n) in enumerate(same) if m == n)


Found = Iterator[tuple[tuple[int, int], tuple[int, int]]]
Lengths = Sequence[tuple[int, ...]]


def _broadcast(e: FlatEquation, shapes: Lengths) -> Found:
    for axis, place in enumerate(e.params["broadcast_dimensions"]):
        if shapes[0][axis] == shapes[-1][place]:
            yield (0, axis), (1, place)


def _transpose(e: FlatEquation, shapes: Lengths) -> Found:
    yield from (((0, axis), (1, at)) for at, axis in enumerate(e.params["permutation"]))


def _reshape(e: FlatEquation, shapes: Lengths) -> Found:
    """Axes with as many numbers before them, and of the same length."""
    before, after = shapes[0], shapes[-1]
    places = {math.prod(after[:j]): j for j, n in enumerate(after) if n != 1}
    for i, n in enumerate(before):
        j = places.get(math.prod(before[:i]))
        if n != 1 and j is not None and after[j] == n:
            yield (0, i), (1, j)


def _reduce(e: FlatEquation, shapes: Lengths) -> Found:
    kept = [a for a in range(len(shapes[0])) if a not in e.params["axes"]]
    yield from (((0, axis), (1, at)) for at, axis in enumerate(kept))


def _dot(e: FlatEquation, shapes: Lengths) -> Found:
    (of_a, of_b), (rows_a, rows_b) = e.params["dimension_numbers"]
    yield from (((0, i), (1, j)) for i, j in zip(of_a, of_b, strict=True))
    for at, (i, j) in enumerate(zip(rows_a, rows_b, strict=True)):
        yield (0, i), (1, j)
        yield (0, i), (2, at)
    at = len(rows_a)
    for number, used in ((0, (*rows_a, *of_a)), (1, (*rows_b, *of_b))):
        for axis in range(len(shapes[number])):
            if axis not in used:
                yield (number, axis), (2, at)
                at += 1


_SPECIAL = {
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "dot_general": _dot,
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or",
         "argmax", "argmin"), _reduce,
    ),
}  # fmt: skip
