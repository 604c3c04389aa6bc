"""A RowStage as calls of whole-row helpers, for one row.

Non-Goals: the loop over rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rnncc.schedule.model import RowStage, View

if TYPE_CHECKING:
    from rnncc.emit.kernel_view import KernelWriter, RowView


def row_view(writer: KernelWriter, stage: RowStage) -> RowView:
    from rnncc.emit.kernel_view import RowView

    view = RowView(comments=writer.comments([stage.op]))
    match stage.op.opcode:
        case "sum" | "max" | "min":
            _reduce(writer, stage, view)
        case "cumsum":
            _cumsum(writer, stage, view)
        case "uniform":
            _uniform(writer, stage, view)
    _copies(writer, stage, view)
    writer.count += len(view.lines) + len(view.calls)
    return view


def _row(writer: KernelWriter, view: View) -> str:
    return writer.pointer(view) + writer.row_terms(view, ("r0", "r1")).replace("r1 *", "r *")


def _helper(writer: KernelWriter, name: str) -> str:
    return writer.words(name, "helper", name)


def _reduce(writer: KernelWriter, stage: RowStage, view: RowView) -> None:
    from rnncc.emit.kernel_view import Loop

    source, target = stage.source, stage.target
    assert source is not None
    shape = stage.op.operands[0].type.shape
    axis, last = stage.op.attrs["axis"], len(shape) - 1
    kind = stage.op.opcode
    src, dst = _row(writer, source), _row(writer, target)
    if axis == last:
        looped = list(range(last - 1)) if last else []
        outer = writer.size(shape[last - 1]) if last else "1"
        n = writer.size(shape[last])
        source_stride = writer.axis_stride(source.buffer, last - 1) if last else "0"
        target_stride = "SIZE" if last else "0"
        call = (
            f"call_core({_helper(writer, f'reduce_last_{kind}')}, {{src}}, {{dst}}, {outer}, {n}, "
            f"{source_stride}, {target_stride}, 0, 0)"
        )
    else:
        looped = [i for i in range(last) if i != axis]
        stride = writer.axis_stride(source.buffer, axis)
        call = (
            f"call_core({_helper(writer, f'reduce_axis_{kind}')}, {{src}}, {{dst}}, 1, "
            f"{writer.size(shape[axis])}, {writer.size(shape[last])}, 0, {stride}, 0)"
        )
    for i in looped:
        loop = Loop(f"o{i}", writer.size(shape[i]))
        view.outer.append(loop)
        src += f" + {loop.var} * {writer.axis_stride(source.buffer, i)}"
        dst += f" + {loop.var} * {writer.axis_stride(target.buffer, i - (i > axis))}"
    view.calls.append(call.format(src=src, dst=dst))


def _cumsum(writer: KernelWriter, stage: RowStage, view: RowView) -> None:
    from rnncc.emit.kernel_view import Loop

    source, target = stage.source, stage.target
    assert source is not None
    shape = stage.op.operands[0].type.shape
    src, dst = _row(writer, source), _row(writer, target)
    for i in range(len(shape) - 1):
        loop = Loop(f"o{i}", writer.size(shape[i]))
        view.outer.append(loop)
        src += f" + {loop.var} * {writer.axis_stride(source.buffer, i)}"
        dst += f" + {loop.var} * {writer.axis_stride(target.buffer, i)}"
    reverse = int(stage.op.attrs["reverse"])
    view.calls.append(
        f"call_core({_helper(writer, 'cumsum_last')}, {src}, {dst}, 1, "
        f"{writer.size(shape[-1])}, 0, 0, {reverse}, 0)"
    )


def _uniform(writer: KernelWriter, stage: RowStage, view: RowView) -> None:
    from rnncc.emit.kernel_view import Loop

    shape, attrs = stage.op.result.type.shape, stage.op.attrs
    seed = writer.words("seed_", "seed")
    row = "r" if "B" in attrs["axes"] else "0"
    step = "t" if attrs["per"] == "step" else "0"
    if not writer.in_scan:
        row, step = _bulk_coordinates(writer, stage)
    view.lines.append(f"key = row_key({seed}, {attrs['site']}, {row}, {step})")
    dst, lane = _row(writer, stage.target), "0"
    for i in range(len(shape) - 1):
        loop = Loop(f"o{i}", writer.size(shape[i]))
        view.outer.append(loop)
        dst += f" + {loop.var} * {writer.axis_stride(stage.target.buffer, i)}"
        rest = "".join(f" * {writer.size(s)}" for s in shape[i + 1 :])
        lane += f" + {loop.var}{rest}"
    n = writer.size(shape[-1]) if shape else "1"
    view.calls.append(f"draw_row({dst}, key, {lane}, {n})")


def _bulk_coordinates(writer: KernelWriter, stage: RowStage) -> tuple[str, str]:
    """Row and step of a bulk kernel's (r0, r): its ranges may be collapsed into one."""
    axes = stage.op.attrs["axes"]
    steps = writer.words("T", "T")
    per_step = stage.op.attrs["per"] == "step"
    if writer.kernel.kind == "weights":
        return "0", "0"
    if writer.kernel.axes == "BT":
        flat = "(r0 * n1 + r)"
        row = f"{flat} // {steps}" if "B" in axes else "0"
        return row, f"{flat} % {steps}" if per_step else "0"
    if writer.kernel.axes == "T":
        return "0", "r" if per_step else "0"
    return ("r" if "B" in axes else "0"), "0"


def _copies(writer: KernelWriter, stage: RowStage, view: RowView) -> None:
    if stage.op.opcode == "pad":
        view.calls.append(_copy(writer, stage, 0, "zero", None, stage.target))
    for i, (source, target) in enumerate(stage.copies):
        view.calls.append(_copy(writer, stage, i, "copy", source, target))


def _copy(
    writer: KernelWriter, stage: RowStage, i: int, kind: str, source: View | None, target: View
) -> str:
    words = writer.words
    name = f"{stage.name}_{kind}{i}"
    desc = words(name, "desc", stage.name, kind, str(i))
    count = words(f"{name}_n", "desc count", stage.name, kind, str(i))
    src = _row(writer, source) if source is not None else words("zeros", "zeros")
    helper = _helper(writer, "copy_strided")
    return f"copy_pieces({helper}, {src}, {_row(writer, target)}, {desc}, {count})"
