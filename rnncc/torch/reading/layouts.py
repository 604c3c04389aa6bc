"""Words for shapes, and for views: with how a part that was written goes back into the whole.

Non-Goals: numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rnncc.reading.graph import Unreadable
from rnncc.reading.recorder import Recorder
from rnncc.reading.traced import BATCH, Traced
from rnncc.torch.reading.words import Reads, lengths, put, value_of, whole, word

# ---- the same numbers in another shape ----


@word("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten", "_reshape_alias")
def _reshape(reads: Reads, x: Traced, *_: Any, **__: Any) -> Traced:
    return reads.r.reshape(x, reads.shapes[0])


@put("view", "_unsafe_view", "unsqueeze", "squeeze", "alias", "_reshape_alias")
def _put_reshaped(r: Recorder, wholly: Traced, part: Traced, number: int, *_: Any) -> Traced:
    return r.reshape(part, wholly.shape)


@word("t", "transpose", "permute", "numpy_T")
def _permute(reads: Reads, x: Traced, *given: Any) -> Traced:
    return reads.r.transpose(x, _order(x, given))


@put("t", "transpose", "permute", "numpy_T")
def _put_permuted(r: Recorder, wholly: Traced, part: Traced, number: int, *given: Any) -> Traced:
    order = _order(wholly, given)
    return r.transpose(part, [order.index(a) for a in range(len(order))])


def _order(x: Traced, given: Sequence[Any]) -> list[int]:
    order = [*range(x.rank)]
    if len(given) == 2:
        a, b = x.positive(given[0]), x.positive(given[1])
        order[a], order[b] = b, a
        return order
    return [x.positive(a) for a in given[0]] if given else order[::-1]


@word("expand", "expand_as", "broadcast_to")
def _expand(reads: Reads, x: Traced, *_: Any, **__: Any) -> Traced:
    return reads.r.broadcast(x, reads.shapes[0])


# ---- parts ----


def _range(x: Traced, axis: int, start: Any, end: Any, step: Any) -> slice:
    """Of a slice; the batch's whole axis is slice(None)."""
    if x.at == axis:
        if start in (None, 0) and step == 1 and not isinstance(end, int):
            return slice(None)
        if start in (None, 0) and step == 1 and isinstance(end, int) and end >= 2**31:
            return slice(None)
        raise Unreadable("takes a part of the batch: rows of a batch stay apart")
    first, last = (None if n is None else whole(n, "a bound") for n in (start, end))
    return slice(first, last, whole(step, "a step"))


