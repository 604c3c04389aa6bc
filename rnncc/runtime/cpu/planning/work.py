"""What a stage of a bound program has to do at least: multiplications and additions, bytes.

Counted are contractions: two FLOPs a product that is added. Activations have no count that machines
agree on.

Non-Goals: how long it takes (`runtime.profiles`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rnncc.artifact.kernel_tables import KernelSpec, PieceSpec, StageSpec
from rnncc.common.machine import ITEMSIZE
from rnncc.runtime.cpu.planning.bound_program import BoundProgram, pack_layout
from rnncc.runtime.planning.layouts import row_axes


@dataclass(frozen=True, slots=True)
class StageWork:
    """Of one launch. bytes: read and written at least, where nothing stays in a cache; again: of
    them those that are read over and over, which stay in the cache they fit into; 0: none."""

    flops: int = 0
    bytes: int = 0
    again: int = 0

    def __add__(self, other: StageWork) -> StageWork:
        again = max(self.again, other.again)
        return StageWork(self.flops + other.flops, self.bytes + other.bytes, again)


def work_of(
    binding: BoundProgram, kernel: KernelSpec, stage: StageSpec, piece: PieceSpec | None = None
) -> StageWork:
    """Of one stage in one launch of its kernel. piece: what a timed kernel tells of it."""
    if stage.grad is not None:
        return _sums(binding, stage)
    scan, later = kernel.kind == "scan", piece.later if piece else ()
    over = "BT" if scan else kernel.axes if kernel.kind == "rows" else ""
    counts = {"B": binding.call.batch, "T": binding.call.time}
    rows = math.prod(counts[axis] for axis in over)
    item, total, again = ITEMSIZE[binding.dtype], StageWork(), 0
    outputs = math.prod(map(binding.size, stage.shape))
    for i, core in enumerate(stage.cores):
        row = core.gates * binding.tilings[stage.name].unit_blocks * binding.machine.vector_bytes
        for k, pack in enumerate(core.packs):
            if pack is None or binding.is_unused(core, k):
                continue
            own, turns = rows, counts["T"] if scan else 1
            if (i, k) in later:
                own, turns = rows - counts["B"], turns - 1
            terms = own * math.prod(map(binding.size, pack.k_sizes))
            weights = pack_layout(binding, stage, i, k, row).bytes
            again += weights
            total += StageWork(2 * outputs * core.gates * terms, weights * turns + terms * item)
        if core.out is not None and core.out.buffer not in binding.fused:
            total += StageWork(0, rows * outputs * core.gates * item)
    for sizes in piece.own_terms if piece else ():
        terms = rows * math.prod(map(binding.size, sizes))
        total += StageWork(2 * terms, terms * item)
    return StageWork(total.flops, total.bytes, again if scan else 0)


def _sums(binding: BoundProgram, stage: StageSpec) -> StageWork:
    """Of a gradient of weights: over all rows, those that are kept apart among them."""
    grad = stage.grad
    assert grad is not None
    buffers = {b.name: b for b in binding.direction.buffers}
    operands = [s for s in (grad.a, grad.d) if s is not None]
    axes = {axis for s in operands for axis in row_axes(s, buffers[s.buffer])} | {*grad.kept}
    counts = {"B": binding.call.batch, "T": binding.call.time}
    rows = math.prod(counts[axis] for axis in axes)
    terms = rows * math.prod(binding.size(size) for size, _, _ in grad.k)
    outputs = math.prod(map(binding.size, stage.shape))
    read = sum(math.prod(map(binding.size, buffers[s.buffer].shape)) for s in operands) * rows
    flops = terms * outputs * (2 if grad.a is not None else 1)
    return StageWork(flops, (read + outputs) * ITEMSIZE[binding.dtype])
