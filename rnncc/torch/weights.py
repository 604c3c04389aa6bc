"""Tensors of weights -> arrays, and a version that changes when a number in them does.

An optimizer writes weights in place, so a version is told from addresses, from torch's own
counters and, since writes through `.data` pass those by, from the numbers themselves: comparing
them costs little beside a call that reads them all.

Non-Goals: packing (`runtime.packing`), which keeps what it made for as long as a version lasts.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from rnncc.runtime.forks import open_in_children

_SMALL = 2**16  # bytes; what is larger is compared without another copy
_numbers = itertools.count()


@dataclass(slots=True)
class _Set:
    """Weights of one layer as they were last seen. Arrays share the tensors' memory, which
    therefore can't become other tensors' meanwhile."""

    counters: tuple[int, ...] | None
    version: tuple[str, int]
    places: list[Any]  # shape and strides of each
    arrays: list[np.ndarray]
    copies: list[Any]

    def is_current(self, counters: tuple[int, ...] | None) -> bool:
        same = counters == self.counters and counters is not None
        return same and all(map(_equal, self.arrays, self.copies))


def _copy(a: np.ndarray) -> Any:
    """To compare with: bytes, or of a large array its bits."""
    return a.tobytes() if a.nbytes <= _SMALL else np.array(a.view(f"u{a.itemsize}"))


def _equal(a: np.ndarray, copy: Any) -> bool:
    """Bit for bit: a NaN equals itself."""
    if type(copy) is bytes:
        return a.tobytes() == copy
    return bool((a.view(copy.dtype) == copy).all())


class WeightSets:
    """The weights of all layers that share a bound cell, each layer's with its version."""

    def __init__(self) -> None:
        self._sets: OrderedDict[tuple[int, ...], _Set] = OrderedDict()
        self._lock = threading.RLock()
        open_in_children(self, "_lock")
        self.room = 1

    def find(
        self, tensors: Sequence[Tensor], check: Callable[[Sequence[Tensor]], None]
    ) -> tuple[object, list[np.ndarray]]:
        """(version, arrays) of one layer's weights. check: refuses those kernels can't read; called
        for weights that were not seen before."""
        key = tuple([t.data_ptr() for t in tensors])
        counters = _counters(tensors)
        with self._lock:
            found = self._sets.get(key)
            places = [(t.shape, t.stride()) for t in tensors]
            if found is None or found.places != places:
                check(tensors)
                arrays = [t.detach().numpy() for t in tensors]
            elif found.is_current(counters):
                self._sets.move_to_end(key)
                return found.version, found.arrays
            else:
                arrays = found.arrays
            version = ("torch", next(_numbers))
            copies = [_copy(a) for a in arrays]
            self._sets[key] = _Set(counters, version, places, arrays, copies)
            self._sets.move_to_end(key)
            self._trim()
            return version, arrays

    def grow(self, layers: int) -> None:
        """So many more layers are in use, or with a negative number fewer."""
        with self._lock:
            self.room += layers
            self._trim()

    def _trim(self) -> None:
        while len(self._sets) > max(self.room, 1):
            self._sets.popitem(last=False)


def _counters(tensors: Sequence[Tensor]) -> tuple[int, ...] | None:
    """torch's versions; None of tensors that have none, being made in inference mode."""
    try:
        return tuple([t._version for t in tensors])
    except RuntimeError:
        return None
