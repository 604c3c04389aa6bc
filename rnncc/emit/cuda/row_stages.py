"""A RowStage as items: elements to move or draw, or sums that a warp takes together.

Several targets are written at once, since who wrote the first is another thread than who would
copy it.

Non-Goals: the loop over items.
"""

from __future__ import annotations

from collections.abc import Sequence

from rnncc.artifact.kernel_args import FirstStep, Seed
from rnncc.common.user_text import Code
from rnncc.emit.cuda.items import items_of
from rnncc.emit.cuda.views import StageView
from rnncc.emit.shared.addresses import Addresses
from rnncc.emit.shared.views import Loop
from rnncc.ir.sizes import Size, product
from rnncc.schedule.model import RowStage, View
from rnncc.schedule.region import part_of


def row_views(at: Addresses, stage: RowStage, comments: list[Code]) -> list[StageView]:
    """The stage's loops; none of them reads what another writes."""
    match stage.op.opcode:
        case "sum" | "prod" | "max" | "min":
            views = [_reduce(at, stage)]
        case "cumsum":
            views = [_cumsum(at, stage)]
        case "uniform":
            views = [_uniform(at, stage)]
        case "pad" | "strided_pad":
            views = [_pad(at, stage)]
        case "strided_slice":
            views = [_strided(at, stage)]
        case "concat":
            views = _concat(at, stage)
        case _:
            views = [_copy(at, stage)]
    views[0].comments = comments
    return views


def _targets(stage: RowStage) -> list[View]:
    """Where the result goes: its own place, and what is copied from there."""
    return [stage.target, *(t for s, t in stage.copies if s is stage.target)]


def element(at: Addresses, view: View, indices: Sequence[str]) -> str:
    """The address of one element of a view, at the row at hand."""
    text = at.pointer(view) + at.row_terms(view)
    for axis, index in enumerate(indices):
        text += at.axis_term(view, axis, index) if index != "0" else ""
    return text


def _stores(at: Addresses, stage: RowStage, indices: Sequence[str], value: str) -> list[str]:
    return [f"v.store({element(at, t, indices)}, {value})" for t in _targets(stage)]


def _names(count: int) -> list[str]:
    return [f"o{i}" for i in range(count)]


def _variables(axes: list[Loop]) -> list[str]:
    return ["0" if a.count == "1" else a.var for a in axes]


# ---- reductions ------------------------------------------------------------------------------


def _reduce(at: Addresses, stage: RowStage) -> StageView:
    source = stage.source
    assert source is not None
    shape = stage.op.operands[0].type.shape
    axis, kind = stage.op.attrs["axis"], stage.op.opcode
    kept = [i for i in range(len(shape)) if i != axis]
    items = items_of(at, [shape[i] for i in kept], _names(len(kept)))
    indices = _variables(items.axes)
    full_indices = list(indices)
    full_indices.insert(axis, "0")
    step = at.view_stride(source, axis)
    view = StageView(count=items.count, places=items.places)
    lines = [f"a_at = {element(at, source, full_indices)}"]
    combine = {"sum": "total + {}", "max": "v.maximum(total, {})", "min": "v.minimum(total, {})"}
    combine["prod"] = "total * {}"
    begin = {"sum": "v.splat(0.0)", "prod": "v.splat(1.0)"}.get(kind, "v.load(a_at)")
    load = combine[kind].format(f"v.load(a_at + k * {step})")
    if axis < len(shape) - 1:  # neighbours read neighbours
        lines += [f"total = {begin}", f"for k in range({at.size(shape[axis])}):"]
        lines += [f"    total = {load}"]
        view.lines = [*lines, *_stores(at, stage, indices, "total")]
        return view
    view.kind = "warps"
    lines += [f"total = {begin}", f"for k in range(warp_lane, {at.size(shape[axis])}, 32):"]
    lines += [f"    total = {load}", "for width in (16, 8, 4, 2, 1):"]
    lines += ["    " + "total = " + combine[kind].format("v.shuffle_xor(total, width)")]
    lines += ["if warp_lane == 0:"]
    view.lines = [*lines, *("    " + s for s in _stores(at, stage, indices, "total"))]
    return view


def _cumsum(at: Addresses, stage: RowStage) -> StageView:
    source = stage.source
    assert source is not None
    shape = stage.op.operands[0].type.shape
    items = items_of(at, shape[:-1], _names(len(shape) - 1))
    indices = [*_variables(items.axes), "k"]
    n = at.size(shape[-1])
    k = f"{n} - 1 - i" if stage.op.attrs["reverse"] else "i"
    lines = ["total = v.splat(0.0)", f"for i in range({n}):", f"    k = {k}"]
    lines += [f"    total = total + v.load({element(at, source, indices)})"]
    lines += ["    " + s for s in _stores(at, stage, indices, "total")]
    return StageView(count=items.count, places=items.places, lines=lines)


