"""A GradStage as items: one element of a gradient each, a sum over rows, steps and k.

Non-Goals: sums in tiles.
"""

from __future__ import annotations

from rnncc.artifact.kernel_args import BatchSize, StepCount
from rnncc.common.user_text import Code
from rnncc.emit.cuda.items import items_of
from rnncc.emit.cuda.row_stages import element
from rnncc.emit.cuda.views import StageView
from rnncc.emit.shared.addresses import Addresses
from rnncc.schedule.model import GradStage, View


def grad_view(at: Addresses, stage: GradStage, comments: list[Code]) -> StageView:
    shape = stage.op.result.type.shape
    items = items_of(at, shape, [f"o{i}" for i in range(len(shape))])
    variables = [a.var for a in items.axes]
    a_index = [""] * (len(stage.a.axes) if stage.a else 0)
    d_index = [""] * len(stage.d.axes)
    for i, (a_axis, d_axis) in enumerate(stage.outer):
        if a_axis is not None and a_index:
            a_index[a_axis] = variables[i]
        if d_axis is not None:
            d_index[d_axis] = variables[i]
    if stage.m:
        a_index[stage.m[0]] = variables[stage.m[1]]
    if shape:
        d_index[-1] = variables[-1]
    lines = ["total = v.splat(0.0)"]
    for axis, var in _summed(stage):
        count = at.words(axis, BatchSize() if axis == "B" else StepCount())
        lines.append("    " * (len(lines) - 1) + f"for {var} in range({count}):")
    for n, (a_axis, d_axis, size) in enumerate(stage.k):
        lines.append("    " * (len(lines) - 1) + f"for k{n} in range({at.size(size)}):")
        a_index[a_axis] = d_index[d_axis] = f"k{n}"
    pad = "    " * (len(lines) - 1)
    d = f"v.load({_row(at, stage.d, stage.kept, d_index)})"
    if stage.a is None:
        lines.append(f"{pad}total = total + {d}")
    else:
        lines.append(f"{pad}a = v.load({_row(at, stage.a, stage.kept, a_index)})")
        lines.append(f"{pad}total = v.fma(a, {d}, total)")
    target = element(at, stage.target, variables)
    if stage.kept:
        target += f" + r * {_row_stride(at, stage.target, stage.kept)}"
    lines.append(f"v.store({target}, total)")
    return StageView(comments=comments, count=items.count, places=items.places, lines=lines)


def row_axes(view: View) -> str:
    """The axes of rows a view varies over: of a carry, every step's, or the last one's alone."""
    if view.buffer.storage != "carry":
        return view.buffer.axes
    return "B" if view.slot == "final" else "BT"


def _summed(stage: GradStage) -> list[tuple[str, str]]:
    """Axes of rows to sum over, each with its variable."""
    axes = set(row_axes(stage.d)) | set(row_axes(stage.a) if stage.a else "")
    return [(x, v) for x, v in (("B", "b"), ("T", "t")) if x in axes - {stage.kept}]


def _row_stride(at: Addresses, view: View, axis: str) -> str:
    return at.batch_stride(view.buffer) if axis == "B" else at.step_stride(view.buffer)


def _row(at: Addresses, view: View, kept: str, indices: list[str]) -> str:
    text = at.pointer(view)
    for axis, var in (("B", "b"), ("T", "t")):
        if axis in row_axes(view):
            text += f" + {'r' if axis == kept else var} * {_row_stride(at, view, axis)}"
    for n, index in enumerate(indices):
        text += at.axis_term(view, n, index) if index else ""
    return text
