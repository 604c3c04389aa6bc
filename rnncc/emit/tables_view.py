"""Schedule -> the literal tables of a generated module (`artifact.kernel_tables`), as text.

Non-Goals: kernels' text (`kernel_view`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rnncc.artifact import array_tables, kernel_tables
from rnncc.artifact.kernel_args import texts_of
from rnncc.artifact.literals import literal
from rnncc.common.user_text import Code
from rnncc.emit.cuda.summed import own_segments, summed_groups
from rnncc.ir.program import Result
from rnncc.ir.sizes import Size
from rnncc.schedule.model import (
    Buffer,
    CarrySlot,
    GradStage,
    Group,
    Kernel,
    LaneStage,
    RowStage,
    Schedule,
    Segment,
    Stage,
    View,
    block_locals,
    written,
)


def _sizes(shape: Iterable[Size]) -> tuple[str, ...]:
    return tuple(map(str, shape))


def _source(view: View) -> array_tables.BufferView:
    starts = tuple((a, str(s)) for a, s in view.starts)
    return array_tables.BufferView(view.buffer.name, view.axes, starts, view.slot)


def _gates(views: Iterable[View | None]) -> Any:
    """Views side by side; those of one buffer's parts in short."""
    sources = tuple(_source(v) if v is not None else None for v in views)
    first, *rest = sources
    if first is not None and not first.starts and rest and rest[0] is not None:
        for axis, size in rest[0].starts[:1]:
            short = (len(sources), first.buffer, first.axes, axis, size)
            if kernel_tables.gates(*short) == sources:
                return Code(f"gates({', '.join(map(literal, short))})")
    return sources


def direction_table(
    name: str,
    schedule: Schedule,
    kernels: list[Any],
    callers: dict[Buffer, str],
    *,
    cores: bool = True,
) -> Code:
    """The Direction literal; `callers` names parameters as the caller of the engine does.

    cores: contractions are told to cores, in tables of stages, packs and copies. Without them every
    kernel is text, and tables tell those that are contractions alone as well.
    """
    arrays = _arrays(schedule, callers, block_locals(schedule) if cores else set())
    results = [_place(r, schedule) for r in schedule.program.results]
    stages = [s for k in schedule.kernels for level in k.levels for s in level.stages]
    contraction_stages = [
        s
        for k in schedule.kernels
        for level in k.levels
        for s in level.stages
        if _has_cores(s) and (cores or k.is_plain)
    ]
    direction = kernel_tables.DirectionSpec(
        name,
        schedule.reverse,
        array_tables.array_texts(arrays),
        tuple(map(_stage, contraction_stages)),
        tuple(_kernel(k, view, cores) for k, view in zip(schedule.kernels, kernels, strict=True)),
        array_tables.result_texts(results, arrays[0]),
        tuple(copy for s in stages if cores and isinstance(s, RowStage) for copy in _copies(s)),
    )
    return literal(direction)


def _arrays(
    schedule: Schedule, callers: dict[Buffer, str], local: set[Buffer]
) -> array_tables.Arrays:
    vector_read = _vector_read(schedule)
    roles = {p.value: p.role for p in schedule.program.params}
    buffers = [
        array_tables.BufferSpec(
            *(b.name, _sizes(b.shape), b.axes, b.storage),
            b in vector_read,
            vector_read.get(b, ()),
            b in local,
        )
        for b in schedule.buffers
    ]
    params = [
        (b.name, roles[b.value], callers.get(b, b.value.name))
        for b in schedule.buffers
        if b.storage == "param"
    ]
    return buffers, params, [_carry(c, schedule) for c in schedule.carries]


def _carry(carry: CarrySlot, schedule: Schedule) -> array_tables.CarrySpec:
    init = "" if carry.zero_start else schedule.places[carry.init].buffer.name
    history = carry.buffer.name in schedule.histories
    return array_tables.CarrySpec(carry.buffer.name, init, carry.entry, history)


def _has_cores(stage: Stage) -> bool:
    return isinstance(stage, GradStage) or (isinstance(stage, LaneStage) and bool(stage.groups))


def _stage(stage: Stage) -> kernel_tables.StageSpec:
    assert not isinstance(stage, RowStage)
    return _grad(stage) if isinstance(stage, GradStage) else _lanes(stage)


def _kernel(kernel: Kernel, view: Any, cores: bool) -> kernel_tables.KernelSpec:
    lists_stages = cores or kernel.is_plain
    stages = [s.name for level in kernel.levels for s in level.stages if _has_cores(s)]
    return kernel_tables.KernelSpec(
        view.name,
        kernel.kind,
        kernel.axes,
        "scan" if kernel.kind == "scan" else kernel.name.split("_")[0],
        tuple(stages if lists_stages else ()),
        tuple(b.name for b in written(kernel)),
        len(kernel.levels),
        None if cores and kernel.is_plain else Code(view.name),
        texts_of(view.arguments),
        () if cores or kernel.kind != "scan" else tuple(_summed(kernel)),
        kernel.unroll,
        tuple(view.pieces) if cores else (),
    )


def _summed(kernel: Kernel) -> Iterator[kernel_tables.SummedSpec]:
    for level, stage, group in summed_groups(kernel):
        first = own_segments(group)
        ahead = len(group.accs[0].segments) - len(first)
        packs = [_pack(group, ahead + i) for i in range(len(first))]
        yield kernel_tables.SummedSpec(
            level,
            str(stage.shape[0]),
            tuple(p for p in packs if p is not None),
            tuple(kernel_tables.OperandSpec(_source(s.a), tuple(a for a, _ in s.k)) for s in first),
        )


