"""Kernel -> KernelView: everything a template prints, as finished strings.

All naming and address arithmetic happens here; templates only lay out loops.

Non-Goals: which stages exist (`schedule`); numbers (`runtime.bind`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rnncc.emit.statements import StatementLoop, Statements
from rnncc.emit.words import Request, Words
from rnncc.ir.program import Op, Value
from rnncc.ir.sizes import Size
from rnncc.schedule.model import (
    Acc,
    Buffer,
    Group,
    Kernel,
    LaneStage,
    RowStage,
    Schedule,
    Segment,
    View,
)

RESERVED = (
    "block part parts t step T B v r r0 r1 m j u q q0 q1 rows first scratch tables "
    "n0 n1 lo0 hi0 lo1 hi1 b0 b1 j0 j1 blk s key seed VB SIZE word kernel segment "
    "share row_range row_segments row_key draw_row call_core barrier check_in index count sync "
    "split old vectors min max range ROW_BLOCK SEGMENT_BYTES TILE_BYTES flush_denormals "
    "restore_denormals g mine own_lo own_hi row_lo row_hi lane_lo lane_hi scratch_base "
    "scratch_bytes tables_at shared generation row_end lane_range contract_rows sum_rows "
    "row row_pointers spot set_word POINTER_BYTES POINTERS_AT SPILLS_AT TILE_BYTES copy_pieces k0 k1 k2 k3 o0 o1 o2 o3 o4 float acc0 acc1 acc2 acc3 acc4 acc5 acc6 acc7"
)


@dataclass
class Loop:
    var: str
    count: str


@dataclass
class CallView:
    """One core call of a tile: where its segments, start and result are."""

    comment: str
    lines: list[str]  # fill the segment table
    count: str
    cores: str
    table: str
    init: str
    init_j: str  # bytes from tile to tile of the rows it starts from
    out: str
    out_stride: str
    tile_bytes: str
    rowwise: bool = False

    @property
    def init_at(self) -> str:
        return self.init if self.init_j == "0" else f"{self.init} + j * {self.init_j}"


@dataclass
class LaneView:
    kind: str = "lanes"
    comments: list[str] = field(default_factory=list)
    outer: list[Loop] = field(default_factory=list)
    calls: list[CallView] = field(default_factory=list)
    acc_lines: list[str] = field(default_factory=list)
    row_lines: list[tuple[str, str]] = field(default_factory=list)  # address, where it is
    loops: list[StatementLoop] = field(default_factory=list)
    tiles: str = ""
    unit_blocks: str = ""  # a power of two
    unit_shift: str = ""  # its logarithm
    row_tile: str = ""
    blocks: str = ""
    direct: bool = False


@dataclass
class RowView:
    kind: str = "row"
    comments: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    outer: list[Loop] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)


@dataclass
class KernelView:
    name: str
    kind: str
    doc: list[str]
    words: list[tuple[str, str]]  # identifier, what it is
    requests: list[Request]
    step_lines: list[str]
    levels: list[list[LaneView | RowView]]
    reverse: bool
    statements: int


class KernelWriter:
    """Writes one kernel's view; `source` gives a line's text for comments."""

    def __init__(self, kernel: Kernel, schedule: Schedule, source: Mapping[int, str]) -> None:
        self.kernel = kernel
        self.schedule = schedule
        self.source = source
        self.words = Words(taken=set(RESERVED.split()))
        self.in_scan = kernel.kind == "scan"
        self.step_lines: list[str] = []
        self.pointers: dict[tuple[object, ...], str] = {}
        self.strides: dict[tuple[object, ...], str] = {}
        self.count = 0
        self.standard_words()

    # ---- the whole kernel ---------------------------------------------------------------

    def view(self) -> KernelView:
        if self.kernel.is_plain:
            return KernelView(self.kernel.name, self.kernel.kind, [], [], [], [], [], False, 0)
        levels = []
        for level in self.kernel.levels:
            stages: list[LaneView | RowView] = []
            for stage in level.stages:
                if isinstance(stage, LaneStage):
                    stages.append(self.lane_stage(stage))
                elif isinstance(stage, RowStage):
                    stages.append(self.row_stage(stage))
            levels.append(stages)
        words = [(n, " ".join(filter(None, r))) for r, n in self.words.requests.items()]
        return KernelView(
            self.kernel.name,
            self.kernel.kind,
            [],
            words,
            list(self.words.requests),
            self.step_lines,
            levels,
            self.kernel.reverse,
            self.count,
        )

    def standard_words(self) -> None:
        """What the template itself reads."""
        names = ["scratch_base", "scratch_bytes", "tables_at", "parts", "B"]
        names += {"scan": ["T", "shared", "sync"], "rows": ["n0", "n1"]}.get(self.kernel.kind, [])
        for name in names:
            self.words.requests[(name,)] = name

    # ---- addresses ------------------------------------------------------------------------

    def size(self, size: Size) -> str:
        if size.is_constant:
            return str(size.constant)
        return self.words(_size_name(size), "size", str(size))

    def axis_stride(self, buffer: Buffer, axis: int) -> str:
        if axis == len(buffer.shape) - 1:
            return "SIZE"
        return self.words(f"{buffer.name}_{axis}", "stride", buffer.name, str(axis))

    def pointer(self, view: View) -> str:
        """The address of a view's first row (in a scan: at this step)."""
        starts = ",".join(f"{a}:{s}" for a, s in view.starts)
        key = (view.buffer, view.slot, starts, view.first_only)
        if key in self.pointers:
            return self.pointers[key]
        buffer = view.buffer
        slot = view.slot
        name = f"{buffer.name}_{slot}" if slot else buffer.name
        if not self.in_scan or slot == "final":
            pointer = self.words(name, "address", buffer.name, slot, starts)
        elif slot:
            base = self.words(f"{buffer.name}_base", "address", buffer.name, "", starts)
            pointer = self.words.fresh(name)
            self.step_lines.append(f"{pointer} = {self.slot_address(buffer, base, slot)}")
            if view.first_only:
                entry = self.words.fresh(name)
                zeros = self.words("zeros", "zeros")
                self.step_lines.append(f"{entry} = {pointer} if first else {zeros}")
                pointer = entry
        else:
            pointer = self.words(name, "address", buffer.name, "", starts)
            if "T" in buffer.axes:
                at = self.words.fresh(f"{buffer.name}_at")
                stride = self.words(f"{buffer.name}_t", "stride", buffer.name, "T")
                self.step_lines.append(f"{at} = {pointer} + t * {stride}")
                pointer = at
        self.pointers[key] = pointer
        return pointer

    def slot_address(self, buffer: Buffer, base: str, slot: str) -> str:
        stride = self.words(f"{buffer.name}_t", "stride", buffer.name, "T")
        ring = self.words(f"{buffer.name}_ring", "ring", buffer.name)
        entering = "t + 1" if self.kernel.reverse else "t"
        leaving = "t" if self.kernel.reverse else "t + 1"
        index = entering if slot == "in" else leaving
        return f"{base} + ({index} & {ring}) * {stride}"

    def row_strides(self, view: View) -> dict[str, str]:
        """For each row variable the stride it is multiplied with; absent where zero."""
        buffer = view.buffer
        if self.in_scan:
            if "B" not in buffer.axes:
                return {}
            stride = self.words(f"{buffer.name}_b", "stride", buffer.name, "B")
            if view.first_only:
                key = (buffer, "first stride")
                if key not in self.strides:
                    self.strides[key] = self.words.fresh(f"{buffer.name}_first_b")
                    self.step_lines.append(f"{self.strides[key]} = {stride} if first else 0")
                stride = self.strides[key]
            return {"r1": stride}
        if self.kernel.kind != "rows" or not buffer.axes:
            return {}
        domain = self.kernel.axes
        found = {"r1": self.words(f"{buffer.name}_r1", "row", buffer.name, "1", domain)}
        if domain == "BT":
            found["r0"] = self.words(f"{buffer.name}_r0", "row", buffer.name, "0", domain)
        return found

    def row_terms(self, view: View, variables: tuple[str, ...]) -> str:
        strides = self.row_strides(view)
        return "".join(f" + {x} * {strides[x]}" for x in variables if x in strides)

    def outer_terms(self, view: View, outer: list[Loop]) -> str:
        """The view's offset inside the loops over the outer axes of a lane space."""
        terms = ""
        for loop, axis in zip(outer, view.axes[:-1], strict=True):
            if axis is not None:
                terms += f" + {loop.var} * {self.axis_stride(view.buffer, axis)}"
        return terms

    def resolve(self, value: Value) -> View:
        """Where the current stage reads a value it doesn't compute."""
        return self.reads[value]

    # ---- stages -----------------------------------------------------------------------------

    def comments(self, ops: Iterable[Op | None]) -> list[str]:
        lines = [op.span.line for op in ops if op is not None and op.span is not None]
        return [self.source[n] for n in dict.fromkeys(sorted(lines)) if n in self.source]

    def loops(self, shape: tuple[Size, ...]) -> list[Loop]:
        return [Loop(f"o{i}", self.size(s)) for i, s in enumerate(shape[:-1])]

    def lane_stage(self, stage: LaneStage) -> LaneView:
        view = LaneView(outer=self.loops(stage.shape), direct=stage.direct)
        ops = [*stage.ops, *(a.op for g in stage.groups for a in g.accs)]
        view.comments = self.comments(ops)
        lanes = str(stage.shape[-1]) if stage.shape else "1"
        if stage.groups:
            view.unit_blocks = self.words(f"{stage.name}_u", "unit blocks", stage.name)
            view.unit_shift = self.words(f"{stage.name}_shift", "unit shift", stage.name)
            view.tiles = self.words(f"{stage.name}_tiles", "tiles", stage.name)
            view.row_tile = self.words(f"{stage.name}_rows", "row tile", stage.name)
        else:
            view.blocks = self.words("blocks", "blocks", lanes)
        registers: dict[Value, str] = {}
        self.reads = stage.reads
        targets = {s.value: s.view for s in stage.stores} if stage.direct else {}
        for i, group in enumerate(stage.groups):
            call = self.group_call(stage, i, group, view, targets)
            view.calls.append(call)
            for g, acc in enumerate(group.accs):
                lane = "u" if len(group.accs) == 1 else f"(u * {len(group.accs)} + {g})"
                registers[acc.value] = f"v.load(acc{i} + {lane} * VB)"
            if not stage.direct:
                row = "" if group.rowwise else f" + (r - m) * {call.out_stride}"
                view.acc_lines.append(f"acc{i} = {call.out}{row}")
        if not stage.direct:
            writer = Statements(self, stage, view.outer, registers)
            # A row's own matrix leaves its result for one row only, so its epilogue stays whole.
            shared = bool(stage.groups) and not any(g.rowwise for g in stage.groups)
            view.loops = writer.run(split=shared)
            view.row_lines = writer.row_lines
            self.count += sum(len(x.lines) + len(x.pointers) for x in view.loops)
        return view

    def group_call(
        self, stage: LaneStage, i: int, group: Group, view: LaneView, targets: dict
    ) -> CallView:
        words = self.words
        name = f"{stage.name}_g{i}"
        zeros = words("zeros", "zeros")
        table = f"{name}_table"
        offset = words(f"{name}_table_at", "table", stage.name, str(i))
        lines = [f"{table} = tables + {offset}", f"{name}_n = 0"]
        for k in range(len(group.accs[0].segments)):
            lines += self.segment_lines(f"{name}_n", table, stage, i, k, group, view)
        vectors = words(f"{name}_row", "tile row", stage.name, str(i))
        out, out_stride = (f"scratch + {i} * TILE_BYTES" if i else "scratch"), vectors
        first: Acc = group.accs[0]
        init, init_j = zeros, "0"
        starts = [a for a in group.accs if a.init is not None]
        if starts:
            init = words(f"{name}_init", "init", stage.name, str(i))
            init_j = vectors
            for n, (loop, _) in enumerate(zip(view.outer, stage.shape[:-1], strict=True)):
                stride = words(f"{name}_init_{n}", "init outer", stage.name, str(i), str(n))
                init += f" + {loop.var} * {stride}"
        if stage.direct:
            target = targets[first.value]
            pointer = self.pointer(target)
            out = f"{pointer}{self.row_terms(target, ('r0',))}"
            out += self.outer_terms(target, view.outer)
            strides = self.row_strides(target)
            out_stride = strides.get("r1", "0")
        return CallView(
            name,
            lines,
            f"{name}_n",
            words(f"{name}_cores", "cores", stage.name, str(i)),
            table,
            init,
            init_j,
            out,
            out_stride,
            vectors,
            group.rowwise,
        )

    def segment_lines(
        self, n: str, table: str, stage: LaneStage, i: int, k: int, group: Group, view: LaneView
    ) -> list[str]:
        segment: Segment = group.accs[0].segments[k]
        a, w = segment.a, segment.w
        words, title = self.words, f"{stage.name}_g{i}_w{k}"
        rows = ("r0", "r1") if group.rowwise else ("r0",)
        a_at = self.pointer(a) + self.row_terms(a, rows)
        if group.rowwise:
            a_rs = "0"
            a_at = a_at.replace("r1 *", "r *")
            w_at = (self.pointer(w) + self.row_terms(w, rows)).replace("r1 *", "r *")
        else:
            a_rs = self.row_strides(a).get("r1", "0")
            w_at = words(title, "pack", stage.name, str(i), str(k))
        for axis, (loop, (a_axis, w_axis)) in enumerate(
            zip(view.outer, segment.outer, strict=True)
        ):
            if a_axis is not None:
                a_at += self._axis_term(a, a_axis, loop.var)
            if w_axis is not None and group.rowwise:
                w_at += self._axis_term(w, w_axis, loop.var)
            elif w_axis is not None:
                stride = words(
                    f"{title}_o{axis}", "pack outer", stage.name, str(i), str(k), str(axis)
                )
                w_at += f" + {loop.var} * {stride}"
        if group.rowwise:
            lane_bytes = words(f"{stage.name}_g{i}_row", "tile row", stage.name, str(i))
            w_ts, w_ks = lane_bytes, self._axis_stride_of(w, segment.k[-1][1]) if segment.k else "0"
        else:
            w_ks = words(f"{stage.name}_g{i}_row", "tile row", stage.name, str(i))
            w_ts = words(f"{title}_j", "pack tile", stage.name, str(i), str(k))
        a_ks = self._axis_stride_of(a, segment.k[-1][0]) if segment.k else "0"
        count = self.size(segment.k_sizes[-1]) if segment.k else "1"
        lines, depth = [], 0
        if segment.skip_first:
            lines.append("if not first:")
            depth = 1
        for level, (size, (a_axis, w_axis)) in enumerate(
            zip(segment.k_sizes[:-1], segment.k[:-1], strict=True)
        ):
            var = words.fresh("k")
            lines.append("    " * depth + f"for {var} in range({self.size(size)}):")
            depth += 1
            a_at += self._axis_term(a, a_axis, var)
            if group.rowwise:
                w_at += self._axis_term(w, w_axis, var)
            else:
                stride = words(
                    f"{title}_k{level}", "pack k", stage.name, str(i), str(k), str(level)
                )
                w_at += f" + {var} * {stride}"
        pad = "    " * depth
        lines.append(
            f"{pad}segment({table}, {n}, {a_at}, {a_rs}, {a_ks}, {w_at}, {w_ks}, {w_ts}, {count})"
        )
        lines.append(f"{pad}{n} += 1")
        self.count += len(lines)
        return lines

    def _axis_term(self, view: View, axis: int, var: str) -> str:
        stride = self._axis_stride_of(view, axis)
        return "" if stride == "0" else f" + {var} * {stride}"

    def _axis_stride_of(self, view: View, axis: int) -> str:
        behind = view.axes[axis]
        return "0" if behind is None else self.axis_stride(view.buffer, behind)

    def row_stage(self, stage: RowStage) -> RowView:
        from rnncc.emit.row_calls import row_view

        return row_view(self, stage)


def _size_name(size: Size) -> str:
    text = str(size)
    return (
        text if text.isidentifier() else "size_" + "".join(c if c.isalnum() else "_" for c in text)
    )
