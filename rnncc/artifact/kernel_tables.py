"""What a generated module says of its kernels, as data: stages, weights to pack, what runs when.

Sizes are text over the cell's size names. `kernel_arguments` of the CPU and of CUDA turn these
tables and one call's sizes into addresses and counts.

Non-Goals: numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rnncc.artifact.array_tables import (
    Arrays,
    BufferSpec,
    BufferView,
    CarrySpec,
    ResultSpec,
    Sizes,
    parsed_arrays,
    parsed_results,
)
from rnncc.artifact.kernel_args import KernelArgument, parsed


def gates(
    count: int, buffer: str, axes: tuple[int | None, ...], axis: int, size: str
) -> tuple[BufferView, ...]:
    """Views of a buffer's parts, each of this size, one behind another along an axis."""
    starts = ["", size, *(f"{n} * {size}" for n in range(2, count))]
    return tuple(BufferView(buffer, axes, ((axis, s),) if s else ()) for s in starts)


@dataclass(frozen=True, slots=True)
class PackSpec:
    """Weights of one segment, a source for each gate: k axes, the lane axis, and outer axes."""

    gates: tuple[BufferView, ...]
    k: tuple[int, ...]
    k_sizes: Sizes
    lane: int | None
    outer: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class OperandSpec:
    """What a segment reads of its rows: axes summed, and axes behind the outer axes."""

    source: BufferView
    k: tuple[int, ...]
    outer: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class CoreSpec:
    """One core call of a stage: gates side by side, a pack for each segment (None: the weight
    belongs to the row), and rows of constants to start from (None: zeros). A result that goes
    straight where it belongs (`out`) needs no generated text, so its operands are told here."""

    gates: int
    packs: tuple[PackSpec | None, ...]
    loops: tuple[Sizes, ...] = ()  # of each segment, where weights belong to rows: sizes of its k
    init: tuple[BufferView | None, ...] | None = None
    operands: tuple[OperandSpec, ...] = ()
    out: BufferView | None = None
    start: str = ""  # a buffer with rows to go on from, of which the first `ahead` segments are a
    ahead: int = 0  # part already; or else the core adds them itself

    @property
    def entries(self) -> tuple[Sizes, ...]:
        """Of each segment the sizes of k that have an entry for each index: all but the last."""
        return self.loops or tuple(p.k_sizes[:-1] for p in self.packs if p is not None)


@dataclass(frozen=True, slots=True)
class GradSpec:
    """out[m, lane] = sum over rows of a[row, m] * d[row, lane]; without a: of d alone.

    outer: for each outer axis of the result but m, (its size, axis of a, of d, of out)
    k: axes summed besides the rows: (size, axis of a, axis of d)
    """

    a: BufferView | None
    d: BufferView
    out: BufferView
    rows: str = "1"
    m: tuple[int | None, int | None] = (None, None)  # axes of a and out that a tile's rows run over
    outer: tuple[tuple[str, int | None, int | None, int | None], ...] = ()
    k: tuple[tuple[str, int, int], ...] = ()
    kept: str = ""


@dataclass(frozen=True, slots=True)
class StageSpec:
    name: str
    kind: str  # lanes | grad
    shape: Sizes
    cores: tuple[CoreSpec, ...] = (CoreSpec(1, ()),)
    grad: GradSpec | None = None


@dataclass(frozen=True, slots=True)
class CopySpec:
    """A move of elements in one row stage; a target alone is cleared.

    source_step, target_step: (axis, step) of an end that goes along an axis in steps.
    """

    stage: str
    kind: str
    index: int
    shape: Sizes  # of the source
    source: BufferView | None
    target_shape: Sizes
    target: BufferView
    source_step: tuple[int, int] | None = None
    target_step: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class SummedSpec:
    """Sums of a loop that may be products of matrices in every step: rows of [gates, lanes]."""

    level: int
    lanes: str
    packs: tuple[PackSpec, ...]  # of each segment, its gates side by side
    operands: tuple[OperandSpec, ...]


@dataclass(frozen=True, slots=True)
class PieceSpec:
    """What a timed kernel has done when it writes its number, since it wrote the one before.

    level: counted from 1; 0 outside of all. kind: sums (all of a contraction), stage (sums and what
    is made of them), lanes (what needs no sums), rows (a row's own reductions and copies), or
    waiting. stage: its name. what: the names that its equations set. own_terms: of each sum whose
    weights belong to a row, the sizes that multiply to its products. later: (core, segment) of
    those that aren't added at the first step."""

    level: int
    kind: str
    stage: str = ""
    what: str = ""
    own_terms: tuple[Sizes, ...] = ()
    later: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """function: a generated kernel, or None where every stage is told whole in its tables. unroll:
    steps that a scan writes out a turn. pieces: of a timed kernel, by the numbers it writes."""

    name: str
    kind: str
    axes: str
    phase: str  # before | scan | after
    stages: tuple[str, ...]
    writes: tuple[str, ...]  # buffers
    levels: int = 1
    function: Any = None  # a CpuKernel or a CudaKernel
    arguments: tuple[str, ...] = ()  # what each word of the block is, as `texts_of` has it
    summed: tuple[SummedSpec, ...] = ()  # in the order of their numbers
    unroll: int = 1
    pieces: tuple[PieceSpec, ...] = ()

    @property
    def words(self) -> tuple[KernelArgument, ...]:
        """What each word of the block is."""
        return parsed(self.arguments)


@dataclass(frozen=True)
class DirectionSpec:
    """Forward or backward: kernels in the order they run, and all they need."""

    name: str
    reverse: bool
    arrays: tuple[str, ...]  # as `array_texts` has them
    stages: tuple[StageSpec, ...]
    kernels: tuple[KernelSpec, ...]
    returned: tuple[str, ...]  # as `result_texts` has them
    copies: tuple[CopySpec, ...] = ()

    @cached_property
    def _arrays(self) -> Arrays:
        return parsed_arrays(self.arrays)

    @property
    def buffers(self) -> Sequence[BufferSpec]:
        return self._arrays[0]

    @property
    def params(self) -> Sequence[tuple[str, str, str]]:
        """Of each parameter its buffer, its role, and the name that callers use."""
        return self._arrays[1]

    @property
    def carries(self) -> Sequence[CarrySpec]:
        return self._arrays[2]

    @cached_property
    def results(self) -> tuple[ResultSpec, ...]:
        return parsed_results(self.returned, self.buffers)
