"""An array as a framework has it, with the axis of its batch, beside the RowArray that one row is.

Axes and shapes here count the batch's, as the framework does; those of a RowArray don't. The
batch's axis may lie anywhere, and may hold an axis of each row behind it, or before it:
[batch * heads, width] is a row's [heads, width], and so is [heads * batch, width].

Non-Goals: operations (`recorder`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rnncc.reading.graph import Kind, Operand, RowArray, Unreadable

BATCH = -1  # the length of the batch's axis, in the shapes that a reader gives
BEHIND, BEFORE = 1, -1  # where an axis of the row lies that the batch's axis holds, too


@dataclass(frozen=True, slots=True)
class Merged:
    """The length of an axis that has the batch and so many numbers of each row."""

    count: int


Length = int | Merged


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """at: the batch's axis, None where there is none. merged: 0, or that it holds the axis `at` of
    a row, too, BEHIND the batch or BEFORE it. An array may have a batch all rows of which are the
    same."""

    value: Operand
    at: int | None = None
    merged: int = 0

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of one row."""
        return self.value.shape if isinstance(self.value, RowArray) else ()

    @property
    def rank(self) -> int:
        """Axes of the whole array."""
        return len(self.row) if self.at is None else len(self.row) + 1 - abs(self.merged)

    @property
    def shape(self) -> tuple[Length, ...]:
        """Of the whole array."""
        if self.at is None:
            return self.row
        own: Length = Merged(self.row[self.at]) if self.merged else BATCH
        return (*self.row[: self.at], own, *self.row[self.at + abs(self.merged) :])

    @property
    def rows(self) -> bool:
        return isinstance(self.value, RowArray) and self.value.rows

    @property
    def kind(self) -> Kind:
        if isinstance(self.value, RowArray):
            return self.value.kind
        if isinstance(self.value, bool):
            return "bool"
        return "int" if isinstance(self.value, int) else "float"

    def own_axis(self, axis: int) -> int:
        """An axis of the array -> the same of a row. Unreadable for the batch's."""
        axis = self.positive(axis)
        if self.at is None or axis < self.at:
            return axis
        if axis == self.at:
            raise Unreadable("goes along the axis of the batch: rows of a batch stay apart")
        return axis - 1 + abs(self.merged)

    def positive(self, axis: int) -> int:
        """An axis counted from the first."""
        if not -self.rank <= axis < self.rank:
            raise Unreadable(f"takes axis {axis} of an array of rank {self.rank}")
        return axis % self.rank

    def plain(self) -> Traced:
        """This, if the batch has an axis of its own."""
        if self.merged:
            raise Unreadable("reads an array whose axis of the batch holds others, too")
        return self


def lengths(shape: Sequence[Length]) -> tuple[list[int], Length | None, list[int]]:
    """(lengths before the batch's axis, the batch's, those behind); without a batch all are before.
    Unreadable for two of them."""
    places = [i for i, n in enumerate(shape) if n == BATCH or isinstance(n, Merged)]
    if len(places) > 1:
        raise Unreadable("gives an array with two axes of the batch: rows of a batch stay apart")
    whole: list[Any] = list(shape)
    if not places:
        return whole, None, []
    at = places[0]
    return whole[:at], whole[at], whole[at + 1 :]
