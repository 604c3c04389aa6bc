"""Calls of a recurrence whose tensors lie like those of one before: addresses in, kernels, tensors
out.

    Path       shapes and strides as they were, one direction, steps in their order: what to run
    PathSaved  what a call leaves. What kernels saved is a tensor, which hooks on saved tensors
               (activation checkpointing, offloading) may drop and make again

The first call of a kind, and what is no such case (both directions, other orders, masks that leave
steps out, blocks of steps, second derivatives), goes the long way (`recurrence`, `gradients`), with
the same kernels and bits.

Non-Goals: autograd (`ops`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnncc.adapters.fast_path import MASKS, BackwardPath, FastPath
from rnncc.artifact.cell import Variant
from rnncc.runtime.api.call_gradients import DirectionSaved
from rnncc.runtime.api.masking import Masking
from rnncc.runtime.common import memory_pool
from rnncc.runtime.common.memory_pool import address_of
from rnncc.runtime.cpu.execution.engine import CpuEngine
from rnncc.runtime.cpu.execution.fast_path import Direct
from rnncc.runtime.cpu.planning.weight_packing import Packed
from rnncc.torch.arrays import array_of
from rnncc.torch.base import Steps
from rnncc.torch.gradients import RecurrenceGradients
from rnncc.torch.recipe import ArgumentShapes, SavedTensors

BYTES = np.dtype(np.uint8)


def new(shape: Sequence[int], dtype: np.dtype, torch_dtype: torch.dtype) -> Tensor:
    """Memory for a result. A large one's was used before: fresh pages cost as much as kernels."""
    if math.prod(shape) * dtype.itemsize < memory_pool.POOLED_BYTES:
        return torch.empty(shape, dtype=torch_dtype)
    return torch.from_numpy(memory_pool.POOL.array(tuple(shape), dtype))


def maker(shape: Sequence[int], dtype: np.dtype, torch_dtype: torch.dtype) -> Callable[[], Tensor]:
    """What makes such memory again and again."""
    if math.prod(shape) * dtype.itemsize < memory_pool.POOLED_BYTES:
        return partial(torch.empty, tuple(shape), dtype=torch_dtype)
    return partial(new, tuple(shape), dtype, torch_dtype)


def path_key(
    tensors: Sequence[Tensor], training: bool, given: bool, masked: bool, save: bool
) -> tuple[Any, ...]:
    """What calls of one path have in common. tensors: arguments and states."""
    return training, given, masked, save, *[(t.shape, t.stride()) for t in tensors]


@dataclass(slots=True, weakref_slot=True)
class TensorPathSaved:
    """What a call leaves for its backward. tensors, memory: the call's tensors and what kernels
    saved, unless autograd keeps them (`ops`)."""

    path: TensorPath
    version: object
    weights: Mapping[str, np.ndarray]
    packed: Packed
    steps: Steps
    seed: int
    tensors: Sequence[Tensor]
    memory: Tensor | None

    def general(self, tensors: Sequence[Tensor], left: Tensor) -> SavedTensors:
        """The same for whoever looks things up by name."""
        path, known = self.path, self.path.known
        arrays = [array_of(t) for t in tensors[: path.first_weight]]
        if path.stacked:
            for at in range(path.arguments + path.masked, path.first_weight):
                arrays[at] = arrays[at][0]
        named = path.named(arrays, self.weights, self.seed)
        named.update(zip(MASKS, self.steps, strict=False))
        saved = path.saved(named, self.version, self.packed, left.data_ptr(), left)
        masks = Masking(self.steps[0], known.time, known.time, path.zeros) if self.steps else None
        way = DirectionSaved(path.cell, path.engine, saved, masks, known.time, path.variant)
        return SavedTensors([way], known, path.given, path.masked, [t.shape for t in tensors])


@dataclass(slots=True)
class _Back:
    """A backward. gradients: of each array that is written, the number of the tensor, -1 where
    nobody asked, and what makes it. zeros: tensors that nothing depends on."""

    path: BackwardPath
    gradients: list[tuple[int, Callable[[], Tensor]]]
    zeros: list[int]


