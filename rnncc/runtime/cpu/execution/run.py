"""One direction of a cell: what it keeps between calls, and each run of it.

A run says whose memory it takes and what it gives back; kept are executables by sizes and strides,
and packed weights by version.

Non-Goals: what stays the same between calls (`cpu.executable`); running it (`executor`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rnncc.artifact.array_tables import BufferSpec
from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.common.machine import ITEMSIZE
from rnncc.common.size_expressions import evaluate
from rnncc.runtime.common import memory_pool
from rnncc.runtime.common.allocators import HostAllocator
from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.common.memory_pool import write_into
from rnncc.runtime.common.strides import has_dense_rows, repeated, row_strides
from rnncc.runtime.cpu.execution.job import Arrays, Job, Residuals
from rnncc.runtime.cpu.planning.executable import Executable, Params, ResultChoice
from rnncc.runtime.cpu.planning.kernel_arguments import ArgumentBinder
from rnncc.runtime.cpu.planning.target import HOST, CpuTarget
from rnncc.runtime.cpu.planning.weight_packing import Packed
from rnncc.runtime.jit.batch import make_ready
from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.layouts import Layout, axes_of, is_padded

ANYWHERE = 64  # an address for what takes no memory
KEPT_SHAPES = 64
KEPT_VERSIONS = 4


@dataclass(slots=True)
class Ready:
    """What arrays with these strides take. later: results that kernels can't write where their
    caller wants them."""

    prepared: Executable
    choice: ResultChoice
    later: tuple[str, ...]


Ran = tuple[Executable | None, int, int]


@dataclass
class Direction:
    """What one direction has prepared: a bounded number of call shapes and of weights' versions.

    Thread-safe."""

    direction: DirectionSpec
    dtype: str
    made: OrderedDict[CallKey, Executable] = field(default_factory=OrderedDict)
    ready: OrderedDict[Any, Ready] = field(default_factory=OrderedDict)
    packs: OrderedDict[Any, Packed] = field(default_factory=OrderedDict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    last: Executable | None = None
    steps: int = 0  # of the last call, whatever its blocks
    rows: int = 0  # alike
    kept_packs: int = KEPT_VERSIONS
    target: CpuTarget = HOST
    cell: str = ""
    surveyed: set[bool] = field(default_factory=set)

    def __post_init__(self) -> None:
        open_in_children(self, "lock")
        self.item, self.np_dtype = ITEMSIZE[self.dtype], np.dtype(self.dtype)
        self.buffers = {b.name: b for b in self.direction.buffers}
        self.params = Params.of(self.direction)
        self.host = HostAllocator(self.np_dtype, self.target.pool)
        self.rate_names = [n for _, role, n in self.direction.params if role == "rate"]

    def keep(self, layers: int) -> None:
        """Room for what is made of the weights of so many layers, and of a few versions more."""
        self.kept_packs = max(layers, 1) - 1 + KEPT_VERSIONS

    @property
    def ran(self) -> Ran:
        """The last run, and how many steps and rows it was a block of."""
        return self.last, self.steps, self.rows

    def run(self, job: Job) -> Run:
        """The job, done."""
        return Run(self, job)

    def room(self, arrays: Arrays) -> HostAllocator:
        """Who makes arrays for a call."""
        return self.host

    def find(self, key: Any) -> Ready | None:
        """What arrays with these strides take, if it is known."""
        with self.lock:
            ready = self.ready.get(key)
            if ready is not None:
                self.ready.move_to_end(key)
                self.last = ready.prepared
            return ready

    def keep_ready(self, key: Any, made: Ready) -> Ready:
        with self.lock:
            self.ready[key] = made
            if len(self.ready) > KEPT_SHAPES:
                self.ready.popitem(last=False)
            return made

    def prepared(self, call: CallKey, residuals: Residuals) -> Executable:
        """What doesn't change between calls of these sizes and strides; made at the first."""
        with self.lock:
            executable = self.made.get(call)
            if executable is None:
                executable = self.prepare(call, self._given(residuals))
                self.made[call] = executable
                if len(self.made) > KEPT_SHAPES:
                    self.made.popitem(last=False)
            else:
                self.made.move_to_end(call)
            self.last = executable
            return executable

    def compile_first(
        self, call: CallKey, residuals: Residuals, wanted: frozenset[str] | None
    ) -> None:
        """What the first call needs is compiled at once, not when planning comes to it. One row
        has kernels of its own where nothing is saved."""
        one_row = call.batch == 1 and not call.save
        if one_row in self.surveyed:
            return
        survey = self.target.survey()
        if survey is not None:
            self.prepare(call, self._given(residuals), survey).choice(wanted)
            direction = self.direction.name.lower().replace("_", " ")
            make_ready(survey.kernels, f"{self.cell}, {direction}")
        self.surveyed.add(one_row)

    def _given(self, residuals: Residuals) -> dict[str, Layout]:
        return {buffer.name: residuals.places[name][1] for buffer, name in self.params.residuals}

    def prepare(
        self, call: CallKey, given: dict[str, Layout], target: CpuTarget | None = None
    ) -> Executable:
        """given: where the rows of residuals are. target: the side's own by default."""
        target = target or self.target
        binder = ArgumentBinder(
            self.direction, call, target.machine, self.dtype, target.threads, given
        )
        return Executable(binder.bind(), self.direction, self.params, self.buffers, target)

    # ---- weights ----

    def find_packed(self, key: object) -> Packed | None:
        """What was packed under this key, if it is kept."""
        with self.lock:
            packed = self.packs.get(key)
            if packed is not None:
                self.packs.move_to_end(key)
            return packed

    def keep_packed(self, key: object, made: Packed) -> Packed:
        with self.lock:
            self.packs[key] = made
            while len(self.packs) > self.kept_packs:
                self.packs.popitem(last=False)
            return made

    def pack(
        self,
        made: Executable,
        weights: Arrays,
        seed: int,
        given: Sequence[int],
        residuals: Sequence[int] = (),
    ) -> Packed:
        """Weights as the cores read them. weights: by name. given, residuals: addresses of the
        direction's arrays and of what others left for it, of which those that serve all rows and
        steps are read. A first pullback is left none of these: it makes again what weights alone
        make."""
        read = [
            np.ascontiguousarray(weights[name], self.np_dtype) for _, name in self.params.weights
        ]
        target = self.target
        address_of, pool = target.address_of, target.pool or memory_pool.POOL
        lease = pool.lease(max(made.packed_bytes, 1))
        base, addresses = address_of(lease.array), tuple([address_of(w) for w in read])
        with pool.borrow(made.pack_plan.workspace_bytes) as workspace:
            left = residuals or [ANYWHERE] * len(self.params.residuals)
            bases = [address_of(workspace), ANYWHERE, base, seed, 0, *given, *left, *addresses]
            target.run(made.pack_plan, bases)
        return Packed(base, addresses, [lease, *read])


class Run:
    """One Job, once: `results`, and `residuals()` where those are saved."""

    __slots__ = ("_bases", "_packed", "_saved", "arrays", "job", "ready", "results", "side")
    results: dict[str, np.ndarray]
    _saved: memory_pool.Lease | None

    def __init__(self, side: Direction, job: Job) -> None:
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
            self.side.compile_first(call, job.residuals, job.wanted)
            executable = self.side.prepared(call, job.residuals)
            return Ready(executable, executable.choice(job.wanted), tuple(later))

    # ---- weights --------------------------------------------------------------------------------

    def _find_packed(self, made: Executable, seed: int) -> Packed:
        """Packed weights of this version, for these tiles."""
        arrays, side = self.job.arrays, self.side
        address_of = side.target.address_of
        rates = tuple([float(arrays[name]) for name in side.rate_names])
        key = (self.job.version, rates, made.draws_weights and seed, made.tile_key)
        packed = side.find_packed(key)
        if packed is None:
            addresses = [address_of(a) for a in self.arrays]
            left = [self.job.residuals.places[name][0] for _, name in side.params.residuals]
            packed = side.keep_packed(key, side.pack(made, arrays, seed, addresses, left))
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
