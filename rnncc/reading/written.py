"""Expressions of equations, and what all words of them (`words`) write with.

Non-Goals: names and lines (`text`); what operations mean (`words`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rnncc.reading.graph import Node, Unreadable
from rnncc.reading.sizes import Sizes

# What binds how tightly.
ATOM, POWER, SIGN, PRODUCT, SUM, COMPARED, NOT, AND, OR = range(9)


@dataclass(frozen=True, slots=True)
class Written:
    """An expression. shape: of one row. rows: whether rows of the batch differ in it.

    condition: whether the text is one; a value of kind bool may also be written as 0 and 1.
    narrow: what broadcasts to it, which operands of others are by themselves. before: what was
    reshaped to it.
    """

    text: str
    shape: tuple[int, ...] = ()
    rows: bool = False
    binds: int = ATOM
    condition: bool = False
    narrow: Written | None = None
    before: Written | None = None

    def within(self, binds: int) -> str:
        """The text as part of what binds so tightly."""
        return self.text if self.binds <= binds else f"({self.text})"

    @property
    def least(self) -> Written:
        """What stands beside others that broadcast it."""
        return self.narrow or self


class Writes(Protocol):
    """What words write with: the text so far, and its names. drops: with what dropout does."""

    drops: bool

    @property
    def sizes(self) -> Sizes: ...

    def named(self, value: Written) -> Written: ...

    def parts(self, value: Written, count: int, axis: int) -> list[Written]: ...

    def rate(self, key: str) -> str: ...


Word = Callable[[Writes, Node, Sequence[Written]], Written]
WORDS: dict[str, Word] = {}


def word(*names: str) -> Callable[[Word], Word]:
    """The writer of these operations."""

    def keep(function: Word) -> Word:
        WORDS.update(dict.fromkeys(names, function))
        return function

    return keep


# ---- kinds ---------------------------------------------------------------------------------------


def as_number(value: Written) -> Written:
    """Conditions as 0 and 1."""
    if value.narrow is not None:
        return replace(value, narrow=as_number(value.narrow), condition=False)
    if not value.condition:
        return value
    return Written(f"where({value.text}, 1, 0)", value.shape, value.rows)


def as_condition(value: Written) -> Written:
    """Numbers as whether they aren't 0."""
    if value.condition:
        return value
    text = f"{value.within(SUM)} != 0"
    return Written(text, value.shape, value.rows, COMPARED, condition=True)


# ---- shapes --------------------------------------------------------------------------------------


def wide(writer: Writes, value: Written, shape: tuple[int, ...]) -> Written:
    """The same, broadcast."""
    if value.shape == shape:
        return value
    least = as_number(value.least)
    text = f"broadcast({least.text}, {writer.sizes.shape(shape)})"
    return Written(text, shape, value.rows, narrow=value.least)


def reshaped(writer: Writes, value: Written, shape: tuple[int, ...]) -> Written:
    """The same numbers in another shape of a row."""
    value = value.before or value
    if shape == value.shape:
        return value
    if value.narrow is not None and math.prod(value.narrow.shape) == 1:
        return wide(writer, reshaped(writer, value.narrow, ()), shape)
    value = as_number(value)
    if shape:
        text = f"reshape({value.text}, {writer.sizes.shape(shape)})"
    else:
        text = value.within(ATOM) + f"[{', '.join('0' * len(value.shape))}]"
    return Written(text, shape, value.rows, before=value)


def along_of(axis: int, shape: Sequence[int]) -> str:
    """An axis as an argument; vectors have one."""
    return f", axis={axis}" if len(shape) > 1 else ""


def number(value: Any) -> str:
    """As equations write it."""
    if isinstance(value, bool):
        return str(value)
    try:
        value = float(value)
    except (TypeError, ValueError):
        raise Unreadable(f"takes {value!r}, no number") from None
    if not math.isfinite(value):
        raise Unreadable(f"takes the number {value}")
    return repr(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
