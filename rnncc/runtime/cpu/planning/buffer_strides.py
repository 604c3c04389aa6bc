"""Bytes from row to row of buffers that were laid out, and the rows that a gradient sums over.

Non-Goals: where a buffer begins (`buffer_layout`).
"""

from __future__ import annotations

from rnncc.artifact.kernel_tables import StageSpec
from rnncc.runtime.cpu.planning.buffer_layout import MemoryBinder


class StrideBinder(MemoryBinder):
    """Answers what strides depend on."""

    def init_outer(self, stage: str, i: int, axis: int) -> int:
        """Rows of constants: [outer axes][tile][vectors]."""
        inner = self.tile_row(stage, i) * self.out.tilings[stage].tiles
        for text in self.stages[stage].shape[axis + 1 : -1]:
            inner *= self.out.size(text)
        return inner

    # ---- rows of gradients --------------------------------------------------------------------

    def grad_axes(self, stage: StageSpec) -> set[str]:
        """The axes of rows a gradient's operands vary over."""
        return {axis for name in self.grad_operands(stage) for axis in self.row_axes(name)}

    def grad_operands(self, stage: StageSpec) -> list[str]:
        assert stage.grad is not None
        return [s.buffer for s in (stage.grad.a, stage.grad.d) if s]

    def kept_stride(self, name: str, kept: str) -> int:
        """Bytes from one kept row to the next."""
        if not kept or kept not in self.row_axes(name):
            return 0
        return self.out.layouts[name].b if kept == "B" else self.out.layouts[name].t

    def kept(self, stage: StageSpec) -> str:
        return stage.grad.kept if stage.grad else ""

    def row_axes(self, name: str) -> set[str]:
        buffer = self.buffers[name]
        return {"B", "T"} if buffer.storage == "carry" else set(buffer.axes)

    def grad_rows(self, stage: StageSpec) -> tuple[int, int]:
        """The two-level range of rows a gradient sums over; one level where strides allow."""
        batch, time = self.call.batch, self.call.time
        axes = self.grad_axes(stage) - {self.kept(stage)}
        if axes != {"B", "T"}:
            return 1, {"B": batch, "T": time}["".join(axes)]
        uniform = all(
            self.out.layouts[n].b == self.out.layouts[n].t * time and self.row_axes(n) == {"B", "T"}
            for n in self.grad_operands(stage)
        )
        return (1, batch * time) if uniform else (batch, time)

    def grad_stride(self, stage: StageSpec, name: str, which: str) -> int:
        layout, own = self.out.layouts[name], self.row_axes(name)
        inner = "T" if "T" in self.grad_axes(stage) - {self.kept(stage)} else "B"
        axis = inner if which == "1" else "B"
        if axis not in own:
            return 0
        return layout.t if axis == "T" else layout.b
