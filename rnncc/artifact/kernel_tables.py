"""What a generated module says of its kernels, as data: buffers, stages, weights to pack.

Sizes are text over the cell's size names. `kernel_arguments` of the CPU and of CUDA turn these
tables and one call's sizes into addresses and counts.

Non-Goals: numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rnncc.artifact.kernel_args import KernelArgument, parsed
from rnncc.common.result_roles import ResultRole

Sizes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BufferSpec:
    """storage: param, carry, work or result. lanes: read vector by vector. parts: of a row that are
    read so, and don't begin with it: (where, how many elements)."""

    name: str
    shape: Sizes
    axes: str
    storage: str
    lanes: bool = False
    parts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class BufferView:
    """A view of a buffer: its axis behind each axis wanted, and offsets (axis, size)."""

    buffer: str
    axes: tuple[int | None, ...]
    starts: tuple[tuple[int, str], ...] = ()
    slot: str = ""


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
    """A move of elements in one row stage; a target alone is cleared."""

    stage: str
    kind: str
    index: int
    shape: Sizes  # of the source
    source: BufferView | None
    target_shape: Sizes
    target: BufferView


@dataclass(frozen=True, slots=True)
class CarrySpec:
    buffer: str
    init: str  # the buffer it starts from; "" for zeros
    entry: bool  # zero after the first step
    history: bool  # a stack aliases its slots


@dataclass(frozen=True, slots=True)
class ResultSpec:
    """Where a result is: a buffer, and for a carry the slot; or parts joined along an axis.

    kind, of: as `ResultRole` has them.
    """

    kind: str
    of: str
    source: BufferView
    parts: tuple[BufferView, ...] = ()
    axis: int = 0

    @property
    def name(self) -> str:
        """What callers ask for it by: a gradient by its parameter's name."""
        return ResultRole(self.kind, self.of).asked_as


@dataclass(frozen=True, slots=True)
class SummedSpec:
    """Sums of a loop that may be products of matrices in every step: rows of [gates, lanes]."""

    level: int
    lanes: str
    packs: tuple[PackSpec, ...]  # of each segment, its gates side by side
    operands: tuple[OperandSpec, ...]


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """function: a generated kernel, or None where every stage is told whole in its tables."""

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

    @property
    def words(self) -> tuple[KernelArgument, ...]:
        """What each word of the block is."""
        return parsed(self.arguments)


@dataclass(frozen=True, slots=True)
class DirectionSpec:
    """Forward or backward: kernels in the order they run, and all they need."""

    name: str
    reverse: bool
    params: tuple[tuple[str, str, str], ...]  # buffer, role, the name callers use
    buffers: tuple[BufferSpec, ...]
    carries: tuple[CarrySpec, ...]
    stages: tuple[StageSpec, ...]
    copies: tuple[CopySpec, ...]
    kernels: tuple[KernelSpec, ...]
    results: tuple[ResultSpec, ...]
