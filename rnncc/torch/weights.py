"""Tensors of weights -> arrays, and a version that changes when a number in them does.

An optimizer writes weights in place, so a version is told from addresses, from torch's own
counters and, since writes through `.data` pass those by, from the numbers themselves, of which a
copy is kept: comparing them costs little beside a call that reads them all.

Non-Goals: packing (`weight_packing`), which keeps what it made for as long as a version lasts.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.common.memory_pool import address_of
from rnncc.torch.arrays import array_of

_numbers = itertools.count()


class _Set:
    """Weights of one layer as they were last seen. Arrays share the tensors' memory, which
    therefore can't become other tensors' meanwhile."""

    __slots__ = (
        "_copied",
        "_copies",
        "_pairs",
        "arrays",
        "counters",
        "places",
        "version",
    )
    version: tuple[str, int]

    def __init__(
        self, arrays: dict[str, np.ndarray], places: list[Any], counters: tuple[int, ...] | None
    ) -> None:
        self.arrays, self.places, self.counters = arrays, places, counters
        self._copied = False
        self.renew()
        self._copies = {n: np.empty_like(a) for n, a in arrays.items()}
        # Arrays that lie in one piece are compared as such, at the speed of memory.
        self._pairs = [
            (address_of(a), address_of(self._copies[n]), a.nbytes) if _is_piece(a) else (a, n)
            for n, a in arrays.items()
        ]

    def renew(self) -> None:
        """What is there now is a new version."""
        self.version = ("torch", next(_numbers))

    def look(self, counters: tuple[int, ...] | None) -> None:
        """A new version if a number may have changed. Numbers are copied to compare with when
        counters say for the first time that nothing has changed: in training they never do."""
        if counters != self.counters:
            self.counters, self._copied = counters, False
        elif not self._copied:
            for name, array in self.arrays.items():
                np.copyto(self._copies[name], array)
            self._copied = True
        elif self._is_current():
            return
        else:
            self._copied = False
        self.renew()

    def _is_current(self) -> bool:
        """Bit for bit: a NaN equals itself."""
        for pair in self._pairs:
            if _compare(*pair) if len(pair) == 3 else not self._same(*pair):
                return False
        return True

    def _same(self, a: np.ndarray, name: str) -> bool:
        bits = f"u{a.itemsize}"
        return bool((a.view(bits) == self._copies[name].view(bits)).all())


def _is_piece(a: np.ndarray) -> bool:
    return bool(a.flags.c_contiguous)


def _comparer() -> Callable[[int, int, int], int]:
    library = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
    memcmp: Any = library.memcmp
    memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    compare: Callable[[int, int, int], int] = memcmp
    return compare


_compare = _comparer()


class WeightSets:
    """The weights of all layers that share a bound cell, each layer's with its version."""

    def __init__(self) -> None:
        self._sets: OrderedDict[tuple[int, ...], _Set] = OrderedDict()
        self._last: _Set | None = None  # the one at the end
        self._lock = threading.RLock()
        open_in_children(self, "_lock")
        self.room = 1

    def find(
        self,
        names: Sequence[str],
        tensors: Sequence[Tensor],
        check: Callable[[Sequence[Tensor]], None],
    ) -> tuple[object, dict[str, np.ndarray]]:
        """(version, arrays by name) of one layer's weights. check: refuses those kernels can't
        read; called for weights that were not seen before."""
        try:
            key = tuple([t.data_ptr() for t in tensors])
        except RuntimeError:  # one that has no memory of its own
            check(tensors)
            raise
        counters = _counters(tensors)
        places = [(t.shape, t.stride(), t.is_neg()) for t in tensors]
        with self._lock:
            weight_set = self._sets.get(key)
            if weight_set is not None and weight_set.places == places:
                weight_set.look(counters)
            else:
                check(tensors)
                arrays = [array_of(t) for t in tensors]
                weight_set = _Set(dict(zip(names, arrays, strict=True)), places, counters)
                if any(t.is_neg() for t in tensors):  # a copy tells nothing of the next call
                    return weight_set.version, weight_set.arrays
                self._sets[key] = weight_set
            if weight_set is not self._last:
                self._last = weight_set
                self._sets.move_to_end(key)
                self._trim()
            return weight_set.version, weight_set.arrays

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
