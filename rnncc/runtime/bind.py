"""A Direction and one call's sizes -> a Binding: layouts, tiles, threads, and every word of every
kernel's block.

A Binding is made once for a set of sizes, batch, time, strides and machine, and serves any number
of calls: addresses are filled in a call (`engine`). Results never depend on anything chosen here.

Requests a kernel may make (see `emit.kernel_view`), by their first part:
    T B parts shared sync scratch_base scratch_bytes tables_at n0 n1 zeros ones
    seed, first step           a call's own: what draws start from
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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from rnncc.runtime.bulk_calls import Word, contract_calls, sum_calls
from rnncc.runtime.cores import LANE_PAD, ONE_ROW, WIDE, cores
from rnncc.runtime.machine import ITEMSIZE, Machine
from rnncc.runtime.nest import (
    PANEL_SCRATCH,
    POINTER_BYTES,
    POINTERS_AT,
    ROW_BLOCK,
    SEGMENT_BYTES,
    STEP_BLOCK,
)
from rnncc.runtime.rows import rows
from rnncc.runtime.sizes import evaluate
from rnncc.runtime.tables import Buffer, Core, Direction, Kernel, Place, Source, Stage

CACHE_LINE = 64
STAGGER = 512
SHARED_WORK = 24_000  # multiply-adds a step from which a barrier costs less than it saves
# Rows of a thread's share, from which the loop makes x @ W itself: of weights in the second cache,
FUSED_ROWS = 8
FUSED_FAR_ROWS = 16  # and of weights behind it.
WAKING_WORK = 300_000  # multiply-adds of a loop from which waking a thread to share it pays
FETCH_DEPTH = 256  # multiply-adds an element behind which fetching an epilogue's rows hides
BULK_WORK = 60_000  # multiply-adds from which a second thread is worth waking


@cache
def requests(kernel: Kernel) -> tuple[tuple[str, ...], ...]:
    """What each word of a kernel's block is."""
    return tuple(tuple(text.split("|")) for text in kernel.requests)


def touched(direction: Direction, kernel: Kernel) -> set[str]:
    """The buffers a kernel reads or writes."""
    names = {r[1] for r in requests(kernel) if r[0] == "address"}
    if kernel.function is None:
        for stage in direction.stages:
            if stage.name not in kernel.stages:
                continue
            names |= {o.source.buffer for c in stage.cores for o in c.operands}
            names |= {c.out.buffer for c in stage.cores if c.out}
            if stage.grad:
                sources = (stage.grad.a, stage.grad.d, stage.grad.out)
                names |= {s.buffer for s in sources if s}
    return names


