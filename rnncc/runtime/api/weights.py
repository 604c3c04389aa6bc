"""The arrays a layer owns: read-only, replaced whole, numbered anew at every change.

An array is never written in place once it is here, so kernels may keep what they made of it for
as long as the version stays the same, and copies of a layer may share it.

Non-Goals: initial values (`initializers`); files (`weight_files`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.drawing.tables import ArraysShown, shapes_text
from rnncc.runtime.api.validation import as_array, check_shape, nearest

_versions = itertools.count(1)  # across layers: engines are shared by all layers of a class


class WeightStore:
    """Weights and constants of one layer by name, and a number that changes whenever one does."""

    def __init__(self, dtype: np.dtype[Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.dtype, self.shapes = dtype, dict(shapes)
        self.current: tuple[int, dict[str, np.ndarray]] = (next(_versions), {})

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return self.current[1]

    def again(self) -> WeightStore:
        """Another store of the same arrays, which changes on its own."""
        made = WeightStore(self.dtype, self.shapes)
        made.current = (next(_versions), self.arrays)
        return made

    def update(self, values: Mapping[str, object]) -> None:
        """All of them or none: TypeError and ValueError for a wrong kind or shape. NaN is fine."""
        fresh = {}
        for name, value in values.items():
            array = as_array(f"weight {name}", value, self.dtype, own=True)
            check_shape(f"weight {name}", array, self.shapes[name])
            array.flags.writeable = False
            fresh[name] = array.view()  # a view of a read-only array can't be made writeable
        merged = {**self.arrays, **fresh}
        ordered = {name: merged[name] for name in self.shapes if name in merged}
        self.current = (next(_versions), ordered)  # at once: another thread may be calling


class Arrays(ArraysShown, Mapping[str, np.ndarray]):
    """Some of a layer's arrays by name, in order of declaration; assign to an item to change it.

    `weights["kernel"] = new` casts, checks the shape and copies. `weights["kernel"] += step`
    raises: arrays are read-only, write `weights["kernel"] = weights["kernel"] + step`.
    """

    def __init__(
        self, store: WeightStore | None, names: Sequence[str], owner: str, kind: str
    ) -> None:
        self._store, self._names = store, tuple(names)
        self._owner, self._kind = owner, kind

    def __getitem__(self, name: str) -> np.ndarray:
        return self._built(name).arrays[name]

    def __setitem__(self, name: str, value: object) -> None:
        self._built(name).update({name: value})

    def _built(self, name: object) -> WeightStore:
        if name not in self._names:
            raise KeyError(
                f"{self._owner} has no {self._kind} {name!r}{nearest(str(name), self._names)}"
            )
        if self._store is None:
            raise KeyError(
                f"{self._owner} has no weights yet: call it, or build it with the shapes to come"
            )
        return self._store

    def __iter__(self) -> Iterator[str]:
        return iter(self._names if self._store is not None else ())

    def __len__(self) -> int:
        return len(self._names) if self._store is not None else 0

    def __repr__(self) -> str:
        return f"<{self._kind}s of {self._owner} {shapes_text(self)}>"

    def _shown_arrays(self) -> tuple[str, Iterable[tuple[str, Any]]]:
        return f"{self._kind}s of {self._owner}", self.items()
