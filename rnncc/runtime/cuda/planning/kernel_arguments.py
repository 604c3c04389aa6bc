"""A direction's tables and one call's sizes -> a CudaBoundProgram: layouts, and every word of every
kernel's block.

Requests a kernel makes (see `emit.cuda.kernel_view`), by their first part:
    T B rows n1                counts
    members groups waiting     of the tier
    counters zeros seed, first step    a call's own
    size S                     a size as a number
    address BUF slot starts    where a buffer's first row is
    stride BUF T|B|axis        bytes
    ring BUF                   -1 where every step has its slot, 1 where two take turns
    sums N                     products of a group, where they are made between launches
    row BUF 0|1 domain         bytes from row to row: of the batch (0) and of time (1) if both run

Rows have no padding: a thread has a lane, whatever their number. Rows of one step lie side by side,
since they are what runs at once.

Non-Goals: running kernels; owning memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rnncc.artifact.grid_sync import WARP, Gpu, ScanWork, Tier, choose
from rnncc.artifact.kernel_tables import BufferSpec, DirectionSpec, KernelSpec
from rnncc.artifact.stationary_weights import Numbers, numbers
from rnncc.common.machine import ITEMSIZE
from rnncc.common.size_expressions import evaluate
from rnncc.runtime.cpu.planning.bound_program import CallKey, requests, touched
from rnncc.runtime.cpu.planning.copies import Point
from rnncc.runtime.cpu.planning.layouts import Layout, axes_of, row_layout
from rnncc.runtime.cuda.planning.step_matmuls import SUMS, Steps

ALIGNMENT = 256
RATE_OF_STATEMENTS = 64  # multiply-adds that a lane's statements cost, as a guess


@dataclass(slots=True)
class CudaBoundKernel:
    """addresses: (word, buffer, bytes from its first row); others: what only a call knows."""

    kernel: KernelSpec
    template: np.ndarray
    addresses: list[tuple[int, Point, int]]
    others: list[tuple[int, Point]]
    items: int  # that its widest level could give to threads


@dataclass(slots=True)
class CudaBoundProgram:
    call: CallKey
    sizes: dict[str, int]
    tier: Tier | None = None
    numbers: Numbers | None = None  # of the loop's twin, where that is what runs
    steps: Steps | None = None  # products between launches, where there are any
    layouts: dict[str, Layout] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)  # buffers this side allocates
    in_place: dict[str, str] = field(default_factory=dict)  # results that are buffers
    kernels: list[CudaBoundKernel] = field(default_factory=list)
    precision: str = "float32"  # of the library's operands
    bulk: dict[str, Any] = field(default_factory=dict)  # kernels that are contractions alone
    zero_bytes: int = ALIGNMENT


def round_up(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


class CudaArgumentBinder:
    def __init__(
        self,
        direction: DirectionSpec,
        call: CallKey,
        dtype: str,
        gpu: Gpu,
        residuals: Mapping[str, Layout],
        tier: str | None = None,
        fits: tuple[tuple[str, int], ...] = (),
    ) -> None:
        self.d, self.call, self.gpu, self.residuals = direction, call, gpu, residuals
        self.asked, self.fits = tier, fits
        self.item = ITEMSIZE[dtype]
        self.buffers = {b.name: b for b in direction.buffers}
        self.strides = {name: (b, t) for name, b, t in call.strides}
        self.out = CudaBoundProgram(call, dict(call.sizes))

    def bind(self) -> CudaBoundProgram:
        self.lay_out()
        for kernel in self.d.kernels:
            if kernel.kind == "scan":
                self.choose_tier(kernel)
        self.out.kernels = [self.bind_kernel(k) for k in self.d.kernels]
        return self.out

    def size(self, text: str) -> int:
        return evaluate(text, self.out.sizes)

    @property
    def layouts(self) -> dict[str, Layout]:
        return self.out.layouts

    # ---- the loop -----------------------------------------------------------------------------

    def choose_tier(self, kernel: KernelSpec) -> None:
        forms, why = self.forms(kernel)
        loop = self.loop(kernel)
        steps = Steps(self, kernel) if self.gpu.library else None
        products = steps is not None and steps.possible
        loop = replace(loop, forms=forms, why_not=why, products=products, fits=self.fits)
        tier = self.out.tier = choose(loop, self.gpu, self.asked)
        if tier.products:
            self.out.steps = steps
        if tier.name == "stationary":  # a group has fewer rows than the whole batch
            rows = -(-self.call.batch // tier.groups)
            fixed = self.stationary(kernel, rows, tier.threads // WARP)
            assert not isinstance(fixed, str)
            self.out.numbers = fixed

    def loop_kernel(self) -> tuple[Any, int]:
        """The function that runs the loop, and the shared memory its blocks have."""
        (scan,) = (k for k in self.d.kernels if k.kind == "scan")
        found = self.out.numbers
        if found is None:
            return scan.function, 0
        return scan.function.twin.built(found.constants), found.shared

    def forms(self, kernel: KernelSpec) -> tuple[tuple[Numbers, ...], str]:
        """In which the kernel's weights can stay, or why they can't."""
        if kernel.function.twin is None:
            return (), "no contraction has one axis of lanes and weights that nobody changes"
        if self.item != 4:
            return (), "only single precision has that form"
        # What is between sums needs registers that blocks of more warps don't have.
        counts = self.gpu.warps[: None if kernel.levels == 1 else 1]
        found = [self.stationary(kernel, self.call.batch, warps) for warps in counts]
        forms = tuple(f for f in found if not isinstance(f, str))
        return forms, "" if forms else str(found[-1])

    def stationary(self, kernel: KernelSpec, rows: int, warps: int) -> Numbers | str:
        """The numbers of the kernel's twin, or why there are none."""
        twin, room = kernel.function.twin, self.gpu.room
        return numbers(twin.shapes, self.size, rows, warps, room, twin.words, kernel.levels)

    def loop(self, kernel: KernelSpec) -> ScanWork:
        """How much there is to do in a step: lanes as wide as anything it writes, and weights read
        once a row."""
        items = max((self.elements(n) for n in kernel.writes), default=1)
        weights = sum(
            self.elements(name)
            for name in touched(self.d, kernel)
            if self.buffers[name].axes == "" and len(self.buffers[name].shape) > 1
        )
        return ScanWork(self.call.batch, items, weights + RATE_OF_STATEMENTS * items, kernel.levels)

    def elements(self, name: str) -> int:
        return math.prod(self.size(s) for s in self.buffers[name].shape)

    # ---- memory -------------------------------------------------------------------------------

    def lay_out(self) -> None:
        call, d = self.call, self.d
        whole = {n for k in d.kernels if k.kind != "scan" for n in touched(d, k)}
        saved = {p.source.buffer for p in d.results if p.role == "residual"}
        histories = {c.buffer for c in d.carries if c.history}
        self.find_in_place(saved if call.save else set())
        for buffer in d.buffers:
            shape = tuple(self.size(s) for s in buffer.shape)
            layout = self.residuals.get(buffer.name) if buffer.storage == "param" else None
            if layout is None:
                layout = row_layout(shape, self.item)
                count = self.call.batch if "B" in buffer.axes else 1
                if buffer.storage == "param" or buffer.name in self.out.in_place.values():
                    self.callers_rows(buffer, layout)
                elif buffer.storage == "carry":
                    keep = buffer.name in histories and (call.save or buffer.name in whole)
                    layout.slots, layout.ring = (call.time + 1, -1) if keep else (2, 1)
                    layout.b, layout.t = layout.row, layout.row * call.batch
                    self.out.bytes[buffer.name] = layout.t * layout.slots
                else:
                    steps = call.time if "T" in buffer.axes else 1
                    layout.b = layout.row if "B" in buffer.axes else 0
                    layout.t = layout.row * count if "T" in buffer.axes else 0
                    self.out.bytes[buffer.name] = layout.row * count * steps
            self.out.layouts[buffer.name] = layout
            self.out.zero_bytes = max(self.out.zero_bytes, layout.row)

    def callers_rows(self, buffer: BufferSpec, layout: Layout) -> None:
        """[B, T, ...] as the caller has them."""
        steps = self.call.time if "T" in buffer.axes else 1
        layout.t = layout.row if "T" in buffer.axes else 0
        layout.b = layout.row * steps if "B" in buffer.axes else 0
        if buffer.name in self.strides:
            layout.b, layout.t = self.strides[buffer.name]

    def find_in_place(self, saved: set[str]) -> None:
        """Results that kernels write where the caller wants them."""
        found = self.out.in_place
        for place in self.d.results:
            source = place.source
            buffer = self.buffers[source.buffer]
            if place.role == "residual" or place.parts or source.slot:
                continue
            if buffer.storage != "result" or buffer.name in {*saved, *found.values()}:
                continue
            if place.role == "output" and self.call.last_only:
                continue
            if buffer.axes == axes_of(place, self.buffers):
                found[place.name] = buffer.name

    # ---- words --------------------------------------------------------------------------------

    def bind_kernel(self, kernel: KernelSpec) -> CudaBoundKernel:
        items = max((self.elements(n) for n in kernel.writes), default=1) * self.rows_of(kernel)
        bound = CudaBoundKernel(kernel, np.zeros(len(kernel.requests), np.int64), [], [], items)
        for index, request in enumerate(requests(kernel)):
            value = self.answer(kernel, request)
            if request[0] == "sums":
                if self.out.steps is not None:
                    at = self.out.steps.offsets[int(request[1])]
                    bound.addresses.append((index, SUMS, at))
            elif value is not None:
                bound.template[index] = value
            elif request[0] == "address":
                bound.addresses.append((index, request[1], self.offset(request)))
            else:
                bound.others.append((index, request))
        return bound

    def rows_of(self, kernel: KernelSpec) -> int:
        counts = {"B": self.call.batch, "T": self.call.time}
        axes = "B" if kernel.kind == "scan" else kernel.axes
        return math.prod(counts[a] for a in axes)

    def offset(self, request: tuple[str, ...]) -> int:
        """Bytes from a buffer's base to what an address request means."""
        _, name, slot, starts = request
        layout, at = self.out.layouts[name], 0
        for part in filter(None, starts.split(",")):
            axis, size = part.split(":", 1)
            at += self.size(size) * layout.strides[int(axis)]
        if slot == "final":
            last = 0 if self.d.reverse else self.call.time
            return at + (last & layout.ring) * layout.t
        return at + layout.t * int((slot == "in") == self.d.reverse) if slot else at

    def answer(self, kernel: KernelSpec, request: tuple[str, ...]) -> int | None:
        """The word, or None where only a call can tell."""
        layouts, tier = self.out.layouts, self.out.tier
        match request:
            case ("T" | "n1",):
                return self.call.time
            case ("B",):
                return self.call.batch
            case ("rows",):
                return self.rows_of(kernel)
            case ("members" | "groups" | "waiting" as name,):
                return int(getattr(tier, name))
            case ("size", text):
                return self.size(text)
            case ("stride", name, "T"):
                return layouts[name].t
            case ("stride", name, "B"):
                return layouts[name].b
            case ("stride", name, axis):
                return layouts[name].strides[int(axis)]
            case ("ring", name):
                return layouts[name].ring
            case ("row", name, which, domain):
                batch = which == "0" if domain == "BT" else domain == "B"
                return layouts[name].b if batch else layouts[name].t
        return None
