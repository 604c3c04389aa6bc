"""Expressions, and what all words (`elementwise`, `sums`, `layouts`) need of them.

A word takes (writer, what was applied, its values) and gives a value for each output; it is found
by the class name of Keras's operation. Axes and shapes of Keras count the batch, equations don't.

Non-Goals: names and lines (`text`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rnncc.keras.python.graph import Applied
from rnncc.keras.python.sizes import Sizes

ATOM, POWER, SIGN, PRODUCT, SUM, COMPARED = range(6)  # what binds how tightly


class Unreadable(Exception):
    """An operation, or a use of one, that equations have no words for: why."""


@dataclass(frozen=True, slots=True)
class TracedValue:
    """An expression. shape: of one row. rows: whether rows of the batch differ in it."""

    text: str
    shape: tuple[int, ...] = ()
    rows: bool = False
    binds: int = ATOM

    def within(self, binds: int) -> str:
        """The text as part of what binds so tightly."""
        return self.text if self.binds <= binds else f"({self.text})"


class Writes(Protocol):
    """What words write with: the text so far, and its names. drops: with what Dropout does."""

    drops: bool

    @property
    def sizes(self) -> Sizes: ...

    def value(self, given: Any) -> TracedValue: ...

    def named(self, value: TracedValue) -> TracedValue: ...

    def reshaped(self, value: TracedValue, shape: tuple[int, ...]) -> TracedValue: ...

    def parts(self, value: TracedValue, count: int, axis: int) -> list[TracedValue]: ...

    def rate(self, layer: Any) -> str: ...


Word = Callable[[Writes, Applied, Sequence[TracedValue]], Sequence[TracedValue]]
WORDS: dict[str, Word] = {}
READS: dict[str, frozenset[str]] = {}


def word(*names: str, reads: Collection[str] = ()) -> Callable[[Word], Word]:
    """reads: the arguments of the operation's constructor that the word knows, or that the shape of
    what is given tells; the others have to be what they are by default."""

    def keep(function: Word) -> Word:
        WORDS.update(dict.fromkeys(names, function))
        READS.update(dict.fromkeys(names, frozenset(reads)))
        return function

    return keep


def result(applied: Applied, text: str, binds: int = ATOM) -> TracedValue:
    """A value of the shape Keras says."""
    rows, shape = row_shape(applied.outputs[0].shape)
    return TracedValue(text, shape, rows, binds)


def row_shape(shape: Sequence[int | None]) -> tuple[bool, tuple[int, ...]]:
    """(whether there is a batch, the shape of one row). Batches are of unknown size."""
    rows = bool(shape) and shape[0] is None
    own = tuple(n for n in (shape[1:] if rows else shape) if n is not None)
    if len(own) < len(shape) - rows:
        raise Unreadable("moves the axis of the batch")
    return rows, own


def axis_of(axis: Any, value: TracedValue) -> int:
    """Of one row."""
    rank = len(value.shape) + value.rows
    if not isinstance(axis, int):
        raise Unreadable(f"takes axis={axis}: one axis at a time, not the batch's")
    axis = axis + rank if axis < 0 else axis
    if value.rows and axis == 0:
        raise Unreadable("mixes the rows of a batch")
    return axis - value.rows


def along_of(axis: int, shape: Sequence[int]) -> str:
    """An axis as an argument; vectors have one."""
    return f", axis={axis}" if len(shape) > 1 else ""


def beside(value: TracedValue, others: Sequence[TracedValue], writer: Writes) -> TracedValue:
    """An operand as it stands beside others: without the axis that broadcasts over the batch."""
    rank = max((len(o.shape) for o in others if o.rows), default=-1)
    if rank < 0:
        return value
    if value.rows and len(value.shape) < rank:
        raise Unreadable("broadcasts the batch against another axis")
    if not value.rows and len(value.shape) > rank:
        if value.shape[0] != 1 or len(value.shape) > rank + 1:
            raise Unreadable("broadcasts over the batch")
        return writer.reshaped(value, value.shape[1:])
    return value


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
