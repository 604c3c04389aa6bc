"""The way back through a recurrence: cotangents -> gradients, and gradients of those.

Non-Goals: autograd (`ops`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from rnncc.common.result_roles import cotangent_name
from rnncc.runtime.api.call import repeated_rows
from rnncc.runtime.api.call_gradients import DirectionSaved
from rnncc.torch.arrays import array_of
from rnncc.torch.base import RecurrenceBase
from rnncc.torch.recipe import DirectionGradients, Recipe, SavedTensors


class RecurrenceGradients(RecurrenceBase):
    """A recurrence that can go back through a call over the CPU's tensors, whatever they were."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self._choices: dict[tuple[bool, ...], list[DirectionGradients]] = {}

    # ---- backward -----------------------------------------------------------------------------

    def backward(
        self,
        saved: SavedTensors,
        cotangents: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> list[Tensor | None]:
        """Gradients of a call's tensors, those wanted. cotangents: of its results; None is zero."""
        key = (*wanted, saved.given, saved.masked)
        choices = self._choices.get(key)
        if choices is None:
            choices = self._choices[key] = [
                self.choose(number, saved.given, saved.masked, wanted)
                for number in range(len(self.orders))
            ]
        handed = [None if t is None else array_of(t) for t in cotangents]
        grads: list[Tensor | None] = [None] * len(saved.shapes)
        for number, choice in enumerate(choices):
            self._back(number, saved, handed, choice, grads)
        return grads

    def _back(
        self,
        number: int,
        saved: SavedTensors,
        handed: Sequence[np.ndarray | None],
        choice: DirectionGradients,
        grads: list[Tensor | None],
    ) -> None:
        """One direction; what it finds is added to `grads`."""
        way, order = saved.ways[number], self.orders[number]
        cotangents = self.cotangents(number, way, handed)
        out: dict[str, np.ndarray] = {}
        if number == 0 and not (order.is_plain and way.steps == saved.known.time):
            for name in self.timed & choice.arguments.keys():
                at = choice.arguments[name]
                gradient = grads[at] = torch.zeros(saved.shapes[at], dtype=self.torch_dtype)
                out[name] = order.run(gradient.numpy())[:, : way.steps]
        gradients = way.backward(cotangents, choice.asked, out)
        self._collect(number, saved, choice, gradients, out, grads)

    def _collect(
        self,
        number: int,
        saved: SavedTensors,
        choice: DirectionGradients,
        found: Mapping[str, np.ndarray],
        out: Mapping[str, np.ndarray],
        grads: list[Tensor | None],
    ) -> None:
        """Gradients by parameter into `grads`; those in `out` are there."""
        for name, at in choice.arguments.items():
            if name not in out:
                grads[at] = self._added(grads[at], found.get(name), saved.shapes[at], name, number)
        for name, at in choice.states.items():
            grads[at] = self._stacked(grads[at], found.get(name), saved.shapes[at], number)
        for name, at in choice.trained.items():
            grads[at] = self._whole(found.get(name), saved.shapes[at])

    # ---- second derivatives -------------------------------------------------------------------

    def second(
        self,
        saved: SavedTensors,
        cotangents: Sequence[Tensor | None],
        d_grads: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Gradients of sum(d_grads * gradients), of all cotangents and of those tensors wanted.

        d_grads: like the gradients that `backward` returns; None is zero."""
        handed = [None if t is None else array_of(t) for t in cotangents]
        d_grad_arrays = [None if t is None else array_of(t) for t in d_grads]
        back = [torch.zeros(shape, dtype=self.torch_dtype) for shape in saved.known.results]
        grads: list[Tensor | None] = [None] * len(saved.shapes)
        asked = [d is not None for d in d_grad_arrays]
        for number, way in enumerate(saved.ways):
            everything = self.choose(number, saved.given, saved.masked, asked)
            choice = self.choose(number, saved.given, saved.masked, wanted)
            d = self._d_grads(number, saved, everything, d_grad_arrays)
            own_cotangents = self.cotangents(number, way, handed)
            if not self.recipe.return_sequences:
                own_cotangents = way.over_time(own_cotangents, partial(np.zeros, dtype=self.dtype))
            gradients = way.second(
                self.kernels.binding.second_engine, own_cotangents, d, choice.asked
            )
            self._collect(number, saved, choice, gradients, {}, grads)
            for name, t in zip(self.results, back, strict=True):
                if cotangent_name(name) in gradients:
                    self._put_back(name, number, way, t.numpy(), gradients[cotangent_name(name)])
        return list(back), grads

    def _d_grads(
        self,
        number: int,
        saved: SavedTensors,
        choice: DirectionGradients,
        given: Sequence[np.ndarray | None],
    ) -> dict[str, np.ndarray]:
        """Cotangents of one direction's gradients, by parameter."""
        d: dict[str, np.ndarray] = {}
        steps, order = saved.ways[number].steps, self.orders[number]
        for name, at in choice.tensors.items():
            array = given[at]
            assert array is not None
            if name in self.timed:
                array = order.run(array)[:, :steps]
            elif name in choice.states and self.recipe.stacked:
                array = array[number]
            d[name] = np.ascontiguousarray(array)
        choice.asked.hand_back(d, saved.known.batch, repeated_rows)
        return d

    def _put_back(
        self, name: str, number: int, way: DirectionSaved, target: np.ndarray, found: np.ndarray
    ) -> None:
        """The gradient of a result's cotangent where it belongs."""
        if name not in self.outputs:
            (target[number] if self.recipe.stacked else target)[...] = found
            return
        part = self.part(target, number)
        if self.recipe.return_sequences:
            way.unfold(found, part)
        else:
            part[...] = found[:, -1]

    # ---- arrays -------------------------------------------------------------------------------

    def cotangents(
        self, number: int, way: DirectionSaved, handed: Sequence[np.ndarray | None]
    ) -> dict[str, np.ndarray]:
        """One direction's, by name of result, [batch, steps, ...] as steps run."""
        named: dict[str, np.ndarray] = {}
        folds = way.masks is not None and self.recipe.return_sequences
        for name, d in zip(self.results, handed, strict=True):
            if d is None:
                continue
            if name in self.outputs:
                part = self.part(d, number)
                named[name] = way.folded(part) if folds else part
            else:
                named[name] = d[number] if self.recipe.stacked else d
        return named

    def _whole(self, array: np.ndarray | None, shape: torch.Size) -> Tensor:
        if array is None:
            return torch.zeros(shape, dtype=self.torch_dtype)
        return torch.from_numpy(np.ascontiguousarray(array).reshape(shape))

    def _added(
        self, total: Tensor | None, array: np.ndarray | None, shape: torch.Size, name: str, n: int
    ) -> Tensor:
        """The gradient of an argument, which all directions read."""
        plain = n == 0 and self.orders[0].is_plain
        if total is None and (array is None or (plain and array.shape == shape)):
            return self._whole(array, shape)
        if total is None:
            total = torch.zeros(shape, dtype=self.torch_dtype)
        if array is not None:
            view = total.numpy()
            if name in self.timed:
                view = self.orders[n].run(view)[:, : array.shape[1]]
            view += array
        return total

    def _stacked(
        self, total: Tensor | None, array: np.ndarray | None, shape: torch.Size, number: int
    ) -> Tensor:
        """The gradient of a state, each direction's its own."""
        if len(self.orders) == 1:
            return self._whole(array, shape)
        if total is None:
            total = torch.zeros(shape, dtype=self.torch_dtype)
        if array is not None:
            total.numpy()[number] = array
        return total
