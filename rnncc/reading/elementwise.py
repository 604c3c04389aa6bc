"""Words for what is done element by element, conditions and casts among it.

What is a function of the language is a word by its name; so is what will be one.

Non-Goals: sums, axes (`sums`); shapes (`layouts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from rnncc.frontend.library import SIGNATURES
from rnncc.reading.graph import Node, Unreadable
from rnncc.reading.written import (
    AND,
    ATOM,
    COMPARED,
    NOT,
    OR,
    POWER,
    PRODUCT,
    SIGN,
    SUM,
    Writes,
    Written,
    as_condition,
    as_number,
    number,
    wide,
    word,
)

# What it is written as, how tightly that binds, and its sides have to.
_BINARY = {
    "+": (SUM, SUM, PRODUCT),
    "-": (SUM, SUM, PRODUCT),
    "*": (PRODUCT, PRODUCT, SIGN),
    "/": (PRODUCT, PRODUCT, SIGN),
    "**": (POWER, ATOM, ATOM),
    **dict.fromkeys((">", ">=", "<", "<=", "==", "!="), (COMPARED, SUM, SUM)),
    "and": (AND, AND, NOT),
    "or": (OR, OR, AND),
}
_LOGIC = ("and", "or", "not")


def _beside(
    writer: Writes,
    node: Node,
    values: Sequence[Written],
    write: Callable[[Sequence[Written]], Written],
) -> Written:
    """A value of operands that broadcast by themselves; what is the same in all places of the
    result is computed once, and broadcast."""
    least = [v.least for v in values]
    shape = np.broadcast_shapes(*(v.shape for v in least))
    value = replace(write(least), shape=shape, rows=any(v.rows for v in least))
    return wide(writer, value, node.output.shape)


@word(*_BINARY)
def _binary(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    binds, left, right = _BINARY[node.op]
    is_condition = binds in (COMPARED, AND, OR)
    seen = as_condition if node.op in _LOGIC else as_number

    def write(sides: Sequence[Written]) -> Written:
        a, b = map(seen, sides)
        text = f"{a.within(left)} {node.op} {b.within(right)}"
        return Written(text, binds=binds, condition=is_condition)

    return _beside(writer, node, values, write)


@word("not")
def _not(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    def write(sides: Sequence[Written]) -> Written:
        inner = as_condition(sides[0]).within(NOT)
        return Written(f"not {inner}", binds=NOT, condition=True)

    return _beside(writer, node, values, write)


@word("neg")
def _negative(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    return _beside(
        writer, node, values, lambda v: Written(f"-{as_number(v[0]).within(POWER)}", binds=SIGN)
    )


@word("where")
def _where(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    def write(sides: Sequence[Written]) -> Written:
        condition, a, b = as_condition(sides[0]), as_number(sides[1]), as_number(sides[2])
        return Written(f"where({condition.text}, {a.text}, {b.text})")

    return _beside(writer, node, values, write)


def function(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    """A call of a function that goes element by element. Unreadable where it takes others."""
    signature = SIGNATURES[node.op]
    names = (*signature.required, *signature.optional)
    positional, keywords = names[: len(values)], {*node.attributes}
    missing = {*signature.required} - {*positional} - keywords
    if len(values) > len(names) or missing or not keywords <= {*names} - {*positional}:
        raise Unreadable(f"gives {node.op}{signature} other arguments")
    more = [f"{k}={number(v)}" for k, v in node.attributes.items()]

    def write(sides: Sequence[Written]) -> Written:
        return Written(f"{node.op}({', '.join([*(as_number(v).text for v in sides), *more])})")

    return _beside(writer, node, values, write)


@word("stop_gradient")
def _stop_gradient(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    if node.output.kind == "bool":  # which has none
        return values[0]
    return function(writer, node, values)


@word("surrogate")
def _surrogate(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    """Of the argument, value and derivative, in that order."""
    x, value, slope = (as_number(v).text for v in values)
    text = f"surrogate({value}, {slope}, of={x})"
    return Written(text, node.output.shape, node.output.rows)


@word("broadcast")
def _broadcast(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    return wide(writer, values[0], node.output.shape)


@word("convert")
def _convert(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    source = node.operands[0]
    was_float = isinstance(source, float) or getattr(source, "kind", "") == "float"
    if node.output.kind == "bool":
        return _beside(writer, node, values, lambda v: as_condition(v[0]))
    if node.output.kind == "int" and was_float:
        if "int" not in SIGNATURES:
            raise Unreadable("makes floats whole, which equations can't")
        return _beside(writer, node, values, lambda v: Written(f"int({v[0].text})"))
    return _beside(writer, node, values, lambda v: as_number(v[0]))


@word("drop")
def _drop(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    (value,) = values
    if not writer.drops:
        return value
    if not value.rows:
        raise Unreadable("drops of what all rows of a batch share")
    text = f'drop({as_number(value).text}, {writer.rate(node.attributes["rate"])}, per="step")'
    return Written(text, value.shape, rows=True)
