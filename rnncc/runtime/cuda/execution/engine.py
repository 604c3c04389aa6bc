"""A generated module's tables + arrays -> results, on a GPU.

Non-Goals: checking what users give (`validation`); one run (`run`); devices (`device`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.common.machine import ITEMSIZE
from rnncc.runtime.common import learning
from rnncc.runtime.common.allocators import Allocator, HostAllocator
from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.cpu.execution.run import Arrays, Job, Residuals
from rnncc.runtime.cpu.execution.second_engine import CpuSecondEngine
from rnncc.runtime.cpu.execution.time_chunks import (
    LEAST_STEPS,
    Saved,
    backward,
    block_steps,
    forward,
)
from rnncc.runtime.cpu.planning.bound_program import CallKey
from rnncc.runtime.cpu.planning.layouts import Layout
from rnncc.runtime.cuda.driver.graphs import LEAST
from rnncc.runtime.cuda.driver.target import (
    CARRIER,
    CarriedAllocator,
    Carrier,
    CudaTarget,
    DeviceMemory,
)
from rnncc.runtime.cuda.execution.run import CudaRun
from rnncc.runtime.cuda.planning.executable import CudaExecutable
from rnncc.runtime.cuda.planning.kernel_arguments import CudaArgumentBinder
from rnncc.runtime.cuda.planning.tiler import Tiler

KEPT_SHAPES = 32
BLOCK_BYTES = 2**28  # of workspace: a block of steps is a dozen launches, so blocks are long
KEPT_VERSIONS = 4
NOTHING: Arrays = MappingProxyType({})


@dataclass
class CudaDirectionCache:
    """One direction with its caches."""

    direction: DirectionSpec
    dtype: str
    tier: str | None = None  # asked for, instead of the one that is chosen
    graphs: bool = True  # launches are kept as graphs where that can be
    made: OrderedDict[Any, CudaExecutable] = field(default_factory=OrderedDict)
    weights: OrderedDict[Any, tuple[Any, DeviceMemory]] = field(default_factory=OrderedDict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    last: CudaExecutable | None = None
    steps: int = 0  # of the last call, whatever its blocks
    layers: int = 1

    def __post_init__(self) -> None:
        open_in_children(self, "lock")
        self.item, self.np_dtype = ITEMSIZE[self.dtype], np.dtype(self.dtype)
        self.buffers = {b.name: b for b in self.direction.buffers}
        self.host = HostAllocator(self.np_dtype)
        names = [n for _, role, n in self.direction.params if role in ("weight", "constant")]
        self.weights_a_version = max(len(names), 1)

    def run(self, job: Job) -> CudaRun:
        """The job, done."""
        return CudaRun(self, job)

    def room(self, arrays: Arrays) -> Allocator:
        """Who makes arrays for a call."""
        carrier = arrays.get(CARRIER)
        return self.host if carrier is None else CarriedAllocator(carrier, self.np_dtype)

    def prepared(
        self, call: CallKey, residuals: Residuals, target: CudaTarget, precision: str = "float32"
    ) -> CudaExecutable:
        """What doesn't change between calls of these sizes and strides; made at the first."""
        gpu = target.gpu
        key = call, gpu, self.tier, precision
        with self.lock:
            found = self.made.get(key)
            if found is None:
                given = {
                    buffer: residuals.places[name][1]
                    for buffer, role, name in self.direction.params
                    if role == "residual"
                }
                binder = self.bound(call, target, given, precision)
                binding = binder.out
                Tiler(binder).tile(gpu, precision)
                found = CudaExecutable(binding, self.direction, self.buffers, self.dtype, gpu)
                self.made[key] = found
                if len(self.made) > KEPT_SHAPES:
                    self.made.popitem(last=False)
            else:
                self.made.move_to_end(key)
            self.last = found
            return found

    def bound(
        self, call: CallKey, target: CudaTarget, given: Mapping[str, Layout], precision: str
    ) -> CudaArgumentBinder:
        """The numbers of a call, in the first tier whose blocks are on the device at once if they
        wait for each other. What fits is known of a compiled kernel alone."""
        fits: dict[str, int] = {}
        while True:
            known = tuple(fits.items())
            binder = CudaArgumentBinder(
                self.direction, call, self.dtype, target.gpu, given, self.tier, known
            )
            binder.out.precision = precision
            tier = binder.bind().tier
            if tier is None or tier.waiting < 2 or self.tier is not None:
                return binder
            kernel, shared = binder.loop_kernel()
            fits[tier.kernel] = target.resident(kernel, self.dtype, tier.threads, shared)
            if tier.blocks <= fits[tier.kernel]:
                return binder

    def weight(self, version: object, name: str, array: Any, carrier: Carrier) -> DeviceMemory:
        """A weight on the device, copied once a version if it has to be."""
        if not carrier.copies:
            return carrier.enter(array, np.dtype(self.dtype))[0]
        # Nobody else's stream waits for the copy.
        key = (version, name, carrier.target, carrier.stream)
        with self.lock:
            found = self.weights.get(key)
            if found is None or found[0] is not array:
                piece, strides = carrier.enter(array, np.dtype(self.dtype))
                assert strides is None, "weights are dense"
                found = self.weights[key] = array, piece
                kept = self.weights_a_version * (self.layers - 1 + KEPT_VERSIONS)
                while len(self.weights) > kept:
                    self.weights.popitem(last=False)
            return found[1]


