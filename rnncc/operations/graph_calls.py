"""An operation as functions of arrays alone, as TensorFlow's and JAX's graphs call out to them.

    forward:  tensors, seed -> results, handle          handle: [] of int32, for what follows it
    backward: handle, tensors, seed, cotangents -> gradients
    second:   handle, tensors, seed, cotangents, d_grads -> gradients of sum(d_grads * gradients)

What a forward saved is taken by the first who comes with its handle; others, and those whose
tensors have other shapes, run the forward again.

Non-Goals: how they are called (`rnncc.keras`, `rnncc.jax`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnncc.adapters.fast_path import MOST_PATHS
from rnncc.operations.calls import Request, SavedCall, seed_of
from rnncc.operations.forward import placed
from rnncc.operations.operation import Operation
from rnncc.operations.paths import GraphPath, GraphPathSaved, path_of
from rnncc.operations.pending import Pending
from rnncc.operations.second import second
from rnncc.runtime.api.time_axis import Order

Arrays = Sequence[np.ndarray]


class GraphCalls:
    """Of one operation and one kind of call. order: how inputs and outputs lie, their cotangents
    and gradients, too: all of them are turned, outputs of a backwards order as well."""

    def __init__(self, operation: Operation, request: Request, order: Order | None = None) -> None:
        self.operation, self.request = operation, request
        self.order = order or Order()
        self.seeded = request.training and operation.draws
        self.names = operation.names(request)
        self.count = len(self.names)
        self.timed = [n in operation.timed for n in self.names]
        self.timed_results = [n in operation.outputs for n in operation.results]
        self._lent: bool | None = None
        self._pending: Pending = operation.made.setdefault("pending", Pending())
        self._paths: dict[Any, GraphPath | None] = {}

    def forward(self, arrays: Arrays, *, save: bool, out: Arrays = ()) -> list[np.ndarray]:
        """arrays: the tensors, then if `seeded` the seed. Results, then with `save` a handle; in
        `out`, if that is given."""
        tensors, seed = self._run(arrays, self.timed), self._seed(arrays)
        keep, places = save and not self.request.again, self._run(out, self.timed_results)
        key = keep, *[a.shape for a in tensors]
        path = self._paths.get(key) if out else None
        saved: SavedCall | GraphPathSaved | None
        if path is not None:
            results, saved = [*places], path.forward(tensors, seed, keep, places)
        else:
            results, saved = self.operation.forward(
                self.request, tensors, seed, save=keep, lent=self._lends(), out=places
            )
            if out and key not in self._paths:
                self._keep(key, path_of(self.operation, self.request, tensors, seed, keep, places))
        results = self._given(results, self.timed_results)
        if save:
            handle = np.array(self._pending.put(saved), np.int32)
            results += placed([handle], out[len(results) :])
        return results

    def backward(
        self,
        handle: int,
        arrays: Arrays,
        cotangents: Sequence[np.ndarray | None],
        wanted: Sequence[bool],
        out: Arrays = (),
    ) -> list[np.ndarray]:
        """Gradients of those tensors that are wanted; in `out`, if that is given."""
        tensors = self._run(arrays, self.timed)
        handed = [
            d if d is None or not timed else self.order.run(d)
            for d, timed in zip(cotangents, self.timed_results, strict=True)
        ]
        asked = [t for t, w in zip(self.timed, wanted, strict=True) if w]
        places = self._run(out, asked)
        saved = self._pending.take(handle)
        if isinstance(saved, GraphPathSaved) and out and self._fits(saved, tensors):
            saved.path.backward(saved, tensors, handed, wanted, places)
            return [*out]
        whole = self._whole(saved, tensors, arrays)
        shapes = [a.shape for a in tensors]
        grads = self.operation.backward(whole, handed, wanted, shapes, places)
        return self._given([g for g in grads if g is not None], asked)

    def second(
        self,
        handle: int,
        arrays: Arrays,
        cotangents: Sequence[np.ndarray | None],
        d_grads: Sequence[np.ndarray | None],
        wanted: Sequence[bool],
    ) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        """Gradients of sum(d_grads * gradients): of the cotangents of all results, and of those
        tensors that are wanted. None is zero."""
        tensors, run = self._run(arrays, self.timed), self.order.run
        handed = [
            d if d is None or not timed else run(d)
            for d, timed in zip(cotangents, self.timed_results, strict=True)
        ]
        moved = [
            d if d is None or not timed else run(d)
            for d, timed in zip(d_grads, self.timed, strict=True)
        ]
        saved = self._whole(self._pending.take(handle) if handle else None, tensors, arrays)
        shapes = [a.shape for a in tensors]
        back, grads = second(self.operation, saved, handed, moved, wanted, shapes)
        given = self.order.given
        found = [
            g if g is None or not timed else given(g)
            for g, timed in zip(grads, self.timed, strict=True)
        ]
        return self._given(back, self.timed_results), found

    def result_shapes(self, shapes: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Of a call whose tensors have these shapes, as they lie."""
        arguments = shapes[: len(self.operation.cell.arguments)]
        known = self.operation.known(self._turned(arguments, self.timed))
        return self._turned(known.results, self.timed_results)

    # ---- how arrays lie --------------------------------------------------------------------------

    def _run(self, arrays: Arrays, timed: Sequence[bool]) -> list[np.ndarray]:
        """As steps run; what isn't among `timed` is left out."""
        if self.order.is_plain:
            return [*arrays[: len(timed)]]
        turn = self.order.run
        return [turn(a) if t else a for a, t in zip(arrays, timed, strict=False)]

    def _given(self, arrays: list[np.ndarray], timed: Sequence[bool]) -> list[np.ndarray]:
        """The way back."""
        if self.order.is_plain:
            return arrays
        turn = self.order.given
        return [turn(a) if t else a for a, t in zip(arrays, timed, strict=True)]

    def _turned(
        self, shapes: Sequence[Sequence[Any]], timed: Sequence[bool]
    ) -> list[tuple[Any, ...]]:
        swaps = self.order.time_major
        return [
            (s[1], s[0], *s[2:]) if t and swaps else tuple(s)
            for s, t in zip(shapes, timed, strict=False)
        ]

    # ---- what a forward saved --------------------------------------------------------------------

    def _fits(self, saved: SavedCall | GraphPathSaved, tensors: Arrays) -> bool:
        """Whether it was saved for arrays of these shapes: vmap may have changed them."""
        known = saved.path.known if isinstance(saved, GraphPathSaved) else saved.known
        mine = self.operation.known(
            [a.shape for a in tensors[: len(self.operation.cell.arguments)]]
        )
        return (known.batch, known.time) == (mine.batch, mine.time)

    def _whole(
        self, saved: SavedCall | GraphPathSaved | None, tensors: Arrays, arrays: Arrays
    ) -> SavedCall:
        """What was saved, for whoever looks things up by name; else of a forward that runs now."""
        if saved is None or not self._fits(saved, tensors):
            _, saved = self.operation.forward(self.request, tensors, self._seed(arrays), save=True)
            assert saved is not None
            return saved
        if isinstance(saved, GraphPathSaved):
            return saved.path.general(saved, tensors)
        if self._lends():
            self.operation.hand_again(saved, tensors)
        return saved

    def _keep(self, key: Any, path: GraphPath | None) -> None:
        """Calls like this one needn't look up what it has looked up."""
        if len(self._paths) >= MOST_PATHS:
            self._paths.clear()
        self._paths[key] = path

    def _lends(self) -> bool:
        """Graphs hand a backward the tensors of its forward, so nothing of them is copied."""
        if self._lent is None:
            self._lent = self.operation.hands_again(self.request)
        return self._lent

    def _seed(self, arrays: Arrays) -> int | None:
        return seed_of(arrays[self.count]) if self.seeded else None


def calls_of(operation: Operation, request: Request, order: Order | None = None) -> GraphCalls:
    """Those of a kind of call, made once."""
    key = "calls", request, order
    calls = operation.made.get(key)
    if calls is None:
        calls = operation.made[key] = GraphCalls(operation, request, order)
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
