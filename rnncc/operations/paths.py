"""Calls in a graph whose tensors have the shapes of a call before: addresses in, kernels.

    Path       one kind of call and the shapes of its tensors: what runs
    PathSaved  what such a call leaves for its backward

Graphs hand over arrays that lie alike, the places of results among them, and hand a backward the
tensors of its forward again. The first call of a kind, and what is no such case (masks,
checkpoints, states that begin from a weight), goes the long way (`operation`), with the same
kernels and bits.

Non-Goals: who calls (`graph_calls`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.adapters.fast_path import BackwardPath, FastPath
from rnncc.artifact.cell import Variant
from rnncc.operations.calls import Request, SavedCall, SymbolicShapes
from rnncc.operations.operation import Operation
from rnncc.operations.weights import new_version
from rnncc.runtime.api.call_gradients import DirectionSaved
from rnncc.runtime.common import memory_pool
from rnncc.runtime.common.allocators import of_every_step
from rnncc.runtime.common.memory_pool import address_of
from rnncc.runtime.cpu.execution.engine import CpuEngine
from rnncc.runtime.cpu.execution.fast_path import Direct
from rnncc.runtime.cpu.planning.weight_packing import Packed

Arrays = Sequence[np.ndarray]


@dataclass(slots=True, weakref_slot=True)
class GraphPathSaved:
    """What a call leaves: nothing of its tensors."""

    path: GraphPath
    version: object
    packed: Packed
    memory: memory_pool.Lease
    seed: int


@dataclass(slots=True)
class _Back:
    """A backward. handed: cotangents that are read where they are; last: those of a last step
    alone, by their number, as (place, arrays of zeros with room for it). turned: gradients of what
    steps read from its end."""

    path: BackwardPath
    handed: list[tuple[int, int]]
    last: dict[int, tuple[int, list[np.ndarray]]]
    turned: frozenset[int]


class GraphPath(FastPath):
    """Calls of one kind over a graph's arrays."""

    def __init__(
        self,
        operation: Operation,
        request: Request,
        known: SymbolicShapes,
        engine: CpuEngine,
        variant: Variant,
        direct: Direct,
    ) -> None:
        cell, rates, order = operation.cell, operation.rates, operation.order
        given = request.given
        super().__init__(cell, rates, order, known, engine, variant, direct, given, False)
        self.operation, self.request, self.known = operation, request, known
        self._targets = [self.results[n] for n, _ in direct.places]
        self._backs: dict[Any, _Back | None] = {}

    def _addresses(
        self, given: list[int], read: Sequence[tuple[int, int]], tensors: Arrays
    ) -> list[int]:
        """The constants', and those of a call's tensors as steps run."""
        addresses, order = given.copy(), self.operation.order
        for i, at in read:
            array = tensors[at]
            if order.backwards and self.operation.is_timed[at]:
                array = order.run(array)
            addresses[i] = address_of(array)
        return addresses

    # ---- forward ------------------------------------------------------------------------------

    def forward(
        self, tensors: Arrays, seed: int | None, save: bool, out: Arrays
    ) -> GraphPathSaved | None:
        """Results into `out`; with `save`, what `backward` needs."""
        operation, direct = self.operation, self.direct
        weights = tensors[self.first_weight :]
        version: Any
        version, weights = (new_version(), weights) if save else operation.versions.find(weights)
        number = seed if seed is not None and self.variant.training else 0
        addresses = self._addresses(self._given, self._read, tensors)
        named = dict(zip(operation.owned, weights, strict=True))
        packed = direct.packed(version, named, addresses, number)
        targets = [address_of(out[i]) for i in self._targets]
        if not save:
            direct.run(packed, addresses, targets, number)
            return None
        left = memory_pool.POOL.lease(direct.saved_bytes)
        direct.run(packed, addresses, targets, number, address_of(left.array))
        return GraphPathSaved(self, version, packed, left, number)

    def general(self, saved: GraphPathSaved, tensors: Arrays) -> SavedCall:
        """The same for whoever looks things up by name."""
        weights = dict(zip(self.operation.owned, tensors[self.first_weight :], strict=True))
        named, left = self.named(tensors, weights, saved.seed), saved.memory
        kept = self.saved(named, saved.version, saved.packed, address_of(left.array), left)
        ran = DirectionSaved(self.cell, self.engine, kept, None, self.time, self.variant)
        return SavedCall(self.request, self.known, ran)

    # ---- backward -----------------------------------------------------------------------------

    def backward(
        self,
        saved: GraphPathSaved,
        tensors: Arrays,
        cotangents: Sequence[np.ndarray | None],
        wanted: Sequence[bool],
        out: Arrays,
    ) -> None:
        """Gradients of those tensors that are wanted, into `out`."""
        key = (*wanted, *[d is None for d in cotangents])
        back = self._backs.get(key)
        if back is None:
            general = self.general(saved, tensors)
            shapes = [a.shape for a in tensors]
            if key not in self._backs:
                self._backs[key] = self._back(general, cotangents, wanted, shapes, out)
            self.operation.backward(general, cotangents, wanted, shapes, out)
            return
        path = back.path
        addresses = self._addresses(path.given, path.read, tensors)
        for i, at in back.handed:
            addresses[i] = address_of(cotangents[at])  # type: ignore[arg-type]
        borrowed = []
        for at, (i, kept) in back.last.items():
            d = cotangents[at]
            assert d is not None
            all_steps = _written(kept, d, self.known.time or 0)
            borrowed.append((kept, all_steps))
            addresses[i] = address_of(all_steps)
        named = dict(zip(self.operation.owned, tensors[self.first_weight :], strict=True))
        unasked = [np.empty(shape, self.operation.dtype) for at, shape in path.targets if at < 0]
        rest = iter(unasked)
        places = [out[at] if at >= 0 else next(rest) for at, _ in path.targets]
        turn = self.operation.order.run
        targets = [
            address_of(turn(a) if at in back.turned else a)
            for a, (at, _) in zip(places, path.targets, strict=True)
        ]
        left = self.direct.left(address_of(saved.memory.array), saved.packed, path.left)
        packed = path.direct.packed(saved.version, named, addresses, saved.seed)
        path.direct.run(packed, addresses, targets, saved.seed, residuals=left)
        for kept, all_steps in borrowed:
            kept.append(all_steps)

    def _back(
        self,
        saved: SavedCall,
        cotangents: Sequence[np.ndarray | None],
        wanted: Sequence[bool],
        shapes: Sequence[tuple[int, ...]],
        out: Arrays,
    ) -> _Back | None:
        """What such backwards run; None where they have to go the long way."""
        operation = self.operation
        names = operation.names(self.request)
        shaped = {n: s for n, s, w in zip(names, shapes, wanted, strict=True) if w}
        asked = {n: (i, s) for i, (n, s) in enumerate(shaped.items())}
        handed = operation.cotangents(saved, cotangents)
        strided = _strided(dict(zip(shaped, out, strict=True)))
        path = self.backward_path(saved.direction.saved, handed, asked, operation.dtype, strided)
        if path is None or not {*range(len(asked))} <= {at for at, _ in path.targets}:
            return None
        sequences, outputs = operation.native.return_sequences, len(operation.outputs)
        lasts = [(i, at) for i, at in path.handed if not sequences and at < outputs]
        turned = self.timed & asked.keys() if operation.order.backwards else ()
        return _Back(
            path,
            [pair for pair in path.handed if pair not in lasts],
            {at: (i, []) for i, at in lasts},
            frozenset(asked[n][0] for n in turned),
        )


