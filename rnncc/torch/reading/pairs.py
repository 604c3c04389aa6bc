"""Two runs with batches of different sizes -> one run with a batch of any size.

A length that is 7 in one run and 11 in the other is the batch; 14 and 22 are the batch and two of
each row's. What else differs depends on the size of the batch, and is refused.

Non-Goals: what operations mean (`words`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnncc.reading.graph import Origin, Unreadable
from rnncc.reading.traced import BATCH, Length, Merged
from rnncc.torch.reading.trace import AtenCall, FunctionCall, StepTrace

SIZES = (7, 11)


@dataclass(frozen=True, slots=True)
class BatchCount:
    """A number that is the batch's size so many times."""

    times: int


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """Numbers known when a step is read: of both runs."""

    values: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class PairedCall:
    """args, keywords: as in the first run, numbers that are of the batch as BatchCounts."""

    name: str
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: list[Any]
    shapes: list[tuple[Length, ...]]
    known: list[Folded | None]
    origin: Origin
    with_grad: bool
    inside: FunctionCall | None
    calls: tuple[AtenCall, AtenCall]


class Pairing:
    """same: tensors of the second run -> those of the first."""

    def __init__(self) -> None:
        self.same: dict[int, Tensor] = {}

    def leaves(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
        """These stand for each other."""
        self.same.update({id(b): a for a, b in zip(first, second, strict=True)})

    def calls(self, first: StepTrace, second: StepTrace) -> Iterator[PairedCall]:
        """One after another. `where` has the line of what can't be paired."""
        for a, b in zip(first.calls, second.calls, strict=False):
            yield self._call(a, b)
        more = (*first.calls[len(second.calls) :], *second.calls[len(first.calls) :])
        if more:
            raise Differs(more[0].origin)

    def _call(self, a: AtenCall, b: AtenCall) -> PairedCall:
        if a.name != b.name or len(a.outputs) != len(b.outputs):
            raise Differs(a.origin)
        if a.name.startswith("aten.lift_fresh"):  # numbers that Python has made a tensor of
            self.same.update({id(u): t for t, u in zip(a.args, b.args, strict=True)})
        try:
            args, keywords = self._same((a.args, a.keywords), (b.args, b.keywords))
        except Unreadable:
            raise Differs(a.origin) from None
        shapes, known = [], []
        for t, u, before, after in zip(a.outputs, b.outputs, a.values, b.values, strict=True):
            tensors = isinstance(t, Tensor)
            if tensors:
                self.same[id(u)] = t
            try:
                shapes.append(self.shape(t, u) if tensors else ())
            except Unreadable:
                raise Differs(a.origin) from None
            known.append(Folded((_array(before), _array(after))) if tensors else None)
        return PairedCall(
            a.name,
            args,
            keywords,
            a.outputs,
            shapes,
            known,
            a.origin,
            a.with_grad,
            a.inside,
            (a, b),
        )

    def shape(self, a: Tensor, b: Tensor) -> tuple[Length, ...]:
        """Unreadable for shapes of which one has more axes, or that differ otherwise."""
        if a.dim() != b.dim():
            raise Unreadable("depends on the batch size")
        return tuple(length(self._same(n, m)) for n, m in zip(a.shape, b.shape, strict=True))

    def _same(self, a: Any, b: Any) -> Any:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            if self.same.get(id(b), b) is not a:
                raise Unreadable("reads other tensors")
            return a
        if type(a) is not type(b):
            raise Unreadable("depends on the batch size")
        if isinstance(a, tuple | list):
            if len(a) != len(b):
                raise Unreadable("depends on the batch size")
            return tuple(self._same(x, y) for x, y in zip(a, b, strict=True))
        if isinstance(a, dict):
            if a.keys() != b.keys():
                raise Unreadable("depends on the batch size")
            return {k: self._same(a[k], b[k]) for k in a}
        if a == b or (a != a and b != b):
            return a
        if type(a) is int:
            times, rest = divmod(a, SIZES[0])
            if not rest and times > 0 and times * SIZES[1] == b:
                return BatchCount(times)
        raise Unreadable("depends on the batch size")


class Differs(Exception):
    """Two runs differ: origin says where first."""

    def __init__(self, origin: Origin) -> None:
        super().__init__(f"{origin} depends on the batch size: rows of a batch stay apart")


def length(n: Any) -> Length:
    """A number of a shape."""
    if isinstance(n, BatchCount):
        return BATCH if n.times == 1 else Merged(n.times)
    return int(n)


def _array(t: Tensor) -> np.ndarray:
    array: np.ndarray = t.detach().to(torch.float64).numpy() if t.is_floating_point() else t.numpy()
    return array


def row_of(folded: Folded, shape: Sequence[Length]) -> np.ndarray:
    """Numbers of one row, which all rows have. Unreadable where rows differ, or runs."""
    rows = []
    for value, size in zip(folded.values, SIZES, strict=True):
        for axis, n in enumerate(shape):
            if isinstance(n, Merged):
                value = value.reshape(*value.shape[:axis], size, n.count, *value.shape[axis + 1 :])
            if isinstance(n, Merged) or n == BATCH:
                first = value.take([0], axis)
                if not _equal(value, np.broadcast_to(first, value.shape)):
                    raise Unreadable("makes numbers that differ from row to row of the batch")
                value = value.take(0, axis)
        rows.append(value)
    if not _equal(*rows):
        raise Unreadable("depends on the batch size")
    return rows[0]


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
