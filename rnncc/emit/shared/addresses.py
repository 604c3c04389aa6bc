"""Where a kernel finds its rows and lanes: addresses and strides as text, over the block's words.

Row variables are `r`, and `r0` for an outer range of rows; strides are in bytes.

Non-Goals: numbers (`cpu.kernel_arguments`).
"""

from __future__ import annotations

from collections.abc import Set

from rnncc.artifact.kernel_args import (
    AxisStride,
    BatchStride,
    BufferAddress,
    RangeStride,
    RingMask,
    SizeOf,
    Starts,
    StepStride,
    ZeroRow,
)
from rnncc.emit.shared.kernel_names import Words
from rnncc.emit.shared.views import STEP, Loop
from rnncc.ir.sizes import Size
from rnncc.schedule.model import Buffer, Kernel, View


class Addresses:
    """`step_lines` collects what a scan works out anew at every step. one_row: the only row is the
    first, so that no address has a term for it. steps_named: so is where the step's rows of a
    sequence are; or else that is a term of every address, which LLVM moves out of inner loops."""

    def __init__(
        self,
        kernel: Kernel,
        words: Words,
        *,
        one_row: bool = False,
        steps_named: bool = False,
        local: Set[Buffer] = frozenset(),
    ) -> None:
        """local: buffers that have rows for a block alone, from the row `origin` on."""
        self.kernel = kernel
        self.one_row, self.steps_named, self.local = one_row, steps_named, local
        self.asks_for_origin = False
        self.words = words
        self.in_scan = kernel.kind == "scan"
        self.step_lines: list[str] = []
        self.pointers: dict[tuple[object, ...], str] = {}
        self.first_strides: dict[Buffer, str] = {}
        self.asks_for_first = False

    @property
    def first(self) -> str:
        """Whether this is the first step."""
        self.asks_for_first = True
        return "first"

    @property
    def column(self) -> int:
        """Where a stage stands."""
        if self.kernel.kind == "weights":
            return STEP
        return 2 * STEP if self.one_row else 3 * STEP

    def size(self, size: Size) -> str:
        if size.is_constant:
            return str(size.constant)
        return self.words.of(str(size), "size", SizeOf(str(size)))

    def axis_stride(self, buffer: Buffer, axis: int) -> str:
        if axis == len(buffer.shape) - 1:
            return "SIZE"
        return self.words.of(buffer.name, f"stride_{axis}", AxisStride(buffer.name, axis))

    def step_stride(self, buffer: Buffer, name: str = "") -> str:
        """Bytes from step to step, or from slot to slot. name: what it is called after, if not the
        buffer."""
        return self.words.of(name or buffer.name, "stride_t", StepStride(buffer.name))

    def batch_stride(self, buffer: Buffer) -> str:
        return self.words.of(buffer.name, "stride_b", BatchStride(buffer.name))

    def pointer(self, view: View) -> str:
        """The address of a view's first row (in a scan: at this step)."""
        starts = tuple((axis, str(size)) for axis, size in view.starts)
        key = (view.buffer, view.slot, starts, view.first_only)
        if key in self.pointers:
            return self.pointers[key]
        pointer = self.pointers[key] = self._pointer(view, starts)
        return pointer

    def _pointer(self, view: View, starts: Starts) -> str:
        buffer, slot = view.buffer, view.slot
        name = f"{buffer.name}_{slot}" if slot else buffer.name
        if not self.in_scan or slot == "final":
            return self.words.of(name, "ptr", BufferAddress(buffer.name, slot, starts))
        base = self.words.of(buffer.name, "ptr", BufferAddress(buffer.name, "", starts))
        if not slot:
            if "T" not in buffer.axes:
                return base
            stride = self.step_stride(buffer, name)
            if not self.steps_named:
                return f"{base} + t * {stride}"
            at = self.words.fresh_of(f"{name}_t", "ptr")
            self.step_lines.append(f"{at} = {base} + t * {stride}")
            return at
        pointer = self.words.fresh_of(name, "ptr")
        self.step_lines.append(f"{pointer} = {self.slot_address(buffer, base, slot)}")
        if view.first_only:
            entry = self.words.fresh_of(f"{name}_first", "ptr")
            zeros = self.words("zeros", ZeroRow())
            self.step_lines.append(f"{entry} = {pointer} if {self.first} else {zeros}")
            return entry
        return pointer

    def slot_address(self, buffer: Buffer, base: str, slot: str) -> str:
        stride = self.step_stride(buffer)
        ring = self.words.of(buffer.name, "ring", RingMask(buffer.name))
        entering = "t + 1" if self.kernel.reverse else "t"
        leaving = "t" if self.kernel.reverse else "t + 1"
        index = entering if slot == "in" else leaving
        return f"{base} + ({index} & {ring}) * {stride}"

    def row_strides(self, view: View) -> dict[str, str]:
        """For each row variable the stride it is multiplied with; absent where zero."""
        buffer = view.buffer
        if self.one_row:
            return {}
        if buffer in self.local:
            return {"r": self.batch_stride(buffer)}
        if self.in_scan:
            if "B" not in buffer.axes:
                return {}
            stride = self.batch_stride(buffer)
            if view.first_only:
                return {"r": self.first_stride(buffer, stride)}
            return {"r": stride}
        if self.kernel.kind != "rows" or not buffer.axes:
            return {}
        strides = {"r": self.words.of(buffer.name, "stride_r", RangeStride(buffer.name, 1))}
        if self.kernel.axes == "BT":
            strides["r0"] = self.words.of(buffer.name, "stride_r0", RangeStride(buffer.name, 0))
        return strides

    def first_stride(self, buffer: Buffer, stride: str) -> str:
        """The stride of what is zero after the first step."""
        if buffer not in self.first_strides:
            name = self.first_strides[buffer] = self.words.fresh_of(buffer.name, "stride_first")
            self.step_lines.append(f"{name} = {stride} if {self.first} else 0")
        return self.first_strides[buffer]

    def row_terms(self, view: View, variables: tuple[str, ...] = ("r0", "r")) -> str:
        strides = self.row_strides(view)
        if "r" not in strides or view.buffer not in self.local:
            return "".join(f" + {x} * {strides[x]}" for x in variables if x in strides)
        self.asks_for_origin = True
        if "r" in variables:
            return f" + (r - origin) * {strides['r']}"
        return f" - origin * {strides['r']}"  # of the row 0, to which rows are added elsewhere

    def outer_terms(self, view: View, outer: list[Loop]) -> str:
        """The view's offset inside the loops over the outer axes of a lane space."""
        terms = ""
        for loop, axis in zip(outer, view.axes[:-1], strict=True):
            if axis is not None:
                terms += f" + {loop.var} * {self.axis_stride(view.buffer, axis)}"
        return terms

    def axis_term(self, view: View, axis: int, var: str) -> str:
        """The view's offset along one of its axes."""
        stride = self.view_stride(view, axis)
        return "" if stride == "0" else f" + {var} * {stride}"

    def view_stride(self, view: View, axis: int) -> str:
        behind = view.axes[axis]
        return "0" if behind is None else self.axis_stride(view.buffer, behind)
