"""Tables of a kernel that consists of contractions alone -> contractions with numbers.

Non-Goals: which kernels those are (`schedule`); who computes them (`cuda.gemm_choice`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from rnncc.artifact.array_tables import BufferView
from rnncc.artifact.grid_sync import Gpu
from rnncc.artifact.kernel_args import BufferAddress, OneRow
from rnncc.artifact.kernel_tables import CoreSpec, GradSpec, KernelSpec, PackSpec, StageSpec
from rnncc.runtime.cuda.kernels.gemm_tiles import ADDS, CONSTANTS, ZEROS, Contraction, TileOperand
from rnncc.runtime.cuda.planning.gemm_choice import bulk_of
from rnncc.runtime.cuda.planning.kernel_arguments import CudaArgumentBinder
from rnncc.runtime.planning.layouts import row_axes

MOST_CALLS = 32  # launches that a kernel may become
LEAST_WORK = 1 << 20  # multiply-adds from which they are worth launches of their own


class Tiler:
    """The contractions a kernel consists of, with the numbers of a call."""

    def __init__(self, binder: CudaArgumentBinder) -> None:
        self.binder, self.d = binder, binder.d
        self.layouts = binder.out.layouts

    def of(self, kernel: KernelSpec) -> list[Contraction] | None:
        """All that the kernel does; None where tiles have no form for it, or are no gain."""
        stages = [s for s in self.d.stages if s.name in kernel.stages]
        if not stages or kernel.kind not in ("rows", "grads"):
            return None
        contractions: list[Contraction] = []
        for stage in stages:
            own = list(self._grad(stage) if stage.grad else self._lanes(kernel, stage))
            if not own or len(contractions) + len(own) > MOST_CALLS:
                return None
            contractions += own
        return contractions if sum(c.work for c in contractions) >= LEAST_WORK else None

    def tile(self, gpu: Gpu, precision: str = "float32") -> None:
        """Kernels that are contractions alone, and large, run as such."""
        for each in self.d.kernels:
            contractions = self.of(each)
            if contractions is not None:
                self.binder.out.bulk[each.name] = bulk_of(
                    contractions, gpu, self.binder.item, precision
                )

    # ---- places ---------------------------------------------------------------------------------

    def _offset(self, source: BufferView, index: dict[int, int]) -> int:
        """Bytes from a buffer's base to a view's element, the first of the axes not indexed."""
        at = self.binder.offset(BufferAddress(source.buffer, source.slot, source.starts))
        return at + sum(i * self._stride(source, axis) for axis, i in index.items())

    def _stride(self, source: BufferView, axis: int | None) -> int:
        behind = None if axis is None else source.axes[axis]
        return 0 if behind is None else self.layouts[source.buffer].strides[behind]

    def _rows(self, source: BufferView, axes: str) -> tuple[int, int]:
        """Strides of rows: of the outer axis and of the inner one."""
        layout = self.layouts[source.buffer]
        strides = {"B": layout.b, "T": layout.t}
        varies = row_axes(source, self.binder.buffers[source.buffer])
        row_strides = [strides[a] if a in varies else 0 for a in axes]
        return (
            (row_strides[0], row_strides[1])
            if len(row_strides) == 2
            else (0, row_strides[0])
            if row_strides
            else (0, 0)
        )

    def _counts(self, axes: str) -> tuple[int, int]:
        """Rows, and how many of them the inner axis has."""
        call = self.binder.call
        counts = [{"B": call.batch, "T": call.time}[a] for a in axes]
        return math.prod(counts), (counts[-1] if counts else 1)

    # ---- rows -----------------------------------------------------------------------------------

    def _lanes(self, kernel: KernelSpec, stage: StageSpec) -> Iterator[Contraction]:
        """Sums over k of weights, for every row: a contraction a gate and segment."""
        outer = [self.binder.size(s) for s in stage.shape[:-1]]
        if not stage.shape or math.prod(outer) > MOST_CALLS:
            return
        for core in stage.cores:
            for gate in range(core.gates):
                for index in _indices(outer):
                    yield from self._sum(kernel, stage, core, gate, index)

    def _sum(
        self,
        kernel: KernelSpec,
        stage: StageSpec,
        core: CoreSpec,
        gate: int,
        index: tuple[int, ...],
    ) -> Iterator[Contraction]:
        out = core.out
        if out is None:
            return
        rows, inner = self._counts(kernel.axes)
        lanes = self.binder.size(stage.shape[-1])
        tiled = core.gates > 1  # rows of gates side by side
        place = {0: gate} if tiled else dict(enumerate(index))
        if tiled:
            out = BufferView(out.buffer, (0, 1))
        target = TileOperand(
            out.buffer,
            self._offset(out, place),
            self._rows(out, kernel.axes),
            n=self._stride(out, len(out.axes) - 1),
        )
        begin, constants = ZEROS, None
        row = core.init[gate] if core.init else None
        if row is not None:
            at = {i: x for i, x in enumerate(index) if row.axes[i] is not None}
            begin = CONSTANTS
            constants = TileOperand(
                row.buffer, self._offset(row, at), n=self._stride(row, len(index))
            )
        for operand, pack in zip(core.operands, core.packs, strict=True):
            if pack is None or len(pack.k) > 2:
                return
            yield self._segment(
                kernel, operand.source, operand.k, operand.outer, pack, gate, index, target,
                (rows, lanes), inner, begin, constants,
            )  # fmt: skip
            begin, constants = ADDS, None

    def _segment(
        self, kernel: KernelSpec, a: BufferView, a_k: tuple[int, ...],
        a_outer: tuple[int | None, ...], pack: PackSpec, gate: int, index: tuple[int, ...],
        out: TileOperand, counts: tuple[int, int], inner: int, begin: int,
        constants: TileOperand | None,
    ) -> Contraction:  # fmt: skip
        w = pack.gates[gate]
        sizes = [self.binder.size(s) for s in pack.k_sizes]
        a_at = {axis: i for axis, i in zip(a_outer, index, strict=True) if axis is not None}
        w_at = {axis: i for axis, i in zip(pack.outer, index, strict=True) if axis is not None}
        return Contraction(
            TileOperand(
                a.buffer,
                self._offset(a, a_at),
                self._rows(a, kernel.axes),
                _pair([self._stride(a, axis) for axis in a_k]),
            ),
            TileOperand(
                w.buffer,
                self._offset(w, w_at),
                k=_pair([self._stride(w, axis) for axis in pack.k]),
                n=self._stride(w, pack.lane) if pack.lane is not None else 0,
            ),
            out,
            (*counts, math.prod(sizes)),
            inner,
            sizes[-1] if sizes else 1,
            begin,
            constants,
        )

    # ---- gradients ------------------------------------------------------------------------------

    def _grad(self, stage: StageSpec) -> Iterator[Contraction]:
        """Sums over rows and steps: rows are k."""
        grad = stage.grad
        assert grad is not None
        outer = [self.binder.size(size) for size, _, _, _ in grad.outer]
        if grad.kept or grad.k or math.prod(outer) > MOST_CALLS:
            return
        axes = "".join(x for x in "BT" if x in self._summed(grad))
        count, inner = self._counts(axes)
        lanes = self.binder.size(stage.shape[-1]) if stage.shape else 1
        m_a, m_out = grad.m
        for index in _indices(outer):
            a_at, d_at, out_at = ({}, {}, {})  # type: ignore[var-annotated]
            for i, (_, a_axis, d_axis, out_axis) in zip(index, grad.outer, strict=True):
                for at, axis in ((a_at, a_axis), (d_at, d_axis), (out_at, out_axis)):
                    if axis is not None:
                        at[axis] = i
            a = TileOperand(OneRow(), 0)
            if grad.a is not None:
                m = (0, self._stride(grad.a, m_a))
                a = TileOperand(
                    grad.a.buffer, self._offset(grad.a, a_at), m, self._rows(grad.a, axes)
                )
            last = len(grad.d.axes) - 1
            yield Contraction(
                a,
                TileOperand(
                    grad.d.buffer,
                    self._offset(grad.d, d_at),
                    k=self._rows(grad.d, axes),
                    n=self._stride(grad.d, last) if stage.shape else 0,
                ),
                TileOperand(
                    grad.out.buffer,
                    self._offset(grad.out, out_at),
                    (0, self._stride(grad.out, m_out)),
                    n=self._stride(grad.out, len(grad.out.axes) - 1) if stage.shape else 0,
                ),
                (self.binder.size(grad.rows), lanes, count),
                self.binder.size(grad.rows),
                inner,
            )

    def _summed(self, grad: GradSpec) -> set[str]:
        axes: set[str] = set()
        for source in (grad.a, grad.d):
            if source is not None:
                axes |= set(row_axes(source, self.binder.buffers[source.buffer]))
        return axes


def _pair(strides: list[int]) -> tuple[int, int]:
    return (strides[0], strides[1]) if len(strides) == 2 else (0, strides[0] if strides else 0)


def _indices(counts: list[int]) -> Iterator[tuple[int, ...]]:
    if not counts:
        yield ()
        return
    for i in range(counts[0]):
        for rest in _indices(counts[1:]):
            yield (i, *rest)