def path_of(
    operation: Operation,
    request: Request,
    tensors: Arrays,
    seed: int | None,
    save: bool,
    places: Arrays,
) -> GraphPath | None:
    """The path of calls like this one, if they can have one. places: of its results."""
    begins = bool(operation.starting) and not request.given
    if begins or not operation.hands_again(request):
        return None
    call = operation.begin(request, tensors, lent=True)
    known = call.known
    if not (known.batch and known.time):
        return None
    variant, engine, arguments = operation.engine(request.training, False)
    assert isinstance(engine, CpuEngine)
    arrays = call.arrays | arguments
    if variant.training:
        arrays["seed"] = seed
    direct = engine.direct(
        arrays,
        known.sizes,
        known.batch,
        known.time,
        version=call.version,
        save=save,
        last_only=not operation.native.return_sequences,
        out=_strided(dict(zip(operation.results, places, strict=True))),
        kept=[*operation.rates, *(() if request.given else operation.states)],
    )
    if direct is None or {n for n, _ in direct.places} != {*operation.results}:
        return None
    return GraphPath(operation, request, known, engine, variant, direct)


def _strided(places: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those that don't lie as memory of their own would."""
    return {n: a for n, a in places.items() if not a.flags.c_contiguous}


def _written(kept: list[np.ndarray], last: np.ndarray, time: int) -> np.ndarray:
    """A cotangent of the last step as one of every step, in memory whose other steps stay zero."""
    try:
        all_steps = kept.pop()
    except IndexError:
        return of_every_step(
            last, time, lambda shape: memory_pool.aligned(shape, last.dtype, zero=True)
        )
    all_steps[:, -1] = last
    return all_steps
