"""A group of accumulators as one core call: its segment table, its start, its result.

Non-Goals: the loops over tiles, rows and outer axes.
"""

from __future__ import annotations

from rnncc.artifact.inlined_cores import group_name, vectors_name
from rnncc.artifact.kernel_args import (
    CoreTable,
    InitStride,
    IsBegun,
    KernelArgument,
    PackDepthStride,
    PackedInit,
    PackedWeights,
    PackOuterStride,
    PackTileStride,
    StartRows,
    StartRowStride,
    StartStepStride,
    TableOffset,
    TileRowBytes,
    ZeroRow,
)
from rnncc.emit.shared.addresses import Addresses
from rnncc.emit.shared.views import STEP, CallView, Loop, call_lines
from rnncc.schedule.model import Group, LaneStage, Segment, View


def core_call(
    at: Addresses,
    stage: LaneStage,
    i: int,
    target: View | None,
    outer: list[Loop],
    inlined: bool = False,
) -> CallView:
    """The call of the stage's group i; `target`: where a direct result goes. inlined: the core
    itself, for one row."""
    words, group = at.words, stage.groups[i]
    name = _name(stage, i)
    table, count = f"{name}_table", f"{name}_n"
    offset = words(f"{name}_table_offset", TableOffset(stage.name, i))
    column = at.column + STEP * len(outer)
    lines_in, calls_in = _loops_around(stage, group, at.one_row)
    lines = [f"{table} = scratch + {offset}"]
    sums: list[str] = []
    vectors = vectors_name(name) if inlined else ""
    begun = words(f"{name}_begun", IsBegun(stage.name, i)) if group.start else ""
    for k in range(len(group.accs[0].segments)):
        segment = _Segment(at, stage, i, k, outer, begun, column + STEP * lines_in)
        if inlined:
            sums += segment.sum_lines(vectors)
            continue
        begins = not k and segment.is_one_entry
        lines += [f"{count} = 0"] if not (k or begins) else []
        lines += segment.lines(table, count, "0" if begins else count)
    tile_bytes = words(f"{name}_row_bytes", TileRowBytes(stage.name, i))
    init, init_j, init_rs = _start(at, stage, i, outer, tile_bytes)
    out, out_stride = (f"scratch + {i} * TILE_BYTES" if i else "scratch"), tile_bytes
    if target is not None:
        out = at.pointer(target) + at.row_terms(target, ("r0",)) + at.outer_terms(target, outer)
        out_stride = at.row_strides(target).get("r", "0")
    cores = words(f"{name}_cores", CoreTable(stage.name, i))
    return CallView(
        lines=[] if inlined else lines,
        count=count,
        cores=cores,
        table=table,
        init=init,
        init_j=init_j,
        init_rs=init_rs,
        out=out,
        out_stride=out_stride,
        tile_bytes=tile_bytes,
        column=column + STEP * calls_in,
        rowwise=group.rowwise,
        vectors=vectors,
        sums=sums,
    )


def _start(
    at: Addresses, stage: LaneStage, i: int, outer: list[Loop], tile_bytes: str
) -> tuple[str, str, str]:
    """What a group's sums start from: where it is, bytes from tile to tile, from row to row."""
    words, group, name = at.words, stage.groups[i], _name(stage, i)
    if group.start is not None:
        # Rows of this step from before the loop, or one row of constants for all of them.
        base = words(f"{name}_start", StartRows(stage.name, i))
        step = words(f"{name}_start_t", StartStepStride(stage.name, i))
        init, row = words.fresh(f"{name}_from"), "0"
        at.step_lines.append(f"{init} = {base} + t * {step}")
        if not at.one_row:
            row = words(f"{name}_start_b", StartRowStride(stage.name, i))
        return init, tile_bytes, row
    if all(a.init is None for a in group.accs):
        return words("zeros", ZeroRow()), "0", "0"
    init = words(f"{name}_init", PackedInit(stage.name, i))
    for n, loop in enumerate(outer):
        stride = words(f"{name}_init_{n}", InitStride(stage.name, i, n))
        init += f" + {loop.var} * {stride}"
    return init, tile_bytes, "0"


def _name(stage: LaneStage, i: int) -> str:
    """What words about a group begin with."""
    return group_name(stage.name, i, len(stage.groups))


def _loops_around(stage: LaneStage, group: Group, one_row: bool) -> tuple[int, int]:
    """Of a group's segments and of its call: how many loops and conditions the template has around
    them, inside those over outer axes."""
    if stage.direct:
        return 0, 0
    if one_row:  # tiles
        return int(group.rowwise), 1
    return (4, 4) if group.rowwise else (0, 2)  # tiles, their rows, spots


