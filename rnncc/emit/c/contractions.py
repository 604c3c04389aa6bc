"""Accumulators of a LaneStage as calls: z[j] = start[j] + the sum of a[k] * w[k, j].

Accumulators whose weights lie side by side, as the gates of a cell do, are one row of lanes; others
are a row each, one behind the other.

Non-Goals: the functions that are called (templates/c); how weights lie (`packing`); the statements
behind sums (`statements`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rnncc.common.formulas import SUM_BLOCK
from rnncc.emit.c.addresses import CAddresses
from rnncc.emit.c.packing import PackedLanes, Tiles, whole
from rnncc.emit.shared.views import Loop
from rnncc.schedule.model import Acc, Buffer, LaneStage, Segment, View

FEW = 32  # lanes, at most, of sums that may stay in registers
UNROLLED = 16  # turns, at most, of a loop that gcc unrolls before it looks for vectors
NEAR = 4096  # weights, at most, that are still in the cache a step later


@dataclass(frozen=True)
class Row:
    """Accumulators that lie side by side. place: of the first one's lane 0. padded: so many lanes
    may be written."""

    accs: tuple[Acc, ...]
    place: str
    lanes: int
    padded: int


class Sums:
    """Of group i of a stage. outer: loops around it; lanes: of an accumulator."""

    def __init__(
        self,
        at: CAddresses,
        packing: PackedLanes,
        stage: LaneStage,
        i: int,
        outer: list[Loop],
        lanes: int,
    ) -> None:
        self.at, self.packing, self.stage, self.outer = at, packing, stage, outer
        self.group, self.lanes = stage.groups[i], lanes
        self.together = all(
            _side_by_side(at, [acc.segments[k] for acc in self.group.accs], outer, lanes)
            for k in range(len(self.group.accs[0].segments))
        )
        self.stride = lanes if self.together else whole(lanes)
        count = len(self.group.accs) * lanes
        # Whether nothing is between accumulators and behind them, so that they may be a buffer's.
        self.exact = not outer and count == whole(len(self.group.accs) * self.stride)

    def lines(self) -> tuple[list[str], list[str]]:
        """Lines that make the sums, and where each accumulator's first lane is."""
        group, name = self.group, self.at.words.fresh("sums")
        count = whole(len(group.accs) * self.stride)
        row = group.start if group.start is not None else self.stage.tiled
        lines = [f"real {name}[{count}];"]
        if row is not None and self.exact and (group.start is None or count > FEW):
            lines = [f"real *{name} = {_row_of(self.at, row)};"]  # nobody reads it again
        places = [_moved(name, g * self.stride) for g in range(len(group.accs))]
        rows = [
            Row((acc,), place, self.lanes, self.stride)
            for acc, place in zip(group.accs, places, strict=True)
        ]
        if self.together:
            rows = [Row(group.accs, places[0], len(group.accs) * self.lanes, count)]
        for n, each in enumerate(rows):
            lines += self._row(each, n)
        return lines, places

    # ---- what sums begin with --------------------------------------------------------------------

    def _row(self, row: Row, n: int) -> list[str]:
        first = row.accs[0]
        segments = first.segments[first.ahead if self.group.start is not None else 0 :]
        start = self._start(row, n) if segments else None
        lines = []
        if start is None:
            for g, acc in enumerate(row.accs):
                lines += self._filled(acc, n + g, row)
            start = row.place
        for segment in segments:
            lines += self._products(segment, row, start)
            start = row.place
        return lines

    def _start(self, row: Row, n: int) -> str | None:
        """A pointer to all of a row's beginnings, 0 for zeros, None if there is no such row."""
        if self.outer:
            return None
        if self.group.start is not None:
            pointer = _moved(_row_of(self.at, self.group.start), n * self.lanes)
            exact = row.padded == row.lanes and self.stride == self.lanes
            return pointer if exact else None
        numbers = start_of(self.at, self.packing, row.accs, self.lanes)
        return None if numbers is None else self.packing.start(row.accs, numbers, row.padded)

    def _filled(self, acc: Acc, g: int, row: Row) -> list[str]:
        """What accumulator g begins with, lane by lane: a row made before the loop, constants, or
        zero."""
        at, start, value = self.at, self.group.start, "0"
        if start is not None:
            stride = int(at.axis_stride(start, 0)) * g
            terms = f" + {stride}" if stride else ""
            for n, loop in enumerate(self.outer):
                terms += at.axis_term(_whole_view(start), n + 1, loop.var)
            value = read(f"{_row_of(at, start)}{terms}", "j")
        elif acc.init is not None:
            init = acc.init
            terms = at.outer_terms(init, self.outer) if init.axes else ""
            lane = "j" if init.axes and init.axes[-1] is not None else "0"
            value = read(f"{at.pointer(init)}{terms}", lane)
        place = _moved(row.place, row.accs.index(acc) * self.stride)
        lines = [each_lane(self.lanes, place, value)]
        if acc is row.accs[-1] and row.padded > row.lanes:
            rest = _moved(row.place, row.lanes)
            lines.append(each_lane(row.padded - row.lanes, rest, "0"))
        return lines

    # ---- products --------------------------------------------------------------------------------

    def _products(self, segment: Segment, row: Row, start: str) -> list[str]:
        at, packing = self.at, self.packing
        turns = math.prod(int(loop.count) for loop in self.outer)
        depths = [at.number(s) for s in segment.k_sizes]
        packing.products += turns * row.lanes * math.prod(depths)
        rows = None if self.outer else packing.weights(at, segment, row.lanes)
        if rows is None:
            return self._loose(segment, row, start)
        a = at.pointer(segment.a), at.view_stride(segment.a, segment.k[0][0])
        if len(rows) <= packing.shallow:
            return shallow(packing, segment.w.buffer, rows, a, row, start)
        tiles = packing.in_tiles(segment.w.buffer, rows)
        depth, widths, lines, moved = tiles.depth, tiles.widths, [], 0
        if row.padded <= FEW and depth <= SUM_BLOCK:
            packing.narrow.add(row.padded)
            where = [row.place, start, *a, str(depth), *tiles.at(0)]
            return [f"{packing.prefix}_few_{row.padded}({', '.join(where)});"]
        packing.widths |= {*widths}
        if len({*widths}) == 1 and len(widths) > 1:
            return self._back_and_forth(tiles, row, start, a)
        for width in widths:
            begin = "0" if start == "0" else _moved(start, moved)
            where = [_moved(row.place, moved), begin, *a, str(depth), *tiles.at(moved)]
            lines.append(f"{packing.prefix}_add_{width}({', '.join(where)});")
            moved += width
        return lines

    def _back_and_forth(self, tiles: Tiles, row: Row, start: str, a: tuple[str, str]) -> list[str]:
        """Tiles of one width. What was read last is read first, where it is still near."""
        width, last = tiles.widths[0], len(tiles.widths) - 1
        far = self.at.turns and tiles.depth * width * (last + 1) > NEAR
        tile = ("i", f"(t & 1 ? {last} - i : i)")[far]
        where = [f"{row.place} + lane", "0" if start == "0" else f"{start} + lane", *a]
        arguments = ", ".join([*where, str(tiles.depth), *tiles.at("lane")])
        return [
            f"for (int i = 0; i <= {last}; ++i) {{",
            f"    const int lane = {width} * {tile};",
            f"    {self.packing.prefix}_add_{width}({arguments});",
            "}",
        ]

    def _loose(self, segment: Segment, row: Row, start: str) -> list[str]:
        """Of weights that lie as they were made, an accumulator after the other."""
        lines = [] if start == row.place else [each_lane(row.padded, row.place, read(start, "j"))]
        index = row.accs[0].segments.index(segment)
        for g, acc in enumerate(row.accs):
            lines += self._loose_one(acc.segments[index], _moved(row.place, g * self.stride))
        return lines

    def _loose_one(self, segment: Segment, place: str) -> list[str]:
        at, lines, pad = self.at, [], ""
        a, w = at.pointer(segment.a), self._loose_weights(segment)
        for loop, (a_axis, w_axis) in zip(self.outer, segment.outer, strict=True):
            a += "" if a_axis is None else at.axis_term(segment.a, a_axis, loop.var)
            w += "" if w_axis is None else at.axis_term(segment.w, w_axis, loop.var)
        *outside, (a_axis, w_axis) = segment.k
        for n, (a_k, w_k) in enumerate(outside):
            var = f"k{n}"
            count = at.size(segment.k_sizes[n])
            lines.append(f"{pad}for (int {var} = 0; {var} < {count}; ++{var})")
            a += at.axis_term(segment.a, a_k, var)
            w += at.axis_term(segment.w, w_k, var)
            pad += "    "
        depth = at.size(segment.k_sizes[-1])
        lane_step = "0" if segment.lane is None else at.view_stride(segment.w, segment.lane)
        steps = at.view_stride(segment.a, a_axis), at.view_stride(segment.w, w_axis)
        self.packing.loose = True
        arguments = [place, str(self.lanes), a, steps[0], depth, w, steps[1], lane_step]
        return [*lines, f"{pad}{self.packing.prefix}_add_products({', '.join(arguments)});"]

    def _loose_weights(self, segment: Segment) -> str:
        outer = [int(loop.count) for loop in self.outer]
        rounded = self.packing.rounded(self.at, segment, self.lanes, outer)
        if rounded is None:
            return self.at.pointer(segment.w)
        return _moved(rounded, self.at.offset(segment.w)[1])


