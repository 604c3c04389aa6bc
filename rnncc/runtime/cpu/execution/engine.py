"""A generated module's tables + arrays -> results.

One call is: look up (or make) what is prepared for these sizes; look up (or make) the packed
weights of this version; take a workspace; fill the blocks; launch the kernels in order (`call`).

Non-Goals: checking what users give (`validation`): arrays arrive C-contiguous, of the right shape
and dtype; initial values, options, layers (`layer`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.common.machine import host
from rnncc.common.result_roles import cotangent_name
from rnncc.runtime.common import learning, memory_pool
from rnncc.runtime.common.memory_pool import write_into
from rnncc.runtime.cpu.execution.fast_path import Direct
from rnncc.runtime.cpu.execution.job import Arrays, Job, Residuals
from rnncc.runtime.cpu.execution.report import plan_side
from rnncc.runtime.cpu.execution.row_blocks import forward_in_spans, spans_of
from rnncc.runtime.cpu.execution.run import KEPT_SHAPES, Direction, Ran, Repeated
from rnncc.runtime.cpu.execution.time_chunks import (
    LEAST_STEPS,
    Block,
    Saved,
    backward,
    block_steps,
    cotangents_of,
    forward,
    last_carries,
)
from rnncc.runtime.cpu.threads.dispatch import threading_reason
from rnncc.runtime.jit.kernel import CpuKernel
from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.direction_tables import result_shape

NOTHING: Arrays = MappingProxyType({})

__all__ = ["CpuEngine", "Saved"]


class CpuEngine:
    """Both directions of one compiled cell. Thread-safe; owns no layer's state."""

    on_gpu = reads_gpu_arrays = False

    def __init__(
        self,
        cell: Any,
        forward: DirectionSpec,
        backward: DirectionSpec,
        side: Callable[..., Direction] = Direction,
    ) -> None:
        """side: makes a direction's side."""
        self.cell, self.storage, self._side = cell, "", side
        self.dtype = np.dtype(cell.dtype)
        self._forward = side(forward, cell.dtype, cell=cell.name)
        self._backward = side(backward, cell.dtype, cell=cell.name)
        self._calls: dict[Any, CallKey] = {}

    def stored(self, storage: str) -> CpuEngine:
        """The same kernels over narrow weights. See `layer_options.storing`."""
        if self.dtype != np.float32:
            raise ValueError(f"weights={storage!r} narrows float32: this layer is {self.dtype}")
        directions = self._forward.direction, self._backward.direction
        engine = CpuEngine(self.cell, *directions, self._side)
        engine.storage = storage
        return engine

    def render_one_row(self, rendered: Callable[[], CpuEngine]) -> None:
        """The loops' twins for one row are another engine's, of the same program, made when they
        are first asked for."""

        def twin(name: str, arguments: tuple[str, ...]) -> CpuKernel | None:
            same = (k for k in rendered()._forward.direction.kernels if k.name == name)
            kernel = next((k for k in same if k.arguments == arguments), None)
            return kernel.function.one_row if kernel else None

        for kernel in self._forward.direction.kernels:
            if kernel.kind == "scan":
                kernel.function.render_one_row = partial(twin, kernel.name, kernel.arguments)

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
    ) -> tuple[dict[str, np.ndarray], Saved | None]:
        """Results by name; with `save`, what `backward` needs. See `layer_options.Engine`."""
        call = self._call(sizes, batch, time, save, last_only)
        own, later = out, NOTHING
        if out:
            _check_out(self._forward, call, out)
            own, later = _apart(out, arrays)
        job = Job(arrays, call, version, out=own, first_step=first_step)
        steps = time if time <= LEAST_STEPS else block_steps(self._forward, call)
        self._forward.steps, self._forward.rows = time, batch
        spans = () if checkpoint_every else spans_of(self._forward.direction, call, arrays)
        if spans:
            results, kept = forward_in_spans(self._forward, job, spans, steps, carry)
        else:
            results, kept = forward(self._forward, job, steps, checkpoint_every, carry)
        saved = None
        if save and self.cell.unlearned:
            learning.warn(self.cell)
        if save:  # before anything is written over what was read
            owned = self._owned(arrays, lent)
            asked = self._call(sizes, batch, time, save, False)
            saved = Saved(owned, asked, version, first_step, kept)
        return write_into(later, results), saved

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
        call = self._call(sizes, batch, time, False, last_only)
        self._forward.steps, self._forward.rows = time, batch
        return Repeated(self._forward, Job(arrays, call, version, out=out)).again

    def backward(
        self, saved: Saved, cotangents: Arrays, wanted: frozenset[str], out: Arrays = NOTHING
    ) -> dict[str, np.ndarray]:
        """Gradients by parameter name. See `layer_options.Engine`."""
        own, later = out, NOTHING
        if out:
            _check_out(self._backward, saved.call, out)
            own, later = _apart(out, cotangents)
        back = self._backward
        back.steps, back.rows = saved.call.time, saved.call.batch
        gradients = backward(self._forward, self._backward, saved, cotangents, wanted, own)
        return write_into(later, gradients)

    # ---- calls like an earlier one --------------------------------------------------------------

    def direct(
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
        kept: Iterable[str] = (),
    ) -> Direct | None:
        """`forward` for arrays that lie like these, those to write results into, too; None where
        it isn't one run that writes them where they are wanted. kept: arrays to stay with it."""
        call = self._call(sizes, batch, time, save, last_only)
        if not save and time > LEAST_STEPS and block_steps(self._forward, call) < time:
            return None
        direct = Direct(self._forward, Job(arrays, call, version, out=out), kept)
        return direct if direct.is_whole else None

    def direct_back(
        self,
        saved: Saved,
        cotangents: Arrays,
        wanted: frozenset[str],
        out: Arrays = NOTHING,
        kept: Iterable[str] = (),
    ) -> Direct | None:
        """`backward` for what such calls leave, and cotangents that lie like these. Those that are
        missing are among its constants."""
        (block,) = saved.blocks
        room = self._backward.room(saved.arrays)
        all_cotangents = cotangents_of(self._backward, cotangents, saved.call, block, room)
        brought = {cotangent_name(n) for n in cotangents}
        missing = [n for n in all_cotangents if n not in brought]
        assert block.residuals is not None
        arrays = saved.arrays | all_cotangents
        job = Job(arrays, saved.call, saved.version, block.residuals, wanted, out)
        direct = Direct(self._backward, job, [*missing, *kept])
        return direct if direct.is_whole else None

    def saved(
        self,
        arrays: dict[str, Any],
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        version: object,
        residuals: Residuals,
    ) -> Saved:
        """What `backward` needs of a direct call. arrays: as for `forward`; nobody changes them."""
        call = self._call(sizes, batch, time, True, False)
        return Saved(arrays, call, version, 0, [Block(0, time, {}, residuals)])

    def block_steps(self, sizes: Mapping[str, int], batch: int) -> int:
        """How many steps at once need a small workspace. See `layer_options.Engine`."""
        return block_steps(
            self._forward, CallKey(tuple(sorted(sizes.items())), batch, 1, False, True)
        )

    def _call(
        self, sizes: Mapping[str, int], batch: int, time: int, save: bool, last_only: bool
    ) -> CallKey:
        """The same one for the same numbers, so that it is found at a glance in what is kept."""
        key = (batch, time, save, last_only, *sizes.items())
        call = self._calls.get(key)
        if call is None:
            if len(self._calls) >= 4 * KEPT_SHAPES:
                self._calls.clear()
            storage = "" if save else self.storage
            call = CallKey(
                tuple(sorted(sizes.items())), batch, time, save, last_only, storage=storage
            )
            self._calls[key] = call
        return call

    def _owned(self, arrays: Arrays, lent: frozenset[str]) -> dict[str, Any]:
        """Parameters for the pullback, with the caller's own arrays copied: they may change."""
        owned = dict(arrays)
        pool = self._forward.target.pool or memory_pool.POOL
        for _, role, name in self._forward.direction.params:
            if name in lent or name not in arrays:
                continue
            if role in ("input", "context", "state", "restart", "valid"):
                array = owned[name] = pool.array(arrays[name].shape, arrays[name].dtype)
                array[...] = arrays[name]
        return owned

    def keep(self, layers: int) -> None:
        """So many layers call in turns: each finds what was packed of its weights the last time."""
        for side in (self._forward, self._backward):
            side.keep(layers)

    # ---- what ran -------------------------------------------------------------------------------

    @property
    def last(self) -> tuple[Ran, Ran]:
        """What the last calls ran, for `plan`."""
        return self._forward.ran, self._backward.ran

    def plan(self, last: Any = None) -> str:
        """The kernels of the last calls, their threads and tiles, and why."""
        lines = [
            f"{self.cell.name}, {self.dtype}, {host().vector_bytes * 8}-bit vectors, "
            f"{threading_reason()}"
        ]
        sides = (("forward", self._forward), ("backward", self._backward))
        for (title, side), ran in zip(sides, last or self.last, strict=True):
            lines += plan_side(title, side, ran)
        return "\n".join(lines)

    @property
    def loaded(self) -> frozenset[str]:
        """Kernels of its own that have machine code: those that ran."""
        sides = (self._forward, self._backward)
        kernels = [k for s in sides for k in s.direction.kernels if k.function]
        return frozenset(k.name for k in kernels if _is_loaded(k.function))


def _is_loaded(kernel: CpuKernel) -> bool:
    return kernel.any_loaded


def _check_out(side: Direction, call: CallKey, out: Arrays) -> None:
    """Kernels write where they are told: ValueError unless every array is what a result needs."""
    places = {p.name: p for p in side.direction.results if p.kind not in ("residual", "held")}
    for name, array in out.items():
        place = places.get(name)
        if place is None:
            raise ValueError(f"out has no result {name!r}: results are {', '.join(places)}")
        shape = result_shape(place, side.buffers, call)
        if array.dtype != side.dtype or array.shape != shape:
            raise ValueError(
                f"out[{name!r}] is {array.dtype} {list(array.shape)}, expected {side.dtype} "
                f"{list(shape)}"
            )
        if not array.flags.writeable:
            raise ValueError(f"out[{name!r}] is read-only")


def _apart(out: Arrays, read: Arrays) -> tuple[Arrays, Arrays]:
    """Arrays to write results into while others are read: (those to give, those to fill from new
    ones when everything has been read)."""
    arrays = [a for a in read.values() if isinstance(a, np.ndarray)]
    later = {n: o for n, o in out.items() if any(np.may_share_memory(o, a) for a in arrays)}
    return {n: o for n, o in out.items() if n not in later}, later
