"""`layer.profile`: calls of a layer on timed kernels, beside the same calls on its own.

    layer ─stand_in→ the same weights, states and options, timed kernels ─calls→ stamps → Profile

Non-Goals: what stamps mean (`pieces`, `rows`); tables (`profile`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:  # tables and all that is behind them are needed by profiles alone
    from rnncc.runtime.profiles.profile import Profile

MOST_REPEATS = 1000  # whose stamps are all kept


class Profiled:
    """A layer whose calls can be looked into."""

    def profile(
        self,
        inputs: Any,
        *,
        gradients: bool = False,
        repeats: int = 20,
        initial_state: Any = None,
        training: bool | None = None,
        mask: Any = None,
        lengths: Any = None,
        resets: Any = None,
        seed: int | None = None,
    ) -> Profile:
        """Where the time of a call goes: stage by stage, on each thread, beside what the machine
        can do. Printed it is a table; `timeline` draws it, `chrome_trace` writes it.

        gradients: of `vjp` and its pullback to everything, with weights that are new each time, as
        a step of training has them; else of a call. repeats: of so many calls, 1000 at most, the
        middle half is told. The rest as for these two. Kernels are compiled once more, with time
        stamps between their stages; the numbers they compute are the layer's own, bit for bit, and
        the layer stays as it is. What the stamps cost is in the profile, too. Raises as a call
        does; ValueError for a layer whose kernels aren't the CPU's, of a module that was written
        without its cell's text, and for more pieces than are kept.
        """
        from rnncc.runtime.profiles.measure import measured

        if not isinstance(gradients, bool):
            raise TypeError(f"gradients is True or False, not {gradients!r}")
        if isinstance(repeats, bool) or not isinstance(repeats, int | np.integer):
            raise TypeError(f"repeats is a whole number, not {repeats!r}")
        if not 1 <= repeats <= MOST_REPEATS:
            raise ValueError(f"repeats is {repeats}, expected 1 to {MOST_REPEATS}")
        layer: Any = self
        if not layer.built:
            layer._enter(inputs, initial_state, mask, lengths, resets)
        given = {
            "initial_state": initial_state,
            "training": gradients if training is None else training,
            "mask": mask,
            "lengths": lengths,
            "resets": resets,
            "seed": seed,
        }
        plain, timed = self._stand_in(None), self._stand_in("")
        run = with_gradients if gradients else plain_call
        return measured(
            layer.name,
            lambda: run(plain, inputs, given),
            lambda: run(timed, inputs, given),
            lambda: renew(plain, timed),
            fresh=gradients,
            repeats=int(repeats),
        )

    def _stand_in(self, part: str | None) -> Self:
        """A layer with the same weights and states, of which this one sees nothing. part: it runs
        timed kernels, and is this part of another layer; None: its own."""
        layer: Any = self
        made: Any = object.__new__(type(self))
        made.__dict__.update(vars(layer))
        if part is not None:
            made._binding = layer._binding.timed(part)
        made._store = layer._store.again()
        made._prepare()
        return made  # type: ignore[no-any-return]


def plain_call(layer: Any, inputs: Any, given: dict[str, Any]) -> Any:
    return layer(inputs, **given)


def with_gradients(layer: Any, inputs: Any, given: dict[str, Any]) -> Any:
    """A step of training but for what makes cotangents."""
    y, pullback = layer.vjp(inputs, **given)
    return y, pullback(_ones(y))


def _ones(y: Any) -> Any:
    if isinstance(y, tuple | list):
        return tuple(map(_ones, y))
    return np.ones_like(y)


def renew(*layers: Any) -> None:
    """Their weights count as changed: what was packed of them is packed anew."""
    for layer in layers:
        for store in getattr(layer._store, "stores", [layer._store]):
            store.update({})
