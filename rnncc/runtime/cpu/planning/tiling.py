"""A call's sizes -> tiles, threads, and what a loop starts from. Results never depend on them.

Non-Goals: memory (`buffer_layout`); words of blocks (`cpu.kernel_arguments`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from rnncc.artifact.kernel_args import addresses
from rnncc.artifact.kernel_tables import CoreSpec, DirectionSpec, KernelSpec, StageSpec
from rnncc.common.machine import Machine
from rnncc.runtime.cpu.kernels.barrier import MOST_SPINS
from rnncc.runtime.cpu.kernels.loop_helpers import ROW_BLOCK
from rnncc.runtime.cpu.kernels.microkernels import ONE_ROW, WIDE, cores
from rnncc.runtime.cpu.planning.bound_program import BoundProgram, PackLayout, Tiling, pack_layout
from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.direction_tables import DirectionBinder
from rnncc.runtime.planning.layouts import Layout, pad

SHARED_WORK = 24_000  # multiply-adds a level from which its barrier costs less than it saves
# Rows of a thread's share, from which the loop makes x @ W itself: of weights in the second cache,
FUSED_ROWS = 8
FUSED_FAR_ROWS = 16  # and of weights in the third,
FUSED_FAR = 8  # which are at most so many times the second.
FUSED_DEPTH = 4  # Of so few multiply-adds it makes it anyhow: rows cost more than that.
WAKING_WORK = 200_000  # multiply-adds of a loop from which waking a thread to share it pays
PATIENCE = 16  # times as long a loop takes one thread alone as that waits for others to begin
WORK_A_SPIN = 2_000  # multiply-adds in the time of one look at whether the others are here
FETCH_DEPTH = 256  # multiply-adds an element behind which fetching an epilogue's rows hides
READ_ROWS = 4  # rows of a thread that are done while weights of the size of its cache are read
BULK_WORK = 60_000  # multiply-adds from which a second thread is worth waking
COPIED_FROM = 2048  # bytes of a row of cotangents from which a gradient's operands are copied first


class TileBinder(DirectionBinder):
    """Chooses how each stage is cut and each kernel shared."""

    copied_from = COPIED_FROM

    def __init__(
        self,
        direction: DirectionSpec,
        call: CallKey,
        machine: Machine,
        dtype: str,
        threads: int,
        residuals: Mapping[str, Layout],
    ) -> None:
        super().__init__(direction, call, dtype)
        self.residuals = residuals
        self.machine, self.dtype = machine, dtype
        self.width = machine.width(dtype)
        self.vb = machine.vector_bytes
        self.threads = threads
        self.copies_first = dict(call.copies)
        self.steps_outside: set[str] = set()  # kernels whose outer level is time
        self.stages = {s.name: s for s in direction.stages}
        self.copies = {(c.stage, c.kind, c.index): c for c in direction.copies}
        self.out = BoundProgram(direction, call, self.sizes, machine, dtype, threads, self.layouts)
        self.table_offsets: dict[tuple[str, int], int] = {}  # of a stage's group, from its tables

    # ---- what a loop starts from --------------------------------------------------------------

    def choose_starts(self, kernel: KernelSpec) -> None:
        """x @ W in the loop or before it. In the loop, no rows of it are written and read again;
        before it, W is read once for many rows. So in the loop where a thread has rows enough for
        each reading of them, the more the farther they are."""
        if kernel.kind != "scan":
            return
        rows_ = self.step_rows(kernel)
        for stage in (self.stages[n] for n in kernel.stages):
            size = self.packed_bytes(stage)
            near, far = size <= self.machine.l2 * 3 // 4, size <= self.machine.l2 * FUSED_FAR
            fits = rows_ >= FUSED_ROWS if near else far and rows_ >= FUSED_FAR_ROWS
            if fits or self.call.time == 1 or self.depth_ahead(stage) <= FUSED_DEPTH:
                self.out.fused |= {core.start for core in stage.cores if core.start}

    def packed_bytes(self, stage: StageSpec, read: bool = False) -> int:
        """Of a stage's weights, with those that may be read before the loop; or of those read in
        it alone."""
        return sum(
            self.pack_layout(stage.name, i, k).bytes
            for i, core in enumerate(stage.cores)
            for k, pack in enumerate(core.packs)
            if pack is not None and not (read and self.out.is_unused(core, k))
        )

    def choose_far(self, kernel: KernelSpec) -> None:
        """Weights that a thread reads once a step, for one row, and that its second cache can't
        keep from step to step, are asked for ahead."""
        if kernel.kind != "scan" or self.call.batch > 1:
            return
        count, shared, _ = self.parts(kernel)
        stages = [self.stages[n] for n in kernel.stages]
        size = sum(self.packed_bytes(s, read=True) for s in stages) // (count if shared else 1)
        if size > self.machine.l2 * 3 // 4:
            self.out.far |= {stage.name for stage in stages}

    def depth_ahead(self, stage: StageSpec) -> int:
        """Multiply-adds of one element that may be made before the loop."""
        packs = [p for core in stage.cores for p in core.packs[: core.ahead] if p]
        return sum(math.prod(map(self.out.size, pack.k_sizes)) for pack in packs)

    def is_idle(self, kernel: KernelSpec) -> bool:
        """Whether all that the kernel makes, the loop makes itself."""
        return bool(kernel.writes) and self.out.fused.issuperset(kernel.writes)

    # ---- tiles ------------------------------------------------------------------------------

    def rows_of(self, stage: StageSpec) -> int:
        """How many rows a tile of this stage can hope for."""
        if stage.grad:
            return self.out.size(stage.grad.rows)
        kernel = next(k for k in self.d.kernels if stage.name in k.stages)
        if kernel.kind == "scan":
            return self.call.batch
        if kernel.kind == "weights":
            return 1
        count = self.call.batch if "B" in kernel.axes else 1
        return count * (self.call.time if "T" in kernel.axes else 1)

    def tile(self, stage: StageSpec) -> Tiling:
        last = self.out.size(stage.shape[-1]) if stage.shape else 1
        blocks = pad(last) // self.width
        gates = max(c.gates for c in stage.cores)
        one_row = self.rows_of(stage) <= 1
        limit = ONE_ROW if one_row else WIDE
        unit_blocks = max(
            u
            for u in range(1, limit + 1)
            if u * gates <= max(limit, gates) and blocks % u == 0 and (u & (u - 1)) == 0
        )
        core_set = cores(self.dtype, self.machine)
        row_tile = min(core_set.max_rows(c.gates * unit_blocks) for c in stage.cores)
        return Tiling(unit_blocks, blocks // unit_blocks, row_tile)

    def even_tiles(self, kernel: KernelSpec) -> None:
        """Cuts a thread's rows of a step into tiles alike: 10 rows into 5 and 5, not 8 and 2, since
        a tile of few accumulators waits for its own sums."""
        if kernel.kind != "scan":
            return
        rows_ = self.step_rows(kernel)
        rows_ = -(-rows_ // -(-rows_ // self.most_rows(kernel)))
        for name in kernel.stages:
            tiling = self.out.tilings[name]
            tiles = -(-rows_ // tiling.row_tile)
            self.out.tilings[name] = replace(tiling, row_tile=-(-rows_ // tiles))

    def most_rows(self, kernel: KernelSpec) -> int:
        """Rows that go through all levels of a kernel together, at most: so many that what one
        level leaves for another stays in the second cache, where rows are a thread's own; of
        contractions at least a tile."""
        if kernel.levels == 1 or self.parts(kernel)[1]:
            return ROW_BLOCK
        tiles = [self.out.tilings[n].row_tile for n in kernel.stages if self.stages[n].cores]
        room = self.machine.l2 // 2  # the other half is for weights and what streams by
        return max(min(room // max(self.row_bytes(kernel), 1), ROW_BLOCK), *tiles, 1)

    def rows_in_work(self, kernel: KernelSpec) -> int:
        """Of all threads' blocks at a time."""
        count, shared, _ = self.parts(kernel)
        return self.most_rows(kernel) * (1 if shared else count)

    def row_bytes(self, kernel: KernelSpec) -> int:
        """What a step reads and writes that is a row's own."""
        names = addresses(kernel.words)
        buffers = [b for b in self.d.buffers if b.name in names and "B" in b.axes]
        shapes = [[self.out.size(s) for s in b.shape] or [1] for b in buffers]
        return sum(math.prod(outer) * pad(last) * self.item for *outer, last in shapes)

    def tile_row(self, stage: str, i: int) -> int:
        return self.stages[stage].cores[i].gates * self.out.tilings[stage].unit_blocks * self.vb

    def pack_layout(self, stage: str, i: int, k: int) -> PackLayout:
        return pack_layout(self.out, self.stages[stage], i, k, self.tile_row(stage, i))

    def core(self, stage: str, i: int) -> CoreSpec:
        return self.stages[stage].cores[i]

    def depth(self, stage: str) -> int:
        """Multiply-adds of one element of a tile."""
        packs = [p for core in self.stages[stage].cores for p in core.packs if p]
        return sum(math.prod(map(self.out.size, pack.k_sizes)) for pack in packs)

    # ---- threads ----------------------------------------------------------------------------

    def step_rows(self, kernel: KernelSpec) -> int:
        """Rows of a step that one thread makes, at most."""
        count, shared, _ = self.parts(kernel)
        return self.call.batch if shared else -(-self.call.batch // count)

    def work_of(self, kernel: KernelSpec) -> tuple[int, int]:
        """Multiply-adds of a row (a step in a scan), and rows."""
        total = 0
        for name in kernel.stages:
            stage = self.stages[name]
            lanes = math.prod(self.out.size(s) for s in stage.shape)
            if stage.grad:
                total += lanes
                continue
            for core in stage.cores:
                for pack in core.packs:
                    k = math.prod(self.out.size(s) for s in pack.k_sizes) if pack else 16
                    total += lanes * k * core.gates
            total += 64 * lanes
        rows_ = self.call.batch if "B" in kernel.axes or kernel.kind == "grads" else 1
        steps = self.call.time if "T" in kernel.axes or kernel.kind == "grads" else 1
        return total or 1000, rows_ * steps

    def lanes_apart(self, kernel: KernelSpec) -> int:
        """Into how many tiles the lanes of a row fall that threads may make without waiting for
        each other: contractions alone, none of which reads what another one made."""
        stages = [self.stages[s] for s in kernel.stages]
        read = {o.source.buffer for s in stages for c in s.cores for o in c.operands}
        if kernel.function is not None or kernel.kind != "rows" or read.intersection(kernel.writes):
            return 1
        return min(self.out.tilings[s].tiles for s in kernel.stages)

    def patience(self, kernel: KernelSpec) -> int:
        """How often a thread that shares units looks for the others: about as long as it takes to
        do all the work alone, since a sleeping thread may take longer than a step; of much work a
        part, since without them all of it takes as much longer as they'd have helped."""
        work, rows = self.work_of(kernel)
        alone = work * rows * self.call.time // WORK_A_SPIN
        return max(min(alone, max(MOST_SPINS, alone // PATIENCE)), 1)

    def reads_twice(self, kernel: KernelSpec, rows: int) -> bool:
        """Whether a thread with so many rows of its own would wait for weights that another one
        reads, too."""
        size = sum(self.packed_bytes(self.stages[n]) for n in kernel.stages)
        return rows * self.machine.l2 <= READ_ROWS * size

    def parts(self, kernel: KernelSpec) -> tuple[int, bool, str]:
        """Threads, whether they share the lanes of every row, and why."""
        work, row_count = self.work_of(kernel)
        if self.threads == 1 or kernel.kind == "weights":
            return 1, False, "one thread"
        if kernel.kind != "scan":
            if work * row_count < BULK_WORK:
                return 1, False, "one thread: too little work for two"
            lanes = self.lanes_apart(kernel)
            if row_count < self.threads and lanes >= 2:
                count = min(self.threads, lanes)
                return count, True, f"{count} threads share the lanes of every row"
            return self.threads, False, f"{self.threads} threads, each its rows"
        batch = self.call.batch
        lanes = min((self.out.tilings[s].tiles for s in kernel.stages), default=1)
        if batch >= 2 and work * row_count >= BULK_WORK:
            count = min(self.threads, batch)
            if lanes < self.threads or not self.reads_twice(kernel, -(-batch // count)):
                return count, False, f"{count} threads, each its rows of the batch: no barrier"
            return (
                self.threads,
                True,
                f"{self.threads} threads share the units, one barrier a level: each with its rows "
                "would read all weights for few of them",
            )
        total_work = work * batch * self.call.time
        enough = SHARED_WORK * max(kernel.levels, 1)
        if work * batch >= enough and total_work >= WAKING_WORK and lanes >= 2:
            count = min(self.threads, lanes)
            return count, True, f"{count} threads share the units: one barrier a level"
        what = "a step is" if total_work >= WAKING_WORK else f"{self.call.time} step(s) are"
        return 1, False, f"one thread: {what} too short to share"
