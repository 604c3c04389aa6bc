"""A direction's tables and one call's sizes -> a BoundProgram: layouts, tiles, threads, and every
word of every kernel's block.

A BoundProgram is made once for a set of sizes, batch, time, strides and machine, and serves any
number of calls: addresses are filled in a call (`engine`). Results never depend on anything chosen
here.

Requests a kernel may make (see `emit.cpu.kernel_view`), by their first part:
    T B parts sync scratch_base scratch_bytes tables_at n0 n1 zeros ones
    seed, first step           a call's own: what draws start from
    shared                     0, or how long to wait for those who share the units
    size S                     a size as a number
    blocks S                   vectors of a padded axis
    address BUF slot starts    where a buffer's first row is
    stride BUF T|B|axis        bytes
    ring BUF                   -1 where every step has its slot, 1 where two take turns
    row BUF 0|1 domain         bytes from row to row of a bulk kernel's two-level range
    unit blocks|unit shift|tiles|row tile|tile row|cores STAGE …
    fetch STAGE                whether a tile's rows are asked for before its contraction
    init|init outer|pack|pack tile|pack k|pack outer STAGE …
    begun|start|start step|start row STAGE i    rows to go on from, and whether they are made
                               before the loop or are constants
    table STAGE i              where a group's segments go
    desc|desc count STAGE kind i, helper NAME

Non-Goals: running kernels; owning arrays.
"""

from __future__ import annotations

import math

import numpy as np

from rnncc.artifact.kernel_tables import KernelSpec, StageSpec
from rnncc.runtime.cpu.kernels.loop_helpers import (
    PANEL_AT,
    PANEL_ROWS,
    PANEL_SCRATCH,
    SEGMENT_BYTES,
)
from rnncc.runtime.cpu.planning.bound_program import BoundKernel, BoundProgram, requests
from rnncc.runtime.cpu.planning.buffer_strides import StrideBinder
from rnncc.runtime.cpu.planning.copies import SCRATCH, ZERO_ROW
from rnncc.runtime.cpu.planning.gemm_calls import Word, contract_calls, sum_calls
from rnncc.runtime.cpu.planning.layouts import pad
from rnncc.runtime.cpu.planning.strided_copies import copy_pieces
from rnncc.runtime.cpu.planning.tiling import FETCH_DEPTH


