"""What a direction's tables say for one call, alike on every target: which kernels and buffers are
needed, the shapes of results that a caller chose, and the numbers in a kernel's block.

`runtime.cpu.planning.kernel_arguments` and `runtime.cuda.planning.kernel_arguments` say where rows
of buffers are, and answer the rest.

Non-Goals: what differs from target to target; addresses of a call's memory (`executable`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rnncc.artifact.array_tables import BufferSpec, ResultSpec
from rnncc.artifact.kernel_args import (
    AxisStride,
    BatchSize,
    BatchStride,
    BoundNumber,
    BufferAddress,
    RangeStride,
    RingMask,
    SizeOf,
    StepCount,
    StepStride,
    addresses,
)
from rnncc.artifact.kernel_tables import DirectionSpec, KernelSpec
from rnncc.common.machine import ITEMSIZE
from rnncc.common.size_expressions import evaluate
from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.layouts import Layout, axes_of, slot_offset


def touched(direction: DirectionSpec, kernel: KernelSpec) -> set[str]:
    """The buffers a kernel reads or writes."""
    names = addresses(kernel.words)
    if kernel.function is None:
        for stage in direction.stages:
            if stage.name not in kernel.stages:
                continue
            names |= {o.source.buffer for c in stage.cores for o in c.operands}
            names |= {c.out.buffer for c in stage.cores if c.out}
            if stage.grad:
                sources = (stage.grad.a, stage.grad.d, stage.grad.out)
                names |= {s.buffer for s in sources if s}
    return names


def chosen_results(direction: DirectionSpec, wanted: frozenset[str] | None) -> list[ResultSpec]:
    """The results asked for by these names; None is all but those of carries that nobody sees."""
    return [
        p
        for p in direction.results
        if p.kind != "residual" and (p.name in wanted if wanted is not None else p.kind != "held")
    ]


def needed_kernels(
    direction: DirectionSpec, places: Iterable[ResultSpec], wanted: frozenset[str] | None
) -> set[str]:
    """Kernels that such results depend on: of those behind the loop, not all."""
    kept = [p for p in direction.results if p.kind == "residual"]
    buffers = {s.buffer for p in (*places, *kept) for s in (p.source, *p.parts)}
    needed: set[str] = set()
    for kernel in reversed(direction.kernels):
        if wanted is None or kernel.phase != "after" or buffers.intersection(kernel.writes):
            needed.add(kernel.name)
            buffers |= touched(direction, kernel)
    return needed


def result_shape(
    place: ResultSpec, buffers: Mapping[str, BufferSpec], call: CallKey
) -> tuple[int, ...]:
    """Of a result, as its caller sees it."""
    sizes, axes = dict(call.sizes), axes_of(place, buffers)
    if call.last_only and place.kind == "output":
        axes = axes.replace("T", "")
    shape = [evaluate(s, sizes) for s in buffers[place.source.buffer].shape]
    if place.parts:
        along = [buffers[s.buffer].shape[place.axis] for s in place.parts]
        shape[place.axis] = sum(evaluate(s, sizes) for s in along)
    return (*({"B": call.batch, "T": call.time}[a] for a in axes), *shape)


class DirectionBinder:
    """layouts: of every buffer, filled by whoever lays them out."""

    def __init__(self, direction: DirectionSpec, call: CallKey, dtype: str) -> None:
        self.d, self.call = direction, call
        self.item = ITEMSIZE[dtype]
        self.sizes = dict(call.sizes)
        self.strides = {name: (b, t) for name, b, t in call.strides}
        self.buffers = {b.name: b for b in direction.buffers}
        self.layouts: dict[str, Layout] = {}

    def size(self, text: str) -> int:
        return evaluate(text, self.sizes)

    def offset(self, address: BufferAddress) -> int:
        """Bytes from the buffer's base."""
        layout = self.layouts[address.buffer]
        at = sum(self.size(size) * layout.strides[axis] for axis, size in address.starts)
        return at + slot_offset(address.slot, layout, self.call.time, self.d.reverse)

    def number(self, kernel: KernelSpec, argument: BoundNumber) -> int:
        """The answer to a kernel's argument. TypeError for one that this target doesn't know."""
        match argument:
            case StepCount():
                return self.call.time
            case BatchSize():
                return self.call.batch
            case SizeOf(size):
                return self.size(size)
            case BatchStride(buffer):
                return self.layouts[buffer].b
            case StepStride(buffer):
                return self.layouts[buffer].t
            case AxisStride(buffer, axis):
                return self.layouts[buffer].strides[axis]
            case RingMask(buffer):
                return self.layouts[buffer].ring
            case RangeStride(buffer, level):
                return self.range_stride(buffer, level, kernel.axes)
        raise TypeError(f"{kernel.name} asks for {argument!r}, which nobody here knows")

    def range_stride(self, buffer: str, level: int, axes: str) -> int:
        """Bytes from row to row of a range over these axes: of its outer level (0), which is the
        batch if both run, or its inner one (1)."""
        steps = "T" in axes and (level == 1 or axes == "T")
        layout = self.layouts[buffer]
        return layout.t if steps else layout.b
