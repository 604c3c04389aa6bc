"""The nouns of a Schedule.

    Schedule = kernels, run one after another
    Kernel   = levels over some rows; a scan kernel runs its levels once a step
    Level    = stages that don't depend on each other
    Stage    = one of
        LaneStage   for each row and lane: contractions into a tile, then lane-by-lane statements
        RowStage    for each row: one move, reduction or draw over the whole row
        GradStage   a contraction over rows and steps: gradients of weights

A value lives in a register of its stage, or in a `Buffer`. A `View` says how a stage reads it.

Buffers: every row (one batch entry at one step) is [outer axes..., last axis], the last axis
padded to a multiple of LANE_PAD elements, so kernels have no tails; what is in the padding is
never read by a contraction or a reduction. Arrays of the user are dense: no padding.

All of them are finished when they are made: what collects them is `build`'s and `region`'s own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rnncc.ir.program import Op, Program, Value
from rnncc.ir.sizes import Size


@dataclass(frozen=True, eq=False, slots=True)
class Buffer:
    """storage: param (the caller's), carry (T + 1 slots or a ring), work, result."""

    name: str
    shape: tuple[Size, ...]
    axes: str
    storage: str
    value: Value

    @property
    def described(self) -> str:
        """Its axes and shape, as people write them: `[B, T, 4 * units]`."""
        return f"[{', '.join([*self.axes, *map(str, self.shape)])}]"


@dataclass(frozen=True, slots=True)
class View:
    """How a value reads a buffer: for each axis of the value the buffer's axis, or None where it
    is the same all along; offsets on buffer axes; and for a carry the slot."""

    buffer: Buffer
    axes: tuple[int | None, ...]
    starts: tuple[tuple[int, Size], ...] = ()
    slot: str = ""  # "" | "in" | "out": a carry entering and leaving this step
    first_only: bool = False  # zero after the first step: a cotangent entering at the end

    @property
    def is_whole(self) -> bool:
        """True when the value is the buffer's row, element for element."""
        return not self.starts and self.axes == tuple(range(len(self.buffer.shape)))

    @property
    def lanes(self) -> bool:
        """Can be read vector by vector: contiguous, or the same for all lanes."""
        return not self.axes or self.axes[-1] in (None, len(self.buffer.shape) - 1)


@dataclass(frozen=True, slots=True)
class Segment:
    """acc[row, lane] += a[row, k] * w[k, lane]. Axes index the views; out axes are positional.

    outer: for each outer axis of the result, (axis of a or None, axis of w or None)
    k:     the summed axes, outermost first, (axis of a, axis of w)
    lane:  the axis of w behind the lanes (None: a single lane)
    """

    a: View
    w: View
    outer: tuple[tuple[int | None, int | None], ...]
    k: tuple[tuple[int, int], ...]
    k_sizes: tuple[Size, ...]
    lane: int | None
    skip_first: bool = False  # a is a carry of zeros at the first step

    def shape_key(self) -> tuple[object, ...]:
        """Equal for segments that differ in their weight alone, which can share a core call."""
        return (self.a, self.outer, self.k, self.k_sizes, self.lane is None, self.skip_first)


@dataclass(frozen=True, eq=False, slots=True)
class Acc:
    """One accumulator: where it starts and what is added.

    ops: the contraction behind each segment. ahead: so many of the segments may have been added
    before the loop (see `hoisted_inputs`).
    """

    value: Value
    segments: tuple[Segment, ...]
    ops: tuple[Op, ...]
    init: View | None = None  # a row of constants, e.g. a bias
    ahead: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Group:
    """Up to four accumulators over the same operands, side by side in the lanes of one core."""

    accs: tuple[Acc, ...]
    rowwise: bool  # the weight belongs to the row (a matrix memory)
    start: Buffer | None = None  # rows with what may have been added before the loop


@dataclass(frozen=True, eq=False, slots=True)
class Store:
    value: Value
    view: View

    @property
    def is_whole(self) -> bool:
        """False for a part of a row, also for one that begins where the row does."""
        return self.view.is_whole and self.value.type.shape == self.view.buffer.shape


@dataclass(frozen=True, eq=False, slots=True)
class LaneStage:
    name: str
    shape: tuple[Size, ...]
    axes: str
    groups: tuple[Group, ...]
    ops: tuple[Op, ...]
    stores: tuple[Store, ...]
    reads: Mapping[Value, View]  # what it doesn't compute itself
    tiled: Buffer | None = None  # where its only group's tiles go as they are: a loop's start

    @property
    def all_ops(self) -> list[Op]:
        """What it computes: contractions, then what is made of them."""
        return [*(op for g in self.groups for a in g.accs for op in a.ops), *self.ops]

    @property
    def direct(self) -> bool:
        """Contractions whose results go straight where they belong."""
        return self.tiled is not None or goes_straight(self.groups, self.ops, self.stores)


def goes_straight(groups: Sequence[Group], ops: Sequence[Op], stores: Sequence[Store]) -> bool:
    """Whether all that is done with these contractions is to store each where it belongs."""
    if any(g.rowwise for g in groups):
        return False
    return (
        bool(groups)
        and not ops
        and len(stores) == sum(len(g.accs) for g in groups)
        and all(s.is_whole for s in stores)
    )


@dataclass(frozen=True, eq=False, slots=True)
class RowStage:
    name: str
    op: Op
    source: View | None
    target: View
    axes: str
    copies: tuple[tuple[View, View], ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class GradStage:
    """out[m, lane] = sum over rows of a[row, m] * d[row, lane]; a None: ones."""

    name: str
    op: Op
    a: View | None
    d: View
    target: View
    outer: tuple[tuple[int | None, int | None], ...]  # axes of a and d behind outer axes of out
    m: tuple[int, int] | None  # (axis of a, axis of out) that the rows of a tile run over
    k: tuple[tuple[int, int, Size], ...]  # feature axes summed besides the rows
    kept: str  # axes of the result: "" or "B"


Stage = LaneStage | RowStage | GradStage


def ops_of(stage: Stage) -> list[Op]:
    """What a stage computes."""
    return stage.all_ops if isinstance(stage, LaneStage) else [stage.op]


@dataclass(frozen=True, eq=False, slots=True)
class Level:
    stages: tuple[Stage, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Kernel:
    """kind: scan (a loop over steps), rows (each part its rows), grads (each part its lanes),
    weights (one part: what depends on weights alone). unroll: steps of a scan that are written out
    a turn."""

    name: str
    kind: str
    axes: str
    levels: tuple[Level, ...]
    reverse: bool = False
    unroll: int = 1

    @property
    def is_plain(self) -> bool:
        """Contractions alone, each going straight where it belongs: nothing is generated."""
        if self.kind == "scan":
            return False
        return all(
            isinstance(s, GradStage)
            or (isinstance(s, LaneStage) and s.direct and self.kind == "rows")
            for level in self.levels
            for s in level.stages
        )


def written(kernel: Kernel) -> list[Buffer]:
    """The buffers a kernel writes."""
    buffers: dict[Buffer, None] = {}
    for stage in (s for level in kernel.levels for s in level.stages):
        if isinstance(stage, LaneStage):
            buffers.update((s.view.buffer, None) for s in stage.stores)
            if stage.tiled:
                buffers[stage.tiled] = None
        else:
            buffers[stage.target.buffer] = None
            if isinstance(stage, RowStage):
                buffers.update((t.buffer, None) for _, t in stage.copies)
    return list(buffers)


def packs(stages: Iterable[Stage]) -> set[Buffer]:
    """The buffers that are put in the order of cores before a kernel of these stages runs."""
    lanes = [s for s in stages if isinstance(s, LaneStage)]
    groups = [g for s in lanes for g in s.groups]
    weights = {s.w.buffer for g in groups if not g.rowwise for a in g.accs for s in a.segments}
    return weights | {a.init.buffer for g in groups for a in g.accs if a.init is not None}


@dataclass(frozen=True, eq=False, slots=True)
class CarrySlot:
    """A carry's buffer and what the runtime must do for it before the loop."""

    name: str
    buffer: Buffer
    init: Value
    zero_start: bool
    entry: bool
    final: Value


@dataclass(frozen=True, eq=False, slots=True)
class Schedule:
    program: Program
    kernels: tuple[Kernel, ...]
    buffers: tuple[Buffer, ...]
    carries: tuple[CarrySlot, ...]
    places: Mapping[Value, View]  # where every param, result and residual is
    histories: Mapping[str, tuple[Value, ...]]  # carry buffer -> the stacks that are its history
    joined: Mapping[Value, Op]  # results that are concats of parts in memory
    reverse: bool


def unread(schedule: Schedule) -> set[Buffer]:
    """Results that only a pullback reads: residuals, where no stage reads them again."""
    asked = {r.value for r in schedule.program.results if r.role.kind != "residual"}
    parts = {o for v in asked if v in schedule.joined for o in schedule.joined[v].operands}
    needed = {schedule.places[v].buffer for v in asked | parts if v in schedule.places}
    for stage in (s for k in schedule.kernels for level in k.levels for s in level.stages):
        needed |= {v.buffer for v in views_read(stage)}
    return {b for b in schedule.buffers if b.storage == "result"} - needed


def block_locals(schedule: Schedule) -> set[Buffer]:
    """Work of one kernel alone, a row for each that it goes through: once a block of rows is done
    nobody reads it, and the next block's may lie there."""
    kernels: dict[Buffer, set[Kernel]] = {}
    for kernel in schedule.kernels:
        stages = [s for level in kernel.levels for s in level.stages]
        for buffer in (*written(kernel), *(v.buffer for s in stages for v in views_read(s))):
            kernels.setdefault(buffer, set()).add(kernel)
    kept = {v for r in schedule.program.results for v in (r.value, *_parts(schedule, r.value))}
    kept |= {carry.init for carry in schedule.carries}
    lasting = {schedule.places[v].buffer for v in kept if v in schedule.places}
    found = set()
    for buffer, (kernel, *more) in kernels.items():
        rows = {"scan": "B", "rows": kernel.axes}.get(kernel.kind)
        if buffer.storage == "work" and not (more or kernel.is_plain) and buffer not in lasting:
            if buffer.axes and buffer.axes == rows:
                found.add(buffer)
    return found


def _parts(schedule: Schedule, value: Value) -> tuple[Value, ...]:
    """What a result is joined of."""
    return schedule.joined[value].operands if value in schedule.joined else ()


def views_read(stage: Stage) -> list[View]:
    """What a stage reads besides what it makes itself."""
    if isinstance(stage, LaneStage):
        segments = [s for g in stage.groups for a in g.accs for s in a.segments]
        inits = [a.init for g in stage.groups for a in g.accs if a.init]
        return [*stage.reads.values(), *inits, *(v for s in segments for v in (s.a, s.w))]
    if isinstance(stage, RowStage):
        return [v for v in (stage.source, *(s for s, _ in stage.copies)) if v]
    return [v for v in (stage.a, stage.d) if v]