class CudaEngine:
    """Both directions of one compiled cell: a `layer_options.Engine`. Thread-safe."""

    on_gpu = reads_gpu_arrays = True

    def __init__(self, cell: Any, forward: DirectionSpec, backward: DirectionSpec) -> None:
        self.cell = cell
        self.dtype = np.dtype(cell.dtype)
        # To `blocks` they are sides like any other.
        self._forward: Any = CudaDirectionCache(forward, cell.dtype)
        self._backward: Any = CudaDirectionCache(backward, cell.dtype)

    def stored(self, storage: str) -> CudaEngine:
        """ValueError: kernels of a GPU read weights as they are."""
        raise ValueError(
            f"weights={storage!r} is for calls on the CPU: leave it out on a GPU, or move the "
            'layer with to("cpu")'
        )

    # ---- calls --------------------------------------------------------------------------------

    def forward(
        self,
        arrays: Arrays,
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        *,
        version: object,
        save: bool,
        last_only: bool,
        out: Arrays = NOTHING,
        first_step: int = 0,
        checkpoint_every: int | None = None,
        lent: frozenset[str] = frozenset(),
        carry: bool = False,
    ) -> tuple[dict[str, Any], Saved | None]:
        """Results by name; with `save`, what `backward` needs. See `layer_options.Engine`."""
        call = CallKey(tuple(sorted(sizes.items())), batch, time, save, last_only)
        job = Job(arrays, call, version, out=dict(out), first_step=first_step)
        steps = time if time <= LEAST_STEPS else block_steps(self._forward, call, BLOCK_BYTES)
        results, kept = forward(self._forward, job, steps, checkpoint_every, carry)
        saved = None
        if save and self.cell.unlearned:
            learning.warn(self.cell)
        if save:
            owned = self._owned(arrays, lent)
            saved = Saved(owned, replace(call, last_only=False), version, first_step, kept)
        return results, saved

    def repeat(
        self,
        arrays: Arrays,
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        *,
        version: object,
        last_only: bool,
        out: Arrays,
    ) -> Callable[[], None]:
        """One inference over and over on the same arrays. See `layer_options.Engine`."""
        call = CallKey(tuple(sorted(sizes.items())), batch, time, False, last_only)
        job = Job(arrays, call, version, out=dict(out))

        def again() -> None:
            self._forward.run(job)

        return again

    def backward(
        self, saved: Saved, cotangents: Arrays, wanted: frozenset[str], out: Arrays = NOTHING
    ) -> dict[str, Any]:
        """Gradients by parameter name. See `layer_options.Engine`."""
        return backward(self._forward, self._backward, saved, cotangents, wanted, out)

    def block_steps(self, sizes: Mapping[str, int], batch: int) -> int:
        """How many steps at once need a small workspace. See `layer_options.Engine`."""
        call = CallKey(tuple(sorted(sizes.items())), batch, 1, False, True)
        return block_steps(self._forward, call, BLOCK_BYTES)

    def _owned(self, arrays: Arrays, lent: frozenset[str]) -> dict[str, Any]:
        """Parameters for the pullback, with the caller's own arrays copied: they may change."""
        owned, room = dict(arrays), self._forward.room(arrays)
        for _, role, name in self._forward.direction.params:
            if name in lent or name not in arrays:
                continue
            if role in ("input", "context", "state", "valid"):
                owned[name] = room.copy(arrays[name])
        return owned

    def keep(self, layers: int) -> None:
        """So many layers call in turns: each finds its weights on the device."""
        self._forward.layers = self._backward.layers = max(layers, 1)

    def use_tier(self, tier: str | None) -> None:
        """Every loop in this tier, whatever it costs; None: the one that is chosen."""
        self._forward.tier = self._backward.tier = tier

    def use_graphs(self, use: bool) -> None:
        """Launches one by one, if not."""
        self._forward.graphs = self._backward.graphs = use

    # ---- what ran -----------------------------------------------------------------------------

    @property
    def last(self) -> tuple[CudaExecutable | None, CudaExecutable | None]:
        return self._forward.last, self._backward.last

    def plan(self, last: Any = None) -> str:
        """The kernels of the last calls, the tiers of their loops, and why."""
        lines = [f"{self.cell.name}, {self.dtype}, cuda"]
        for title, made in zip(("forward", "backward"), last or self.last, strict=True):
            lines += plan_side(title, made)
        return "\n".join(lines)


