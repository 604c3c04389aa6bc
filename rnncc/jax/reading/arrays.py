"""Primitives that lay numbers out anew.

Lengths they are given are read off the shapes of results, which know the batch.

Non-Goals: what goes element by element (`pointwise`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rnncc.jax.reading.primitive_call import PrimitiveCall, word
from rnncc.reading.graph import Unreadable
from rnncc.reading.traced import BATCH, Length, Traced


@word("broadcast_in_dim")
def _broadcast(s: PrimitiveCall, x: Traced, *_: Traced) -> Traced:
    places = s.params["broadcast_dimensions"]
    lengths: list[Length] = [1] * len(s.shape)
    for axis, place in enumerate(places):
        lengths[place] = x.shape[axis]
    if not x.rank:
        return s.recorder.broadcast(x, s.shape) if s.shape else x
    return s.recorder.broadcast(s.recorder.reshape(x, lengths), s.shape)


@word("reshape", "squeeze", "expand_dims")
def _reshape(s: PrimitiveCall, x: Traced, *_: Traced) -> Traced:
    if s.params.get("dimensions") is not None and s.equation.name == "reshape":
        raise Unreadable("orders axes while it reshapes")
    return s.recorder.reshape(x, s.shape)


@word("transpose")
def _transpose(s: PrimitiveCall, x: Traced) -> Traced:
    return s.recorder.transpose(x, s.params["permutation"])


@word("concatenate")
def _concatenate(s: PrimitiveCall, *parts: Traced) -> Traced:
    return _concatenated(s, parts, s.params["dimension"])


def _concatenated(s: PrimitiveCall, parts: Sequence[Traced], axis: int) -> Traced:
    if any(p.at is not None for p in parts):  # those without a batch are the same for all rows
        like = next(p for p in parts if p.at is not None)
        at = like.shape.index(BATCH) if BATCH in like.shape else None
        parts = tuple(p if p.at is not None or at is None else _with_batch(s, p, at) for p in parts)
    return s.recorder.concat(parts, axis)


def _with_batch(s: PrimitiveCall, x: Traced, at: int) -> Traced:
    lengths = [*x.shape]
    if lengths[at] != 1:
        raise Unreadable("puts arrays with a batch behind others without")
    lengths[at] = BATCH
    return s.recorder.broadcast(x, lengths)


@word("slice")
def _slice(s: PrimitiveCall, x: Traced) -> Traced:
    strides = s.params["strides"] or (1,) * x.rank
    for axis, (start, step) in enumerate(zip(s.params["start_indices"], strides, strict=True)):
        if axis == x.at:
            if s.shape[axis] != x.shape[axis]:
                raise Unreadable("takes some rows of the batch: rows of a batch stay apart")
            continue
        count = s.shape[axis]
        assert isinstance(count, int)
        x = s.recorder.slice(x, axis, slice(start, start + (count - 1) * step + 1, step))
    return x


@word("take_row")
def _take_row(s: PrimitiveCall, x: Traced) -> Traced:
    i = s.params["index"]
    return s.recorder.slice(x, 0, slice(i, i + 1))


@word("split")
def _split(s: PrimitiveCall, x: Traced) -> list[Traced]:
    axis, at, parts = s.params["axis"], 0, []
    for size in s.params["sizes"]:
        parts.append(s.recorder.slice(x, axis, slice(at, at + size)))
        at += size
    return parts


@word("dynamic_slice")
def _dynamic_slice(s: PrimitiveCall, x: Traced, *starts: Traced) -> Traced:
    for axis in range(x.rank):
        if s.shape[axis] == x.shape[axis]:
            continue
        count, length = s.shape[axis], x.shape[axis]
        assert isinstance(count, int) and isinstance(length, int)
        start = int(s.number(1 + axis, "reads a place"))
        start = min(max(start, 0), length - count)
        x = s.recorder.slice(x, axis, slice(start, start + count))
    return x


@word("dynamic_update_slice")
def _dynamic_update(s: PrimitiveCall, x: Traced, part: Traced, *starts: Traced) -> Traced:
    differing = [a for a in range(x.rank) if part.shape[a] != x.shape[a]]
    if len(differing) > 1:
        raise Unreadable("writes into a part of an array along several axes")
    if not differing:
        return part
    (axis,) = differing
    start = int(s.number(2 + axis, "writes to a place"))
    return _written(s, x, part, axis, min(max(start, 0), _gap(x, part, axis)))


@word("scatter", "scatter-add", "scatter-mul")
def _scatter(s: PrimitiveCall, x: Traced, index: Traced, part: Traced) -> Traced:
    """At one place along one axis, as x.at[:, 1:3].set(y) does it."""
    numbers = s.params["dimension_numbers"]
    start = s.number(1, "writes to a place")
    axes = numbers.scatter_dims_to_operand_dims
    if (
        start.size != 1
        or len(axes) != 1
        or numbers.operand_batching_dims
        or tuple(numbers.update_window_dims) != tuple(range(part.rank))
        or tuple(numbers.inserted_window_dims) not in ((), axes)
    ):
        raise Unreadable("writes to several places: take jnp.where over an iota")
    r, (axis,), at = s.recorder, axes, int(start.reshape(()))
    if numbers.inserted_window_dims:
        part = r.expand(part, axis)
    if not 0 <= at <= _gap(x, part, axis):
        raise Unreadable("writes outside of an array")
    if s.equation.name != "scatter":
        count = part.shape[axis]
        assert isinstance(count, int)
        sign = {"scatter-add": "+", "scatter-mul": "*"}[s.equation.name]
        part = r.pointwise(sign, r.slice(x, axis, slice(at, at + count)), part)
    return _written(s, x, part, axis, at)


def _gap(x: Traced, part: Traced, axis: int) -> int:
    """How far the part may be moved along an axis."""
    count, length = part.shape[axis], x.shape[axis]
    if axis == x.at or not (isinstance(count, int) and isinstance(length, int)):
        raise Unreadable("writes to some rows of the batch: rows of a batch stay apart")
    return length - count


def _written(s: PrimitiveCall, x: Traced, part: Traced, axis: int, at: int) -> Traced:
    """x, with the part there."""
    count, length, r = part.shape[axis], x.shape[axis], s.recorder
    assert isinstance(count, int) and isinstance(length, int)
    whole = [*x.shape]
    whole[axis] = count
    pieces = [
        r.slice(x, axis, slice(0, at)),
        r.broadcast(part, whole),
        r.slice(x, axis, slice(at + count, length)),
    ]
    return r.concat([p for p in pieces if p.shape[axis] != 0], axis)


@word("stack")
def _stack(s: PrimitiveCall, *parts: Traced) -> Traced:
    return _concatenated(
        s, [s.recorder.expand(p, s.params["axis"]) for p in parts], s.params["axis"]
    )


@word("pad")
def _pad(s: PrimitiveCall, x: Traced, value: Traced) -> Traced:
    r = s.recorder
    for axis, (low, high, between) in enumerate(s.params["padding_config"]):
        if between:
            raise Unreadable("pads between numbers")
        if (low or high) and axis == x.at:
            raise Unreadable("adds rows to the batch")
        n = x.shape[axis]
        if isinstance(n, int) and (low < 0 or high < 0):
            x = r.slice(x, axis, slice(max(-low, 0), n - max(-high, 0)))
        parts = [_filled(s, x, value, axis, low), x, _filled(s, x, value, axis, high)]
        kept = [p for p in parts if p is not None]
        x = r.concat(kept, axis) if len(kept) > 1 else x
    return x


def _filled(s: PrimitiveCall, x: Traced, value: Traced, axis: int, count: int) -> Traced | None:
    if count <= 0:
        return None
    shape = [*x.shape]
    shape[axis] = count
    return s.recorder.broadcast(value, shape)


@word("rev")
def _reverse(s: PrimitiveCall, x: Traced) -> Traced:
    for axis in s.params["dimensions"]:
        x = s.recorder.along("flip", x, axis)
    return x


@word("iota")
def _count(s: PrimitiveCall, *_: Traced) -> Traced:
    axis = s.params["dimension"]
    n = s.shape[axis]
    if not isinstance(n, int) or n == BATCH:
        raise Unreadable("numbers the rows of the batch: rows of a batch stay apart")
    numbers = np.arange(n)
    lengths: list[Length] = [1] * len(s.shape)
    lengths[axis] = n
    own = s.recorder.constant(numbers if s.kind == "int" else numbers.astype(np.float64))
    if not own.rank:
        return s.recorder.broadcast(own, s.shape)
    return s.recorder.broadcast(s.recorder.reshape(own, lengths), s.shape)


@word("gather")
def _gather(s: PrimitiveCall, *_: Traced) -> Traced:
    raise Unreadable(
        "looks numbers up by an index: look embeddings up before the scan and hand them over as "
        "xs, or multiply jax.nn.one_hot(index, n) with the table"
    )