# ---- sums of all steps of a block ----------------------------------------------------------------


@dataclass(frozen=True)
class TallRow:
    """A row of every step. weights: of each segment, [k, lane]; start: what it begins with."""

    accs: tuple[Acc, ...]
    target: View
    weights: list[np.ndarray]
    start: np.ndarray

    @property
    def lanes(self) -> int:
        return len(self.start)


def of_all_steps(
    at: CAddresses, packing: PackedLanes, stage: LaneStage, lanes: int
) -> list[str] | None:
    """Calls that make a stage's sums of n steps, where each goes straight into its row and no step
    waits for another's; None where it has to be step after step."""
    if not stage.direct or len(stage.shape) > 1 or any(g.start is not None for g in stage.groups):
        return None
    targets = {s.value: s.view for s in stage.stores}
    rows: list[tuple[tuple[Acc, ...], View]] = []
    for i, group in enumerate(stage.groups):
        if stage.tiled is not None:
            if not Sums(at, packing, stage, i, [], lanes).together:
                return None
            rows.append((group.accs, _whole_view(stage.tiled)))
        else:
            rows += [((acc,), targets[acc.value]) for acc in group.accs]
    tall = [_tall_row(at, packing, accs, target, lanes) for accs, target in rows]
    if any(row is None for row in tall):
        return None
    return [line for row in tall if row is not None for line in _tall(at, packing, row)]


