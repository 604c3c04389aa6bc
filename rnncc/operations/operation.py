"""One recurrent layer as a function of arrays: arguments, states and weights -> results, gradients.

What a framework's mechanism wraps: NumPy views of its tensors in, new arrays out. A call's tensors
are the cell's arguments in order, then if `masked` a mask [batch, time] of bools, or with resets as
the second of [2, batch, time], then if `given` the initial states, then weights and constants. Its
results are outputs, then last states.

Non-Goals: layers (`rnncc.keras`); differentiation of the framework (`rnncc.jax`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from rnncc.artifact.cell import VALID
from rnncc.operations.calls import Request, SavedCall
from rnncc.operations.forward import Forward, placed, worth_it
from rnncc.runtime.api.call_gradients import AskedGradients


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
        own = dict(zip(asked, places, strict=True)) if places else {}
        out = worth_it(own)
        all_steps: dict[str, np.ndarray] = {}
        ran = saved.direction
        if self.order.backwards or ran.steps < (saved.known.time or 0):
            for name in self.timed:
                if name in asked:
                    all_steps[name] = own[name] if own else np.empty(asked[name], self.dtype)
                    all_steps[name][...] = 0
                    out[name] = self.order.run(all_steps[name])[:, : ran.steps]
        handed = self.cotangents(saved, cotangents)
        gradients = ran.backward(handed, self.asked(saved.request, asked), out)
        if ran.engine is None:  # these are the caller's cotangents
            gradients = {n: np.array(d) for n, d in gradients.items()}
        gradients = {**gradients, **all_steps}
        grads = [self.shaped(gradients.get(n), asked.get(n)) for n in names]
        if own:
            placed([g for g in grads if g is not None], places)
            return [own.get(n) for n in names]
        return grads

    def names(self, request: Request) -> list[str]:
        """What a call's tensors are."""
        masks = [VALID] * request.masked
        return [*self.cell.arguments, *masks, *(self.states if request.given else ()), *self.owned]

    def asked(self, request: Request, wanted: Collection[str]) -> AskedGradients:
        """The gradients that those of the wanted tensors need."""
        return AskedGradients.of(wanted, () if request.given else self.starting)

    def cotangents(
        self, saved: SavedCall, cotangents: Sequence[np.ndarray | None]
    ) -> dict[str, np.ndarray]:
        """By name of result, as steps ran."""
        named = {n: d for n, d in zip(self.results, cotangents, strict=True) if d is not None}
        if self.native.return_sequences:
            folded = saved.direction.folded
            named |= {n: folded(named[n]) for n in self.outputs if n in named}
        return named

    def shaped(self, array: np.ndarray | None, shape: tuple[int, ...] | None) -> np.ndarray | None:
        if shape is None:
            return None
        if array is None:
            return np.zeros(shape, self.dtype)
        return np.ascontiguousarray(array).reshape(shape)