def pad(n: int) -> int:
    return -(-n // LANE_PAD) * LANE_PAD


def axes_of(place: Place, buffers: Mapping[str, Buffer]) -> str:
    """The axes of a result before its features."""
    kind = place.role.removeprefix("grad_")
    if kind == "cotangent":  # of an output, or of a state
        return "B" if place.source.slot else buffers[place.source.buffer].axes
    return {"output": "BT", "input": "BT", "state": "B", "held": "B", "context": "B"}.get(kind, "")


def result_shape(place: Place, buffers: Mapping[str, Buffer], call: Call) -> tuple[int, ...]:
    """Of a result, as its caller sees it."""
    sizes, axes = dict(call.sizes), axes_of(place, buffers)
    if call.last_only and place.role == "output":
        axes = axes.replace("T", "")
    shape = [evaluate(s, sizes) for s in buffers[place.source.buffer].shape]
    if place.parts:
        along = [buffers[s.buffer].shape[place.axis] for s in place.parts]
        shape[place.axis] = sum(evaluate(s, sizes) for s in along)
    return (*({"B": call.batch, "T": call.time}[a] for a in axes), *shape)


def needs_padding(shape: Iterable[int]) -> bool:
    """Whether rows of this shape end within a vector."""
    *_, last = (1, *shape)
    return last % LANE_PAD != 0


def is_padded(buffer: Buffer, shape: Iterable[int]) -> bool:
    """Whether rows of a parameter are copied into longer ones: those read vector by vector."""
    return buffer.lanes and needs_padding(shape)


def staggered(row: int) -> int:
    """Bytes from row to row: not a multiple of a large power of two, or rows fall into the same
    sets of a cache."""
    return row + CACHE_LINE if row % STAGGER == 0 else row


@dataclass(slots=True)
class Layout:
    """Where rows of a buffer are, in bytes from its base."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]  # of the axes of a row
    row: int  # bytes of a row
    t: int = 0
    b: int = 0
    slots: int = 0  # steps that have their own rows
    ring: int = -1

    @property
    def last(self) -> int:
        return self.shape[-1] if self.shape else 1


def row_layout(shape: tuple[int, ...], item: int, dense: bool) -> Layout:
    """A row with its last axis padded, or as the caller has it."""
    padded = list(shape) if dense else ([*shape[:-1], pad(shape[-1])] if shape else [LANE_PAD])
    strides, step = [], item
    for n in reversed(padded):
        strides.append(step)
        step *= n
    return Layout(shape, tuple(reversed(strides))[: len(shape)], step)


@dataclass(slots=True)
class Tiling:
    unit_blocks: int
    tiles: int
    row_tile: int


@dataclass(frozen=True, slots=True)
class Call:
    """What a Binding is made for; hashable.

    strides, result_strides: (parameter's buffer or result's name, bytes from row to row of the
    batch, from step to step) of callers' arrays whose rows don't lie one after another. copies:
    (parameter's buffer, the caller's strides) of arrays that kernels can't read as they are.
    """

    sizes: tuple[tuple[str, int], ...]
    batch: int
    time: int
    save: bool
    last_only: bool
    strides: tuple[tuple[str, int, int], ...] = ()
    result_strides: tuple[tuple[str, int, int], ...] = ()
    copies: tuple[tuple[str, tuple[int, ...]], ...] = ()
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = (self.sizes, self.batch, self.time, self.save, self.last_only)
        more = (self.strides, self.result_strides, self.copies)
        object.__setattr__(self, "_hash", hash((values, more)))

    def __hash__(self) -> int:
        return self._hash  # worked out once: every call looks its like up


@dataclass(slots=True)
class BoundKernel:
    kernel: Kernel
    parts: int
    template: np.ndarray
    addresses: list[tuple[int, str, int]]  # word, buffer, offset
    others: list[tuple[int, tuple[str, ...]]]  # words filled a call
    why: str


@dataclass(slots=True)
class Binding:
    """Numbers for one Direction and Call."""

    direction: Direction
    call: Call
    sizes: dict[str, int]
    machine: Machine
    dtype: str
    layouts: dict[str, Layout] = field(default_factory=dict)
    tilings: dict[str, Tiling] = field(default_factory=dict)
    kernels: list[BoundKernel] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)  # buffers this side allocates
    in_place: dict[str, str] = field(default_factory=dict)  # results in the caller's own: buffers
    parts_in_place: dict[str, list[tuple[str, int]]] = field(default_factory=dict)  # at offsets
    copied: dict[str, tuple[int, ...]] = field(default_factory=dict)  # parameters, their strides
    fused: set[str] = field(default_factory=set)  # starts that the loop makes itself
    scratch_bytes: int = 0
    zero_bytes: int = 4096

    def size(self, text: str) -> int:
        return evaluate(text, self.sizes)

    def stride(self, source: Source, axis: int | None) -> int:
        """Bytes from element to element along an axis of a view; 0 where it repeats."""
        behind = None if axis is None else source.axes[axis]
        return 0 if behind is None else self.layouts[source.buffer].strides[behind]

    def is_unused(self, core: Core, k: int) -> bool:
        """Whether a segment's sum is made elsewhere: before the loop, or in it."""
        if core.start:
            return k < core.ahead and core.start not in self.fused
        return core.out is not None and core.out.buffer in self.fused

    @property
    def tile_key(self) -> tuple[object, ...]:
        """What the order of packed weights depends on."""
        tiles = tuple((n, t.unit_blocks) for n, t in self.tilings.items())
        return self.call.sizes, tiles, frozenset(self.fused)


class Binder:
    def __init__(
        self,
        direction: Direction,
        call: Call,
        machine: Machine,
        dtype: str,
        threads: int,
        residuals: Mapping[str, Layout],
    ) -> None:
        self.residuals = residuals
        self.d, self.call, self.machine, self.dtype = direction, call, machine, dtype
        self.item = ITEMSIZE[dtype]
        self.width = machine.width(dtype)
        self.vb = machine.vector_bytes
        self.threads = threads
        self.strides = {name: (b, t) for name, b, t in call.strides}
        self.copies_first = dict(call.copies)
        self.steps_outside: set[str] = set()  # kernels whose outer level is time
        self.buffers = {b.name: b for b in direction.buffers}
        self.stages = {s.name: s for s in direction.stages}
        self.copies = {(c.stage, c.kind, str(c.index)): c for c in direction.copies}
        self.out = Binding(direction, call, dict(call.sizes), machine, dtype)
        self.table_sizes: dict[tuple[str, str], int] = {}

    def bind(self) -> Binding:
        for stage in self.d.stages:
            self.out.tilings[stage.name] = self.tile(stage)
        for kernel in self.d.kernels:
            self.choose_starts(kernel)
        self.lay_out()
        tables = max((self.table_bytes(s) for s in self.d.stages), default=0)
        # Tiles, row pointers, the panel of a gradient's contraction, tables of segments.
        self.tables_at = POINTERS_AT + ROW_BLOCK * POINTER_BYTES + PANEL_SCRATCH
        spare = SEGMENT_BYTES
        self.out.scratch_bytes = -(-(self.tables_at + tables + spare) // 64) * 64
        for kernel in self.d.kernels:
            if not self.is_idle(kernel):
                self.out.kernels.append(self.bind_kernel(kernel))
        return self.out

    # ---- what a loop starts from --------------------------------------------------------------

    def choose_starts(self, kernel: Kernel) -> None:
        """x @ W in the loop or before it. In the loop, no rows of it are written and read again;
        before it, W is read once for many rows. So in the loop where a thread has rows enough for
        each reading of them, the more the farther they are."""
        if kernel.kind != "scan":
            return
        count, shared, _ = self.parts(kernel)
        rows_ = self.call.batch if shared else -(-self.call.batch // count)
        for stage in (self.stages[n] for n in kernel.stages):
            size = sum(
                self.pack_layout(stage.name, i, k).bytes
                for i, core in enumerate(stage.cores)
                for k, pack in enumerate(core.packs)
                if pack is not None
            )
            near = size <= self.machine.l2 * 3 // 4
            fits = rows_ >= (FUSED_ROWS if near else FUSED_FAR_ROWS)
            if fits or self.call.time == 1:
                self.out.fused |= {core.start for core in stage.cores if core.start}

    def is_idle(self, kernel: Kernel) -> bool:
        """Whether all that the kernel makes, the loop makes itself."""
        return bool(kernel.writes) and self.out.fused.issuperset(kernel.writes)

    # ---- memory -----------------------------------------------------------------------------

    def lay_out(self) -> None:
        call = self.call
        whole = {
            r[1]
            for k in self.d.kernels
            if k.kind != "scan"
            for r in requests(k)
            if r[0] == "address"
        } | {n for k in self.d.kernels if k.function is None for n in touched(self.d, k)}
        saved = {p.source.buffer for p in self.d.results if p.role == "residual"}
        outputs = {p.source.buffer for p in self.d.results if p.role == "output"}
        self.find_in_place(whole, saved if call.save else set())
        parts = self.find_parts_in_place()
        histories = {c.buffer for c in self.d.carries if c.history}
        for buffer in self.d.buffers:
            shape = tuple(self.out.size(s) for s in buffer.shape)
            if buffer.storage == "param":
                layout = self.residuals.get(buffer.name) or self.parameter(buffer, shape)
                self.out.layouts[buffer.name] = layout
                continue
            layout = row_layout(shape, self.item, False)
            if buffer.name in parts:
                layout.strides = parts[buffer.name]
            elif buffer.storage == "carry":
                keep = buffer.name in histories and (call.save or buffer.name in whole)
                layout.slots = call.time + 1 if keep else 2
                layout.ring = -1 if keep else 1
                layout.t = staggered(layout.row)
                layout.b = layout.t * layout.slots
                self.out.bytes[buffer.name] = layout.b * call.batch
            else:
                self.work(buffer, layout, buffer.name in whole, saved, outputs)
            self.out.layouts[buffer.name] = layout
            self.out.zero_bytes = max(self.out.zero_bytes, layout.row)

    def find_in_place(self, whole: set[str], saved: set[str]) -> None:
        """Results that kernels write where the caller wants them: those without padding, in rows
        of their own."""
        found = self.out.in_place
        strides = {name: (b, t) for name, b, t in self.call.result_strides}
        for place in self.d.results:
            source = place.source
            buffer = self.buffers[source.buffer]
            if place.role == "residual" or place.parts or source.slot:
                continue
            if buffer.storage != "result" or buffer.name in {*saved, *found.values()}:
                continue
            if buffer.axes != axes_of(place, self.buffers):
                continue
            # Of a sequence that some kernel needs whole, the last step is a part.
            part = place.role == "output" and self.call.last_only and buffer.name in whole
            if not part and not needs_padding(self.out.size(s) for s in buffer.shape):
                found[place.name] = buffer.name
                if place.name in strides:
                    self.strides[buffer.name] = strides[place.name]

    def find_parts_in_place(self) -> dict[str, tuple[int, ...]]:
        """Gradients of weights that are made, whole or gate by gate, where the caller wants them:
        strides of such buffers."""
        found: dict[str, tuple[int, ...]] = {}
        for place in self.d.results:
            parts = place.parts or (place.source,)
            names = [s.buffer for s in parts]
            buffers = [self.buffers[n] for n in names]
            if place.role != "grad_weight" or len({*names}) < len(names):
                continue
            if any(self.is_elsewhere(b, s, found) for b, s in zip(buffers, parts, strict=True)):
                continue
            shape = result_shape(place, self.buffers, self.call)
            strides = row_layout(shape, self.item, True).strides
            at, offsets = 0, self.out.parts_in_place.setdefault(place.name, [])
            for buffer in buffers:
                found[buffer.name] = strides
                offsets.append((buffer.name, at))
                if place.parts:
                    at += self.out.size(buffer.shape[place.axis]) * strides[place.axis]
        return found

    def is_elsewhere(self, buffer: Buffer, source: Source, taken: Mapping[str, object]) -> bool:
        """Whether a part of a result can't be in the caller's array."""
        return bool(
            buffer.storage != "work"
            or buffer.axes
            or buffer.name in taken
            or source.axes != tuple(range(len(buffer.shape)))
            or source.starts
            or needs_padding(self.out.size(s) for s in buffer.shape)
        )

    def parameter(self, buffer: Buffer, shape: tuple[int, ...]) -> Layout:
        """The caller's rows, or a copy of them: what is read vector by vector is padded."""
        padded = is_padded(buffer, shape)
        layout = row_layout(shape, self.item, not padded)
        given = self.copies_first.get(buffer.name)
        if given is None and padded:  # a weight: one row
            given = row_layout(shape, self.item, True).strides
        if given is None:
            self.callers_rows(buffer, layout, self.call.time if "T" in buffer.axes else 1)
            return layout
        # An axis that repeats one row goes on doing so.
        step = layout.row
        for axis, stride in reversed([*zip(buffer.axes, given, strict=False)]):
            if stride:
                setattr(layout, axis.lower(), step)
                step *= self.call.time if axis == "T" else self.call.batch
        layout.slots = self.call.time if "T" in buffer.axes else 1
        self.out.bytes[buffer.name] = step
        self.out.copied[buffer.name] = given
        return layout

    def callers_rows(self, buffer: Buffer, layout: Layout, steps: int) -> None:
        """One after another, or as the caller has them."""
        self.spread(buffer, layout, layout.row, steps)
        if buffer.name in self.strides:
            layout.b, layout.t = self.strides[buffer.name]

    def spread(self, buffer: Buffer, layout: Layout, row: int, steps: int) -> None:
        """Rows one after another; of one step, the same for all."""
        layout.slots = steps
        layout.t = row if "T" in buffer.axes and steps == self.call.time else 0
        layout.b = row * steps if "B" in buffer.axes else 0

    def work(
        self, buffer: Buffer, layout: Layout, whole: bool, saved: set[str], outputs: set[str]
    ) -> None:
        """A buffer over the axes it varies over; steps nobody will read share one row."""
        call = self.call
        if buffer.name in self.out.fused:
            self.out.bytes[buffer.name] = 0
            return
        steps = call.time if "T" in buffer.axes else 1
        if not whole and "T" in buffer.axes:
            name = buffer.name
            read = (name in saved and call.save) or (name in outputs and not call.last_only)
            if (name in saved or name in outputs) and not read:
                steps = 1
        if buffer.name in self.out.in_place.values():
            self.callers_rows(buffer, layout, steps)
            return
        row = staggered(layout.row)
        self.spread(buffer, layout, row, steps)
        count = call.batch if "B" in buffer.axes else 1
        self.out.bytes[buffer.name] = row * steps * count

    # ---- tiles ------------------------------------------------------------------------------

    def rows_of(self, stage: Stage) -> int:
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

    def tile(self, stage: Stage) -> Tiling:
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
        made = cores(self.dtype, self.machine)
        row_tile = min(made.max_rows(c.gates * unit_blocks) for c in stage.cores)
        return Tiling(unit_blocks, blocks // unit_blocks, row_tile)

    def table_bytes(self, stage: Stage) -> int:
        """Entries a stage's segments need, group after group."""
        if stage.grad:
            n0, n1 = self.grad_rows(stage)
            count = n0 * -(-n1 // STEP_BLOCK)
            return count * math.prod(self.out.size(s) for s, _, _ in stage.grad.k) * SEGMENT_BYTES
        at = 0
        for i, core in enumerate(stage.cores):
            self.table_sizes[stage.name, str(i)] = at
            at += SEGMENT_BYTES * sum(
                math.prod(self.out.size(s) for s in sizes) for sizes in core.segments
            )
        return at

    def grad_axes(self, stage: Stage) -> set[str]:
        """The axes of rows a gradient's operands vary over."""
        return {axis for name in self.grad_operands(stage) for axis in self.row_axes(name)}

    def grad_operands(self, stage: Stage) -> list[str]:
        assert stage.grad is not None
        return [s.buffer for s in (stage.grad.a, stage.grad.d) if s]

    def kept_stride(self, name: str, kept: str) -> int:
        """Bytes from one kept row to the next."""
        if not kept or kept not in self.row_axes(name):
            return 0
        return self.out.layouts[name].b if kept == "B" else self.out.layouts[name].t

    def kept(self, stage: Stage) -> str:
        return stage.grad.kept if stage.grad else ""

    def row_axes(self, name: str) -> set[str]:
        buffer = self.buffers[name]
        return {"B", "T"} if buffer.storage == "carry" else set(buffer.axes)

    def grad_rows(self, stage: Stage) -> tuple[int, int]:
        """The two-level range of rows a gradient sums over; one level where strides allow."""
        batch, time = self.call.batch, self.call.time
        axes = self.grad_axes(stage) - {self.kept(stage)}
        if axes != {"B", "T"}:
            return 1, {"B": batch, "T": time}["".join(axes)]
        uniform = all(
            self.out.layouts[n].b == self.out.layouts[n].t * time and self.row_axes(n) == {"B", "T"}
            for n in self.grad_operands(stage)
        )
        return (1, batch * time) if uniform else (batch, time)

    def grad_stride(self, stage: Stage, name: str, which: str) -> int:
        layout, own = self.out.layouts[name], self.row_axes(name)
        inner = "T" if "T" in self.grad_axes(stage) - {self.kept(stage)} else "B"
        axis = inner if which == "1" else "B"
        if axis not in own:
            return 0
        return layout.t if axis == "T" else layout.b

    # ---- words ------------------------------------------------------------------------------

    def work_of(self, kernel: Kernel) -> tuple[int, int]:
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

    def parts(self, kernel: Kernel) -> tuple[int, bool, str]:
        """Threads, whether they share the lanes of every row, and why."""
        work, row_count = self.work_of(kernel)
        if self.threads == 1 or kernel.kind == "weights":
            return 1, False, "one thread"
        if kernel.kind != "scan":
            if work * row_count < BULK_WORK:
                return 1, False, "one thread: too little work for two"
            return self.threads, False, f"{self.threads} threads, each its rows"
        batch = self.call.batch
        if batch >= 2 and work * row_count >= BULK_WORK:
            count = min(self.threads, batch)
            return count, False, f"{count} threads, each its rows of the batch: no barrier"
        lanes = min((self.out.tilings[s].tiles for s in kernel.stages), default=1)
        whole = work * batch * self.call.time
        if work * batch >= SHARED_WORK and whole >= WAKING_WORK and lanes >= 2:
            count = min(self.threads, lanes)
            return count, True, f"{count} threads share the units: one barrier a level"
        what = "a step is" if whole >= WAKING_WORK else f"{self.call.time} step(s) are"
        return 1, False, f"one thread: {what} too short to share"

    def bind_plain(self, kernel: Kernel) -> BoundKernel:
        """A kernel of contractions alone: the block is its calls."""
        parts, _, why = self.parts(kernel)
        flat = self.row_levels(kernel)
        words: list[Word]
        if kernel.kind == "grads":
            count, tiles, words = sum_calls(self, kernel)
            head: list[Word] = [parts, count, tiles, (("zeros",), 0)]
        else:
            count, words = contract_calls(self, kernel, flat)
            head = [parts, count, *flat]
        head += [(("scratch_base",), self.tables_at), self.out.scratch_bytes]
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

    def bind_kernel(self, kernel: Kernel) -> BoundKernel:
        if kernel.function is None:
            return self.bind_plain(kernel)
        parts, shared, why = self.parts(kernel)
        flat = self.row_levels(kernel)
        template = np.zeros(len(kernel.requests), np.int64)
        bound = BoundKernel(kernel, parts, template, [], [], why)
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

    def bind_start(self, bound: BoundKernel, index: int, stage: str, i: str) -> None:
        core = self.core(stage, i)
        if core.start not in self.out.fused:
            bound.addresses.append((index, core.start, 0))
        else:
            bound.others.append((index, ("init", stage, i) if core.init else ("zeros",)))

    def row_levels(self, kernel: Kernel) -> tuple[int, int]:
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
        kernel: Kernel,
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
                return int(shared)
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
            case ("helper", name):
                return rows(self.dtype, self.machine).address(name)
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

    def depth(self, stage: str) -> int:
        """Multiply-adds of one element of a tile."""
        packs = [p for core in self.stages[stage].cores for p in core.packs if p]
        return sum(math.prod(map(self.out.size, pack.k_sizes)) for pack in packs)

    def row_stride(self, name: str, which: str, domain: str, flat: tuple[int, int]) -> int:
        layout = self.out.layouts[name]
        if domain == "BT":
            if which == "0":
                return layout.b
            return layout.t
        if domain == "T":
            return layout.t
        return layout.b

    def tile_row(self, stage: str, i: int) -> int:
        return self.stages[stage].cores[i].gates * self.out.tilings[stage].unit_blocks * self.vb

    def init_outer(self, stage: str, i: int, axis: int) -> int:
        """Rows of constants: [outer axes][tile][vectors]."""
        inner = self.tile_row(stage, i) * self.out.tilings[stage].tiles
        for text in self.stages[stage].shape[axis + 1 : -1]:
            inner *= self.out.size(text)
        return inner

    def core(self, stage: str, i: str) -> Core:
        return self.stages[stage].cores[int(i)]

    def pack_layout(self, stage: str, i: int, k: int) -> PackLayout:
        return pack_layout(self.out, self.stages[stage], i, k, self.tile_row(stage, i))

    def pieces(self, key: tuple[str, ...]) -> list[list[int]]:
        from rnncc.runtime.pieces import copy_pieces

        copy = self.copies[key]  # type: ignore[index]
        return copy_pieces(copy, self.out)


@dataclass(slots=True)
class PackLayout:
    """[outer][leading k][tile][k1][k2][vectors]: strides in bytes."""

    outer: tuple[int, ...]
    k: tuple[int, ...]
    tile: int
    bytes: int
    outer_counts: tuple[int, ...]
    k_counts: tuple[int, ...]


def pack_layout(binding: Binding, stage: Stage, i: int, k: int, row: int) -> PackLayout:
    core: Core = stage.cores[i]
    pack = core.packs[k]
    assert pack is not None
    counts = [binding.size(s) for s in pack.k_sizes]
    inner = math.prod(counts[-2:]) if counts else 1
    tile = inner * row
    tiles = binding.tilings[stage.name].tiles
    strides: list[int] = []
    step = tile * tiles
    for n in reversed(counts[:-2]):
        strides.insert(0, step)
        step *= n
    if len(counts) >= 2:
        strides.append(counts[-1] * row)
    outer_counts = [binding.size(s) for s in stage.shape[:-1]]
    outer: list[int] = []
    for n, axis in zip(reversed(outer_counts), reversed(pack.outer), strict=True):
        outer.insert(0, step if axis is not None else 0)
        step *= n if axis is not None else 1
    kept = tuple(n if a is not None else 1 for n, a in zip(outer_counts, pack.outer, strict=True))
    return PackLayout(tuple(outer), tuple(strides), tile, step, kept, tuple(counts))
