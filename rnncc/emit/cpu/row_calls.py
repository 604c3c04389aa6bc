"""A RowStage as calls of whole-row helpers, for one row.

Non-Goals: the loop over rows.
"""

from __future__ import annotations

from rnncc.artifact.kernel_args import (
    FirstStep,
    HelperCode,
    PieceCount,
    PieceTable,
    Seed,
    StepCount,
    ZeroRow,
)
from rnncc.common.user_text import Code
from rnncc.emit.shared.addresses import Addresses
from rnncc.emit.shared.views import STEP, Loop, RowView, call_lines
from rnncc.schedule.model import RowStage, View


def row_view(at: Addresses, stage: RowStage, comments: list[Code]) -> RowView:
    view = RowView(comments=comments)
    match stage.op.opcode:
        case "sum" | "prod" | "max" | "min":
            _reduce(at, stage, view)
        case "cumsum":
            _cumsum(at, stage, view)
        case "uniform":
            _uniform(at, stage, view)
    _copies(at, stage, view)
    return view


def _call(at: Addresses, view: RowView, function: str, arguments: list[str]) -> list[str]:
    return call_lines(function, arguments, at.column + STEP * (1 + len(view.outer)))


def _row(at: Addresses, view: View) -> str:
    return at.pointer(view) + at.row_terms(view)


def _helper(at: Addresses, name: str) -> str:
    return at.words(name, HelperCode(name))


def _reduce(at: Addresses, stage: RowStage, view: RowView) -> None:
    source, target = stage.source, stage.target
    assert source is not None
    shape = stage.op.operands[0].type.shape
    axis, last = stage.op.attrs["axis"], len(shape) - 1
    kind = stage.op.opcode
    src, dst = _row(at, source), _row(at, target)
    if axis == last:
        looped = list(range(last - 1)) if last else []
        outer = at.size(shape[last - 1]) if last else "1"
        length = at.size(shape[last])
        stride = at.axis_stride(source.buffer, last - 1) if last else "0"
        numbers = [outer, length, stride, "SIZE" if last else "0", "0", "0"]
        helper = _helper(at, f"reduce_last_{kind}")
    else:
        looped = [i for i in range(last) if i != axis]
        stride = at.axis_stride(source.buffer, axis)
        helper = _helper(at, f"reduce_axis_{kind}")
        numbers = ["1", at.size(shape[axis]), at.size(shape[last]), "0", stride, "0"]
    for i in looped:
        loop = Loop(f"o{i}", at.size(shape[i]))
        view.outer.append(loop)
        src += f" + {loop.var} * {at.axis_stride(source.buffer, i)}"
        dst += f" + {loop.var} * {at.axis_stride(target.buffer, i - (i > axis))}"
    view.calls += _call(at, view, "call_core", [helper, src, dst, *numbers])


def _cumsum(at: Addresses, stage: RowStage, view: RowView) -> None:
    source, target = stage.source, stage.target
    assert source is not None
    shape = stage.op.operands[0].type.shape
    src, dst = _row(at, source), _row(at, target)
    for i in range(len(shape) - 1):
        loop = Loop(f"o{i}", at.size(shape[i]))
        view.outer.append(loop)
        src += f" + {loop.var} * {at.axis_stride(source.buffer, i)}"
        dst += f" + {loop.var} * {at.axis_stride(target.buffer, i)}"
    reverse = str(int(stage.op.attrs["reverse"]))
    helper = _helper(at, "cumsum_last")
    numbers = ["1", at.size(shape[-1]), "0", "0", reverse, "0"]
    view.calls += _call(at, view, "call_core", [helper, src, dst, *numbers])


def _uniform(at: Addresses, stage: RowStage, view: RowView) -> None:
    shape, attrs = stage.op.result.type.shape, stage.op.attrs
    seed = at.words("seed", Seed())
    row = "r" if "B" in attrs["axes"] else "0"
    step = "t"
    if not at.in_scan:
        row, step = _bulk_coordinates(at, stage)
    if attrs["per"] == "step" and at.kernel.kind != "weights":
        step = f"{at.words('first_step', FirstStep())} + {step}"
        if attrs.get("ahead"):
            step += f" + {attrs['ahead']}"
    else:
        step = "0"
    view.lines.append(f"key = row_key({seed}, {attrs['site']}, {row}, {step})")
    dst, lane = _row(at, stage.target), "0"
    for i in range(len(shape) - 1):
        loop = Loop(f"o{i}", at.size(shape[i]))
        view.outer.append(loop)
        dst += f" + {loop.var} * {at.axis_stride(stage.target.buffer, i)}"
        rest = "".join(f" * {at.size(s)}" for s in shape[i + 1 :])
        lane += f" + {loop.var}{rest}"
    n = at.size(shape[-1]) if shape else "1"
    view.calls += _call(at, view, "draw_row", [dst, "key", lane, n])


def _bulk_coordinates(at: Addresses, stage: RowStage) -> tuple[str, str]:
    """Row and step of a bulk kernel's (r0, r): its ranges may be collapsed into one."""
    axes = stage.op.attrs["axes"]
    steps = at.words("T", StepCount())
    if at.kernel.kind == "weights":
        return "0", "0"
    if at.kernel.axes == "BT":
        flat = "(r0 * n1 + r)"
        return f"{flat} // {steps}" if "B" in axes else "0", f"{flat} % {steps}"
    if at.kernel.axes == "T":
        return "0", "r"
    return ("r" if "B" in axes else "0"), "0"


def _copies(at: Addresses, stage: RowStage, view: RowView) -> None:
    if stage.op.opcode in ("pad", "strided_pad"):
        view.calls += _copy(at, view, stage, 0, "zero", None, stage.target)
    for i, (source, target) in enumerate(stage.copies):
        view.calls += _copy(at, view, stage, i, "copy", source, target)


def _copy(
    at: Addresses,
    view: RowView,
    stage: RowStage,
    i: int,
    kind: str,
    source: View | None,
    target: View,
) -> list[str]:
    words = at.words
    name = f"{stage.name}_{kind}{i}"
    desc = words(name, PieceTable(stage.name, kind, i))
    count = words(f"{name}_n", PieceCount(stage.name, kind, i))
    src = _row(at, source) if source is not None else words("zeros", ZeroRow())
    helper = _helper(at, "copy_strided")
    return _call(at, view, "copy_pieces", [helper, src, _row(at, target), desc, count])