class TensorPath(FastPath):
    """Calls of one kind over tensors."""

    def __init__(
        self,
        recurrence: RecurrenceGradients,
        engine: CpuEngine,
        variant: Variant,
        known: ArgumentShapes,
        direct: Direct,
        given: bool,
        masked: bool,
        tensors: Sequence[Tensor],
    ) -> None:
        cell, rates, order = recurrence.cell, recurrence.rates, recurrence.orders[0]
        super().__init__(cell, rates, order, known, engine, variant, direct, given, masked)
        self.recurrence, self.known = recurrence, known
        self.stacked, self.zeros = recurrence.recipe.stacked, recurrence.recipe.zeros
        self._strides = [(at, tensors[at].stride()) for _, at in self._read]
        shapes = dict(zip(recurrence.results, known.results, strict=True))
        dtype, torch_dtype = recurrence.dtype, recurrence.torch_dtype
        self._makers = [maker(shapes[n], dtype, torch_dtype) for n, _ in direct.places]
        self._order = [[n for n, _ in direct.places].index(n) for n in recurrence.results]
        self._backs: dict[Any, _Back | None] = {}

    def _address(self, t: Tensor) -> int:
        """Of the tensor's numbers, whose strides are as they were; 0 where kernels can't read them:
        of another dtype or device, with signs to turn, or with no memory of its own."""
        if t.dtype is not self.recurrence.torch_dtype or not t.is_cpu or t.is_neg():
            return 0
        try:
            return t.data_ptr()
        except RuntimeError:
            return 0

    def _lie_alike(self, tensors: Sequence[Tensor]) -> bool:
        """Whether a call's tensors lie as when it came: hooks may have made others of them."""
        return all(tensors[at].stride() == strides for at, strides in self._strides)

    # ---- forward ------------------------------------------------------------------------------

    def forward(
        self, tensors: Sequence[Tensor], seed: Tensor | None, save: bool, counted: Steps | None
    ) -> tuple[list[Tensor], TensorPathSaved | None] | None:
        """See `Recurrence.forward`; None where this call isn't of the kind after all."""
        recurrence, direct = self.recurrence, self.direct
        addresses = self._given.copy()
        for i, at in self._read:
            address = addresses[i] = self._address(tensors[at])
            if not address:
                return None
        steps: Steps = ()
        if self.masked:
            step_masks = counted or recurrence.steps_of(tensors[self.arguments], self.known)
            if step_masks is None:
                return None
            steps = step_masks
            if direct.falls_apart(dict(zip(MASKS, steps, strict=True))):
                return None
        version, weights = recurrence.kernels.weights.find(
            recurrence.owned, tensors[self.first_weight :], recurrence.check_weights
        )
        number = int(seed) if seed is not None and self.variant.training else 0
        for i, array in zip(self._steps, steps, strict=False):
            addresses[i] = address_of(array)
        packed = direct.packed(version, weights, addresses, number)
        places = [make() for make in self._makers]
        targets = [t.data_ptr() for t in places]
        results = [places[i] for i in self._order]
        if not save:
            direct.run(packed, addresses, targets, number)
            return results, None
        left = new((direct.saved_bytes + memory_pool.SLACK,), BYTES, torch.uint8)
        direct.run(packed, addresses, targets, number, left.data_ptr())
        return results, TensorPathSaved(
            self, version, weights, packed, steps, number, tensors, left
        )

    # ---- backward -----------------------------------------------------------------------------

    def backward(
        self,
        saved: TensorPathSaved,
        tensors: Sequence[Tensor],
        left: Tensor,
        wanted: Sequence[bool],
        cotangents: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """See `Recurrence.backward`. left: what kernels have saved."""
        key = (*wanted, *[None if d is None else d.stride() for d in cotangents])
        back = self._backs.get(key)
        d_addresses = [0 if d is None else self._address(d) for d in cotangents]
        fits = self._lie_alike(tensors) and all(
            d is None or address for d, address in zip(cotangents, d_addresses, strict=True)
        )
        if back is None or not fits:
            general = saved.general(tensors, left)
            grads = self.recurrence.backward(general, cotangents, wanted)
            if fits and key not in self._backs:
                self._backs[key] = self._back(general, cotangents, wanted)
            return grads
        path = back.path
        addresses = path.given.copy()
        for i, at in path.read:
            addresses[i] = tensors[at].data_ptr()
        for i, at in path.handed:
            addresses[i] = d_addresses[at]
        for i, array in zip(path.steps, saved.steps, strict=False):
            addresses[i] = address_of(array)
        places = [make() for _, make in back.gradients]
        direct = path.direct
        direct.run(
            direct.packed(saved.version, saved.weights, addresses, saved.seed),
            addresses,
            [t.data_ptr() for t in places],
            saved.seed,
            residuals=self.direct.left(left.data_ptr(), saved.packed, path.left),
        )
        gradients: list[Tensor | None] = [None] * len(tensors)
        for (at, _), t in zip(back.gradients, places, strict=True):
            if at >= 0:
                gradients[at] = t
        for at in back.zeros:
            gradients[at] = torch.zeros_like(tensors[at])
        return gradients

    def _back(
        self, saved: SavedTensors, cotangents: Sequence[Tensor | None], wanted: Sequence[bool]
    ) -> _Back | None:
        """What such backwards run; None where they have to go the long way."""
        recurrence, (way,) = self.recurrence, saved.ways
        if not recurrence.recipe.return_sequences:  # cotangents of all steps are made first
            return None
        choice = recurrence.choose(0, saved.given, saved.masked, wanted)
        handed = [None if t is None else array_of(t) for t in cotangents]
        named = recurrence.cotangents(0, way, handed)
        where = choice.tensors
        asked = {n: (at, tuple(saved.shapes[at])) for n, at in where.items()}
        path = self.backward_path(way.saved, named, asked, recurrence.dtype)
        if path is None:
            return None
        computed, kinds = {at for at, _ in path.targets}, (recurrence.dtype, recurrence.torch_dtype)
        return _Back(
            path,
            [
                (at, maker(saved.shapes[at] if at >= 0 else shape, *kinds))
                for at, shape in path.targets
            ],
            [at for at in where.values() if at not in computed],
        )
