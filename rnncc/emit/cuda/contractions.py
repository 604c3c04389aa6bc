"""A group of accumulators as loops over k: the core that takes any sizes, a thread an item.

    acc0_0 = v.splat(0.0)
    operand_at = h_in_ptr + r * h_stride_b
    weight_at = recurrent_kernel_ptr + lane * SIZE
    for k0 in range(units_size):
        a = v.load(operand_at + k0 * SIZE)
        acc0_0 = v.fma(a, v.load(weight_at + k0 * recurrent_kernel_stride_0), acc0_0)

Non-Goals: cores whose weights stay where they are computed with (`stationary`).
"""

from __future__ import annotations

from collections.abc import Sequence

from rnncc.emit.shared.addresses import Addresses
from rnncc.emit.shared.views import Loop
from rnncc.schedule.model import Acc, Buffer, Group, LaneStage, Segment, View


def acc_name(i: int, g: int) -> str:
    return f"acc{i}_{g}"


def contraction_lines(at: Addresses, stage: LaneStage, i: int, outer: list[Loop]) -> list[str]:
    """Group i of the stage, for the item whose row and lane are known."""
    group = stage.groups[i]
    lines = [f"{acc_name(i, g)} = {start_of(at, group, g, outer)}" for g in range(len(group.accs))]
    first = group.accs[0]
    skipped = first.ahead if group.start is not None else 0
    for k in range(skipped, len(first.segments)):
        lines += _segment_lines(at, i, [acc.segments[k] for acc in group.accs], group, outer)
    return lines


def start_of(at: Addresses, group: Group, g: int, outer: list[Loop]) -> str:
    """What accumulator g begins with: a row made before the loop, constants, or zero."""
    acc: Acc = group.accs[g]
    if group.start is not None:
        return f"v.load({tile_address(at, group.start, g, outer)})"
    if acc.init is None:
        return "v.splat(0.0)"
    at_lane = at.pointer(acc.init) + at.row_terms(acc.init) + at.outer_terms(acc.init, outer)
    return f"v.load({at_lane} + q)"


def tile_address(at: Addresses, buffer: Buffer, g: int, outer: list[Loop]) -> str:
    """An element of a buffer whose rows are [accumulators, *lanes]."""
    view = View(buffer, tuple(range(len(buffer.shape))))
    text = at.pointer(view) + at.row_terms(view)
    text += f" + {g} * {at.axis_stride(buffer, 0)}" if g else ""
    for n, loop in enumerate(outer):
        text += f" + {loop.var} * {at.axis_stride(buffer, n + 1)}"
    return f"{text} + q"


def _segment_lines(
    at: Addresses, i: int, segments: Sequence[Segment], group: Group, outer: list[Loop]
) -> list[str]:
    first = segments[0]
    lines = []
    a_at = at.pointer(first.a) + at.row_terms(first.a)
    for loop, (axis, _) in zip(outer, first.outer, strict=True):
        a_at += "" if axis is None else at.axis_term(first.a, axis, loop.var)
    operand = at.words.fresh("operand_at")
    lines.append(f"{operand} = {a_at}")
    weights = []
    for segment in segments:
        name = at.words.fresh("weight_at")
        lines.append(f"{name} = {weight_address(at, segment, outer)}")
        weights.append(name)
    depth = 0
    a_more, w_more = "", [""] * len(segments)
    for size, (a_axis, _) in zip(first.k_sizes, first.k, strict=True):
        var = f"k{depth}"
        lines.append("    " * depth + f"for {var} in range({at.size(size)}):")
        a_more += at.axis_term(first.a, a_axis, var)
        w_more = [
            more + at.axis_term(s.w, s.k[depth][1], var)
            for more, s in zip(w_more, segments, strict=True)
        ]
        depth += 1
    pad = "    " * depth
    lines.append(f"{pad}a = v.load({operand}{a_more})")
    for g, (name, more) in enumerate(zip(weights, w_more, strict=True)):
        acc = acc_name(i, g)
        lines.append(f"{pad}{acc} = v.fma(a, v.load({name}{more}), {acc})")
    if first.skip_first:  # the operand is zero
        return ["if not first:", *("    " + line for line in lines)]
    return lines


def weight_address(at: Addresses, segment: Segment, outer: list[Loop]) -> str:
    """Where the weight's first k is, for the lane at hand."""
    text = at.pointer(segment.w) + at.row_terms(segment.w)
    for loop, (_, axis) in zip(outer, segment.outer, strict=True):
        text += "" if axis is None else at.axis_term(segment.w, axis, loop.var)
    if segment.lane is not None:
        text += at.axis_term(segment.w, segment.lane, "lane")
    return text
