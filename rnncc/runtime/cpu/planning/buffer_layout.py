"""A call's sizes -> where every buffer's rows are, which of them are the caller's own, and bytes
from row to row of those that a gradient sums over.

Non-Goals: addresses (`cpu.executable`).
"""

from __future__ import annotations

from collections.abc import Mapping

from rnncc.artifact.array_tables import BufferSpec, BufferView
from rnncc.artifact.kernel_args import addresses
from rnncc.artifact.kernel_tables import StageSpec
from rnncc.runtime.cpu.planning.tiling import TileBinder
from rnncc.runtime.planning.direction_tables import result_shape, touched
from rnncc.runtime.planning.layouts import (
    Layout,
    axes_of,
    is_padded,
    needs_room,
    room,
    row_axes,
    row_layout,
    staggered,
)


class MemoryBinder(TileBinder):
    """Lays out buffers, and answers what strides depend on."""

    def lay_out(self) -> None:
        call = self.call
        needed_whole = {n for k in self.d.kernels if k.kind != "scan" for n in addresses(k.words)}
        needed_whole |= {
            n for k in self.d.kernels if k.function is None for n in touched(self.d, k)
        }
        saved = {p.source.buffer for p in self.d.results if p.kind == "residual"}
        outputs = {p.source.buffer for p in self.d.results if p.kind == "output"}
        self.find_in_place(needed_whole, saved if call.save else set())
        parts = self.find_parts_in_place()
        kernels = {name: k for k in self.d.kernels for name in addresses(k.words)}
        histories = {c.buffer for c in self.d.carries if c.history}
        for buffer in self.d.buffers:
            shape = tuple(self.out.size(s) for s in buffer.shape)
            if buffer.storage == "param":
                layout = self.residuals.get(buffer.name) or self.parameter(buffer, shape)
                self.out.layouts[buffer.name] = layout
                continue
            layout = row_layout(shape, self.item, self.room(buffer))
            if buffer.local:
                layout.b = staggered(layout.row)
                self.out.bytes[buffer.name] = layout.b * self.rows_in_work(kernels[buffer.name])
            elif buffer.name in parts:
                layout.strides = parts[buffer.name]
            elif buffer.storage == "carry":
                keep = buffer.name in histories and (call.save or buffer.name in needed_whole)
                layout.slots = call.time + 1 if keep else 2
                layout.ring = -1 if keep else 1
                layout.t = staggered(layout.row)
                layout.b = layout.t * layout.slots
                self.out.bytes[buffer.name] = layout.b * call.batch
            else:
                self.work(buffer, layout, buffer.name in needed_whole, saved, outputs)
            self.out.layouts[buffer.name] = layout
            self.out.zero_bytes = max(self.out.zero_bytes, layout.row)

    def work(
        self, buffer: BufferSpec, layout: Layout, whole: bool, saved: set[str], outputs: set[str]
    ) -> None:
        """A buffer over the axes it varies over; steps nobody will read share one row."""
        call = self.call
        if buffer.name in self.out.fused:
            self.out.bytes[buffer.name] = 0
            return
        steps = call.time if "T" in buffer.axes else 1
        if not whole and "T" in buffer.axes:
            name = buffer.name
            read = (name in saved and call.save) or (name in outputs and not call.last_only)
            if (name in saved or name in outputs) and not read:
                steps = 1
        if buffer.name in self.out.in_place.values():
            self.callers_rows(buffer, layout, steps)
            return
        row = staggered(layout.row)
        self.spread(buffer, layout, row, steps)
        count = call.batch if "B" in buffer.axes else 1
        self.out.bytes[buffer.name] = row * steps * count

    def parameter(self, buffer: BufferSpec, shape: tuple[int, ...]) -> Layout:
        """The caller's rows, or a copy of them: what is read vector by vector is padded."""
        padded = is_padded(buffer, self.out.sizes)
        layout = row_layout(shape, self.item, self.room(buffer) if padded else None)
        strides = self.copies_first.get(buffer.name)
        if strides is None and padded:  # a weight: one row
            strides = row_layout(shape, self.item).strides
        if strides is None:
            self.callers_rows(buffer, layout, self.call.time if "T" in buffer.axes else 1)
            return layout
        # An axis that repeats one row goes on doing so.
        step = layout.row
        for axis, stride in reversed([*zip(buffer.axes, strides, strict=False)]):
            if stride:
                setattr(layout, axis.lower(), step)
                step *= self.call.time if axis == "T" else self.call.batch
        layout.slots = self.call.time if "T" in buffer.axes else 1
        self.out.bytes[buffer.name] = step
        self.out.copied[buffer.name] = strides
        return layout

    def callers_rows(self, buffer: BufferSpec, layout: Layout, steps: int) -> None:
        """One after another, or as the caller has them."""
        self.spread(buffer, layout, layout.row, steps)
        if buffer.name in self.strides:
            layout.b, layout.t = self.strides[buffer.name]

    def spread(self, buffer: BufferSpec, layout: Layout, row: int, steps: int) -> None:
        """Rows one after another; of one step, the same for all."""
        layout.slots = steps
        layout.t = row if "T" in buffer.axes and steps == self.call.time else 0
        layout.b = row * steps if "B" in buffer.axes else 0

    # ---- results where the caller wants them --------------------------------------------------

    def find_in_place(self, whole: set[str], saved: set[str]) -> None:
        """Results that kernels write where the caller wants them: those without padding, in rows
        of their own."""
        in_place = self.out.in_place
        strides = {name: (b, t) for name, b, t in self.call.result_strides}
        for place in self.d.results:
            source = place.source
            buffer = self.buffers[source.buffer]
            if place.kind == "residual" or place.parts or source.slot:
                continue
            if buffer.storage != "result" or buffer.name in {*saved, *in_place.values()}:
                continue
            if buffer.axes != axes_of(place, self.buffers):
                continue
            # Of a sequence that some kernel needs whole, the last step is a part.
            part = place.kind == "output" and self.call.last_only and buffer.name in whole
            if not part and not needs_room(buffer, self.out.sizes):
                in_place[place.name] = buffer.name
                if place.name in strides:
                    self.strides[buffer.name] = strides[place.name]

    def find_parts_in_place(self) -> dict[str, tuple[int, ...]]:
        """Gradients of weights that are made, whole or gate by gate, where the caller wants them:
        strides of such buffers."""
        strides_by_buffer: dict[str, tuple[int, ...]] = {}
        for place in self.d.results:
            parts = place.parts or (place.source,)
            names = [s.buffer for s in parts]
            buffers = [self.buffers[n] for n in names]
            if place.kind != "grad_weight" or len({*names}) < len(names):
                continue
            if any(
                self.is_elsewhere(b, s, strides_by_buffer)
                for b, s in zip(buffers, parts, strict=True)
            ):
                continue
            shape = result_shape(place, self.buffers, self.call)
            strides = row_layout(shape, self.item).strides
            at, offsets = 0, self.out.parts_in_place.setdefault(place.name, [])
            for buffer in buffers:
                strides_by_buffer[buffer.name] = strides
                offsets.append((buffer.name, at))
                if place.parts:
                    at += self.out.size(buffer.shape[place.axis]) * strides[place.axis]
        return strides_by_buffer

    def is_elsewhere(
        self, buffer: BufferSpec, source: BufferView, taken: Mapping[str, object]
    ) -> bool:
        """Whether a part of a result can't be in the caller's array."""
        return bool(
            buffer.storage != "work"
            or buffer.axes
            or buffer.name in taken
            or source.axes != tuple(range(len(buffer.shape)))
            or source.starts
            or needs_room(buffer, self.out.sizes)
        )

    def room(self, buffer: BufferSpec) -> int:
        return room(buffer, self.out.sizes)

    # ---- rows of constants ----------------------------------------------------------------------

    def init_outer(self, stage: str, i: int, axis: int) -> int:
        """Rows of constants: [outer axes][tile][vectors]."""
        inner = self.tile_row(stage, i) * self.out.tilings[stage].tiles
        for text in self.stages[stage].shape[axis + 1 : -1]:
            inner *= self.out.size(text)
        return inner

    # ---- rows of gradients --------------------------------------------------------------------

    def grad_axes(self, stage: StageSpec) -> set[str]:
        """The axes of rows a gradient's operands vary over."""
        return {axis for source in self.grad_operands(stage) for axis in self.row_axes(source)}

    def grad_operands(self, stage: StageSpec) -> list[BufferView]:
        assert stage.grad is not None
        return [s for s in (stage.grad.a, stage.grad.d) if s]

    def kept_stride(self, source: BufferView, kept: str) -> int:
        """Bytes from one kept row to the next."""
        if not kept or kept not in self.row_axes(source):
            return 0
        layout = self.out.layouts[source.buffer]
        return layout.b if kept == "B" else layout.t

    def kept(self, stage: StageSpec) -> str:
        return stage.grad.kept if stage.grad else ""

    def row_axes(self, source: BufferView) -> set[str]:
        return set(row_axes(source, self.buffers[source.buffer]))

    def grad_rows(self, stage: StageSpec) -> tuple[int, int]:
        """The two-level range of rows a gradient sums over; one level where strides allow."""
        batch, time = self.call.batch, self.call.time
        axes = self.grad_axes(stage) - {self.kept(stage)}
        if axes != {"B", "T"}:
            return 1, {"B": batch, "T": time}["".join(axes)]
        layouts = self.out.layouts
        uniform = all(
            layouts[s.buffer].b == layouts[s.buffer].t * time and self.row_axes(s) == {"B", "T"}
            for s in self.grad_operands(stage)
        )
        return (1, batch * time) if uniform else (batch, time)

    def grad_stride(self, stage: StageSpec, source: BufferView, which: str) -> int:
        layout, own = self.out.layouts[source.buffer], self.row_axes(source)
        inner = "T" if "T" in self.grad_axes(stage) - {self.kept(stage)} else "B"
        axis = inner if which == "1" else "B"
        if axis not in own:
            return 0
        return layout.t if axis == "T" else layout.b
