"""A direction's tables and one call's sizes -> a CudaBoundProgram: layouts, and every word of every
kernel's block.

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

from rnncc.artifact.array_tables import BufferSpec
from rnncc.artifact.grid_sync import WARP, Gpu, ScanWork, Tier, choose
from rnncc.artifact.kernel_args import (
    BoundNumber,
    BufferAddress,
    GroupCount,
    InnerRows,
    KernelArgument,
    MemberCount,
    RowCount,
    StepSums,
    WaitingBlocks,
)
from rnncc.artifact.kernel_tables import DirectionSpec, KernelSpec
from rnncc.artifact.stationary_weights import Numbers, numbers
from rnncc.runtime.cuda.planning.step_matmuls import SUMS, Steps
from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.copies import Point
from rnncc.runtime.planning.direction_tables import DirectionBinder, touched
from rnncc.runtime.planning.layouts import Layout, axes_of, row_layout

ALIGNMENT = 256
RATE_OF_STATEMENTS = 64  # multiply-adds that a lane's statements cost, as a guess


@dataclass(slots=True)
class CudaBoundKernel:
    """addresses: (word, buffer, bytes from its first row); others: what only a call knows."""

    kernel: KernelSpec
    template: np.ndarray
    addresses: list[tuple[int, Point, int]]
    others: list[tuple[int, KernelArgument]]
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


class CudaArgumentBinder(DirectionBinder):
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
        super().__init__(direction, call, dtype)
        self.gpu, self.residuals = gpu, residuals
        self.asked, self.fits = tier, fits
        self.out = CudaBoundProgram(call, self.sizes, layouts=self.layouts)

    def bind(self) -> CudaBoundProgram:
        self.lay_out()
        for kernel in self.d.kernels:
            if kernel.kind == "scan":
                self.choose_tier(kernel)
        self.out.kernels = [self.bind_kernel(k) for k in self.d.kernels]
        return self.out

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
        numbers = self.out.numbers
        if numbers is None:
            return scan.function, 0
        return scan.function.twin.built(numbers.constants), numbers.shared

    def forms(self, kernel: KernelSpec) -> tuple[tuple[Numbers, ...], str]:
        """In which the kernel's weights can stay, or why they can't."""
        if kernel.function.twin is None:
            return (), "no contraction has one axis of lanes and weights that nobody changes"
        if self.item != 4:
            return (), "only single precision has that form"
        # What is between sums needs registers that blocks of more warps don't have.
        counts = self.gpu.warps[: None if kernel.levels == 1 else 1]
        candidates = [self.stationary(kernel, self.call.batch, warps) for warps in counts]
        forms = tuple(f for f in candidates if not isinstance(f, str))
        return forms, "" if forms else str(candidates[-1])

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
        needed_whole = {n for k in d.kernels if k.kind != "scan" for n in touched(d, k)}
        saved = {p.source.buffer for p in d.results if p.kind == "residual"}
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
                    keep = buffer.name in histories and (call.save or buffer.name in needed_whole)
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
        in_place = self.out.in_place
        for place in self.d.results:
            source = place.source
            buffer = self.buffers[source.buffer]
            if place.kind == "residual" or place.parts or source.slot:
                continue
            if buffer.storage != "result" or buffer.name in {*saved, *in_place.values()}:
                continue
            if place.kind == "output" and self.call.last_only:
                continue
            if buffer.axes == axes_of(place, self.buffers):
                in_place[place.name] = buffer.name

    # ---- words --------------------------------------------------------------------------------

    def bind_kernel(self, kernel: KernelSpec) -> CudaBoundKernel:
        items = max((self.elements(n) for n in kernel.writes), default=1) * self.rows_of(kernel)
        bound = CudaBoundKernel(kernel, np.zeros(len(kernel.words), np.int64), [], [], items)
        for index, argument in enumerate(kernel.words):
            match argument:
                case BoundNumber():
                    bound.template[index] = self.number(kernel, argument)
                case BufferAddress(buffer):
                    bound.addresses.append((index, buffer, self.offset(argument)))
                case StepSums(group):
                    if self.out.steps is not None:  # else the loop makes them itself
                        bound.addresses.append((index, SUMS, self.out.steps.offsets[group]))
                case _:
                    bound.others.append((index, argument))
        return bound

    def rows_of(self, kernel: KernelSpec) -> int:
        counts = {"B": self.call.batch, "T": self.call.time}
        axes = "B" if kernel.kind == "scan" else kernel.axes
        return math.prod(counts[a] for a in axes)

    def number(self, kernel: KernelSpec, argument: BoundNumber) -> int:
        tier = self.out.tier
        match argument:
            case InnerRows():
                return self.call.time
            case RowCount():
                return self.rows_of(kernel)
            case MemberCount() if tier is not None:
                return tier.members
            case GroupCount() if tier is not None:
                return tier.groups
            case WaitingBlocks() if tier is not None:
                return tier.waiting
        return super().number(kernel, argument)
