"""A direction's tables and one call's sizes: what every target answers alike of a kernel's block.

`runtime.cpu.planning.kernel_arguments` and `runtime.cuda.planning.kernel_arguments` say where rows
of buffers are, and answer the rest.

Non-Goals: what differs from target to target; addresses of a call's memory (`executable`).
"""

from __future__ import annotations

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
)
from rnncc.artifact.kernel_tables import DirectionSpec, KernelSpec
from rnncc.common.machine import ITEMSIZE
from rnncc.common.size_expressions import evaluate
from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.layouts import Layout, slot_offset


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
