"""A direction's tables and one call's sizes -> a BoundProgram: layouts, tiles, threads, and every
word of every kernel's block.

A BoundProgram is made once for a set of sizes, batch, time, strides and machine, and serves any
number of calls: addresses are filled in a call (`engine`). Results never depend on anything chosen
here.

Non-Goals: running kernels; owning arrays.
"""

from __future__ import annotations

import math

import numpy as np

from rnncc.artifact.inlined_cores import numbers_of
from rnncc.artifact.kernel_args import (
    BlockLimit,
    BoundNumber,
    BufferAddress,
    FetchesRows,
    InitStride,
    InnerRows,
    IsBegun,
    KernelArgument,
    OuterRows,
    PackDepthStride,
    PackedInit,
    PackedWeights,
    PackOuterStride,
    PackTileStride,
    PartCount,
    PieceCount,
    RangeStride,
    RowTile,
    ScratchBase,
    ScratchBytes,
    SpinLimit,
    StartRows,
    StartRowStride,
    StartStepStride,
    TableOffset,
    TileCount,
    TileRowBytes,
    UnitBlocks,
    UnitShift,
    VectorCount,
    ZeroRow,
)
from rnncc.artifact.kernel_tables import KernelSpec, StageSpec
from rnncc.common.formulas import SUM_BLOCK
from rnncc.runtime.common.weight_formats import FULL, PANEL_ROWS
from rnncc.runtime.cpu.kernels.gradient_sums import PANEL_SCRATCH
from rnncc.runtime.cpu.kernels.loop_helpers import PANEL_AT, SEGMENT_BYTES
from rnncc.runtime.cpu.planning.bound_program import BoundKernel, BoundProgram
from rnncc.runtime.cpu.planning.buffer_layout import MemoryBinder
from rnncc.runtime.cpu.planning.gemm_calls import Word, contract_calls, copied_bytes, sum_calls
from rnncc.runtime.cpu.planning.strided_copies import copy_pieces
from rnncc.runtime.cpu.planning.tiling import FETCH_DEPTH
from rnncc.runtime.planning.layouts import pad