class _Segment:
    """One segment's entries in the table: a loop for each k axis but the innermost."""

    def __init__(
        self,
        at: Addresses,
        stage: LaneStage,
        i: int,
        k: int,
        outer: list[Loop],
        begun: str,
        column: int,
    ) -> None:
        self.at = at
        self.begun = begun if k < stage.groups[i].accs[0].ahead else ""
        self.group: Group = stage.groups[i]
        self.segment: Segment = self.group.accs[0].segments[k]
        self.place = (stage.name, i, k)
        self.name = _name(stage, i)
        self.title = f"{self.name}_w{k}"
        self.column = column
        self.outer = outer

    def word(self, suffix: str, argument: KernelArgument) -> str:
        return self.at.words(self.title + suffix, argument)

    @property
    def is_one_entry(self) -> bool:
        """Whether it is one at most, whatever the sizes."""
        return len(self.segment.k_sizes) <= 1

    @property
    def condition(self) -> str:
        """When it is to be added; "" for always."""
        if self.begun:
            return f"not {self.begun}"
        return f"not {self.at.first}" if self.segment.skip_first else ""

    def lines(self, table: str, count: str, number: str) -> list[str]:
        """number: of its first entry. Afterwards there are `count`."""
        condition = self.condition
        alone = bool(condition) and self.is_one_entry
        lines, entry = self.entry("" if alone else condition)
        function, arguments = "segment", [table, number, *entry]
        if alone:
            function, arguments = "segment_if", [condition, *arguments]
        call = call_lines(f"{count} = {function}", arguments, self.column + STEP * len(lines))
        return [*lines, *("    " * len(lines) + line for line in call)]

    def sum_lines(self, vectors: str) -> list[str]:
        """What adds it to a `tile` of one row."""
        lines, (a, _, a_ks, w, _, w_ts, length) = self.entry(self.condition)
        added = [
            f"operand = {a}",
            f"weight = {w} + j * {w_ts}",
            f"for _ in range({length}):",
            "    tile = v.fma_tile(tile, operand, 0, weight)",
            *([] if a_ks == "0" else [f"    operand += {a_ks}"]),
            f"    weight += {vectors} * VB",
        ]
        return [*lines, *("    " * len(lines) + line for line in added)]

    def entry(self, condition: str) -> tuple[list[str], list[str]]:
        """Loops and the condition around its entries, and an entry's words."""
        at, segment = self.at, self.segment
        a, w, rowwise = segment.a, segment.w, self.group.rowwise
        if rowwise:
            a_at, a_rs = at.pointer(a) + at.row_terms(a), "0"
            w_at = at.pointer(w) + at.row_terms(w)
        else:
            a_at = at.pointer(a) + at.row_terms(a, ("r0",))
            a_rs = at.row_strides(a).get("r", "0")
            w_at = self.word("", PackedWeights(*self.place))
        for n, (loop, axes) in enumerate(zip(self.outer, segment.outer, strict=True)):
            a_more, w_more = self.offsets(
                loop.var, *axes, f"_o{n}", PackOuterStride(*self.place, n)
            )
            a_at, w_at = a_at + a_more, w_at + w_more
        w_ks, w_ts = self.weight_strides()
        a_ks = at.view_stride(a, segment.k[-1][0]) if segment.k else "0"
        length = at.size(segment.k_sizes[-1]) if segment.k else "1"
        lines = [f"if {condition}:"] if condition else []
        inner = zip(segment.k_sizes[:-1], segment.k[:-1], strict=True)
        for n, (size, axes) in enumerate(inner):
            var = at.words.fresh("k")
            lines.append("    " * len(lines) + f"for {var} in range({at.size(size)}):")
            a_more, w_more = self.offsets(var, *axes, f"_k{n}", PackDepthStride(*self.place, n))
            a_at, w_at = a_at + a_more, w_at + w_more
        return lines, [a_at, a_rs, a_ks, w_at, w_ks, w_ts, length]

    def offsets(
        self, var: str, a: int | None, w: int | None, suffix: str, packed: KernelArgument
    ) -> tuple[str, str]:
        """What a loop over one axis adds to the addresses of the operand and the weight. packed:
        its stride where the weight is packed."""
        a_more = "" if a is None else self.at.axis_term(self.segment.a, a, var)
        if w is None:
            return a_more, ""
        if self.group.rowwise:
            return a_more, self.at.axis_term(self.segment.w, w, var)
        return a_more, f" + {var} * {self.word(suffix, packed)}"

    def weight_strides(self) -> tuple[str, str]:
        """From k to k, and from tile to tile. A packed weight has a tile's lanes side by side."""
        name, i, _ = self.place
        tile = self.at.words(f"{self.name}_row_bytes", TileRowBytes(name, i))
        if not self.group.rowwise:
            return tile, self.word("_j", PackTileStride(*self.place))
        k = self.segment.k
        return self.at.view_stride(self.segment.w, k[-1][1]) if k else "0", tile
