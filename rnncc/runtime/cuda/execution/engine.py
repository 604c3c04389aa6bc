"""A generated module's tables + arrays -> results, on a GPU.

Non-Goals: checking what users give (`validation`); one run (`run`); devices (`device`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.runtime.common import learning
from rnncc.runtime.cpu.execution.job import Arrays, Job
from rnncc.runtime.cpu.execution.second_engine import CpuSecondEngine
from rnncc.runtime.cpu.execution.time_chunks import (
    LEAST_STEPS,
    Saved,
    backward,
    block_steps,
    forward,
    last_carries,
)
from rnncc.runtime.cuda.driver.graphs import LEAST
from rnncc.runtime.cuda.execution.run import CudaDirection
from rnncc.runtime.cuda.planning.executable import CudaExecutable
from rnncc.runtime.planning.call_key import CallKey

BLOCK_BYTES = 2**28  # of workspace: a block of steps is a dozen launches, so blocks are long
NOTHING: Arrays = MappingProxyType({})


class CudaEngine:
    """Both directions of one compiled cell: a `layer_options.Engine`. Thread-safe."""

    on_gpu = reads_gpu_arrays = True

    def __init__(self, cell: Any, forward: DirectionSpec, backward: DirectionSpec) -> None:
        self.cell = cell
        self.dtype = np.dtype(cell.dtype)
        # To `time_chunks` they are sides like any other.
        self._forward: Any = CudaDirection(forward, cell.dtype)
        self._backward: Any = CudaDirection(backward, cell.dtype)

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

    def carried(self, results: Arrays) -> dict[str, Any]:
        """See `layer_options.Engine`."""
        return last_carries(self._forward.direction, results)

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
            if role in ("input", "context", "state", "restart", "valid"):
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
        for title, executable in zip(("forward", "backward"), last or self.last, strict=True):
            lines += plan_side(title, executable)
        return "\n".join(lines)


class CudaSecondEngine(CpuSecondEngine):
    """`layer_options.SecondEngine` on a GPU."""

    def __init__(self, cell: Any, *directions: DirectionSpec) -> None:
        self.cell = cell
        self.dtype = np.dtype(cell.dtype)
        sides: list[Any] = [CudaDirection(d, cell.dtype) for d in directions]
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
            levels += " a step" + (f", {kernel.unroll} steps a turn" if kernel.unroll > 1 else "")
            how = f"{levels}; tier {tier.name}: {tier.why}"
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
