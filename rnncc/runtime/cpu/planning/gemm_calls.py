"""Stages without an epilogue -> the block of calls that `gemm` runs.

Loops over outer axes, and over all but the innermost summed axis, are written out here: each turn
is a call, or a segment of one.

Non-Goals: running them.
"""

from __future__ import annotations

from itertools import product

from rnncc.artifact.array_tables import BufferView
from rnncc.artifact.kernel_args import (
    BufferAddress,
    CoreTable,
    KernelArgument,
    OneRow,
    PackedInit,
    PackedWeights,
    ZeroRow,
)
from rnncc.artifact.kernel_tables import GradSpec, KernelSpec, OperandSpec, StageSpec
from rnncc.runtime.common.weight_formats import PANEL_ROWS
from rnncc.runtime.cpu.kernels.gemm import SUM_SEGMENT_WORDS
from rnncc.runtime.cpu.kernels.gradient_sums import COLUMN_BYTES, TILE_GAP
from rnncc.runtime.cpu.planning.bound_program import Tiling
from rnncc.runtime.cpu.planning.buffer_layout import MemoryBinder

Word = int | tuple[KernelArgument, int]  # a number, or an address and an offset to add


def address(source: BufferView, moved: int = 0) -> Word:
    return BufferAddress(source.buffer, source.slot, source.starts), moved


def contract_calls(binder: MemoryBinder, kernel: KernelSpec) -> tuple[int, list[Word]]:
    """(number of calls, their words) of a kernel over rows."""
    words: list[Word] = []
    count = 0
    for name in kernel.stages:
        stage = binder.stages[name]
        sizes = [range(binder.out.size(s)) for s in stage.shape[:-1]]
        for i, core in enumerate(stage.cores):
            if core.out is not None and core.out.buffer in binder.out.fused:
                continue  # the loop makes this one itself
            for index in product(*sizes):
                words += _contract(binder, kernel, stage, i, index)
                count += 1
    return count, words


def _rows(binder: MemoryBinder, source: BufferView, kernel: KernelSpec) -> tuple[int, int]:
    """Bytes from row to row, outer and inner."""
    buffer = binder.buffers[source.buffer]
    if not buffer.axes:
        return 0, 0
    outer = binder.range_stride(source.buffer, 0, kernel.axes)
    inner = binder.range_stride(source.buffer, 1, kernel.axes)
    return (inner, outer) if kernel.name in binder.steps_outside else (outer, inner)


def _contract(
    binder: MemoryBinder,
    kernel: KernelSpec,
    stage: StageSpec,
    i: int,
    index: tuple[int, ...],
) -> list[Word]:
    core = stage.cores[i]
    assert core.out is not None
    tiling = binder.out.tilings[stage.name]
    row = binder.tile_row(stage.name, i)
    moved = sum(n * binder.out.stride(core.out, a) for a, n in enumerate(index))
    out_0, out_1 = _rows(binder, core.out, kernel)
    init: Word = (ZeroRow(), 0)
    if core.init is not None:
        at = sum(n * binder.init_outer(stage.name, i, a) for a, n in enumerate(index))
        init = PackedInit(stage.name, i), at
    segments: list[Word] = []
    count = 0
    for k, operand in enumerate(core.operands):
        for words in _segments(binder, kernel, stage, i, k, operand, index, row):
            segments += words
            count += 1
    head: list[Word] = [
        (CoreTable(stage.name, i), 0),
        tiling.row_tile,
        tiling.tiles,
        init,
        row if core.init is not None else 0,
        address(core.out, moved),
        out_0,
        out_1,
        row,
        count,
    ]
    return head + segments


def _segments(
    binder: MemoryBinder,
    kernel: KernelSpec,
    stage: StageSpec,
    i: int,
    k: int,
    operand: OperandSpec,
    index: tuple[int, ...],
    row: int,
) -> list[list[Word]]:
    pack = stage.cores[i].packs[k]
    assert pack is not None
    layout = binder.pack_layout(stage.name, i, k)
    a_0, a_1 = _rows(binder, operand.source, kernel)
    sizes = [binder.out.size(s) for s in pack.k_sizes]
    moved = sum(
        n * binder.out.stride(operand.source, a) for n, a in zip(index, operand.outer, strict=True)
    )
    packed = sum(n * s for n, s in zip(index, layout.outer, strict=True))
    segments: list[list[Word]] = []
    for turn in product(*map(range, sizes[:-1])):
        a_at = moved + sum(
            n * binder.out.stride(operand.source, a) for n, a in zip(turn, operand.k, strict=False)
        )
        w_at = packed + sum(n * s for n, s in zip(turn, layout.k, strict=True))
        segments.append(
            [
                address(operand.source, a_at),
                a_1,
                binder.out.stride(operand.source, operand.k[-1]) if operand.k else 0,
                (PackedWeights(stage.name, i, k), w_at),
                row,
                layout.tile,
                sizes[-1] if sizes else 1,
                a_0,
            ]
        )
    return segments