class ArgumentBinder(MemoryBinder):
    """Answers every argument of every kernel."""

    def bind(self) -> BoundProgram:
        for stage in self.d.stages:
            self.out.tilings[stage.name] = self.tile(stage)
        for kernel in self.d.kernels:
            self.choose_starts(kernel)
            self.even_tiles(kernel)
            self.choose_far(kernel)
        self.lay_out()
        tables = max((self.table_bytes(s) for s in self.d.stages), default=0)
        self.tables_at = PANEL_AT + PANEL_SCRATCH
        spare = SEGMENT_BYTES * PANEL_ROWS
        self.columns_at = -(-(tables + spare) // 64) * 64  # behind the tables
        columns = max((copied_bytes(self, s) for s in self.d.stages), default=0)
        self.out.scratch_bytes = -(-(self.tables_at + self.columns_at + columns) // 64) * 64
        for kernel in self.d.kernels:
            if not self.is_idle(kernel):
                self.out.kernels.append(self.bind_kernel(kernel))
        return self.out

    def table_bytes(self, stage: StageSpec) -> int:
        """Entries a stage's segments need, group after group."""
        if stage.grad:
            n0, n1 = self.grad_rows(stage)
            count = n0 * -(-n1 // PANEL_ROWS)
            return count * math.prod(self.out.size(s) for s, _, _ in stage.grad.k) * SEGMENT_BYTES
        at = 0
        for i, core in enumerate(stage.cores):
            self.table_offsets[stage.name, i] = at
            at += SEGMENT_BYTES * sum(
                math.prod(self.out.size(s) for s in sizes) for sizes in core.entries
            )
        return at

    # ---- words ------------------------------------------------------------------------------

    def bind_kernel(self, kernel: KernelSpec) -> BoundKernel:
        if kernel.function is None:
            return self.bind_plain(kernel)
        parts, shared, why = self.parts(kernel)
        flat = self.row_levels(kernel)
        template = np.zeros(len(kernel.words), np.int64)
        shares: dict[KernelArgument, int] = {
            PartCount(): parts,
            SpinLimit(): self.patience(kernel) if shared else 0,
            OuterRows(): flat[0],
            InnerRows(): flat[1],
        }
        alone = self.call.batch == 1 and not self.call.save and kernel.function.one_row is not None
        inlined = self.inlined_numbers(kernel) if alone else ()
        bound = BoundKernel(kernel, parts, template, [], [], why, alone, inlined)
        for index, argument in enumerate(kernel.words):
            match argument:
                case BoundNumber():
                    known = shares.get(argument)
                    template[index] = self.number(kernel, argument) if known is None else known
                case BufferAddress(buffer):
                    bound.addresses.append((index, buffer, self.offset(argument)))
                case StartRows(stage, group):
                    self.bind_start(bound, index, stage, group)
                case PackedWeights(stage, group, segment) if self.out.is_unused(
                    self.core(stage, group), segment
                ):
                    pass  # nobody reads them
                case _:
                    bound.others.append((index, argument))
        return bound

    def inlined_numbers(self, kernel: KernelSpec) -> tuple[tuple[str, int], ...]:
        """What is built into a loop for one row whose cores are written out; nothing where cores
        do more than add up one after another: narrow weights, those that are asked for ahead, and
        sums of several blocks, which are so long that it would win nothing."""
        if kernel.function.one_row.inlined is None or self.out.far.intersection(kernel.stages):
            return ()
        stages = [self.stages[n] for n in kernel.stages]
        if any(self.out.storage(s) is not FULL for s in stages):
            return ()
        packs = [p for s in stages for c in s.cores for p in c.packs if p and p.k_sizes]
        if any(self.out.size(p.k_sizes[-1]) > SUM_BLOCK for p in packs):
            return ()
        return tuple(
            number
            for s in stages
            for number in numbers_of(
                s.name, [c.gates for c in s.cores], self.out.tilings[s.name].unit_blocks
            )
        )

    def bind_plain(self, kernel: KernelSpec) -> BoundKernel:
        """A kernel of contractions alone: the block is its calls."""
        parts, shared, why = self.parts(kernel)
        flat = self.row_levels(kernel)
        words: list[Word]
        if kernel.kind == "grads":
            count, work, words = sum_calls(self, kernel, self.columns_at)
            head: list[Word] = [parts, count, work, (ZeroRow(), 0)]
        else:
            count, words = contract_calls(self, kernel)
            head = [parts, count, *flat]
        head += [(ScratchBase(), self.tables_at), self.out.scratch_bytes, int(shared)]
        every = head + words
        template = np.array([w if isinstance(w, int) else w[1] for w in every], np.int64)
        bound = BoundKernel(kernel, parts, template, [], [], why)
        for index, word in enumerate(every):
            if isinstance(word, int):
                continue
            argument, moved = word
            if isinstance(argument, BufferAddress):
                bound.addresses.append((index, argument.buffer, self.offset(argument) + moved))
            else:
                bound.others.append((index, argument))
        return bound

    def bind_start(self, bound: BoundKernel, index: int, stage: str, group: int) -> None:
        core = self.core(stage, group)
        if core.start not in self.out.fused:
            bound.addresses.append((index, core.start, 0))
        else:
            bound.others.append((index, PackedInit(stage, group) if core.init else ZeroRow()))

    def row_levels(self, kernel: KernelSpec) -> tuple[int, int]:
        """(n0, n1) of a bulk kernel; n0 is 1 where all rows are evenly spaced.

        Else n1 is the longer of batch and time, unless generated text asks which row is which."""
        batch, time = self.call.batch, self.call.time
        if kernel.kind != "rows":
            return 1, 1
        if kernel.axes == "B":
            return 1, batch
        if kernel.axes == "T":
            return 1, time
        names = {a.buffer for a in kernel.words if isinstance(a, RangeStride)}
        for stage in (self.stages[s] for s in kernel.stages if kernel.function is None):
            names |= {o.source.buffer for c in stage.cores for o in c.operands}
            names |= {c.out.buffer for c in stage.cores if c.out}
        for name in names:
            layout, axes = self.out.layouts[name], self.buffers[name].axes
            carry = self.buffers[name].storage == "carry"
            if (not carry and axes != "BT") or layout.b != layout.t * time:
                if kernel.function is None and batch > time:
                    self.steps_outside.add(kernel.name)
                    return time, batch
                return batch, time
        return 1, batch * time

    # ---- what only the CPU knows ---------------------------------------------------------------

    def number(self, kernel: KernelSpec, argument: BoundNumber) -> int:
        match argument:
            case ScratchBytes():
                return self.out.scratch_bytes
            case BlockLimit():
                return self.most_rows(kernel)
            case VectorCount(size):
                return pad(self.size(size)) // self.width
            case UnitBlocks(stage):
                return self.out.tilings[stage].unit_blocks
            case UnitShift(stage):
                return self.out.tilings[stage].unit_blocks.bit_length() - 1
            case TileCount(stage):
                return self.out.tilings[stage].tiles
            case RowTile(stage):
                return self.out.tilings[stage].row_tile
            case FetchesRows(stage):
                return int(self.depth(stage) >= FETCH_DEPTH)
            case PieceCount(stage, copy, number):
                return len(copy_pieces(self.copies[stage, copy, number], self.out))
        group_number = self.group_number(argument)
        return super().number(kernel, argument) if group_number is None else group_number

    def group_number(self, argument: BoundNumber) -> int | None:
        """Of a group of accumulators; None of anything else."""
        match argument:
            case TableOffset(stage, group):
                return self.tables_at + self.table_offsets[stage, group]
            case TileRowBytes(stage, group):
                return self.tile_row(stage, group)
            case IsBegun(stage, group):
                return int(self.core(stage, group).start not in self.out.fused)
            case StartStepStride(stage, group):
                return self.layouts[self.core(stage, group).start].t
            case StartRowStride(stage, group):
                return self.layouts[self.core(stage, group).start].b
            case InitStride(stage, group, axis):
                return self.init_outer(stage, group, axis)
            case PackTileStride(stage, group, segment):
                return self.pack_layout(stage, group, segment).tile
            case PackDepthStride(stage, group, segment, axis):
                return self.pack_layout(stage, group, segment).k[axis]
            case PackOuterStride(stage, group, segment, axis):
                return self.pack_layout(stage, group, segment).outer[axis]
        return None