def _tall_row(
    at: CAddresses, packing: PackedLanes, accs: tuple[Acc, ...], target: View, lanes: int
) -> TallRow | None:
    count = len(accs) * lanes
    start = start_of(at, packing, accs, lanes)
    weights = [packing.weights(at, s, count) for s in accs[0].segments]
    known = [w for w in weights if w is not None]
    if start is None or not weights or len(known) < len(weights):
        return None
    if count != whole(count) and any(len(w) > packing.shallow for w in known):
        return None  # tiles would reach into the next step's row
    return TallRow(accs, target, known, start) if at.row_of(target)[1] >= count else None


def _tall(at: CAddresses, packing: PackedLanes, tall: TallRow) -> list[str]:
    z, z_step, offset = at.row_of(tall.target)
    z, count = _moved(z, offset), tall.lanes
    start, start_step = packing.start(tall.accs, tall.start, count), 0
    lines = []
    for segment, weights in zip(tall.accs[0].segments, tall.weights, strict=True):
        packing.products += weights.size
        place, row, offset = at.row_of(segment.a)
        a, a_step = _moved(place, offset), at.view_stride(segment.a, segment.k[0][0])
        if len(weights) <= packing.shallow:
            inside = Row(tall.accs, f"{z} + t * {z_step}", count, count)
            begin = inside.place if start_step else start
            moving = f"{a} + t * {row}" if row else a
            lines.append("for (int t = 0; t < n; ++t)")
            called = shallow(packing, segment.w.buffer, weights, (moving, a_step), inside, begin)
            across = f"{packing.prefix.upper()}_ACROSS " if count <= UNROLLED else ""
            lines += [f"    {across}{line}" for line in called]
        else:
            tiles = packing.in_tiles(segment.w.buffer, weights)
            packing.widths |= {*tiles.widths}
            packing.tall |= {*tiles.widths}
            moved = 0
            for width in tiles.widths:
                begin = "0" if start == "0" else _moved(start, moved)
                where = [_moved(z, moved), z_step, begin, start_step, a, row, a_step, "n"]
                arguments = _listed([*where, tiles.depth, *tiles.at(moved)])
                lines.append(f"{packing.prefix}_rows_{width}({arguments});")
                moved += width
        start, start_step = z, z_step
    return lines