# ---- draws -----------------------------------------------------------------------------------


def _uniform(at: Addresses, stage: RowStage) -> StageView:
    shape, attrs = stage.op.result.type.shape, stage.op.attrs
    items = items_of(at, shape, _names(len(shape)))
    indices = _variables(items.axes)
    kernel = at.kernel
    steps = at.in_scan or (kernel.kind == "rows" and "T" in kernel.axes)
    row = "r0" if kernel.kind == "rows" and kernel.axes == "BT" else "r"
    row = row if "B" in attrs["axes"] else "0"
    step = "t" if at.in_scan else "r"
    if attrs["per"] == "step" and kernel.kind != "weights":
        own = step if steps else "0"
        step = f"{at.words('first_step', FirstStep())} + {own}"
        step += f" + {attrs['ahead']}" if attrs.get("ahead") else ""
    else:
        step = "0"
    lane = "0"
    for i, index in enumerate(indices):
        rest = product(tuple(shape[i + 1 :]))
        term = index if rest == Size.of(1) else f"{index} * ({at.size(rest)})"
        lane = term if lane == "0" else f"{lane} + {term}"
    key = f"row_key({at.words('seed', Seed())}, {attrs['site']}, {row}, {step})"
    lines = [f"key = {key}", f"drawn = uniform(key, {lane})"]
    lines += _stores(at, stage, indices, "drawn")
    return StageView(count=items.count, places=items.places, lines=lines)


# ---- moves -----------------------------------------------------------------------------------


def _copy(at: Addresses, stage: RowStage) -> StageView:
    """The same elements in the same order, in rows of another shape perhaps."""
    source = stage.source
    assert source is not None
    old, new = stage.op.operands[0].type.shape, stage.op.result.type.shape
    items = items_of(at, new, _names(len(new)))
    indices = _variables(items.axes)
    lines, read = [], indices
    if old != new:
        lines.append(f"left = item % ({items.count})")
        read = [f"i{n}" for n in range(len(old))]
        for var, size in reversed([*zip(read, old, strict=True)]):
            lines += [f"{var} = left % {at.size(size)}", f"left = left // {at.size(size)}"]
    lines.append(f"moved = v.load({element(at, source, read)})")
    lines += _stores(at, stage, indices, "moved")
    return StageView(count=items.count, places=items.places, lines=lines)


def _strided(at: Addresses, stage: RowStage) -> StageView:
    """Elements some steps apart, perhaps from the last to the first."""
    source, attrs = stage.copies[0][0], stage.op.attrs
    shape = stage.op.result.type.shape
    items = items_of(at, shape, _names(len(shape)))
    indices = _variables(items.axes)
    read = list(indices)
    if read[attrs["axis"]] != "0":
        read[attrs["axis"]] += f" * ({attrs['step']})"
    lines = [f"moved = v.load({element(at, source, read)})"]
    lines += _stores(at, stage, indices, "moved")
    return StageView(count=items.count, places=items.places, lines=lines)


def _concat(at: Addresses, stage: RowStage) -> list[StageView]:
    start, axis, views = Size.of(0), stage.op.attrs["axis"], []
    sources = [s for s, _ in stage.copies if s is not stage.target]
    for operand, source in zip(stage.op.operands, sources, strict=True):
        shape = operand.type.shape
        items = items_of(at, shape, _names(len(shape)))
        indices = _variables(items.axes)
        lines = [f"moved = v.load({element(at, source, indices)})"]
        for target in _targets(stage):
            part = part_of(target, axis, start)
            lines.append(f"v.store({element(at, part, indices)}, moved)")
        views.append(StageView(count=items.count, places=items.places, lines=lines))
        start = start + shape[axis]
    return views


def _pad(at: Addresses, stage: RowStage) -> StageView:
    """Zeros, but for what is moved into their midst."""
    source = next(s for s, _ in stage.copies if s is not stage.target)
    (operand,) = stage.op.operands
    axis, start = stage.op.attrs["axis"], at.size(stage.op.attrs["start"])
    shape = stage.op.result.type.shape
    items = items_of(at, shape, _names(len(shape)))
    indices = [a.var for a in items.axes]
    inside = list(indices)
    inside[axis] = "inner"
    lines = [f"inner = {indices[axis]} - ({start})", "moved = v.splat(0.0)"]
    meets = ""
    if "step" in stage.op.attrs:
        step = stage.op.attrs["step"]
        lines[:1] = [f"away = {indices[axis]} - ({start})", f"inner = away // ({step})"]
        meets = f"inner * ({step}) == away and "
    lines += [f"if {meets}inner >= 0 and inner < {at.size(operand.type.shape[axis])}:"]
    lines += [f"    moved = v.load({element(at, source, inside)})"]
    lines += _stores(at, stage, indices, "moved")
    return StageView(count=items.count, places=items.places, lines=lines)
