"""Contractions that need no generated text: over all rows at once, straight where they belong.

x @ W for every step before a scan, dx after it, and the gradients of weights: their operands and
places are told in a block of calls, so these two kernels serve every cell, and a cell's own
compile holds only what its equations decide.

    contract_bulk   out[row] = init + a[row] @ w           each part its rows, or lanes of one row
    sum_bulk        out[m] = sum over rows of a[row, m] d[row]   each part its share of all tiles

Non-Goals: what to contract (`gemm_calls` writes the blocks).
"""

from rnncc.runtime.cpu.intrinsics.kernel_namespace import flush_denormals, restore_denormals, word
from rnncc.runtime.cpu.kernels.gradient_sums import row_segments, sum_rows
from rnncc.runtime.cpu.kernels.loop_helpers import (
    contract_rows,
    lane_range,
    row_range,
    segment,
    share,
)
from rnncc.runtime.jit.kernel import kernel

# parts, calls, n0, n1 (or work, zeros), scratch, bytes of it a part, whether parts share lanes
HEAD_WORDS = 7
CONTRACT_WORDS = 10
CONTRACT_SEGMENT_WORDS = 8  # a core's seven, and bytes of a from outer row to outer row
SUM_WORDS = 15
SUM_SEGMENT_WORDS = 7


@kernel
def contract_bulk(block, part):
    old = flush_denormals()
    parts = word(block, 0)
    n0 = word(block, 2)
    n1 = word(block, 3)
    table = word(block, 4) + part * word(block, 5)
    shared = word(block, 6)
    lo0, hi0, lo1, hi1 = 0, n0, 0, n1
    if not shared:
        lo0, hi0, lo1, hi1 = row_range(n0, n1, part, parts)
    at = block + HEAD_WORDS * 8
    for _ in range(word(block, 1)):
        cores = word(at, 0)
        count = word(at, 9)
        lane_lo, lane_hi = lane_range(word(at, 2), shared, part, parts)
        for r0 in range(lo0, hi0):
            for i in range(count):
                seg = at + (CONTRACT_WORDS + i * CONTRACT_SEGMENT_WORDS) * 8
                segment(
                    table,
                    i,
                    word(seg, 0) + r0 * word(seg, 7),
                    word(seg, 1),
                    word(seg, 2),
                    word(seg, 3),
                    word(seg, 4),
                    word(seg, 5),
                    word(seg, 6),
                )
            contract_rows(
                cores,
                table,
                count,
                lo1,
                hi1,
                word(at, 1),
                lane_lo,
                lane_hi,
                word(at, 3),
                word(at, 4),
                0,
                word(at, 5) + r0 * word(at, 6),
                word(at, 7),
                word(at, 8),
            )
        at += (CONTRACT_WORDS + count * CONTRACT_SEGMENT_WORDS) * 8
    restore_denormals(old)


@kernel
def sum_bulk(block, part):
    old = flush_denormals()
    work_lo, work_hi = share(word(block, 2), part, word(block, 0))
    table = word(block, 4) + part * word(block, 5)
    at = block + HEAD_WORDS * 8
    for _ in range(word(block, 1)):
        entries = word(at, 9)
        rows, row_tile, tile_bytes = word(at, 4), word(at, 1), word(at, 3)
        row_tiles = (rows + row_tile - 1) // row_tile
        work = word(at, 11)  # of a tile: whoever's share it begins in makes it
        lo = max(work_lo - word(at, 10) + work - 1, 0) // work
        hi = min(max(work_hi - word(at, 10) + work - 1, 0) // work, row_tiles * word(at, 2))
        if lo < hi:
            pieces = 0
            for i in range(entries):
                seg = at + (SUM_WORDS + i * SUM_SEGMENT_WORDS) * 8
                pieces = row_segments(
                    table,
                    pieces,
                    word(seg, 0),
                    word(seg, 1),
                    word(seg, 2),
                    word(seg, 3),
                    word(seg, 4),
                    tile_bytes,
                    word(seg, 5),
                    word(seg, 6),
                    word(at, 7),
                    word(at, 8),
                )
            sum_rows(at, table, pieces, word(block, 3), lo, hi)
        at += (SUM_WORDS + entries * SUM_SEGMENT_WORDS) * 8
    restore_denormals(old)