def sum_calls(
    binder: MemoryBinder, kernel: KernelSpec, columns_at: int
) -> tuple[int, int, list[Word]]:
    """(number of calls, work of all tiles, their words) of a kernel of gradients. columns_at: bytes
    from tables of segments to columns that are copied.

    Calls that read the same rows follow one another, so that threads, each with its share of all
    tiles, read few rows twice.
    """
    words: list[Word] = []
    count = work = 0
    stages = [binder.stages[name] for name in kernel.stages]
    grads = [s.grad for s in stages if s.grad is not None]
    first = {g.d.buffer: i for i, g in reversed([*enumerate(grads)])}
    in_turn = sorted(zip(stages, grads, strict=True), key=lambda pair: first[pair[1].d.buffer])
    for stage, grad in in_turn:
        kept = {"": 1, "B": binder.call.batch, "T": binder.call.time}[grad.kept]
        sizes = [range(binder.out.size(s)) for s, *_ in grad.outer]
        tiling = binder.out.tilings[stage.name]
        for index in product(range(kept), *sizes):
            words += _sum(binder, stage, grad, index, work, columns_at)
            row_tiles = -(-binder.out.size(grad.rows) // tiling.row_tile)
            work += row_tiles * tiling.tiles * _tile_work(binder, grad, tiling)
            count += 1
    return count, work, words


def _copied_from(binder: MemoryBinder, stage: StageSpec) -> int:
    """Columns of tiles from which copies of what they read pay."""
    return -(-binder.copied_from // binder.tile_row(stage.name, 0))


def _copied_tiles(binder: MemoryBinder, stage: StageSpec) -> int:
    """Rows of tiles whose columns of a gradient's `a` are copied at once, at most; 0: never, for
    they don't lie side by side, or too few tiles read them."""
    grad, tiling = stage.grad, binder.out.tilings[stage.name]
    if not grad or not grad.a or tiling.tiles < _copied_from(binder, stage):
        return 0
    if binder.out.stride(grad.a, grad.m[0]) != binder.item:
        return 0
    columns = min(binder.out.size(grad.rows), COLUMN_BYTES // binder.item)
    return -(-columns // tiling.row_tile)


def copied_bytes(binder: MemoryBinder, stage: StageSpec) -> int:
    """What those columns take."""
    row_bytes = binder.out.tilings[stage.name].row_tile * binder.item
    return _copied_tiles(binder, stage) * (PANEL_ROWS * row_bytes + TILE_GAP)


def _tile_work(binder: MemoryBinder, grad: GradSpec, tiling: Tiling) -> int:
    """What a tile takes beside others, so that threads with as much of it are done together: its
    vectors; of a single row it waits for its own sums as long as two would take."""
    return max(min(tiling.row_tile, binder.out.size(grad.rows)), 2) * tiling.unit_blocks


def _sum(
    binder: MemoryBinder,
    stage: StageSpec,
    grad: GradSpec,
    index: tuple[int, ...],
    begin: int,
    columns_at: int,
) -> list[Word]:
    """begin: the work of the tiles before the call's first."""
    tiling = binder.out.tilings[stage.name]
    kept, outer = index[0], index[1:]

    def moved(source: BufferView, which: int) -> int:
        at = kept * binder.kept_stride(source, grad.kept)
        return at + sum(
            n * binder.out.stride(source, axes[which])
            for n, (_, *axes) in zip(outer, grad.outer, strict=True)
        )

    def rows(source: BufferView) -> tuple[int, int]:
        return tuple(  # type: ignore[return-value]
            binder.grad_stride(stage, source, which) for which in "01"
        )

    n0, n1 = binder.grad_rows(stage)
    d_0, d_1 = rows(grad.d)
    a_0, a_1 = rows(grad.a) if grad.a else (0, 0)
    a_rs = binder.out.stride(grad.a, grad.m[0]) if grad.a else 0
    entries: list[Word] = []
    for turn in product(*(range(binder.out.size(s)) for s, _, _ in grad.k)):
        d_at = moved(grad.d, 1)
        d_at += sum(
            n * binder.out.stride(grad.d, d) for n, (_, _, d) in zip(turn, grad.k, strict=True)
        )
        a_word: Word = (OneRow(), 0)
        if grad.a:
            a_at = moved(grad.a, 0) + sum(
                n * binder.out.stride(grad.a, a) for n, (_, a, _) in zip(turn, grad.k, strict=True)
            )
            a_word = address(grad.a, a_at)
        entries += [a_word, a_rs, a_0, a_1, address(grad.d, d_at), d_0, d_1]
    head: list[Word] = [
        (CoreTable(stage.name, 0), 0),
        tiling.row_tile,
        tiling.tiles,
        binder.tile_row(stage.name, 0),
        binder.out.size(grad.rows),
        address(grad.out, moved(grad.out, 2)),
        binder.out.stride(grad.out, grad.m[1]),
        n0,
        n1,
        len(entries) // SUM_SEGMENT_WORDS,
        begin,
        _tile_work(binder, grad, tiling),
    ]
    row_tiles = -(-binder.out.size(grad.rows) // tiling.row_tile)
    copies = [columns_at, _copied_tiles(binder, stage), _copied_from(binder, stage) * row_tiles]
    return head + copies + entries
