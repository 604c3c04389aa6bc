"""One recurrent layer as a function of arrays: arguments, states and weights -> results, gradients.

What a backend's mechanism (`in_tensorflow`, `in_jax`, `in_torch`) wraps: NumPy views of its tensors
in, new arrays out. A call's tensors are the cell's arguments in order, then if `masked` a mask
[batch, time] of bools, then if `given` the initial states, then weights and constants. Its results
are outputs, then last states.

Non-Goals: Keras (`recurrent`); differentiation of the framework (`in_...`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.keras.calls import Request, SavedCall
from rnncc.keras.forward import Forward, placed, worth_it


class Operation(Forward):
    """An operation that can go back."""

    def backward(
        self,
        saved: SavedCall,
        cotangents: Sequence[np.ndarray | None],
        wanted: Sequence[bool],
        shapes: Sequence[tuple[int, ...]],
        places: Sequence[np.ndarray] = (),
    ) -> list[np.ndarray | None]:
        """Gradients of a call's tensors, those wanted, owned by the caller.

        cotangents: of its results; None is zero. shapes: of its tensors. places: arrays to write
        into, of those wanted; they are the gradients then."""
        names = self.names(saved.request)
        asked = {n: s for n, s, w in zip(names, shapes, wanted, strict=True) if w}
        given = self.cotangents(saved, cotangents)
        own = dict(zip(asked, places, strict=True)) if places else {}
        out = worth_it(own)
        whole: dict[str, np.ndarray] = {}
        if saved.engine is None:  # nothing ran: the last states are the first ones
            finals = {n: given.get(f"final_{n}") for n in self.states}
            found = {n: np.array(d) for n, d in finals.items() if d is not None}
        else:
            if self.order.backwards or saved.steps < (saved.known.time or 0):
                for name in self.timed:
                    if name in asked:
                        whole[name] = own[name] if own else np.empty(asked[name], self.dtype)
                        whole[name][...] = 0
                        out[name] = self.order.run(whole[name])[:, : saved.steps]
            found = saved.engine.backward(saved.saved, given, self.wanted(saved, asked), out)
        found = {**found, **whole}
        self.hand_on(saved, asked, found)
        grads = [self.shaped(found.get(n), asked.get(n)) for n in names]
        if own:
            placed([g for g in grads if g is not None], places)
            return [own.get(n) for n in names]
        return grads

    def names(self, request: Request) -> list[str]:
        """What a call's tensors are."""
        masks = ["valid"] * request.masked
        return [*self.cell.arguments, *masks, *(self.states if request.given else ()), *self.owned]

    def wanted(self, saved: SavedCall, asked: Mapping[str, Any]) -> frozenset[str]:
        """With the states that begin from a weight which is asked for."""
        begun = () if saved.request.given else self.starting
        return frozenset([*asked, *(s.name for s in begun if s.default in asked)])

    def hand_on(
        self, saved: SavedCall, asked: Mapping[str, Any], found: dict[str, np.ndarray]
    ) -> None:
        """A state that began from a weight hands its gradient on."""
        for state in () if saved.request.given else self.starting:
            if state.default in asked and state.name in found:
                name, total = str(state.default), found[state.name].sum(axis=0)
                found[name] = found[name] + total if name in found else total

    def cotangents(
        self, saved: SavedCall, cotangents: Sequence[np.ndarray | None]
    ) -> dict[str, np.ndarray]:
        """By name of result, as steps ran."""
        given = {n: d for n, d in zip(self.results, cotangents, strict=True) if d is not None}
        if saved.masks and self.native.return_sequences and saved.steps:
            given |= {n: saved.masks.fold(given[n]) for n in self.outputs if n in given}
        return given

    def shaped(self, array: np.ndarray | None, shape: tuple[int, ...] | None) -> np.ndarray | None:
        if shape is None:
            return None
        if array is None:
            return np.zeros(shape, self.dtype)
        return np.ascontiguousarray(array).reshape(shape)
