"""What tensors of a run hold, while some of them share memory and are written in place.

    y = x @ w; a = y[:, :3]; a.sigmoid_()        y[:, :3] is another value from here on

Every tensor has a slot with what it holds now. A write into one changes what others of the same
memory hold: those it is a part of have the new part put in, those that overlap are read anew. Both
happen when somebody asks, so that what nobody reads makes no equation.

Non-Goals: operations (`words`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from rnncc.reading.graph import Unreadable
from rnncc.reading.traced import Traced

Remake = Callable[[Traced], Traced]
Put = Callable[[Traced, Traced], Traced]


@dataclass(slots=True, eq=False)
class Slot:
    """value: what the tensor holds, or what makes that. parent: whose part it is; remake: the part
    out of that; put: that with another part. fixed: why nobody may write here."""

    tensor: Tensor
    value: Any
    parent: Slot | None = None
    remake: Remake | None = None
    put: Put | None = None
    fixed: str = ""


class Slots:
    """Of one run."""

    def __init__(self, traced: Callable[[Any, Tensor], Traced]) -> None:
        """traced: what is held -> the same as a Traced."""
        self._traced = traced
        self._slots: dict[int, Slot] = {}
        self._memory: dict[int, list[Slot]] = {}

    def __contains__(self, tensor: Tensor) -> bool:
        return id(tensor) in self._slots

    def add(self, slot: Slot) -> None:
        self._slots[id(slot.tensor)] = slot
        self._memory.setdefault(_memory_of(slot.tensor), []).append(slot)

    def held(self, tensor: Tensor) -> Any:
        """What a tensor holds."""
        slot = self._slots[id(tensor)]
        if callable(slot.value):
            slot.value = slot.value()
        return slot.value

    def slot(self, tensor: Tensor) -> Slot:
        return self._slots[id(tensor)]

    def owner(self, tensor: Tensor, among: list[Tensor]) -> Slot | None:
        """The slot of one of these that has the tensor's memory."""
        own = _memory_of(tensor)
        return next((self._slots[id(t)] for t in among if _memory_of(t) == own), None)

    def write(self, tensor: Tensor, value: Any) -> None:
        """Unreadable where what others of the same memory hold then can't be told."""
        slot = self._slots[id(tensor)]
        alike = self._memory[_memory_of(tensor)]
        touched = [s for s in alike if s is not slot and _overlap(s.tensor, tensor)]
        for other in (slot, *touched):
            if other.fixed:
                raise Unreadable(f"writes in place into {other.fixed}")
        slot.value = value
        above, changed = slot, {id(slot)}
        while above.parent is not None:
            self._put_in(above.parent, above)
            above = above.parent
            changed.add(id(above))
        for other in touched:
            if id(other) not in changed:
                self._read_anew(other)

    def _put_in(self, parent: Slot, child: Slot) -> None:
        before, part, put = parent.value, child.value, child.put

        def whole() -> Traced:
            if put is None:
                raise Unreadable("is read after another view of its memory was written in place")
            return put(self._now(before, parent.tensor), self._now(part, child.tensor))

        parent.value = _Once(whole)

    def _read_anew(self, slot: Slot) -> None:
        parent, remake = slot.parent, slot.remake

        def part() -> Traced:
            if parent is None or remake is None:
                raise Unreadable("is read after another view of its memory was written in place")
            return remake(self._now(above, parent.tensor))

        above = None if parent is None else parent.value
        slot.value = _Once(part)

    def _now(self, value: Any, tensor: Tensor) -> Traced:
        return self._traced(value() if callable(value) else value, tensor)


class _Once:
    """What is made when it is first asked for."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Traced]) -> None:
        self._make = make
        self._made: Traced | None = None

    def __call__(self) -> Traced:
        if self._made is None:
            self._made = self._make()
        return self._made


def _memory_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether a number of one is one of the other."""
    return bool(np.intersect1d(_places(a), _places(b)).size)


def _places(t: Tensor) -> np.ndarray:
    places = np.array([t.storage_offset()])
    for n, stride in zip(t.shape, t.stride(), strict=True):
        places = (places[:, None] + stride * np.arange(n)).reshape(-1)
    return places
