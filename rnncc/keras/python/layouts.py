"""Words for shapes: reshape, transpose, concatenate, split, parts of arrays.

Non-Goals: numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from rnncc.keras.python.graph import Applied
from rnncc.keras.python.values import (
    ATOM,
    TracedValue,
    Unreadable,
    Writes,
    along_of,
    axis_of,
    result,
    row_shape,
    word,
)

_MOST_PARTS = 32  # that a slice is put together of


@word("Reshape", "ExpandDims", "Squeeze", "Flatten", "Ravel", reads=("newshape", "axis"))
def _reshape(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    rows, shape = row_shape(applied.outputs[0].shape)
    if rows != values[0].rows:
        raise Unreadable("gives the axis of the batch another place")
    return [writer.reshaped(values[0], shape)]


@word("BroadcastTo", reads=("shape",))
def _broadcast(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    rows, shape = row_shape(applied.outputs[0].shape)
    if (rows, shape) == (values[0].rows, values[0].shape):
        return [values[0]]
    raise Unreadable("broadcasts to a shape: operands broadcast by themselves")


@word(
    "Transpose", "Swapaxes", "Moveaxis", reads=("axes", "axis1", "axis2", "source", "destination")
)
def _transpose(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    own, value = applied.operation, values[0]
    rank = len(value.shape) + value.rows
    order = [*range(rank)]
    if type(own).__name__ == "Transpose":
        order = [a % rank for a in own.axes] if own.axes else order[::-1]
    elif type(own).__name__ == "Swapaxes":
        a, b = own.axis1 % rank, own.axis2 % rank
        order[a], order[b] = b, a
    else:
        ends = [b % rank for b in own.destination]
        moved = dict(zip(ends, (a % rank for a in own.source), strict=True))
        rest = iter([a for a in range(rank) if a not in moved.values()])
        order = [moved[at] if at in moved else next(rest) for at in range(rank)]
    if value.rows and order[0] != 0:
        raise Unreadable("moves the axis of the batch")
    own_order = [a - value.rows for a in order if not (value.rows and a == 0)]
    axes = ", ".join(map(str, own_order))
    return [result(applied, f"transpose({value.text}, axes=({axes}))")]


@word("Concatenate", reads=("axis",))
def _concatenate(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    if len({v.rows for v in values}) > 1:
        raise Unreadable("puts rows of a batch beside what has no batch")
    axis = axis_of(applied.operation.axis, values[0])
    parts = [v.shape[axis] for v in values]
    writer.sizes.remember(sum(parts), " + ".join(map(writer.sizes.text, parts)))
    along = along_of(axis, values[0].shape)
    return [result(applied, f"concat({', '.join(v.text for v in values)}{along})")]


@word("Stack", reads=("axis",))
def _stack(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    if len({v.rows for v in values}) > 1:
        raise Unreadable("puts rows of a batch beside what has no batch")
    axis = axis_of(applied.operation.axis, TracedValue("", (0, *values[0].shape), values[0].rows))
    shape = (*values[0].shape[:axis], 1, *values[0].shape[axis:])
    parts = [writer.reshaped(v, shape).text for v in values]
    return [result(applied, f"concat({', '.join(parts)}{along_of(axis, shape)})")]


@word("Split", reads=("indices_or_sections", "axis"))
def _split(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    value, own = values[0], applied.operation
    axis, count = axis_of(own.axis, value), own.indices_or_sections
    if not isinstance(count, int):
        n = value.shape[axis]
        cuts = [0, *count, n]
        at = axis + value.rows
        return [_sliced(writer, value, slice(a, b), at) for a, b in pairwise(cuts)]
    return writer.parts(value, count, axis)


@word("GetItem")
def _item(writer: Writes, applied: Applied, values: Sequence[TracedValue]) -> Sequence[TracedValue]:
    key = applied.args[1] if len(applied.args) > 1 else applied.keywords["key"]
    keys = [*key] if isinstance(key, tuple | list) else [key]
    value = values[0]
    rank = len(value.shape) + value.rows
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        taken = sum(k is not None and k is not Ellipsis for k in keys)
        keys[at : at + 1] = [slice(None)] * (rank - taken)
    axis = 0
    for k in keys:
        if k is None:
            axis += 1
            value = writer.reshaped(value, _with_one(value, axis - 1))
        elif isinstance(k, slice):
            value = _sliced(writer, value, k, axis)
            axis += 1
        elif isinstance(k, int):
            value = _taken(writer, value, k, axis)
        else:
            raise Unreadable(f"is indexed by {k!r}: numbers and slices are known")
    return [value]


def _with_one(value: TracedValue, axis: int) -> tuple[int, ...]:
    if value.rows and axis == 0:
        raise Unreadable("gives the axis of the batch another place")
    at = axis - value.rows
    return (*value.shape[:at], 1, *value.shape[at:])


def _sliced(writer: Writes, value: TracedValue, key: slice, axis: int) -> TracedValue:
    if key == slice(None):
        return value
    own = axis_of(axis, value)
    n = value.shape[own]
    start, stop, step = key.indices(n)
    width = stop - start
    if (start, stop, step) == (0, n, 1):
        return value
    if step != 1 or width <= 0:
        raise Unreadable(f"takes {start}:{stop}:{step} of {n}")
    part = math.gcd(start, stop, n)
    if n // part > _MOST_PARTS:
        raise Unreadable(f"takes {start}:{stop} of {n}, which are no few equal parts of it")
    parts = writer.parts(value, n // part, own)[start // part : stop // part]
    if len(parts) == 1:
        return parts[0]
    shape = (*value.shape[:own], width, *value.shape[own + 1 :])
    text = f"concat({', '.join(p.text for p in parts)}{along_of(own, value.shape)})"
    return TracedValue(text, shape, value.rows)


def _taken(writer: Writes, value: TracedValue, index: int, axis: int) -> TracedValue:
    own = axis_of(axis, value)
    shape = (*value.shape[:own], *value.shape[own + 1 :])
    index = index % value.shape[own] if value.shape[own] else index
    if own == 0:
        return TracedValue(f"{value.within(ATOM)}[{index}]", shape, value.rows)
    part = writer.parts(value, value.shape[own], own)[index]
    return writer.reshaped(part, shape)


@word("Unstack", reads=("num", "axis"))
def _unstack(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    value, axis = writer.named(values[0]), applied.operation.axis
    rank = len(value.shape) + value.rows
    count = value.shape[axis_of(axis, value)]
    return [_taken(writer, value, i, axis % rank) for i in range(count)]
