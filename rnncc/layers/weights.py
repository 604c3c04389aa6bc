"""Weights of the parts of a layer as the weights of the whole: the same arrays under longer names.

Non-Goals: holding arrays (`api.weights`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rnncc.layers.parts import Part
from rnncc.runtime.api.validation import as_array, check_shape
from rnncc.runtime.api.weights import WeightStore


class Joint:
    """What `api.weights.Store` is to a layer, over the stores of its parts."""

    def __init__(self, parts: Sequence[Part], order: Sequence[str]) -> None:
        self.stores: list[WeightStore] = []
        self.owners: dict[str, tuple[WeightStore, str]] = {}
        for part in parts:
            store = part.layer._store
            assert store is not None
            self.stores.append(store)
            self.owners |= {part.name(own): (store, own) for own in store.shapes}
        self.owners = {name: self.owners[name] for name in order}
        self.dtype = self.stores[0].dtype
        self.shapes = {name: store.shapes[own] for name, (store, own) in self.owners.items()}
        self._alone = self.stores[0] if len(parts) == 1 else None
        self._seen: tuple[tuple[object, ...], dict[str, np.ndarray]] = ((), {})

    @property
    def current(self) -> tuple[object, dict[str, np.ndarray]]:
        """The versions of all parts, and all arrays; of one part, its own."""
        if self._alone is not None:
            return self._alone.current
        by_store = {id(store): store.current for store in self.stores}
        versions = tuple(by_store[id(store)][0] for store in self.stores)
        if self._seen[0] != versions:
            owners = self.owners.items()
            arrays = {name: by_store[id(store)][1][own] for name, (store, own) in owners}
            self._seen = versions, arrays
        return versions, dict(self._seen[1])

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return self.current[1]

    def update(self, values: Mapping[str, object]) -> None:
        """All of them or none, by the names of the whole in what is refused."""
        shares: dict[int, tuple[WeightStore, dict[str, object]]] = {}
        for name, value in values.items():
            store, own = self.owners[name]
            array = as_array(f"weight {name}", value, self.dtype, own=True)
            check_shape(f"weight {name}", array, self.shapes[name])
            shares.setdefault(id(store), (store, {}))[1][own] = array
        for store, share in shares.values():
            store.update(share)
