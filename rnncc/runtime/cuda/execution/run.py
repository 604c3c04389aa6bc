"""One direction, once, on a device: memory, words, launches, results.

Non-Goals: what stays the same between calls (`cuda.executable`); blocks of steps (`time_chunks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rnncc.artifact.array_tables import BufferSpec
from rnncc.artifact.kernel_args import Counters, OneRow, ZeroRow
from rnncc.common.size_expressions import evaluate
from rnncc.runtime.common.precision import PRECISION
from rnncc.runtime.common.strides import repeated
from rnncc.runtime.cpu.execution.job import Job, Residuals
from rnncc.runtime.cuda.driver.current_target import current
from rnncc.runtime.cuda.driver.graphs import LEAST
from rnncc.runtime.cuda.driver.target import CARRIER, Carrier, DeviceMemory, HostArrays
from rnncc.runtime.cuda.execution.direction_cache import CudaDirectionCache
from rnncc.runtime.cuda.kernels.kernel import RANGES
from rnncc.runtime.cuda.planning.executable import CudaPlan, Multiplication
from rnncc.runtime.planning.copies import Point
from rnncc.runtime.planning.direction_tables import chosen_results
from rnncc.runtime.planning.layouts import Layout, slot_offset

WEIGHTS = ("weight", "constant")


class CudaRun:
    """One Job, once: `results`, and `residuals()`, as `cpu.run.Run` has them."""

    def __init__(self, side: CudaDirectionCache, job: Job) -> None:
        self.side, self.job = side, job
        carrier: Carrier | None = job.arrays.get(CARRIER)
        self.carrier = carrier or HostArrays(current())
        self.target = self.carrier.target
        self.pieces: dict[str, DeviceMemory] = {}
        self.strides: list[tuple[str, int, int]] = []
        for buffer, role, name in side.direction.params:
            if role not in (*WEIGHTS, "residual", "seed"):
                self.pieces[buffer] = self.enter(side.buffers[buffer], role, name)
        call = job.call
        if self.strides:
            call = replace(call, strides=tuple(self.strides))
        precision = job.arrays.get(PRECISION, "float32")
        self.prepared = side.prepared(call, job.residuals, self.target, precision)
        self.binding = self.prepared.binding
        self.saved_arena: DeviceMemory | None = None
        self.results = self.go()

    def enter(self, buffer: BufferSpec, role: str, name: str) -> DeviceMemory:
        """A parameter on the device."""
        if role == "held" and name not in self.job.arrays:  # nothing has been put out yet
            rest = [evaluate(s, dict(self.job.call.sizes)) for s in buffer.shape]
            array: Any = repeated(np.zeros(rest, self.side.dtype), (self.job.call.batch,))
        else:
            array = self.job.arrays[name]
        piece, strides = self.carrier.enter(array, np.dtype(self.side.dtype), len(buffer.axes))
        if strides is not None:
            b = strides[0] if "B" in buffer.axes else 0
            t = strides[len(buffer.axes) - 1] if "T" in buffer.axes else 0
            self.strides.append((buffer.name, b, t))
        return piece

    def go(self) -> dict[str, Any]:
        executable, job, dtype = self.prepared, self.job, np.dtype(self.side.dtype)
        plan = executable.plan(job.wanted)
        places: dict[Point, int] = {name: piece.address for name, piece in self.pieces.items()}
        for buffer, role, name in self.side.direction.params:
            if role == "residual":
                places[buffer] = job.residuals.places[name][0]
            elif role in WEIGHTS:
                piece = self.side.weight(job.version, name, job.arrays[name], self.carrier)
                self.pieces[buffer], places[buffer] = piece, piece.address
        offsets, size = executable.shared_arena
        self.arena = self.carrier.empty(size + plan.scratch_bytes)
        places |= {name: self.arena.address + at for name, at in offsets.items()}
        scratch = self.arena.address + size
        places |= {name: scratch + at for name, at in plan.scratch.items()}
        self.counters = DeviceMemory(places[Counters()], self.arena)
        if executable.saved:
            offsets, size = executable.saved_arena
            self.saved_arena = self.carrier.empty(size)
            places |= {name: self.saved_arena.address + at for name, at in offsets.items()}
        places[ZeroRow()] = self.target.zeros(self.binding.zero_bytes).address
        results = {}
        for name, shape, point in plan.results:
            results[name] = self.carrier.result(shape, dtype)
            places[point] = results[name].address
        places[OneRow()] = self.target.ones(dtype.name, plan.ones).address
        self.places = places
        self.launch(plan, places)
        asked = {p.name for p in chosen_results(self.side.direction, job.wanted)}
        return {
            name: self.carrier.leave(results[name], shape, dtype, job.out.get(name))
            for name, shape, _ in plan.results
            if name in asked
        }

    def launch(self, plan: CudaPlan, places: Mapping[Point, int]) -> None:
        self.target.enter()
        words = plan.template.copy()
        at, points, offsets = plan.where
        words[at] = np.array([places[name] for name in plan.points], np.int64)[points] + offsets
        for index in plan.seeds:
            words[index] = int(self.job.arrays["seed"])
        for index in plan.first_steps:
            words[index] = self.job.first_step

        def run(stream: Any, workspace: int) -> None:
            self.launch_all(plan, words, stream, workspace)

        if self.target.gpu.graphs and self.side.graphs and len(plan.launches) >= LEAST:
            plan.graphs.launch(words.tobytes(), run, self.target, self.carrier.stream)
        else:
            run(self.carrier.stream, 0)

    def launch_all(self, plan: CudaPlan, words: np.ndarray, stream: Any, workspace: int) -> None:
        """A plan's launches, one by one. workspace: an address for the library to use."""
        for each in plan.launches:
            if isinstance(each, Multiplication):
                left, right, out = words[each.start : each.end].tolist()
                self.target.multiply(
                    each.product,
                    (left, right, out),
                    self.side.dtype,
                    each.precision,
                    stream=stream,
                    workspace=workspace,
                )
                continue
            if each.cooperative:
                self.target.clear(self.counters, plan.counters, stream)
            own = words[each.start : each.end]
            own[:RANGES] = each.ranges
            self.target.launch(
                each.kernel,
                self.side.dtype,
                each.grid,
                each.threads,
                own,
                shared=each.shared,
                cooperative=each.cooperative,
                stream=stream,
            )

    def residuals(self) -> Residuals:
        """What the pullback reads; addresses are already at the slots they mean."""
        places: dict[str, tuple[int, Layout]] = {}
        owners: list[Any] = [self.saved_arena]
        direction = self.side.direction
        for place in direction.results:
            if place.kind == "residual":
                name = place.source.buffer
                layout = self.binding.layouts[name]
                address = self.places[name]
                address += slot_offset(
                    place.source.slot, layout, self.job.call.time, direction.reverse
                )
                places[place.name] = (address, layout)
                owners.append(self.pieces.get(name))
        return Residuals(places, tuple(owners))


class CudaDirection(CudaDirectionCache):
    """One direction of a cell."""

    def run(self, job: Job) -> CudaRun:
        """The job, done."""
        return CudaRun(self, job)
