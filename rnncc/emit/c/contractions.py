"""Accumulators of a LaneStage as calls: z[j] += sum of a[k] * w[k, j], a tile of lanes a call.

Accumulators whose weights lie side by side, as the gates of a cell do, are one row of lanes.

Non-Goals: that function (templates/c); the statements behind it (`statements`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rnncc.emit.c.addresses import CAddresses
from rnncc.emit.shared.views import Loop
from rnncc.schedule.model import Buffer, Group, LaneStage, Segment, View

WIDTHS = (64, 32, 16, 8)  # lanes of a tile, whose sums compilers keep in registers


def sums_of(
    at: CAddresses, packing: PackedLanes, stage: LaneStage, i: int, outer: list[Loop], lanes: int
) -> tuple[list[str], list[str]]:
    """Lines that make group i's sums, and what each accumulator's first lane is called."""
    group = stage.groups[i]
    name = at.words.fresh("sums")
    count = len(group.accs) * lanes
    places = [f"{name} + {g * lanes}" if g else name for g in range(len(group.accs))]
    rest = " = {0}" if whole(count) > count else ""
    lines = [f"real {name}[{whole(count)}]{rest};"]
    if group.start is not None and not outer and count == whole(count):
        lines = [f"real *{name} = {_row_of(at, group.start)};"]  # nobody reads it again
    else:
        if stage.tiled is not None and not outer and count == whole(count):
            lines = [f"real *{name} = {_row_of(at, stage.tiled)};"]
        for g, place in enumerate(places):
            lines += _start(at, group, g, outer, place, lanes)
    first = group.accs[0]
    for k in range(first.ahead if group.start is not None else 0, len(first.segments)):
        segments = [acc.segments[k] for acc in group.accs]
        if _side_by_side(at, segments, outer, lanes):
            lines += _products(at, packing, segments[0], outer, places[0], count)
            continue
        for segment, place in zip(segments, places, strict=True):
            lines += _products(at, packing, segment, outer, place, lanes)
    return lines, places


def _row_of(at: CAddresses, buffer: Buffer) -> str:
    return at.pointer(View(buffer, tuple(range(len(buffer.shape)))))


def _start(
    at: CAddresses, group: Group, g: int, outer: list[Loop], place: str, lanes: int
) -> list[str]:
    """What accumulator g begins with: a row made before the loop, constants, or zero."""
    init = group.accs[g].init
    value = "0"
    if group.start is not None:
        view = View(group.start, tuple(range(len(group.start.shape))))
        stride = int(at.axis_stride(group.start, 0)) * g
        terms = f" + {stride}" if stride else ""
        for n, loop in enumerate(outer):
            terms += at.axis_term(view, n + 1, loop.var)
        value = f"({at.pointer(view)}{terms})[j]"
    elif init is not None:
        terms = at.outer_terms(init, outer) if init.axes else ""
        lane = "j" if init.axes and init.axes[-1] is not None else "0"
        pointer = f"{at.pointer(init)}{terms}"
        value = f"({pointer})[{lane}]" if " " in pointer else f"{pointer}[{lane}]"
    target = f"({place})[j]" if "+" in place else f"{place}[j]"
    return [f"for (int j = 0; j < {lanes}; ++j) {target} = {value};"]


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


def _products(
    at: CAddresses,
    packing: PackedLanes,
    segment: Segment,
    outer: list[Loop],
    place: str,
    lanes: int,
) -> list[str]:
    turns = math.prod(int(loop.count) for loop in outer)
    packing.products += turns * lanes * math.prod(at.number(s) for s in segment.k_sizes)
    if not outer and len(segment.k) == 1 and segment.lane is not None:
        packed = packing.calls(at, segment, place, lanes)
        if packed:
            return packed
    a, w = at.pointer(segment.a), at.pointer(segment.w)
    for loop, (a_axis, w_axis) in zip(outer, segment.outer, strict=True):
        a += "" if a_axis is None else at.axis_term(segment.a, a_axis, loop.var)
        w += "" if w_axis is None else at.axis_term(segment.w, w_axis, loop.var)
    lines, pad = [], ""
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
    packing.loose = True
    arguments = [place, str(lanes), a, steps[0], depth, w, steps[1], lane_step]
    return [*lines, f"{pad}{packing.prefix}_add_products({', '.join(arguments)});"]


class PackedLanes:
    """Weights in the order in which sums read them: lane tiles of one of WIDTHS, of each all k's.

    constants: arrays by buffer. arrays: those that were packed, by name.
    """

    def __init__(self, prefix: str, constants: Mapping[Buffer, np.ndarray]) -> None:
        self.prefix, self.constants = prefix, constants
        self.arrays: dict[str, np.ndarray] = {}
        self.widths: set[int] = set()
        self.products = 0  # multiply-adds of a step
        self.loose = False  # whether anything is summed of weights that aren't packed
        self._names: dict[tuple[object, ...], str] = {}

    def calls(self, at: CAddresses, segment: Segment, place: str, lanes: int) -> list[str]:
        """One call a lane tile; none where the weights are no constants."""
        values = self.constants.get(segment.w.buffer)
        if values is None or segment.lane is None:
            return []
        _, begin = at.offset(segment.w)
        ((a_axis, w_axis),) = segment.k
        depth = at.number(segment.k_sizes[0])
        k_stride, j_stride = (int(at.view_stride(segment.w, n)) for n in (w_axis, segment.lane))
        if j_stride == 0 or depth == 0:
            return []
        k, j = np.arange(depth)[:, None], np.arange(lanes)[None, :]
        rows = values.ravel()[begin + k * k_stride + j * j_stride]
        rows = np.pad(rows, ((0, 0), (0, whole(lanes) - lanes)))
        name = self._name(segment.w.buffer, (begin, depth, lanes, k_stride, j_stride))
        a, step = at.pointer(segment.a), at.view_stride(segment.a, a_axis)
        lines, tiles, from_, moved = [], [], 0, 0
        base, _, more = place.partition(" + ")
        for width in tiles_of(lanes):
            target = int(more or 0) + from_
            z = f"{base} + {target}" if target else base
            w = f"{name} + {moved}" if moved else name
            lines.append(f"{self.prefix}_add_{width}({z}, {a}, {step}, {depth}, {w});")
            tiles.append(rows[:, from_ : from_ + width].ravel())
            self.widths.add(width)
            from_, moved = from_ + width, moved + width * depth
        self.arrays[name] = np.concatenate(tiles)
        return lines

    def _name(self, buffer: Buffer, part: tuple[int, ...]) -> str:
        key = (buffer, part)
        if key not in self._names:
            count = sum(1 for b, _ in self._names if b is buffer)
            self._names[key] = f"{self.prefix}_w_{buffer.name}_packed{count or ''}"
        return self._names[key]


def whole(lanes: int) -> int:
    """As many lanes in whole tiles."""
    return -(-lanes // WIDTHS[-1]) * WIDTHS[-1]


def tiles_of(lanes: int) -> list[int]:
    """Widths of tiles, wide ones first.

    >>> tiles_of(100)
    [64, 32, 8]
    """
    widths, left = [], whole(lanes)
    for width in WIDTHS:
        widths += [width] * (left // width)
        left %= width
    return widths
