"""One direction, once: whose memory it runs in, and what it gives back.

Non-Goals: what stays the same between calls (`cpu.executable`); running it (`executor`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rnncc.artifact.kernel_tables import BufferSpec
from rnncc.common.size_expressions import evaluate
from rnncc.runtime.common import memory_pool
from rnncc.runtime.common.memory_pool import write_into
from rnncc.runtime.common.strides import has_dense_rows, repeated, row_strides
from rnncc.runtime.cpu.execution.direction_cache import DirectionCache, Ready
from rnncc.runtime.cpu.execution.job import Arrays, Job, Residuals
from rnncc.runtime.cpu.planning.executable import Executable
from rnncc.runtime.cpu.planning.weight_packing import Packed
from rnncc.runtime.planning.layouts import axes_of, is_padded

ANYWHERE = 64  # an address for what takes no memory


class Run:
    """One Job, once: `results`, and `residuals()` where those are saved."""

    __slots__ = ("_bases", "_packed", "_saved", "arrays", "job", "ready", "results", "side")
    results: dict[str, np.ndarray]
    _saved: memory_pool.Lease | None

    def __init__(self, side: DirectionCache, job: Job) -> None:
        self.side, self.job = side, job
        arrays, dtype = job.arrays, side.np_dtype
        converted: list[np.ndarray] = []
        self.arrays = converted
        for buffer, name in side.params.given:
            array = arrays.get(name)
            if type(array) is not np.ndarray or array.dtype is not dtype:
                array = self._converted(buffer, name, array)
            converted.append(array)
        key: tuple[Any, ...] = (job.call, job.wanted, *[a.strides for a in converted])
        if job.out:
            key += tuple([(n, a.shape, a.strides) for n, a in job.out.items()])
        self.ready = ready = side.find(key) or side.keep_ready(key, self._make_ready())
        seed = int(arrays.get("seed", 0))
        self._packed = packed = self._find_packed(ready.prepared, seed)
        self._go(ready, packed, seed)

    def _go(self, ready: Ready, packed: Packed, seed: int) -> None:
        later = self._take_results(ready)
        choice, executable = ready.choice, ready.prepared
        target = self.side.target
        pool = target.pool or memory_pool.POOL
        self._saved = pool.lease(executable.saved_bytes) if executable.saved_bytes else None
        workspace = pool.take(choice.plan.workspace_bytes)
        try:
            self._bases = self._addresses(workspace, packed, seed)
            target.run(choice.plan, self._bases)
        finally:
            pool.give(workspace)
        if later:
            write_into(later, self.results)
        if len(choice.results) != len(self.results):
            self.results = {name: self.results[name] for name in choice.results}

    def _take_results(self, ready: Ready) -> dict[str, np.ndarray]:
        """Arrays for results, asked for or new; those asked for that kernels can't write."""
        job, later, dtype = self.job, {}, self.side.np_dtype
        pool = self.side.target.pool or memory_pool.POOL
        self.results = {}
        for name, shape in ready.choice.arrays:
            array = job.out.get(name) if job.out else None
            if array is None or name in ready.later:
                if array is not None:
                    later[name] = array
                array = pool.array(shape, dtype)
            self.results[name] = array
        return later

    def _addresses(self, workspace: np.ndarray, packed: Packed, seed: int) -> list[int]:
        """Of every group."""
        job, known = self.job, self.job.residuals.places
        address_of = self.side.target.address_of
        blank = self.side.target.blank
        return [
            address_of(workspace),
            address_of(self._saved.array) if self._saved else ANYWHERE,
            packed.base,
            seed,
            job.first_step,
            *[address_of(a) for a in self.arrays],
            *[known[name][0] for _, name in self.side.params.residuals],
            *packed.addresses,
            *[blank(a) for a in self.results.values()],
        ]

    # ---- arrays -------------------------------------------------------------------------------

    def _converted(self, buffer: BufferSpec, name: str, given: Any) -> np.ndarray:
        """A parameter that isn't an array of the side's dtype."""
        if given is None and name not in self.job.arrays:  # held: nothing has been put out yet
            rest = [evaluate(s, dict(self.job.call.sizes)) for s in buffer.shape]
            return repeated(np.zeros(rest, self.side.np_dtype), (self.job.call.batch,))
        return np.asarray(given, self.side.np_dtype)

    def _make_ready(self) -> Ready:
        """What is copied first, and the strides of rows that don't lie one after another."""
        job, buffers = self.job, self.side.buffers
        sizes = dict(job.call.sizes)
        strides: list[tuple[str, int, int]] = []
        copies: list[tuple[str, tuple[int, ...]]] = []
        for (buffer, _), array in zip(self.side.params.given, self.arrays, strict=True):
            lead = len(buffer.axes)
            if is_padded(buffer, sizes) or not has_dense_rows(array, lead):
                copies.append((buffer.name, array.strides))
            elif own := row_strides(array, buffer.axes):
                strides.append((buffer.name, *own))
        results: list[tuple[str, int, int]] = []
        later = []
        for place in self.side.direction.results if job.out else ():
            if place.name not in job.out:
                continue
            array = job.out[place.name]
            axes = axes_of(place, buffers)[: array.ndim - len(buffers[place.source.buffer].shape)]
            if not has_dense_rows(array, len(axes)):
                later.append(place.name)
            elif own := row_strides(array, axes):
                results.append((place.name, *own))
        call = job.call
        if strides or copies or results:
            call = replace(
                call,
                strides=tuple(strides),
                result_strides=tuple(results),
                copies=tuple(copies),
            )
        with self.side.lock:
            executable = self.side.prepared(call, job.residuals)
            return Ready(executable, executable.choice(job.wanted), tuple(later))

    # ---- weights --------------------------------------------------------------------------------

    def _find_packed(self, made: Executable, seed: int) -> Packed:
        """Packed weights of this version, for these tiles."""
        arrays, side = self.job.arrays, self.side
        address_of = side.target.address_of
        rates = tuple([float(arrays[name]) for name in side.rate_names])
        key = (self.job.version, rates, made.draws_weights and seed, made.tile_key)
        packed = find_packed(side, key)
        if packed is None:
            addresses = [address_of(a) for a in self.arrays]
            left = [self.job.residuals.places[name][0] for _, name in side.params.residuals]
            packed = keep_packed(side, key, pack(side, made, arrays, seed, addresses, left))
        return packed

    # ---- residuals ------------------------------------------------------------------------------

    def residuals(self) -> Residuals:
        """What a pullback reads."""
        bases = self._bases
        places = {
            r.name: (bases[r.place.group] + r.place.offset, r.layout)
            for r in self.ready.prepared.residuals
        }
        return Residuals(places, (self._saved, self._packed, self.arrays))


