"""What a recurrence is: its bound cell, its kernels, and the checks at its door.

Non-Goals: running it (`recurrence`); going back (`gradients`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rnncc.artifact.cell import SHOWN, STEP_FLAGS, VALID, restart_name
from rnncc.common.result_roles import final_name
from rnncc.runtime.api.call import draws
from rnncc.runtime.api.call_gradients import AskedGradients
from rnncc.runtime.api.masking import Masking, masking
from rnncc.runtime.api.time_axis import Order
from rnncc.runtime.api.validation import SizeBinder, array_shape
from rnncc.torch.arrays import array_of, unreadable
from rnncc.torch.recipe import DTYPES, ArgumentShapes, DirectionGradients, Recipe, kernels_of

_MOST_SHAPES = 256  # sets of shapes whose sizes a recurrence remembers
Steps = tuple[np.ndarray, ...]  # which count, which are shown, [batch, time]; none: all


class RecurrenceBase:
    """Everything of a recurrence but its calls."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        binding = recipe.binding()
        self.cell = cell = binding.cell
        self.dtype, self.torch_dtype = np.dtype(recipe.dtype), DTYPES[recipe.dtype]
        self.sizes, self.rates = dict(recipe.sizes), dict(recipe.rates)
        self.key = recipe.key()
        self.orders = [Order(recipe.time_major, backwards) for backwards in recipe.directions]
        self.timed = {a.name for a in cell.inputs}
        self.states = [s.name for s in cell.states]
        self.owned = [a.name for a in (*cell.weights, *cell.constants)]
        self.draws = draws(cell, self.rates)
        self.kernels = kernels_of(binding)
        self.outputs = [o.name for o in cell.outputs]
        self.results = [*self.outputs, *map(final_name, self.states)]
        # Nobody writes these before the backward: torch refuses one for tensors that were changed.
        anew = map(restart_name, self.states)
        self._lent = frozenset([*cell.arguments, *self.states, *anew, *STEP_FLAGS])
        self.starting = tuple(s for s in cell.states if s.default)
        backwards = recipe.in_place and any(recipe.directions)
        self._lies_plain = not recipe.return_sequences or not (recipe.time_major or backwards)
        self._known: dict[tuple[Any, ...], ArgumentShapes] = {}

    # ---- the door -----------------------------------------------------------------------------

    def known(self, arguments: Sequence[Tensor], *, real: bool) -> ArgumentShapes:
        """Sizes and shapes of a call. real: not only shapes, which may be symbols.
        ValueError where they don't fit the cell."""
        recipe = self.recipe
        axes = ("time", "batch") if recipe.time_major else ("batch", "time")
        origin = "the module's"
        bound = SizeBinder(self.cell, self.sizes, origin, axes=axes).bind(
            {n: tuple(t.shape) for n, t in zip(self.cell.arguments, arguments, strict=True)}
        )
        batch, time = bound.batch, bound.time
        assert batch is not None and time is not None
        lead: tuple[int, ...] = (batch,)
        if recipe.return_sequences:
            lead = (time, batch) if recipe.time_major else (batch, time)
        ways = len(self.orders)
        outputs = []
        for array in self.cell.outputs:
            *outer, last = (1, *array_shape(array, bound.sizes))
            trailing = (*outer[1:], last * ways) if array.shape else ()
            outputs.append((*lead, *trailing))
        before = (ways, batch) if recipe.stacked else (batch,)
        own = {s.name: (batch, *array_shape(s, bound.sizes)) for s in self.cell.states}
        plain = [s.name for s in self.cell.states if real and s.default is None]
        zeros = {n: np.zeros(own[n], self.dtype) for n in plain}
        states = [(*before, *shape[1:]) for shape in own.values()]
        return ArgumentShapes(bound.sizes, batch, time, [*outputs, *states], own, zeros)

    def _enter(self, arguments: Sequence[Tensor], states: Sequence[Tensor]) -> ArgumentShapes:
        """What is known of a call whose tensors were checked."""
        key = tuple([t.shape for t in arguments])
        known = self._known.get(key)
        self._refuse([*self.cell.arguments, *self.states], (*arguments, *states))
        if known is None:
            if len(self._known) >= _MOST_SHAPES:
                self._known.clear()
            known = self._known[key] = self.known(arguments, real=True)
        for name, t, shape in zip(
            self.states, states, known.results[len(self.outputs) :], strict=False
        ):
            if t.shape != shape:
                raise ValueError(
                    f"initial state {name} has shape {list(t.shape)}, expected {list(shape)}"
                )
        return known

    def _refuse(self, names: Sequence[str], tensors: Sequence[Tensor]) -> None:
        """TypeError for the first tensor that kernels can't read."""
        for name, t in zip(names, tensors, strict=False):
            if not t.is_cpu:
                raise TypeError(
                    f"{name} of {self.cell.name} is on {t.device}, others on the CPU: move them "
                    "together"
                )
            if t.dtype is not self.torch_dtype:
                raise TypeError(
                    f"{name} of {self.cell.name} is {t.dtype}, the module's weights are "
                    f"{self.torch_dtype}: make them agree"
                )
            kind = unreadable(t)
            if kind:
                raise TypeError(
                    f"{name} of {self.cell.name} is {kind}: kernels read plain dense tensors"
                )

    def check_weights(self, tensors: Sequence[Tensor]) -> None:
        self._refuse(self.owned, tensors)
        arrays = (*self.cell.weights, *self.cell.constants)
        for array, t in zip(arrays, tensors, strict=True):
            shape = array_shape(array, self.sizes)
            if t.shape != shape:
                raise ValueError(
                    f"weight {array.name} of {self.cell.name} has shape {list(t.shape)}, "
                    f"expected {list(shape)}"
                )

    def part(self, view: np.ndarray, number: int) -> np.ndarray:
        """One direction's part of an output or its cotangent, as its steps run."""
        if len(self.orders) > 1:
            last = view.shape[-1] // len(self.orders)
            view = view[..., number * last : (number + 1) * last]
        if self._lies_plain:
            return view
        order = self.orders[number]
        return order.run(view) if self.recipe.in_place else order.turn(view)

    # ---- masks ----------------------------------------------------------------------------------

    def masking(self, mask: np.ndarray, known: ArgumentShapes, order: Order) -> Masking | None:
        """Which steps a mask [batch, time] of bools, or lengths [batch], leaves out; None where all
        count. Of both, [2, batch, time], the second says where rows start anew (`steps`)."""
        resets = None
        if mask.ndim == 3:
            resets, mask = mask[1], mask[0] != 0
        lengths = mask.ndim == 1
        return masking(
            None if lengths else mask,
            mask if lengths else None,
            known.batch,
            known.time,
            zeros=self.recipe.zeros,
            backwards=order.backwards,
            resets=resets,
        )

    def steps_of(self, mask: Tensor, known: ArgumentShapes) -> Steps | None:
        """Which steps count and which are shown, as numbers; None where all count, or some don't
        run at all."""
        masks = self.masking(array_of(mask), known, self.orders[0])
        if masks is None or masks.steps != known.time:
            return None
        cut = masks.cut({}, ())
        if VALID not in cut:
            return None
        return cut[VALID].astype(self.dtype), cut[SHOWN].astype(self.dtype)

    # ---- gradients ------------------------------------------------------------------------------

    def choose(
        self, number: int, given: bool, masked: bool, wanted: Sequence[bool]
    ) -> DirectionGradients:
        """Which gradients one direction is asked for, where those of these tensors are wanted."""
        cell = self.cell
        states = len(cell.arguments) + masked
        weights = states + len(self.states) * given + number * len(self.owned)
        arguments = {n: at for at, n in enumerate(cell.arguments) if wanted[at]}
        first = {n: at for at, n in enumerate(self.states, states) if given and wanted[at]}
        trained = {w.name: at for at, w in enumerate(cell.weights, weights) if wanted[at]}
        wanted_names = {**arguments, **first, **trained}
        asked = AskedGradients.of(wanted_names, () if given else self.starting)
        return DirectionGradients(arguments, first, trained, asked)
