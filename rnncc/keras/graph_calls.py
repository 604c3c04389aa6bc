"""An operation as two functions of arrays alone, as TensorFlow's and JAX's graphs call out to them.

    forward:  tensors, seed -> results, handle          handle: [] of int32, for the backward
    backward: handle, tensors, seed, cotangents -> gradients

Non-Goals: how they are called (`in_tensorflow`, `in_jax`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnncc.adapters.fast_path import MOST_PATHS
from rnncc.keras.calls import Request, SavedCall, seed_of
from rnncc.keras.forward import placed
from rnncc.keras.operation import Operation
from rnncc.keras.paths import KerasPath, KerasPathSaved, path_of
from rnncc.keras.pending import Pending


class GraphCalls:
    """Of one operation and one kind of call."""

    def __init__(self, operation: Operation, request: Request) -> None:
        self.operation, self.request = operation, request
        self.seeded = request.training and operation.draws
        self.count = len(operation.names(request))
        self._lent: bool | None = None
        self._pending: Pending = operation.made.setdefault("pending", Pending())
        self._paths: dict[Any, KerasPath | None] = {}

    def forward(
        self, arrays: Sequence[np.ndarray], *, save: bool, out: Sequence[np.ndarray] = ()
    ) -> list[np.ndarray]:
        """arrays: the tensors, then if `seeded` the seed. Results, then with `save` a handle; in
        `out`, if that is given."""
        tensors, seed = arrays[: self.count], self._seed(arrays)
        keep, places = save and not self.request.again, out[: len(self.operation.results)]
        key = keep, *[a.shape for a in tensors]
        path = self._paths.get(key) if out else None
        saved: SavedCall | KerasPathSaved | None
        if path is not None:
            results, saved = [*places], path.forward(tensors, seed, keep, places)
        else:
            results, saved = self.operation.forward(
                self.request, tensors, seed, save=keep, lent=self._lends(), out=places
            )
            if out and key not in self._paths:
                self._keep(key, path_of(self.operation, self.request, tensors, seed, keep))
        if save:
            handle = np.array(self._pending.put(saved), np.int32)
            results += placed([handle], out[len(results) :])
        return results

    def backward(
        self,
        handle: int,
        arrays: Sequence[np.ndarray],
        cotangents: Sequence[np.ndarray | None],
        wanted: Sequence[bool],
        out: Sequence[np.ndarray] = (),
    ) -> list[np.ndarray]:
        """Gradients of those tensors that are wanted; in `out`, if that is given."""
        tensors = arrays[: self.count]
        saved = self._pending.take(handle)
        if isinstance(saved, KerasPathSaved):
            if out:
                saved.path.backward(saved, tensors, cotangents, wanted, out)
                return [*out]
            saved = saved.path.general(saved, tensors)
        elif saved is None:
            _, saved = self.operation.forward(self.request, tensors, self._seed(arrays), save=True)
            assert saved is not None
        elif self._lends():
            self.operation.hand_again(saved, tensors)
        shapes = [a.shape for a in tensors]
        grads = self.operation.backward(saved, cotangents, wanted, shapes, out)
        return [g for g in grads if g is not None]

    def _keep(self, key: Any, path: KerasPath | None) -> None:
        """Calls like this one needn't look up what it has looked up."""
        if len(self._paths) >= MOST_PATHS:
            self._paths.clear()
        self._paths[key] = path

    def _lends(self) -> bool:
        """Graphs hand a backward the tensors of its forward, so nothing of them is copied."""
        if self._lent is None:
            self._lent = self.operation.hands_again(self.request)
        return self._lent

    def _seed(self, arrays: Sequence[np.ndarray]) -> int | None:
        return seed_of(arrays[self.count]) if self.seeded else None


def calls_of(operation: Operation, request: Request) -> GraphCalls:
    """Those of a kind of call, made once."""
    key = "calls", request
    calls = operation.made.get(key)
    if calls is None:
        calls = operation.made[key] = GraphCalls(operation, request)
    return calls  # type: ignore[no-any-return]


def weakly(calls: GraphCalls) -> Callable[[], GraphCalls]:
    """For functions that a graph holds: graphs stay longer than layers."""
    reference, name = weakref.ref(calls), calls.operation.cell.name

    def alive() -> GraphCalls:
        referent = reference()
        if referent is None:
            raise RuntimeError(f"the layer of a graph that runs {name} is gone: keep the model")
        return referent

    return alive
