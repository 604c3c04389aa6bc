"""Arrays of weights -> copies of our own, and a version that is new when a number is and only then.

Frameworks hand weights over call by call, in memory that they write again or give to others; none
has a counter that all three could be asked for. So the numbers themselves are compared, which costs
little beside a call that reads them all, and what kernels read, and what is packed of it under its
version, is a copy that nobody changes.

Non-Goals: packing (`weight_packing`).
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np

from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.layer_options import Engine
from rnncc.runtime.common.fork_safety import open_in_children

_KEPT = 2  # versions of one layer: those that are trained, and their average, say
_numbers = itertools.count(1)


class Version(tuple[Any, ...]):
    """Of the weights of one layer; version[k] is that of its part k, which may have parts too."""

    def __getitem__(self, part: SupportsIndex | slice) -> Any:
        return Version((*self, part))


def new_version() -> Version:
    """One that no weights had: of those that are trained, which are others at every step."""
    return Version(("keras", next(_numbers)))


class WeightVersions:
    """What one layer's weights were in the last calls."""

    def __init__(self) -> None:
        self._seen: list[tuple[Version, list[np.ndarray]]] = []
        self._lock = threading.Lock()
        open_in_children(self, "_lock")

    def find(self, arrays: Sequence[np.ndarray]) -> tuple[Version, list[np.ndarray]]:
        """(version, arrays with the same bits that nobody writes)."""
        with self._lock:
            for at, entry in enumerate(self._seen):
                if all(map(_same, arrays, entry[1])):
                    if at:
                        self._seen.insert(0, self._seen.pop(at))
                    return entry
            newest = new_version(), [np.array(a, order="C") for a in arrays]
            self._seen.insert(0, newest)
            del self._seen[_KEPT:]
            return newest


def _same(a: np.ndarray, copy: np.ndarray) -> bool:
    """Bit for bit: a NaN equals itself."""
    bits = f"u{a.itemsize}"
    return a.shape == copy.shape and bool(
        (np.ascontiguousarray(a).view(bits) == copy.view(bits)).all()
    )


# ---- room for what is packed -------------------------------------------------------------------

_layers: Counter[int] = Counter()  # how many layers share a binding, by its id


def serve(user: object, native: Layer) -> None:
    """The kernels of this layer are in use for as long as the user lives."""
    bindings = [leaf._binding for leaf in _leaves(native)]
    _layers.update(map(id, bindings))
    weakref.finalize(user, _release, bindings).atexit = False


def _release(bindings: Sequence[object]) -> None:
    _layers.subtract(map(id, bindings))


def keep(engine: Engine, native: Layer) -> None:
    """Room for the weights of all layers that share the engine."""
    engine.keep(max(_layers[id(leaf._binding)] for leaf in _leaves(native)))


def _leaves(native: Layer) -> Iterator[Layer]:
    parts = getattr(native, "parts", None)
    if parts is None:
        yield native
        return
    for part in parts:
        yield from _leaves(part.layer)
