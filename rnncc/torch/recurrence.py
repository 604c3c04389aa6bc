"""A cell over tensors: arguments, states and weights -> outputs and last states, and gradients.

Kernels read and write torch's memory where it is: nothing here copies an array but to join the
halves of a bidirectional gradient.

Non-Goals: autograd and torch.compile (`ops`); modules and their parameters (`recurrent`, `stack`).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from rnncc.artifact.cell import Variant, variant_of
from rnncc.runtime.api.layer_options import Engine
from rnncc.runtime.api.masking import Masking, masking
from rnncc.runtime.api.time_axis import Order
from rnncc.runtime.common import memory_pool
from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.common.precision import refuse_on_cpu
from rnncc.runtime.cpu.execution.engine import CpuEngine
from rnncc.torch.arrays import array_of
from rnncc.torch.gradients import RecurrenceGradients
from rnncc.torch.on_device import is_elsewhere, on_device
from rnncc.torch.paths import MOST_PATHS, Steps, TensorPath, path_key
from rnncc.torch.recipe import ArgumentShapes, Recipe, SavedTensors, Way


class Recurrence(RecurrenceGradients):
    """Made by `recurrence_of`. key: how an op names it; the same in every process.

    A call's tensors are the cell's arguments in order, then if `masked` a mask [batch, time] of
    bools or lengths [batch], then if `given` the states, then weights and constants of each
    direction. Its results are outputs, then last states.
    """

    by_steps: Recurrence | None = None  # over [time, batch, ...], once it was asked for

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
                return on_device(self).forward(tensors, seed, training, given, masked, save)
        cell, recipe = self.cell, self.recipe
        at = len(cell.arguments)
        key: tuple[Any, ...] | None = None
        if self._has_paths:
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
        refuse_on_cpu(cell.name, recipe.precision)
        arguments = tensors[:at]
        mask = tensors[at] if masked else None
        at += masked
        states = tensors[at : at + len(self.states)] if given else ()
        weights = tensors[at + len(states) :]
        known = self._enter(arguments, states)
        read = {n: array_of(t) for n, t in zip(cell.arguments, arguments, strict=True)}
        begun = [array_of(t) for t in states]
        targets: list[Tensor | None] = [None] * len(self.results)
        ways: list[Way] = []
        count = len(self.owned)
        for number, order in enumerate(self.orders):
            own = weights[number * count : (number + 1) * count]
            version, values = self.kernels.weights.find(self.owned, own, self.check_weights, save)
            arrays: dict[str, Any] = dict(values)
            arrays.update(read)
            if not order.is_plain:
                arrays.update({n: order.run(read[n]) for n in self.timed})
            self._begin(arrays, begun, number, known)
            masks = self._masking(mask, known, order)
            steps = masks.steps if masks else known.time
            out = self._places(targets, known, number, steps)
            if not (known.batch and steps):
                self._nothing(arrays, out)
                ways.append(Way(None, None, masks, 0))
                continue
            engine, variant = self._engine(training, masks is not None and masks.valid is not None)
            arrays.update(self.rates)
            if variant.training:
                assert seed is not None
                arrays["seed"] = int(seed)
            cut = masks is not None and steps < known.time and recipe.return_sequences
            found, saved = engine.forward(
                masks.cut(arrays, self.timed) if masks else arrays,
                known.sizes,
                known.batch,
                steps,
                version=version,
                save=save,
                last_only=not recipe.return_sequences,
                out=self._cut(out, steps) if cut else out,
                checkpoint_every=recipe.checkpoint_every if save else None,
                lent=self._lent,
            )
            if cut and masks:
                for name in self.outputs:
                    masks.fill(out[name])
            self._wrap(targets, found)
            ways.append(Way(engine, saved, masks, steps, variant))
            if key is not None and key not in self._paths and steps == known.time:
                if any(t.is_neg() for t in tensors[:end]):  # read were copies, which lie otherwise
                    continue
                self._keep_path(key, ways[0], arrays, known, version, out, tensors)
                path = self._paths.get(key) if save and _has_hooks() else None
                done = path.forward(tensors, seed, save, counted) if path is not None else None
                if done is not None:
                    return done
        kept = (
            SavedTensors(ways, known, given, masked, [t.shape for t in tensors]) if save else None
        )
        return [t for t in targets if t is not None], kept

    def _keep_path(
        self,
        key: tuple[Any, ...],
        way: Way,
        arrays: dict[str, Any],
        known: ArgumentShapes,
        version: object,
        out: Mapping[str, np.ndarray],
        tensors: Sequence[Tensor],
    ) -> None:
        """Calls like this one needn't look up what it has looked up."""
        _, given, masked, save, *_ = key
        masks, engine, variant = way.masks, way.engine, way.variant
        begins = bool(self.starting) and not given
        if not isinstance(engine, CpuEngine) or variant is None or begins:
            return
        if (save and self.recipe.checkpoint_every) or masked != (masks is not None):
            return
        direct = engine.direct(
            masks.cut(arrays, self.timed) if masks else arrays,
            known.sizes,
            known.batch,
            known.time,
            version=version,
            save=save,
            last_only=not self.recipe.return_sequences,
            out=out,
            kept=[*self.rates, *(() if given else self.states)],
        )
        if direct is not None and {n for n, _ in direct.places} == {*self.results}:
            if len(self._paths) >= MOST_PATHS:
                self._paths.clear()
            self._paths[key] = TensorPath(
                self, engine, variant, known, direct, given, masked, tensors
            )

    def steps_of(self, mask: Tensor, known: ArgumentShapes) -> Steps | None:
        """Which steps count and which are shown, as numbers; None where all count, or some don't
        run at all."""
        masks = self._masking(mask, known, self.orders[0])
        if masks is None or masks.steps != known.time:
            return None
        cut = masks.cut({}, ())
        if "valid" not in cut:
            return None
        return cut["valid"].astype(self.dtype), cut["_shown"].astype(self.dtype)

    def _engine(self, training: bool, masked: bool) -> tuple[Engine, Variant]:
        """The kernels, and which they are."""
        storage = self.recipe.storage
        kernels, key = self.kernels, (training, masked, (self.recipe.rates, storage))
        found = kernels.engines.get(key)
        if found is None:
            variant = variant_of(
                self.cell, self.rates, training=training, mask=masked, storage=storage
            )
            found = kernels.binding.engine(variant), variant
            kernels.engines[key] = found
            found[0].keep(self.kernels.weights.room)
        return found

    def _begin(
        self,
        arrays: dict[str, Any],
        begun: Sequence[np.ndarray],
        number: int,
        known: ArgumentShapes,
    ) -> None:
        """The initial states, into `arrays`: the given ones, what the cell declares, or zeros."""
        if begun:
            for name, array in zip(self.states, begun, strict=True):
                arrays[name] = array[number] if self.recipe.stacked else array
            return
        arrays.update(known.zeros)
        for state in self.starting:
            start = np.broadcast_to(arrays[str(state.default)], known.zeros[state.name].shape)
            arrays[state.name] = np.array(start, order="C")

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

    def _cut(self, out: Mapping[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
        """Places for the results of a call that runs so many steps."""
        return {n: a[:, :steps] if n in self.outputs else a for n, a in out.items()}

    def _wrap(self, targets: list[Tensor | None], found: Mapping[str, np.ndarray]) -> None:
        """Results that lie as kernels laid them."""
        for at, name in enumerate(self.results):
            if targets[at] is None:
                array = found[name]
                stacked = self.recipe.stacked and name not in self.outputs
                targets[at] = torch.from_numpy(array[None] if stacked else array)

    def _masking(self, mask: Tensor | None, known: ArgumentShapes, order: Order) -> Masking | None:
        if mask is None:
            return None
        values, lengths = array_of(mask), mask.ndim == 1
        return masking(
            None if lengths else values,
            values if lengths else None,
            known.batch,
            known.time,
            zeros=self.recipe.zeros,
            backwards=order.backwards,
        )

    def _nothing(self, arrays: Mapping[str, Any], out: Mapping[str, np.ndarray]) -> None:
        """No row or no step: outputs are empty or zero, the last states are the first."""
        for name in self.outputs:
            out[name][...] = 0
        for name in self.states:
            out[f"final_{name}"][...] = arrays[name]


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
        found = RECURRENCES.get(key)
        if found is None:
            found = RECURRENCES[key] = Recurrence(recipe)
        return found


def by_steps(recurrence: Recurrence) -> Recurrence:
    """The same over [time, batch, ...]; it shares kernels and weights."""
    found = recurrence.by_steps
    if found is None:
        found = recurrence.by_steps = recurrence_of(replace(recurrence.recipe, time_major=True))
    return found