@word("slice")
def _slice(
    reads: Reads, x: Traced, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> Traced:
    axis = x.positive(dim)
    return reads.r.slice(x, axis, _range(x, axis, start, end, step))


@put("slice")
def _put_sliced(
    r: Recorder,
    wholly: Traced,
    part: Traced,
    number: int,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: Any = 1,
) -> Traced:
    axis = wholly.positive(dim)
    key = _range(wholly, axis, start, end, step)
    if key == slice(None):
        return part
    first, last, by = key.indices(wholly.row[wholly.own_axis(axis)])
    if by != 1:
        raise Unreadable("writes every so many in place")
    return put_part(r, wholly, part, axis, first, last)


def put_part(r: Recorder, wholly: Traced, part: Traced, axis: int, first: int, last: int) -> Traced:
    """The whole with another part, from first to last."""
    n = wholly.row[wholly.own_axis(axis)]
    pieces = [part]
    if first:
        pieces.insert(0, r.slice(wholly, axis, slice(0, first)))
    if last < n:
        pieces.append(r.slice(wholly, axis, slice(last, n)))
    return r.concat(pieces, axis) if len(pieces) > 1 else part


@word("select")
def _select(reads: Reads, x: Traced, dim: int, index: Any) -> Traced:
    axis = x.positive(dim)
    if x.at == axis:
        raise Unreadable("takes one row of the batch: rows of a batch stay apart")
    return reads.r.take(x, axis, whole(index, "an index"))


@put("select")
def _put_selected(
    r: Recorder, wholly: Traced, part: Traced, number: int, dim: int, index: Any
) -> Traced:
    axis = wholly.positive(dim)
    at = whole(index, "an index") % wholly.row[wholly.own_axis(axis)]
    return put_part(r, wholly, r.expand(part, axis), axis, at, at + 1)


def _counts(x: Traced, axis: int, given: Any) -> list[int]:
    n = x.row[x.own_axis(axis)]
    if isinstance(given, tuple | list):
        return [whole(k, "a size") for k in given]
    each = whole(given, "a size")
    return [min(each, n - at) for at in range(0, n, each)]


@word("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
def _split(reads: Reads, x: Traced, sizes: Any, dim: int = 0) -> list[Traced]:
    axis, parts, at = x.positive(dim), [], 0
    for count in _counts(x, axis, sizes):
        parts.append(reads.r.slice(x, axis, slice(at, at + count)))
        at += count
    return parts


@put("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
def _put_split(
    r: Recorder, wholly: Traced, part: Traced, number: int, sizes: Any, dim: int = 0
) -> Traced:
    axis = wholly.positive(dim)
    counts = _counts(wholly, axis, sizes)
    first = sum(counts[:number])
    return put_part(r, wholly, part, axis, first, first + counts[number])


@word("unbind")
def _unbind(reads: Reads, x: Traced, dim: int = 0) -> list[Traced]:
    axis = x.positive(dim)
    if x.at == axis:
        raise Unreadable("takes the rows of a batch apart")
    return [reads.r.take(x, axis, i) for i in range(x.row[x.own_axis(axis)])]


@put("unbind")
def _put_unbound(r: Recorder, wholly: Traced, part: Traced, number: int, dim: int = 0) -> Traced:
    axis = wholly.positive(dim)
    return put_part(r, wholly, r.expand(part, axis), axis, number, number + 1)


# ---- put together ----


@word("cat")
def _cat(reads: Reads, parts: Sequence[Traced], dim: int = 0) -> Traced:
    # What torch calls legacy: an empty vector beside arrays of any rank.
    own = [p for p in parts if p.shape != (0,)] or [*parts]
    return own[0] if len(own) == 1 else reads.r.concat(_alike(reads, own, dim), dim)


def _alike(reads: Reads, parts: Sequence[Traced], dim: int) -> list[Traced]:
    """All with a batch, if one has one: numbers of a step may be the same in all rows."""
    with_batch = [p for p in parts if p.at is not None]
    if not with_batch or len(with_batch) == len(parts):
        return [*parts]
    raise Unreadable("puts arrays with a batch behind others without")


@word("stack")
def _stack(reads: Reads, parts: Sequence[Traced], dim: int = 0) -> Traced:
    return reads.r.stack(_alike(reads, parts, dim), dim)


@word("repeat")
def _repeat(reads: Reads, x: Traced, repeats: Sequence[Any]) -> Traced:
    r = reads.r
    for _ in range(len(repeats) - x.rank):
        x = r.expand(x, 0)
    for axis, times in enumerate(repeats):
        if times == 1:
            continue
        count = lengths([times])[0]
        if x.at is None and count == BATCH and x.row[axis] == 1:
            shape = [*x.shape]
            shape[axis] = BATCH
            x = r.broadcast(x, shape)
        else:
            x = r.concat([x] * whole(times, "a count"), axis)
    return x


@word("constant_pad_nd")
def _pad(reads: Reads, x: Traced, pad: Sequence[Any], value: Any = 0) -> Traced:
    """pad: (before, behind) of the last axis, of the one before, ..."""
    r = reads.r
    for number in range(len(pad) // 2):
        axis = x.rank - 1 - number
        before, behind = (whole(n, "a count") for n in pad[2 * number : 2 * number + 2])
        if not (before or behind):
            continue
        own = x.own_axis(axis)
        x = r.slice(x, axis, slice(max(-before, 0), x.row[own] - max(-behind, 0)))
        pieces = [x]
        for count, at in ((before, 0), (behind, len(pieces))):
            if count > 0:
                shape = [*x.shape]
                shape[axis] = count
                filled = r.broadcast(value_of(float(value)), shape)
                pieces.insert(at if at == 0 else len(pieces), filled)
        x = r.concat(pieces, axis) if len(pieces) > 1 else x
    return x


@word("index", "index_select", "gather", "scatter", "take", "embedding", "masked_select")
def _index(reads: Reads, *_: Any, **__: Any) -> Traced:
    raise Unreadable("takes places that tensors say: equations have slices and where")