class ArgumentBinder(StrideBinder):
    """Answers every request of every kernel's block."""

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
        self.out.scratch_bytes = -(-(self.tables_at + tables + spare) // 64) * 64
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
            self.table_sizes[stage.name, str(i)] = at
            at += SEGMENT_BYTES * sum(
                math.prod(self.out.size(s) for s in sizes) for sizes in core.segments
            )
        return at

    # ---- words ------------------------------------------------------------------------------

    def bind_kernel(self, kernel: KernelSpec) -> BoundKernel:
        if kernel.function is None:
            return self.bind_plain(kernel)
        parts, shared, why = self.parts(kernel)
        flat = self.row_levels(kernel)
        template = np.zeros(len(kernel.requests), np.int64)
        alone = self.call.batch == 1 and not self.call.save and kernel.function.one_row is not None
        bound = BoundKernel(kernel, parts, template, [], [], why, alone)
        for index, request in enumerate(requests(kernel)):
            value = self.answer(kernel, request, parts, shared, flat)
            if value is not None:
                template[index] = value
            elif request[0] == "address":
                bound.addresses.append((index, request[1], self.offset(request)))
            elif request[0] == "start":
                self.bind_start(bound, index, *request[1:])
            else:
                bound.others.append((index, request))
        return bound

    def bind_plain(self, kernel: KernelSpec) -> BoundKernel:
        """A kernel of contractions alone: the block is its calls."""
        parts, shared, why = self.parts(kernel)
        flat = self.row_levels(kernel)
        words: list[Word]
        if kernel.kind == "grads":
            count, work, words = sum_calls(self, kernel)
            head: list[Word] = [parts, count, work, (ZERO_ROW, 0)]
        else:
            count, words = contract_calls(self, kernel, flat)
            head = [parts, count, *flat]
        head += [(SCRATCH, self.tables_at), self.out.scratch_bytes, int(shared)]
        every = head + words
        template = np.array([w if isinstance(w, int) else w[1] for w in every], np.int64)
        bound = BoundKernel(kernel, parts, template, [], [], why)
        for index, word in enumerate(every):
            if isinstance(word, int):
                continue
            request, moved = word
            if request[0] == "address":
                bound.addresses.append((index, request[1], self.offset(request) + moved))
            else:
                bound.others.append((index, request))
        return bound

    def bind_start(self, bound: BoundKernel, index: int, stage: str, i: str) -> None:
        core = self.core(stage, i)
        if core.start not in self.out.fused:
            bound.addresses.append((index, core.start, 0))
        else:
            bound.others.append((index, ("init", stage, i) if core.init else ZERO_ROW))

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
        names = {r[1] for r in requests(kernel) if r[0] == "row"}
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

    def offset(self, request: tuple[str, ...]) -> int:
        """Bytes from a buffer's base to what an address request means."""
        _, name, slot, starts = request
        layout, at = self.out.layouts[name], 0
        for part in filter(None, starts.split(",")):
            axis, size = part.split(":", 1)
            at += self.out.size(size) * layout.strides[int(axis)]
        if slot == "final":
            last = 0 if self.d.reverse else self.call.time
            return at + (last & layout.ring) * layout.t
        if slot:
            entering = slot == "in"
            return at + layout.t * int(entering == self.d.reverse)
        return at

    def answer(
        self,
        kernel: KernelSpec,
        request: tuple[str, ...],
        parts: int,
        shared: bool,
        flat: tuple[int, int],
    ) -> int | None:
        """The word, or None where only a call can tell."""
        layouts = self.out.layouts
        match request:
            case ("T",):
                return self.call.time
            case ("B",):
                return self.call.batch
            case ("parts",):
                return parts
            case ("shared",):
                return self.patience(kernel) if shared else 0
            case ("scratch_bytes",):
                return self.out.scratch_bytes
            case ("tables_at",):
                return self.tables_at
            case ("n0",):
                return flat[0]
            case ("n1",):
                return flat[1]
            case ("size", text):
                return self.out.size(text)
            case ("blocks", text):
                return pad(self.out.size(text)) // self.width
            case ("stride", name, "T"):
                return layouts[name].t
            case ("stride", name, "B"):
                return layouts[name].b
            case ("stride", name, axis):
                return layouts[name].strides[int(axis)]
            case ("ring", name):
                return layouts[name].ring
            case ("row", name, which, domain):
                return self.row_stride(name, which, domain, flat)
            case ("desc count", *key):
                return len(self.pieces(tuple(key)))
            case ("table", stage, i):
                return self.table_sizes[stage, i]
            case ("unit blocks", stage):
                return self.out.tilings[stage].unit_blocks
            case ("unit shift", stage):
                return self.out.tilings[stage].unit_blocks.bit_length() - 1
            case ("tiles", stage):
                return self.out.tilings[stage].tiles
            case ("row tile", stage):
                return self.out.tilings[stage].row_tile
            case ("fetch", stage):
                return int(self.depth(stage) >= FETCH_DEPTH)
            case ("tile row", stage, i):
                return self.tile_row(stage, int(i))
            case ("begun", stage, i):
                return int(self.core(stage, i).start not in self.out.fused)
            case ("start step", stage, i):
                return layouts[self.core(stage, i).start].t
            case ("start row", stage, i):
                return layouts[self.core(stage, i).start].b
            case ("pack", stage, i, k) if self.out.is_unused(self.core(stage, i), int(k)):
                return 0
            case ("init outer", stage, i, axis):
                return self.init_outer(stage, int(i), int(axis))
            case ("pack tile", stage, i, k):
                return self.pack_layout(stage, int(i), int(k)).tile
            case ("pack k", stage, i, k, level):
                return self.pack_layout(stage, int(i), int(k)).k[int(level)]
            case ("pack outer", stage, i, k, axis):
                return self.pack_layout(stage, int(i), int(k)).outer[int(axis)]
        return None

    def pieces(self, key: tuple[str, ...]) -> list[list[int]]:
        copy = self.copies[key]  # type: ignore[index]
        return copy_pieces(copy, self.out)