class CudaSecondEngine(CpuSecondEngine):
    """`layer_options.SecondEngine` on a GPU."""

    def __init__(self, cell: Any, *directions: DirectionSpec) -> None:
        self.cell = cell
        self.dtype = np.dtype(cell.dtype)
        sides: list[Any] = [CudaDirectionCache(d, cell.dtype) for d in directions]
        self._forward, self._backward, self._backward_pullback, self._forward_pullback = sides

    def plan(self) -> str:
        """The kernels of the last calls."""
        sides: dict[str, Any] = {
            "forward, again": self._forward,
            "backward, again": self._backward,
            "pullback of the backward": self._backward_pullback,
            "pullback of the forward": self._forward_pullback,
        }
        return "\n".join(s for title, side in sides.items() for s in plan_side(title, side.last))


def plan_side(title: str, made: CudaExecutable | None) -> list[str]:
    """One direction's kernels."""
    if made is None:
        return [f"{title}: has not run"]
    call, tier = made.binding.call, made.binding.tier
    lines = [f"{title}: {made.gpu.name}, batch {call.batch}, time {call.time}, {dict(call.sizes)}"]
    for bound in made.binding.kernels:
        kernel = bound.kernel
        levels = f"{kernel.levels} level{'s' if kernel.levels > 1 else ''}"
        if kernel.kind == "scan" and tier is not None:
            how = f"{levels} a step; tier {tier.name}: {tier.why}"
            numbers = made.binding.numbers
            how += f"; weights stay in {numbers.where}" if numbers is not None else ""
            rounded = tier.products and made.binding.precision != "float32"
            how += f"; operands of its products in {made.binding.precision}" if rounded else ""
        else:
            how = f"{levels}, a launch each; {bound.items} items"
            bulk = made.binding.bulk.get(kernel.name)
            how = bulk.said if bulk is not None else how
        lines.append(f"  {kernel.name}: {kernel.kind}, {how}")
    if made.last is not None:
        count = len(made.last.launches)
        graphs = made.gpu.graphs and count >= LEAST
        lines.append(f"  {made.last.graphs.said(count) if graphs else f'{count} launches a call'}")
    return lines