def _place(result: Result, schedule: Schedule) -> array_tables.ResultSpec:
    join, role = schedule.joined.get(result.value), result.role
    if join is None:
        place = _source(schedule.places[result.value])
        return array_tables.ResultSpec(role.kind, role.of, place)
    parts = tuple(_source(schedule.places[o]) for o in join.operands)
    axis = join.attrs["axis"]
    return array_tables.ResultSpec(role.kind, role.of, parts[0], parts, axis)


def _vector_read(schedule: Schedule) -> dict[Buffer, tuple[tuple[str, str], ...]]:
    """Buffers some stage reads vector by vector, and parts of their rows that it begins at."""
    parts_by_buffer: dict[Buffer, dict[tuple[str, str], None]] = {}
    for kernel in schedule.kernels:
        for view, lanes in _read_by_lanes(kernel):
            parts = parts_by_buffer.setdefault(view.buffer, {})
            starts = dict(view.starts)
            start = starts.get(len(view.buffer.shape) - 1)
            if start is not None:
                parts[str(start), str(lanes)] = None
    return {buffer: tuple(parts) for buffer, parts in parts_by_buffer.items()}


def _read_by_lanes(kernel: Kernel) -> Iterator[tuple[View, Size | int]]:
    """Views whose lanes are read side by side, and how many there are."""
    for stage in (s for level in kernel.levels for s in level.stages):
        if isinstance(stage, LaneStage):
            lanes = stage.shape[-1] if stage.shape else 1
            for view in stage.reads.values():
                if view.axes and view.axes[-1] is not None:
                    yield view, lanes
            for group in stage.groups:
                if group.rowwise:
                    yield from ((s.w, lanes) for a in group.accs for s in a.segments)
        elif isinstance(stage, GradStage):
            shape = stage.op.result.type.shape
            yield stage.d, shape[-1] if shape else 1


def _pack(group: Group, index: int) -> kernel_tables.PackSpec | None:
    if group.rowwise:
        return None
    segments: list[Segment] = [a.segments[index] for a in group.accs]
    first = segments[0]
    return kernel_tables.PackSpec(
        _gates(s.w for s in segments),
        tuple(w for _, w in first.k),
        _sizes(first.k_sizes),
        first.lane,
        tuple(w for _, w in first.outer),
    )


def _lanes(stage: LaneStage) -> kernel_tables.StageSpec:
    cores = []
    for group in stage.groups:
        first, init = group.accs[0].segments, None
        if any(a.init is not None for a in group.accs):
            init = _gates(a.init for a in group.accs)
        cores.append(
            kernel_tables.CoreSpec(
                len(group.accs),
                tuple(_pack(group, i) for i in range(len(first))),
                tuple(_sizes(s.k_sizes[:-1]) for s in first) if group.rowwise else (),
                init,
                *(_direct(stage, group) if stage.direct else ()),
                **_start(group),
            )
        )
    return kernel_tables.StageSpec(stage.name, "lanes", _sizes(stage.shape), tuple(cores))


def _direct(
    stage: LaneStage, group: Group
) -> tuple[tuple[kernel_tables.OperandSpec, ...], array_tables.BufferView]:
    """Operands and place of a result that needs no epilogue."""
    acc = group.accs[0]
    operands = tuple(
        kernel_tables.OperandSpec(
            _source(s.a), tuple(a for a, _ in s.k), tuple(a for a, _ in s.outer)
        )
        for s in acc.segments
    )
    if stage.tiled:
        return operands, array_tables.BufferView(stage.tiled.name, (0, 1))
    place = next(s.view for s in stage.stores if s.value is acc.value)
    return operands, _source(place)


def _start(group: Group) -> dict[str, Any]:
    return {"start": group.start.name, "ahead": group.accs[0].ahead} if group.start else {}


def _grad(stage: GradStage) -> kernel_tables.StageSpec:
    shape = stage.op.result.type.shape
    m_out = stage.m[1] if stage.m else None
    outer = tuple((str(shape[i]), a, d, i) for i, (a, d) in enumerate(stage.outer) if i != m_out)
    grad = kernel_tables.GradSpec(
        _source(stage.a) if stage.a is not None else None,
        _source(stage.d),
        _source(stage.target),
        str(shape[m_out]) if m_out is not None else "1",
        stage.m or (None, None),
        outer,
        tuple((str(size), a, d) for a, d, size in stage.k),
        stage.kept,
    )
    return kernel_tables.StageSpec(stage.name, "grad", _sizes(shape), grad=grad)


def _copies(stage: RowStage) -> list[kernel_tables.CopySpec]:
    copies = []
    target_shape = _sizes(stage.op.result.type.shape)
    if stage.op.opcode in ("pad", "strided_pad"):
        copies.append(
            kernel_tables.CopySpec(
                stage.name, "zero", 0, target_shape, None, target_shape, _source(stage.target)
            )
        )
    shapes = [target_shape] * len(stage.copies)
    if stage.op.opcode in ("concat", "pad", "strided_pad", "copy", "reshape"):
        for i, operand in enumerate(stage.op.operands[: len(shapes)]):
            shapes[i] = _sizes(operand.type.shape)
    for i, (source, target) in enumerate(stage.copies):
        reshaped = stage.op.opcode == "reshape" and i == 0
        copies.append(
            kernel_tables.CopySpec(
                stage.name,
                "copy",
                i,
                shapes[i],
                _source(source),
                target_shape if reshaped else shapes[i],
                _source(target),
                **(_steps(stage) if i == 0 else {}),
            )
        )
    return copies


def _steps(stage: RowStage) -> dict[str, tuple[int, int]]:
    """Which end of a copy goes along an axis in steps."""
    attrs = stage.op.attrs
    match stage.op.opcode:
        case "strided_slice":
            return {"source_step": (attrs["axis"], attrs["step"])}
        case "strided_pad":
            return {"target_step": (attrs["axis"], attrs["step"])}
    return {}
