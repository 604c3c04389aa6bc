"""Weights -> the order the cores read them in, once a version of the weights.

What to pack where is planned once for a set of sizes: jobs for the `pack` helper, one after
another in a block whose addresses are filled in for each version, and all run in one call.

Non-Goals: when (`call`); the order itself (`rows.pack`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncc.runtime.bind import Binding, PackLayout, pack_layout
from rnncc.runtime.kernel import kernel
from rnncc.runtime.machine import ITEMSIZE, host
from rnncc.runtime.memory import ALIGNMENT
from rnncc.runtime.tables import Core, Source, Stage
from rnncc.runtime.words import call_core, word

if TYPE_CHECKING:
    from rnncc.runtime.prepared import Prepared

HEAD_WORDS = 2  # jobs, the helper
JOB_WORDS = 3  # target, tiles, words of this job; then the helper's description
PACK_WORDS = 5
GATE_WORDS = 4  # its address and strides


@kernel
def pack_all(block, part):
    helper = word(block, 1)
    at = block + HEAD_WORDS * 8
    for _ in range(word(block, 0)):
        call_core(helper, word(at, 0), at + JOB_WORDS * 8, 0, word(at, 1), 0, 0, 0, 0)
        at += word(at, 2) * 8


@dataclass(slots=True)
class Packed:
    """Everything that depends on weights alone: buffers, and weights in the cores' order."""

    memory: dict[str, Any]
    weights: dict[str, Any]
    addresses: np.ndarray  # of the weights
    arena: np.ndarray
    base: int


@dataclass
class PackPlan:
    """The jobs of some stages."""

    template: np.ndarray
    words: np.ndarray  # which words are addresses
    points: np.ndarray  # of what: a number of `Prepared.points`, or -1 for the arena


@dataclass
class Packing:
    """All that is packed for one `Prepared`."""

    names: list[str] = field(default_factory=list)  # the requests that ask for it
    offsets: list[int] = field(default_factory=list)  # in the arena
    size: int = 0
    plans: dict[str, PackPlan] = field(default_factory=dict)  # by kernel of weights; "" the rest

    def place(self, name: str, size: int) -> int:
        self.names.append(name)
        self.offsets.append(self.size)
        self.size += -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
        return self.offsets[-1]


class Planner:
    """Writes the jobs of every stage."""

    def __init__(self, prepared: Prepared, helper: int) -> None:
        self.prepared, self.helper = prepared, helper
        self.binding: Binding = prepared.binding
        self.item = ITEMSIZE[prepared.dtype]
        self.out = Packing()

    def plan(self) -> Packing:
        """Jobs of stages in kernels of weights come before those kernels; the rest after."""
        stages = {s.name: s for s in self.prepared.direction.stages if s.grad is None}
        for kernel_ in self.prepared.direction.kernels:
            if kernel_.name in self.prepared.early:
                own = [stages.pop(n) for n in kernel_.stages if n in stages]
                self.out.plans[kernel_.name] = self._write(own)
        self.out.plans[""] = self._write(list(stages.values()))
        return self.out

    def _write(self, stages: list[Stage]) -> PackPlan:
        self.block: list[int] = [0, self.helper]
        self.fixups: list[tuple[int, int]] = []
        self.jobs = 0
        for stage in stages:
            for i, core in enumerate(stage.cores):
                for k, pack in enumerate(core.packs):
                    if pack is not None and not self.binding.is_unused(core, k):
                        self._pack(stage, i, k)
                if core.init is not None and self._starts_here(core):
                    self._init(stage, i)
        self.block[0] = self.jobs
        words, points = zip(*self.fixups, strict=True) if self.fixups else ((), ())
        return PackPlan(
            np.array(self.block, np.int64), np.array(words, np.int64), np.array(points, np.int64)
        )

    def _starts_here(self, core: Core) -> bool:
        """Whether constants are where this core starts, and not one that hands its sums on."""
        if core.start:
            return core.start in self.binding.fused
        return core.out is None or core.out.buffer not in self.binding.fused

    def _job(
        self, target: int, tiles: int, description: list[int], gates: list[tuple[int, list[int]]]
    ) -> None:
        """Gates are (point, offset and strides)."""
        self.jobs += 1
        self.fixups.append((len(self.block), -1))
        words = JOB_WORDS + PACK_WORDS + GATE_WORDS * len(gates)
        self.block += [target, tiles, words, *description]
        for point, place in gates:
            self.fixups.append((len(self.block), point))
            self.block += place

    def _gate(self, source: Source, moved: int) -> tuple[int, int]:
        layout = self.binding.layouts[source.buffer]
        start = sum(self.binding.size(size) * layout.strides[a] for a, size in source.starts)
        return self.prepared.points[source.buffer], start + moved

    def _pack(self, stage: Stage, i: int, k: int) -> None:
        pack = stage.cores[i].packs[k]
        assert pack is not None
        tiling = self.binding.tilings[stage.name]
        row = len(pack.gates) * tiling.unit_blocks * host().vector_bytes
        layout: PackLayout = pack_layout(self.binding, stage, i, k, row)
        at = self.out.place(f"pack|{stage.name}|{i}|{k}", layout.bytes)
        counts = layout.k_counts
        inner = pack.k[-2:]
        k1, ks1 = (counts[-2], inner[0]) if len(counts) > 1 else (1, None)
        k2, ks2 = (counts[-1], inner[-1]) if counts else (1, None)
        units = self.binding.size(stage.shape[-1]) if stage.shape else 1
        description = [k1, k2, len(pack.gates), tiling.unit_blocks, units]
        axes = (*pack.outer, *pack.k[:-2])
        lead = (*layout.outer, *layout.k[: max(len(counts) - 2, 0)])
        for index in product(*map(range, (*layout.outer_counts, *counts[:-2]))):
            target = at + sum(n * s for n, s in zip(index, lead, strict=True))
            gates = []
            for g in pack.gates:
                stride = partial(self.binding.stride, g)
                moved = sum(n * stride(a) for n, a in zip(index, axes, strict=True))
                point, start = self._gate(g, moved)
                gates.append((point, [start, stride(ks1), stride(ks2), stride(pack.lane)]))
            self._job(target, tiling.tiles, description, gates)

    def _init(self, stage: Stage, i: int) -> None:
        """Rows of constants in the tiles' order; gates without one start from zeros."""
        sources = stage.cores[i].init
        assert sources is not None
        tiling = self.binding.tilings[stage.name]
        outer = [self.binding.size(s) for s in stage.shape[:-1]]
        units = self.binding.size(stage.shape[-1])
        row = tiling.tiles * tiling.unit_blocks * len(sources) * host().vector_bytes
        at = self.out.place(f"init|{stage.name}|{i}", row * int(np.prod(outer, dtype=int)))
        description = [1, 1, len(sources), tiling.unit_blocks, units]
        zeros = self.prepared.points["zeros"], 0
        for number, index in enumerate(product(*map(range, outer))):
            gates = []
            for g in sources:
                point, start = zeros
                if g is not None:
                    stride = partial(self.binding.stride, g)
                    moved = sum(n * stride(a) for a, n in enumerate(index))
                    point, start = self._gate(g, moved)
                gates.append((point, [start, 0, 0, self.item]))
            self._job(at + number * row, tiling.tiles, description, gates)