class Repeated(Run):
    """A Job that is run over and over, on the same arrays: it reads and writes them as they are.

    What is read may be what is written: carries are copied before the first kernel and after the
    last. Owns its workspace, so two threads can't run it at once.
    """

    __slots__ = ("_again", "_kept")

    def _go(self, ready: Ready, packed: Packed, seed: int) -> None:
        """Runs once, too: what is made at the first call is there at the second."""
        if self._take_results(ready):
            raise AssertionError("results are written in place")
        target, plan = self.side.target, ready.choice.plan
        self._saved = None
        self._kept = (target.pool or memory_pool.POOL).lease(plan.workspace_bytes)
        self._bases = self._addresses(self._kept.array, packed, seed)
        target.run(plan, self._bases)
        self._again = target.repeated(plan, self._bases[0])

    def again(self) -> None:
        self._again()


class Direction(DirectionCache):
    """One direction of a cell."""

    def run(self, job: Job) -> Run:
        """The job, done."""
        return Run(self, job)


def find_packed(side: DirectionCache, key: object) -> Packed | None:
    """What was packed under this key, if it is kept."""
    with side.lock:
        packed = side.packs.get(key)
        if packed is not None:
            side.packs.move_to_end(key)
        return packed


def keep_packed(side: DirectionCache, key: object, made: Packed) -> Packed:
    with side.lock:
        side.packs[key] = made
        while len(side.packs) > side.kept_packs:
            side.packs.popitem(last=False)
        return made


def pack(
    side: DirectionCache,
    made: Executable,
    weights: Arrays,
    seed: int,
    given: Sequence[int],
    residuals: Sequence[int] = (),
) -> Packed:
    """Weights as the cores read them. weights: by name. given, residuals: addresses of the
    direction's arrays and of what others left for it, of which those that serve all rows and steps
    are read. A first pullback is left none of these: it makes again what weights alone make."""
    read = [np.ascontiguousarray(weights[name], side.np_dtype) for _, name in side.params.weights]
    target = side.target
    address_of, pool = target.address_of, target.pool or memory_pool.POOL
    lease = pool.lease(max(made.packed_bytes, 1))
    base, addresses = address_of(lease.array), tuple([address_of(w) for w in read])
    with pool.borrow(made.pack_plan.workspace_bytes) as workspace:
        left = residuals or [ANYWHERE] * len(side.params.residuals)
        bases = [address_of(workspace), ANYWHERE, base, seed, 0, *given, *left, *addresses]
        target.run(made.pack_plan, bases)
    return Packed(base, addresses, [lease, *read])
