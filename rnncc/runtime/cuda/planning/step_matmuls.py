"""The products of a loop's steps: sums that a library makes between two launches.

    for every step, for every level:  products of its groups, then a launch that reads their sums

Non-Goals: whether a loop runs that way (`artifact.grid_sync`); products of their own
(`gemm_choice`).
"""

from __future__ import annotations

from collections.abc import Iterator

from rnncc.artifact.array_tables import BufferView
from rnncc.artifact.kernel_args import BufferAddress, StepSums
from rnncc.artifact.kernel_tables import KernelSpec, OperandSpec, PackSpec
from rnncc.runtime.cuda.kernels.gemm_tiles import ADDS, ZEROS, Contraction, TileOperand
from rnncc.runtime.cuda.kernels.matmuls import Multiply, merged, work_of
from rnncc.runtime.planning.direction_tables import DirectionBinder

SUMS = StepSums(0)  # the first; those of other groups lie behind it


class Steps:
    """The products of one kernel at any step. bytes: of all sums; offsets: of each group's."""

    def __init__(self, binder: DirectionBinder, kernel: KernelSpec) -> None:
        self.binder, self.kernel = binder, kernel
        self.offsets: list[int] = []
        self.bytes = 0
        for group in kernel.summed:
            self.offsets.append(self.bytes)
            row = len(group.packs[0].gates) * binder.size(group.lanes) * binder.item
            self.bytes += -(-binder.call.batch * row // 256) * 256
        self.possible = bool(kernel.summed) and all(
            work is not None and not work.moves
            for c in self._contractions(0, None)
            for work in [work_of(c, binder.item)]
        )

    def at(self, t: int, level: int) -> list[Multiply]:
        """Those before a level's launch, at the step that stands at t."""
        products = []
        for c in merged([*self._contractions(t, level)]):
            work = work_of(c, self.binder.item)
            assert work is not None, "asked for before"
            products.append(work.multiply)
        return products

    def _contractions(self, t: int, level: int | None) -> Iterator[Contraction]:
        binder, item = self.binder, self.binder.item
        for n, group in enumerate(self.kernel.summed):
            if level not in (None, group.level):
                continue
            lanes, gates = binder.size(group.lanes), len(group.packs[0].gates)
            row = gates * lanes * item
            for g in range(gates):
                out = TileOperand(SUMS, self.offsets[n] + g * lanes * item, (0, row), n=item)
                for s, (pack, operand) in enumerate(zip(group.packs, group.operands, strict=True)):
                    k = binder.size(pack.k_sizes[0])
                    yield Contraction(
                        self._operand(operand, t),
                        self._weight(pack, g),
                        out,
                        (binder.call.batch, lanes, k),
                        binder.call.batch,
                        k,
                        ADDS if s else ZEROS,
                    )

    def _operand(self, operand: OperandSpec, t: int) -> TileOperand:
        """Its rows at this step, as `emit.shared.addresses` has them."""
        source, binder = operand.source, self.binder
        layout, buffer = binder.layouts[source.buffer], binder.buffers[source.buffer]
        slot = source.slot if source.slot == "final" else ""
        at = binder.offset(BufferAddress(source.buffer, slot, source.starts))
        if source.slot in ("in", "out"):
            step = t + int((source.slot == "in") == binder.d.reverse)
            at += (step & layout.ring) * layout.t
        elif not slot and "T" in buffer.axes:
            at += t * layout.t
        rows = layout.b if buffer.storage == "carry" or "B" in buffer.axes else 0
        return TileOperand(source.buffer, at, (0, rows), (0, self._stride(source, operand.k[0])))

    def _weight(self, pack: PackSpec, g: int) -> TileOperand:
        w = pack.gates[g]
        at = self.binder.offset(BufferAddress(w.buffer, w.slot, w.starts))
        lane = 0 if pack.lane is None else self._stride(w, pack.lane)
        return TileOperand(w.buffer, at, k=(0, self._stride(w, pack.k[0])), n=lane)

    def _stride(self, source: BufferView, axis: int) -> int:
        behind = source.axes[axis]
        return 0 if behind is None else self.binder.layouts[source.buffer].strides[behind]
