"""What `cpu.kernel_arguments` makes of a direction and one call's sizes.

Non-Goals: making it (`cpu.kernel_arguments`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from rnncc.artifact.array_tables import BufferView
from rnncc.artifact.kernel_args import KernelArgument
from rnncc.artifact.kernel_tables import CoreSpec, DirectionSpec, KernelSpec, StageSpec
from rnncc.common.machine import Machine
from rnncc.common.size_expressions import evaluate
from rnncc.runtime.common.weight_formats import FULL, STORAGES, Storage
from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.layouts import Layout


@dataclass(slots=True)
class Tiling:
    unit_blocks: int
    tiles: int
    row_tile: int


@dataclass(slots=True)
class BoundKernel:
    kernel: KernelSpec
    parts: int
    template: np.ndarray
    addresses: list[tuple[int, str, int]]  # word, buffer, offset
    others: list[tuple[int, KernelArgument]]  # words that no binder knows
    why: str
    one_row: bool = False  # whether the twin for one row runs
    inlined: tuple[tuple[str, int], ...] = ()  # the numbers of the one whose cores are written out


@dataclass(slots=True)
class BoundProgram:
    """Numbers for one Direction and Call."""

    direction: DirectionSpec
    call: CallKey
    sizes: dict[str, int]
    machine: Machine
    dtype: str
    threads: int
    layouts: dict[str, Layout] = field(default_factory=dict)
    tilings: dict[str, Tiling] = field(default_factory=dict)
    kernels: list[BoundKernel] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)  # buffers this side allocates
    in_place: dict[str, str] = field(default_factory=dict)  # results in the caller's own: buffers
    parts_in_place: dict[str, list[tuple[str, int]]] = field(default_factory=dict)  # at offsets
    copied: dict[str, tuple[int, ...]] = field(default_factory=dict)  # parameters, their strides
    fused: set[str] = field(default_factory=set)  # starts that the loop makes itself
    far: set[str] = field(default_factory=set)  # stages that ask for weights ahead
    scratch_bytes: int = 0
    zero_bytes: int = 4096

    def size(self, text: str) -> int:
        return evaluate(text, self.sizes)

    def stride(self, source: BufferView, axis: int | None) -> int:
        """Bytes from element to element along an axis of a view; 0 where it repeats."""
        behind = None if axis is None else source.axes[axis]
        return 0 if behind is None else self.layouts[source.buffer].strides[behind]

    def storage(self, stage: StageSpec) -> Storage:
        """Of what is packed for a stage. What weights alone decide is worked out from whole ones,
        and gradients have their rows read where they are."""
        is_full = stage.grad is not None or stage.name in self.early
        return FULL if is_full else STORAGES[self.call.storage]

    @property
    def early(self) -> frozenset[str]:
        """Stages of kernels that run once a version of the weights."""
        kernels = (k for k in self.direction.kernels if k.kind == "weights")
        return frozenset(name for k in kernels for name in k.stages)

    def is_unused(self, core: CoreSpec, k: int) -> bool:
        """Whether a segment's sum is made elsewhere: before the loop, or in it."""
        if core.start:
            return k < core.ahead and core.start not in self.fused
        return core.out is not None and core.out.buffer in self.fused

    @property
    def tile_key(self) -> tuple[object, ...]:
        """What the order of packed weights depends on."""
        tiles = tuple((n, t.unit_blocks) for n, t in self.tilings.items())
        return self.call.sizes, tiles, frozenset(self.fused), self.call.storage


@dataclass(slots=True)
class PackLayout:
    """[outer][leading k][tile][k1][k2][vectors]: strides in bytes."""

    outer: tuple[int, ...]
    k: tuple[int, ...]
    tile: int
    bytes: int
    outer_counts: tuple[int, ...]
    k_counts: tuple[int, ...]


def pack_layout(binding: BoundProgram, stage: StageSpec, i: int, k: int, row: int) -> PackLayout:
    core: CoreSpec = stage.cores[i]
    pack = core.packs[k]
    assert pack is not None
    counts = [binding.size(s) for s in pack.k_sizes]
    # A step of weights is of the innermost k's.
    span = binding.storage(stage).bytes(counts[-1] if counts else 1, row)
    tile = math.prod(counts[-2:-1]) * span
    tiles = binding.tilings[stage.name].tiles
    strides: list[int] = []
    step = tile * tiles
    for n in reversed(counts[:-2]):
        strides.insert(0, step)
        step *= n
    if len(counts) >= 2:
        strides.append(span)
    outer_counts = [binding.size(s) for s in stage.shape[:-1]]
    outer: list[int] = []
    for n, axis in zip(reversed(outer_counts), reversed(pack.outer), strict=True):
        outer.insert(0, step if axis is not None else 0)
        step *= n if axis is not None else 1
    kept = tuple(n if a is not None else 1 for n, a in zip(outer_counts, pack.outer, strict=True))
    return PackLayout(tuple(outer), tuple(strides), tile, step, kept, tuple(counts))