def _listed(arguments: Sequence[object]) -> str:
    return ", ".join(str(a) for a in arguments)


def start_of(
    at: CAddresses, packing: PackedLanes, accs: Sequence[Acc], lanes: int
) -> np.ndarray | None:
    """What accumulators of so many lanes begin with, if it is constants all."""
    parts = []
    for acc in accs:
        if acc.init is None:
            parts.append(np.zeros(lanes))
            continue
        values = packing.constants.get(acc.init.buffer)
        if values is None or len(acc.init.axes) > 1:
            return None
        _, begin = at.offset(acc.init)
        on = bool(acc.init.axes) and acc.init.axes[-1] is not None
        step = int(at.view_stride(acc.init, 0)) if on else 0
        parts.append(values.ravel()[begin + step * np.arange(lanes)])
    return np.concatenate(parts)


def shallow(
    packing: PackedLanes,
    buffer: Buffer,
    rows: np.ndarray,
    a: tuple[str, str],
    row: Row,
    start: str,
) -> list[str]:
    """Sums of so few products that they are written out."""
    name = packing.array(f"{buffer.name}_lanes", rows.ravel())
    text = read(start, "j")
    for k in range(len(rows)):
        more = f" + {k * row.lanes}" if k else ""
        factor = read(a[0], str(k * int(a[1])))
        text = f"{packing.prefix}_fma({factor}, {name}[j{more}], {text})"
    lines = [each_lane(row.lanes, row.place, text)]
    if start != row.place and row.padded > row.lanes:
        lines.append(each_lane(row.padded - row.lanes, _moved(row.place, row.lanes), "0"))
    return lines


# ---- text ----------------------------------------------------------------------------------------


def each_lane(count: int, place: str, value: str) -> str:
    return f"for (int j = 0; j < {count}; ++j) {read(place, 'j')} = {value};"


def read(pointer: str, index: str) -> str:
    if pointer == "0":
        return "R(0.0)"
    return f"({pointer})[{index}]" if " " in pointer else f"{pointer}[{index}]"


def _moved(pointer: str, by: int) -> str:
    """The pointer so many elements on.

    >>> _moved("sums", 0), _moved("sums", 8), _moved("sums + 8", 8), _moved("s->a + t * 4", 8)
    ('sums', 'sums + 8', 'sums + 16', 's->a + t * 4 + 8')
    """
    if not by:
        return pointer
    base, _, last = pointer.rpartition(" + ")
    if base and last.isdigit():
        return f"{base} + {int(last) + by}"
    return f"{pointer} + {by}"


def _whole_view(buffer: Buffer) -> View:
    return View(buffer, tuple(range(len(buffer.shape))))


def _row_of(at: CAddresses, buffer: Buffer) -> str:
    return at.pointer(_whole_view(buffer))


def _side_by_side(
    at: CAddresses, segments: Sequence[Segment], outer: list[Loop], lanes: int
) -> bool:
    """Whether their weights' rows are parts of one row, in order."""
    first = segments[0]
    if first.lane is None or at.view_stride(first.w, first.lane) != "1":
        return False
    buffer, begin = at.offset(first.w)
    for g, segment in enumerate(segments):
        if at.offset(segment.w) != (buffer, begin + g * lanes) or segment.w.axes != first.w.axes:
            return False
        if segment.a != first.a or segment.k != first.k or segment.outer != first.outer:
            return False
    return True
