"""Words for shapes: reshape, transpose, concat, parts of arrays.

Non-Goals: numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rnncc.reading.graph import Node
from rnncc.reading.written import (
    ATOM,
    Writes,
    Written,
    along_of,
    as_number,
    reshaped,
    wide,
    word,
)

MOST_PARTS = 32  # of a split that a part of an axis may be one of


def _same_everywhere(writer: Writes, node: Node, value: Written) -> Written | None:
    """What one number broadcast is in another layout."""
    least = value.least
    if least is value or math.prod(least.shape) != 1:
        return None
    return wide(writer, reshaped(writer, least, ()), node.output.shape)


@word("reshape")
def _reshape(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    return reshaped(writer, values[0], node.output.shape)


@word("transpose")
def _transpose(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    same = _same_everywhere(writer, node, values[0])
    if same is not None:
        return same
    order = node.attributes["order"]
    swapped = "" if order == (1, 0) else f", axes=({', '.join(map(str, order))})"
    return _result(node, f"transpose({as_number(values[0]).text}{swapped})")


@word("concat")
def _concat(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    parts = [as_number(v) for v in values if 0 not in v.shape]
    if len(parts) == 1:
        return parts[0]
    axis = node.attributes["axis"]
    counts = [p.shape[axis] for p in parts]
    writer.sizes.remember(sum(counts), " + ".join(map(writer.sizes.text, counts)))
    along = along_of(axis, node.output.shape)
    return _result(node, f"concat({', '.join(p.text for p in parts)}{along})")


@word("slice")
def _slice(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    same = _same_everywhere(writer, node, values[0])
    if same is not None:
        return same
    axis, start, step, count = (node.attributes[k] for k in ("axis", "start", "step", "count"))
    return _picked(writer, values[0], axis, range(start, start + step * count, step))


@word("flip")
def _flip(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    same = _same_everywhere(writer, node, values[0])
    if same is not None:
        return same
    along = along_of(node.attributes["axis"], node.output.shape)
    return _result(node, f"flip({as_number(values[0]).text}{along})")


@word("roll")
def _roll(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    axis = node.attributes["axis"]
    shift = node.attributes["shift"] % values[0].shape[axis]
    same = values[0] if not shift else _same_everywhere(writer, node, values[0])
    if same is not None:
        return same
    along = along_of(axis, node.output.shape)
    return _result(node, f"roll({as_number(values[0]).text}, {writer.sizes.text(shift)}{along})")


def _picked(writer: Writes, value: Written, axis: int, places: range) -> Written:
    """Some of an axis, in the order of the places. One of a few equal parts is a part of a `split`,
    as gates are."""
    n, count = value.shape[axis], len(places)
    shape = (*value.shape[:axis], count, *value.shape[axis + 1 :])
    if count == 1 and axis == 0:
        one = Written(f"{as_number(value).within(ATOM)}[{places[0]}]", shape[1:], value.rows)
        return reshaped(writer, one, shape)
    if places.step == 1 and not n % count and not places.start % count and n // count <= MOST_PARTS:
        return writer.parts(value, n // count, axis)[places.start // count]
    text = f"{as_number(value).within(ATOM)}[{':, ' * axis}{_cut(writer, places, n)}]"
    return Written(text, shape, value.rows)


def _cut(writer: Writes, places: range, n: int) -> str:
    """The bounds of a part, as Python writes them."""
    first = 0 if places.step > 0 else n - 1
    begin = "" if places.start == first else writer.sizes.text(places.start)
    end = "" if places.stop >= n or places.stop < 0 else writer.sizes.text(places.stop)
    return f"{begin}:{end}" + (f":{places.step}" if places.step != 1 else "")


def _result(node: Node, text: str) -> Written:
    return Written(text, node.output.shape, node.output.rows)
