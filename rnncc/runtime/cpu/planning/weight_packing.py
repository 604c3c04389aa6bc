"""Weights -> the order the cores read them in, once a version of the weights.

What to pack where is planned once for a set of sizes: jobs for the `pack` helper, or one that
rounds (`weight_formats`), one after another in a block, all run by one kernel.

Non-Goals: when (`call`); the order itself (`row_kernels`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Protocol

import numpy as np

from rnncc.artifact.array_tables import BufferView
from rnncc.artifact.kernel_args import PackedInit, PackedWeights, ZeroRow
from rnncc.artifact.kernel_tables import CoreSpec, StageSpec
from rnncc.common.machine import ITEMSIZE
from rnncc.runtime.common.memory_pool import ALIGNMENT
from rnncc.runtime.cpu.intrinsics.kernel_namespace import call_core, word
from rnncc.runtime.cpu.kernels.executor import (
    PACKED,
    PACKING,
    ArgumentBlock,
    Launch,
    SpaceOffset,
)
from rnncc.runtime.cpu.kernels.loop_helpers import share
from rnncc.runtime.cpu.kernels.quantized_packing import PACKERS
from rnncc.runtime.cpu.planning.bound_program import BoundProgram, PackLayout, pack_layout
from rnncc.runtime.cpu.planning.target import CpuTarget
from rnncc.runtime.jit.kernel import kernel
from rnncc.runtime.planning.copies import Point

HEAD_WORDS = 2  # jobs, parts
JOB_WORDS = 4  # helper, target, tiles, words of this job; then the helper's description
PACK_WORDS = 5
GATE_WORDS = 4  # its address and strides


@kernel
def pack_all(block, part):
    at = block + HEAD_WORDS * 8
    for _ in range(word(block, 0)):
        lo, hi = share(word(at, 2), part, word(block, 1))
        call_core(word(at, 0), word(at, 1), at + JOB_WORDS * 8, lo, hi, 0, 0, 0, 0)
        at += word(at, 3) * 8


@dataclass(slots=True)
class Packed:
    """What was made of one version of the weights: buffers that depend on them alone, and weights
    in the cores' order, in one arena that begins at `base`; and the addresses of the weights.
    owners: keep all of it alive.
    """

    base: int
    addresses: tuple[int, ...]
    owners: list[object]


@dataclass
class Packing:
    """Where each thing that is packed goes, in bytes from the arena's begin."""

    # Where, and how many bytes.
    places: dict[PackedWeights | PackedInit, tuple[int, int]] = field(default_factory=dict)
    size: int = 0
    gap: int = 0  # bytes of nobody's behind each

    def place(self, packed: PackedWeights | PackedInit, size: int) -> int:
        at = self.size
        self.places[packed] = at, size
        self.size += -(-max(size, 1) // ALIGNMENT) * ALIGNMENT + self.gap
        return at


class PlacedBuffers(Protocol):
    """Buffers of a call that have their places."""

    binding: BoundProgram
    dtype: str
    target: CpuTarget

    def place(self, point: Point) -> SpaceOffset:
        """Where a buffer is."""
        ...


class Planner:
    """Writes the jobs of every stage."""

    def __init__(self, prepared: PlacedBuffers, packing: Packing, helper: int) -> None:
        self.prepared, self.out, self.helper = prepared, packing, helper
        self.binding: BoundProgram = prepared.binding
        self.item = ITEMSIZE[prepared.dtype]

    def launch(self, stages: Iterable[StageSpec]) -> Launch:
        """What packs for these stages, each thread its tiles of each."""
        begin = self.out.size
        self.block: list[int] = [0, 1]
        self.addresses: list[tuple[int, SpaceOffset]] = []
        count = 0
        for stage in stages:
            for i, core in enumerate(stage.cores):
                for k, pack in enumerate(core.packs):
                    if pack is not None and not self.binding.is_unused(core, k):
                        count += self._pack(stage, i, k)
                if core.init is not None and self._starts_here(core):
                    count += self._init(stage, i)
        copied = self.out.size - begin
        parts = self.binding.threads if copied >= self.prepared.target.shared_bytes else 1
        self.block[0], self.block[1] = count, parts
        piece = ArgumentBlock(np.array(self.block, np.int64), self.addresses)
        return Launch(self.prepared.target.code(pack_all), piece, parts, PACKING, copied)

    def _starts_here(self, core: CoreSpec) -> bool:
        """Whether constants are where this core starts, and not one that hands its sums on."""
        if core.start:
            return core.start in self.binding.fused
        return core.out is None or core.out.buffer not in self.binding.fused

    def _job(
        self,
        helper: int,
        target: int,
        tiles: int,
        description: list[int],
        gates: list[tuple[SpaceOffset, list[int]]],
    ) -> None:
        """Gates are (where one is, offset and strides)."""
        self.addresses.append((len(self.block) + 1, SpaceOffset(PACKED)))
        words = JOB_WORDS + PACK_WORDS + GATE_WORDS * len(gates)
        self.block += [helper, target, tiles, words, *description]
        for place, strides in gates:
            self.addresses.append((len(self.block), place))
            self.block += strides

    def _gate(self, source: BufferView, moved: int) -> tuple[SpaceOffset, int]:
        layout = self.binding.layouts[source.buffer]
        start = sum(self.binding.size(size) * layout.strides[a] for a, size in source.starts)
        return self.prepared.place(source.buffer), start + moved

    def _pack(self, stage: StageSpec, i: int, k: int) -> int:
        """How many jobs."""
        pack = stage.cores[i].packs[k]
        assert pack is not None
        tiling = self.binding.tilings[stage.name]
        row = len(pack.gates) * tiling.unit_blocks * self.binding.machine.vector_bytes
        layout: PackLayout = pack_layout(self.binding, stage, i, k, row)
        at = self.out.place(PackedWeights(stage.name, i, k), layout.bytes)
        counts = layout.k_counts
        inner = pack.k[-2:]
        k1, ks1 = (counts[-2], inner[0]) if len(counts) > 1 else (1, None)
        k2, ks2 = (counts[-1], inner[-1]) if counts else (1, None)
        units = self.binding.size(stage.shape[-1]) if stage.shape else 1
        description = [k1, k2, len(pack.gates), tiling.unit_blocks, units]
        axes = (*pack.outer, *pack.k[:-2])
        lead = (*layout.outer, *layout.k[: max(len(counts) - 2, 0)])
        indices = [*product(*map(range, (*layout.outer_counts, *counts[:-2])))]
        packer = PACKERS.get(self.binding.storage(stage).name)
        helper = self.helper if packer is None else self.prepared.target.code(packer)
        for index in indices:
            target = at + sum(n * s for n, s in zip(index, lead, strict=True))
            gates = []
            for g in pack.gates:
                stride = partial(self.binding.stride, g)
                moved = sum(n * stride(a) for n, a in zip(index, axes, strict=True))
                place, start = self._gate(g, moved)
                gates.append((place, [start, stride(ks1), stride(ks2), stride(pack.lane)]))
            self._job(helper, target, tiling.tiles, description, gates)
        return len(indices)

    def _init(self, stage: StageSpec, i: int) -> int:
        """Rows of constants in the tiles' order; gates without one start from zeros."""
        sources = stage.cores[i].init
        assert sources is not None
        tiling = self.binding.tilings[stage.name]
        outer = [self.binding.size(s) for s in stage.shape[:-1]]
        units = self.binding.size(stage.shape[-1])
        row = tiling.tiles * tiling.unit_blocks * len(sources) * self.binding.machine.vector_bytes
        at = self.out.place(PackedInit(stage.name, i), row * int(np.prod(outer, dtype=int)))
        description = [1, 1, len(sources), tiling.unit_blocks, units]
        zeros = self.prepared.place(ZeroRow()), 0
        indices = [*product(*map(range, outer))]
        for number, index in enumerate(indices):
            gates = []
            for g in sources:
                place, start = zeros
                if g is not None:
                    stride = partial(self.binding.stride, g)
                    moved = sum(n * stride(a) for a, n in enumerate(index))
                    place, start = self._gate(g, moved)
                gates.append((place, [start, 0, 0, self.item]))
            self._job(self.helper, at + number * row, tiling.tiles, description, gates)
        return len(indices)
