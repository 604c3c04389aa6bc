"""Words for what goes along an axis.

Non-Goals: products (`products`); shapes (`layouts`).
"""

from __future__ import annotations

from collections.abc import Sequence

from rnncc.frontend.library import SIGNATURES
from rnncc.reading.graph import Node, Unreadable
from rnncc.reading.layouts import MOST_PARTS
from rnncc.reading.written import (
    PRODUCT,
    Writes,
    Written,
    along_of,
    as_number,
    number,
    reshaped,
    word,
)


@word("sum", "mean", "max", "min", "norm", "softmax", "log_softmax", "cumsum", "cumax")
def _along(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    return _called(node, node.op, values[0])


def _called(node: Node, name: str, value: Written) -> Written:
    """A function along an axis."""
    if name not in SIGNATURES:
        raise Unreadable("is an operation that equations have no word for")
    more = [f", {k}={number(v)}" for k, v in node.attributes.items() if k != "axis"]
    along = along_of(node.attributes["axis"], value.shape)
    text = f"{name}({as_number(value).text}{''.join(more)}{along})"
    return Written(text, node.output.shape, node.output.rows)


@word("layer_norm", "rms_norm")
def _norm(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    if set(node.attributes) != {"axis", "eps"}:
        raise Unreadable("takes an axis and eps")
    return _called(node, node.op, values[0])


@word("any", "all")
def _any(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    """0 and 1: the larger, or the smaller, of them."""
    return _called(node, "max" if node.op == "any" else "min", values[0])


@word("prod")
def _prod(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    if "prod" in SIGNATURES:
        return _called(node, "prod", values[0])
    axis = node.attributes["axis"]
    count = values[0].shape[axis]
    if count > MOST_PARTS:
        raise Unreadable(f"multiplies {count} numbers: up to {MOST_PARTS} are known")
    parts = writer.parts(values[0], count, axis)
    own = [reshaped(writer, p, node.output.shape).within(PRODUCT) for p in parts]
    return Written(" * ".join(own), node.output.shape, node.output.rows, PRODUCT)
