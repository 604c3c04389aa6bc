"""A cell over tensors: arguments, states and weights -> outputs and last states, and gradients.

Kernels read and write torch's memory where it is: nothing here copies an array but to join the
halves of a bidirectional gradient.

Non-Goals: autograd and torch.compile (`ops`); modules and their parameters (`recurrent`, `stack`).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from rnncc.adapters.fast_path import MOST_PATHS
from rnncc.runtime.api.call import CellKernels, NumpyCall, Ran, kernels_for
from rnncc.runtime.api.call_gradients import DirectionSaved
from rnncc.runtime.api.time_axis import Order
from rnncc.runtime.common import memory_pool
from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.cpu.execution.engine import CpuEngine
from rnncc.torch.arrays import array_of
from rnncc.torch.base import Steps
from rnncc.torch.gradients import RecurrenceGradients
from rnncc.torch.on_device import OnDevice, SavedOnDevice, is_elsewhere
from rnncc.torch.on_device_second import second as second_on_device
from rnncc.torch.paths import TensorPath, TensorPathSaved, path_key
from rnncc.torch.recipe import ArgumentShapes, Recipe, SavedTensors
from rnncc.torch.recipe_text import text_of


class Recurrence(RecurrenceGradients):
    """Made by `recurrence_of`. key: how an op names it; the same in every process.

    A call's tensors are the cell's arguments in order, then if `masked` a mask [batch, time] of
    bools, lengths [batch] or a mask and resets [2, batch, time] (`steps`), then if `given` the
    states, then weights and constants of each direction. Its results are outputs, then last states.
    """

    by_steps: Recurrence | None = None  # over [time, batch, ...], once it was asked for

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        text = text_of(recipe)
        self.key = f"{self.key} {text}" if text else self.key
        # Calls of one direction, first step first, may take the same path again.
        self._has_paths = recipe.directions == (False,)
        self._paths: dict[tuple[Any, ...], TensorPath] = {}
        self._on_device: OnDevice | None = None  # once a tensor of a GPU has come

    def __reduce__(self) -> tuple[Any, ...]:
        return recurrence_of, (self.recipe,)

    # ---- forward ------------------------------------------------------------------------------

    def forward(
        self,
        tensors: Sequence[Tensor],
        seed: Tensor | None,
        training: bool,
        given: bool,
        masked: bool,
        save: bool,
        counted: Steps | None = None,
    ) -> tuple[list[Tensor], Any]:
        """Outputs and last states; with `save`, what `backward` needs. counted: what the mask
        says, where that is known."""
        if is_elsewhere(tensors[0]):
            with torch.cuda.device_of(tensors[0]):  # afterwards torch's device is what it was
                return self.on_device().forward(tensors, seed, training, given, masked, save)
        cell = self.cell
        at = len(cell.arguments)
        key: tuple[Any, ...] | None = None
        if self._has_paths and not (masked and tensors[at].ndim == 3):
            end = at + masked + given * len(self.states)
            try:
                key = path_key(tensors[:end], training, given, masked, save)
            except RuntimeError:  # one that has no strides
                self._enter(tensors[:at], tensors[at + masked : end])
                raise
            path = self._paths.get(key)
            done = path.forward(tensors, seed, save, counted) if path is not None else None
            if done is not None:
                return done
        arguments = tensors[:at]
        states = tensors[at + masked : at + masked + len(self.states)] if given else ()
        weights = tensors[at + masked + len(states) :]
        known = self._enter(arguments, states)
        mask = array_of(tensors[at]) if masked else None
        read = {n: array_of(t) for n, t in zip(cell.arguments, arguments, strict=True)}
        begun = [array_of(t) for t in states]
        targets: list[Tensor | None] = [None] * len(self.results)
        ways: list[DirectionSaved] = []
        for number in range(len(self.orders)):
            call = self._call(number, read, weights, known, targets, save)
            call.start(self._given(begun, number) if given else known.zeros, known.states)
            if mask is not None:
                call.masks = self.masking(mask, known, call.order)
            ran = call.run(training, seed, save)
            self._wrap(targets, ran.results)
            ways.append(DirectionSaved.of(call, ran))
            if ran.engine is None:
                continue
            if key is not None and key not in self._paths and call.steps == known.time:
                if any(t.is_neg() for t in tensors[:end]):  # read were copies, which lie otherwise
                    continue
                self._keep_path(key, call, ran, known, tensors)
                path = self._paths.get(key) if save and _has_hooks() else None
                done = path.forward(tensors, seed, save, counted) if path is not None else None
                if done is not None:
                    return done
        kept = (
            SavedTensors(ways, known, given, masked, [t.shape for t in tensors]) if save else None
        )
        return [t for t in targets if t is not None], kept

    def on_device(self) -> OnDevice:
        """Its calls over tensors of a GPU, which lie otherwise and stay there."""
        if self._on_device is None:
            self._on_device = OnDevice(self)
        return self._on_device

    def _call(
        self,
        number: int,
        read: Mapping[str, np.ndarray],
        weights: Sequence[Tensor],
        known: ArgumentShapes,
        targets: list[Tensor | None],
        save: bool,
    ) -> TensorCall:
        """One direction's call: its weights, and arguments as its steps run."""
        count, order = len(self.owned), self.orders[number]
        own = weights[number * count : (number + 1) * count]
        version, values = self.kernels.weights.find(self.owned, own, self.check_weights)
        arrays: dict[str, Any] = {**values, **read}
        if not order.is_plain:
            arrays.update({n: order.run(read[n]) for n in self.timed})
        return TensorCall(
            self.cell,
            self.recipe,
            arrays,
            known.sizes,
            known.batch,
            known.time,
            version,
            None,
            self._lent,
            self.dtype,
            self,
            known,
            number,
            targets,
        )

    def _keep_path(
        self,
        key: tuple[Any, ...],
        call: TensorCall,
        ran: Ran,
        known: ArgumentShapes,
        tensors: Sequence[Tensor],
    ) -> None:
        """Calls like this one needn't look up what it has looked up."""
        _, given, masked, save, *_ = key
        masks, engine = call.masks, ran.engine
        begins = bool(self.starting) and not given
        if not isinstance(engine, CpuEngine) or begins:
            return
        if (save and self.recipe.checkpoint_every) or masked != (masks is not None):
            return
        direct = engine.direct(
            masks.cut(call.arrays, self.timed) if masks else call.arrays,
            known.sizes,
            known.batch,
            known.time,
            version=call.version,
            save=save,
            last_only=not self.recipe.return_sequences,
            out=call.places(False),
            kept=[*self.rates, *(() if given else self.states)],
        )
        if direct is not None and {n for n, _ in direct.places} == {*self.results}:
            if len(self._paths) >= MOST_PATHS:
                self._paths.clear()
            self._paths[key] = TensorPath(
                self, engine, ran.variant, known, direct, given, masked, tensors
            )

    def _engine(self, training: bool, masked: bool, resets: str) -> CellKernels:
        """The kernels of such calls."""
        recipe, kernels = self.recipe, self.kernels
        said = recipe.rates, recipe.storage, recipe.precision, recipe.unroll
        key = training, masked, resets, said
        cell_kernels = kernels.engines.get(key)
        if cell_kernels is None:
            cell_kernels = kernels.engines[key] = kernels_for(
                kernels.binding,
                self.rates,
                training=training,
                masked=masked,
                resets=resets,
                storage=recipe.storage,
                precision=recipe.precision,
                unroll=recipe.unroll,
            )
            cell_kernels.engine.keep(kernels.weights.room)
        return cell_kernels

    def _given(self, begun: Sequence[np.ndarray], number: int) -> dict[str, np.ndarray]:
        """One direction's states, of those that were given."""
        own = [array[number] if self.recipe.stacked else array for array in begun]
        return dict(zip(self.states, own, strict=True))

    def _places(
        self, targets: list[Tensor | None], known: ArgumentShapes, number: int, steps: int
    ) -> dict[str, np.ndarray]:
        """Where results go that have to lie otherwise than kernels lay them, by name, [batch, time,
        ...] as steps run; their tensors into `targets`."""
        several, nothing = len(self.orders) > 1, not (known.batch and steps)
        if not (several or nothing) and self._lies_plain and steps == known.time:
            return {}
        out: dict[str, np.ndarray] = {}
        for at, (name, shape) in enumerate(zip(self.results, known.results, strict=True)):
            is_output = name in self.outputs
            if not (is_output or several or nothing):
                continue
            target = targets[at]
            if target is None:
                # Memory that was used before: fresh pages cost as much as the kernels.
                target = targets[at] = torch.from_numpy(memory_pool.POOL.array(shape, self.dtype))
            view = target.numpy()
            if is_output:
                out[name] = self.part(view, number)
            else:
                out[name] = view[number] if self.recipe.stacked else view
        return out

    def _wrap(self, targets: list[Tensor | None], found: Mapping[str, np.ndarray]) -> None:
        """Results that lie as kernels laid them."""
        for at, name in enumerate(self.results):
            if targets[at] is None:
                array = found[name]
                stacked = self.recipe.stacked and name not in self.outputs
                targets[at] = torch.from_numpy(array[None] if stacked else array)

    # ---- backward, by what the call has left ----------------------------------------------------

    def backward(
        self,
        saved: SavedTensors | TensorPathSaved | SavedOnDevice,
        cotangents: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> list[Tensor | None]:
        """Gradients of a call's tensors, those wanted. cotangents: of its results; None is zero."""
        if isinstance(saved, TensorPathSaved):
            assert saved.memory is not None
            return saved.path.backward(saved, saved.tensors, saved.memory, wanted, cotangents)
        if isinstance(saved, SavedTensors):
            return super().backward(saved, cotangents, wanted)
        with torch.cuda.device_of(saved.like):
            return saved.owner.backward(saved, cotangents, wanted)

    def second(
        self,
        saved: SavedTensors | TensorPathSaved | SavedOnDevice,
        cotangents: Sequence[Tensor | None],
        d_grads: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Gradients of sum(d_grads * gradients), of all cotangents and of those tensors wanted.

        d_grads: like the gradients that `backward` returns; None is zero."""
        if isinstance(saved, TensorPathSaved):
            assert saved.memory is not None
            saved = saved.general(saved.tensors, saved.memory)
        if isinstance(saved, SavedTensors):
            return super().second(saved, cotangents, d_grads, wanted)
        with torch.cuda.device_of(saved.like):
            return second_on_device(saved.owner, saved, cotangents, d_grads, wanted)

    # ---- what ran -------------------------------------------------------------------------------

    def plan(self) -> str:
        """Which kernels ran in the last calls, and why."""
        kernels = [*self.kernels.engines.values()]
        if self._on_device is not None:
            kernels += self._on_device.engines.values()
        return "\n".join(k.engine.plan() for k in kernels) or "has not run"


@dataclass(slots=True)
class TensorCall(NumpyCall):
    """One direction of a recurrence's call. targets: the results, as far as they were made."""

    recurrence: Recurrence
    known: ArgumentShapes
    number: int
    targets: list[Tensor | None]

    @property
    def order(self) -> Order:
        return self.recurrence.orders[self.number]

    def start(self, given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
        NumpyCall.start(self, given, shapes)
        self.from_zeros = given is self.known.zeros and not self.recurrence.starting

    def kernels(self, training: bool, masked: bool, resets: str) -> CellKernels:
        return self.recurrence._engine(training, masked, resets)

    def seed(self, given: Tensor | None) -> int:
        assert given is not None
        return int(given)

    def places(self, cut: bool) -> dict[str, np.ndarray]:
        return self.recurrence._places(self.targets, self.known, self.number, self.steps)


def _has_hooks() -> bool:
    """Whether somebody drops what is saved, and makes it again by another call: that one has to
    save as many tensors. Paths save one more, so that a first call takes its path at once."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


# A recurrence lives as long as a module, a call that may go back, or a graph (`ops`) has it.
RECURRENCES: WeakValueDictionary[str, Recurrence] = WeakValueDictionary()
_lock = threading.RLock()
open_in_children(sys.modules[__name__], "_lock")


def recurrence_of(recipe: Recipe) -> Recurrence:
    """The recurrence of a recipe, from now on found in RECURRENCES by its key."""
    with _lock:
        key = recipe.key()
        recurrence = RECURRENCES.get(key)
        if recurrence is None:
            recurrence = RECURRENCES[key] = Recurrence(recipe)
        return recurrence


def by_steps(recurrence: Recurrence) -> Recurrence:
    """The same over [time, batch, ...]; it shares kernels and weights."""
    time_major = recurrence.by_steps
    if time_major is None:
        time_major = recurrence.by_steps = recurrence_of(
            replace(recurrence.recipe, time_major=True)
        )
    return time_major
