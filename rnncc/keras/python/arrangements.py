"""Keras's operations on shapes -> calls of a Recorder.

Non-Goals: numbers (`operations`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from rnncc.keras.python.operations import Reading, operation
from rnncc.reading.graph import Unreadable
from rnncc.reading.traced import BATCH, Length, Merged, Traced


def lengths_of(shape: Sequence[int | None], x: Traced) -> list[Length]:
    """A shape of Keras's, of all the numbers of x: None is the batch's axis, which may hold some
    of each row."""
    known = math.prod(n for n in shape if n is not None)
    inside = math.prod(x.row) // known if known else 1
    batch: Length = BATCH if inside == 1 else Merged(inside)
    return [batch if n is None else n for n in shape]


@operation(
    "Reshape",
    "ExpandDims",
    "Squeeze",
    "Flatten",
    "Ravel",
    reads=("newshape", "axis", "data_format"),
)
def _reshape(reading: Reading, x: Traced) -> Traced:
    return reading.r.reshape(x, lengths_of(reading.shape, x))


@operation("BroadcastTo", reads=("shape",))
def _broadcast(reading: Reading, x: Traced) -> Traced:
    return reading.r.broadcast(x, [BATCH if n is None else n for n in reading.shape])


@operation("Transpose", reads=("axes",))
def _transpose(reading: Reading, x: Traced) -> Traced:
    axes = reading.own.axes
    return reading.r.transpose(x, [*axes] if axes else [*range(x.rank)][::-1])


@operation("Swapaxes", reads=("axis1", "axis2"))
def _swapaxes(reading: Reading, x: Traced) -> Traced:
    order = [*range(x.rank)]
    a, b = x.positive(reading.own.axis1), x.positive(reading.own.axis2)
    order[a], order[b] = b, a
    return reading.r.transpose(x, order)


@operation("Moveaxis", reads=("source", "destination"))
def _moveaxis(reading: Reading, x: Traced) -> Traced:
    ends = [x.positive(a) for a in reading.own.destination]
    moved = dict(zip(ends, (x.positive(a) for a in reading.own.source), strict=True))
    rest = iter([a for a in range(x.rank) if a not in moved.values()])
    order = [moved[at] if at in moved else next(rest) for at in range(x.rank)]
    return reading.r.transpose(x, order)


@operation("Concatenate", reads=("axis",))
def _concatenate(reading: Reading, *xs: Traced) -> Traced:
    return reading.r.concat(xs, reading.axis())


@operation("Stack", reads=("axis",))
def _stack(reading: Reading, *xs: Traced) -> Traced:
    return reading.r.stack(xs, reading.axis())


@operation("Split", reads=("indices_or_sections", "axis"))
def _split(reading: Reading, x: Traced) -> list[Traced]:
    axis, cuts = reading.axis(), reading.own.indices_or_sections
    n = x.row[x.own_axis(axis)]
    places = range(n // cuts, n, n // cuts) if isinstance(cuts, int) else cuts
    return [reading.r.slice(x, axis, slice(a, b)) for a, b in pairwise([0, *places, n])]


@operation("Unstack", reads=("num", "axis"))
def _unstack(reading: Reading, x: Traced) -> list[Traced]:
    axis = reading.axis()
    return [reading.r.take(x, axis, i) for i in range(x.row[x.own_axis(axis)])]


@operation("GetItem")
def _item(reading: Reading, x: Traced) -> Traced:
    step, r = reading.step, reading.r
    key = step.args[1] if len(step.args) > 1 else step.keywords["key"]
    keys = [*key] if isinstance(key, tuple | list) else [key]
    if any(k is Ellipsis for k in keys):
        at = next(i for i, k in enumerate(keys) if k is Ellipsis)
        taken = sum(k is not None and k is not Ellipsis for k in keys)
        keys[at : at + 1] = [slice(None)] * (x.rank - taken)
    axis = 0
    for k in keys:
        if k is None:
            x, axis = r.expand(x, axis), axis + 1
        elif isinstance(k, slice):
            x, axis = r.slice(x, axis, k), axis + 1
        elif isinstance(k, int):
            x = r.take(x, axis, k)
        else:
            raise Unreadable(f"is indexed by {k!r}: numbers and slices are known")
    return x
