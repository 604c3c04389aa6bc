"""What generated loop nests call: shares of a range, segments of a contraction, random rows.

Non-Goals: lanes (`simd`); whole-row moves and reductions (`row_kernels`); gradients of weights
(`gradient_sums`).
"""

import numpy as np

from rnncc.common.formulas import SUM_BLOCK
from rnncc.runtime.common.weight_formats import PANEL_ROWS
from rnncc.runtime.cpu.intrinsics.kernel_namespace import (
    call_core,
    prefetch,
    set_words,
    vectors,
    word,
)
from rnncc.runtime.jit.helper import FOUR, PAIR, THREE, helper

CACHE_LINE = 64
SEGMENT_BYTES = 56
ROW_BLOCK = 48  # rows a panel of weights is used for before the next panel comes, at most
TILE_BYTES = 4096  # scratch of one group's tile: at most 8 rows of 8 vectors of 64 bytes
GROUPS = 8  # of contractions in one stage that tiles are kept for
SPILLS_AT = GROUPS * TILE_BYTES  # then values that cross from loop to loop of an epilogue
POINTERS_AT = SPILLS_AT + 8 * TILE_BYTES  # then the addresses of a panel's rows, worked out once
POINTER_BYTES = 8 * 96  # a row's addresses: as many as any stage needs
TURN_AT = POINTERS_AT + ROW_BLOCK * POINTER_BYTES  # then steps run so far, by the last calls too
PANEL_AT = TURN_AT + CACHE_LINE  # then what sums over rows need: see `gradient_sums`


@helper(returns=PAIR)
def share(n, part, parts):
    """[low, high): this part's share of range(n); shares differ by one at most."""
    return n * part // parts, n * (part + 1) // parts


@helper(returns=FOUR)
def row_range(n0, n1, part, parts):
    """This part's share of a two-level range of rows: of the outer level if it is long enough."""
    if n0 >= parts:
        return n0 * part // parts, n0 * (part + 1) // parts, 0, n1
    return 0, n0, n1 * part // parts, n1 * (part + 1) // parts


@helper(returns=PAIR)
def own_rows(n, shared, index, count):
    """This thread's share of the rows, or all where threads share the lanes of every row."""
    if shared:
        return 0, n
    return n * index // count, n * (index + 1) // count


@helper(returns=PAIR)
def own_part(lo, hi, shared, index, count):
    """This thread's share of a block of rows, or all of it where its rows are its own."""
    if shared:
        return lo + (hi - lo) * index // count, lo + (hi - lo) * (index + 1) // count
    return lo, hi


@helper(returns=PAIR)
def lane_range(n, shared, index, count):
    """All lanes, or this thread's share where threads share the lanes of every row."""
    if shared:
        return n * index // count, n * (index + 1) // count
    return 0, n


@helper(returns="int64")
def block_rows(rows, most):
    """Rows of a block: at most so many, and all blocks as alike as can be (50 rows by 48 are 25 and
    25, not 48 and 2)."""
    blocks = max((rows + most - 1) // most, 1)
    return max((rows + blocks - 1) // blocks, 1)


@helper(returns=THREE)
def tile_rows(rows, row_tile):
    """Tiles, the rows of each, and how many of them, the first, have one more: as even as can be,
    since a tile of few accumulators waits for its own sums (16 rows by 3 are 3, 3, 3, 3, 2, 2)."""
    tiles = (rows + row_tile - 1) // row_tile
    least = rows // max(tiles, 1)
    return tiles, least, rows - least * tiles


@helper(returns="int64")
def segment(table, index, a, a_rs, a_ks, w, w_ks, w_ts, k):
    """One segment of a contraction: see the cores' module for its seven words. The index after."""
    at = table + index * SEGMENT_BYTES
    set_words(at, a, a_rs, a_ks, w, w_ks, w_ts, k)
    return index + 1


@helper(returns="int64")
def segment_if(wanted, table, index, a, a_rs, a_ks, w, w_ks, w_ts, k):
    """As `segment`; none, and the same index, where it isn't wanted."""
    if wanted:
        return segment(table, index, a, a_rs, a_ks, w, w_ks, w_ts, k)
    return index


@helper
def fetch_tile(wanted, row_pointers, first, rows, places, tile, size):
    """Asks for what an epilogue will touch of a tile, before its contraction runs: of each of its
    rows, `first` and on, those `places` (a bit each) that lie elsewhere every step, `size` bytes
    of each. What a step works in is in the cache. Nothing unless it is wanted."""
    for r in range(first, first + rows if wanted else first):
        row = row_pointers + r * POINTER_BYTES
        left = places
        while left:
            if left & 1:
                at = word(row, 0) + tile * size
                for b in range(0, size, CACHE_LINE):
                    prefetch(at + b)
            row += POINTER_BYTES
            left >>= 1


DESC_WORDS = 21  # source offset, target offset, then a copy's description of rank up to 6


@helper
def copy_pieces(copy, src, dst, descs, count):
    """Strided copies: each description is preceded by its offsets from src and dst."""
    for i in range(count):
        at = descs + i * DESC_WORDS * 8
        call_core(copy, src + word(at, 0), dst + word(at, 1), at + 16, 0, 0, 0, 0, 0)


@helper
def contract_lanes(cores, table, count, row_lo, row_hi, row_tile, j, init, init_rs, out, out_rs):
    """A contraction at one place among the lanes: its weights serve all rows, a tile at a time.
    init: of the first row's results; 0 bytes from row to row where all rows begin alike."""
    tiles, least, longer = tile_rows(row_hi - row_lo, row_tile)
    m = row_lo
    for i in range(tiles):
        rows = least + (i < longer)
        core = word(cores, rows)
        call_core(core, table, count, m, j, init + m * init_rs, init_rs, out + m * out_rs, out_rs)
        m += rows


@helper
def contract_rows(
    cores,
    table,
    count,
    row_lo,
    row_hi,
    row_tile,
    lane_lo,
    lane_hi,
    init,
    init_j,
    init_rs,
    out,
    out_rs,
    out_j,
):
    """A contraction whose result goes straight where it belongs: panels of rows, then lanes.
    init: of the first row's results, init_j bytes from tile to tile and init_rs from row to row.

    Where the weights of one tile are more than the first cache holds, the sum over k is taken in
    pieces that fit, each for all rows of the panel; it goes on from what is in `out`, in the same
    blocks and order, so the bits are the same: a rest that would be no block of its own stays with
    the piece before it. The word behind the segments is scratch for one more. Weights
    come in steps of `deep` k's.
    """
    deep = word(cores, 0) & 0xFFFFFFFF
    step_bytes = (word(cores, 0) >> 32) * out_j
    depth = 0
    for i in range(count):
        depth += word(table + i * SEGMENT_BYTES, 6)
    piece = table + count * SEGMENT_BYTES
    block = block_rows(row_hi - row_lo, ROW_BLOCK)
    for blk in range(row_lo, row_hi, block):
        end = min(blk + block, row_hi)
        for j in range(lane_lo, lane_hi):
            here = out + j * out_j
            start, stride = init + j * init_j, init_rs
            if depth <= PANEL_ROWS:
                contract_lanes(
                    cores, table, count, blk, end, row_tile, j, start, stride, here, out_rs
                )
                continue
            for i in range(count):
                at = table + i * SEGMENT_BYTES
                rest = word(at, 6)
                while rest > 0:
                    k = word(at, 6) - rest
                    taken = rest if rest <= PANEL_ROWS + SUM_BLOCK else PANEL_ROWS
                    a = word(at, 0) + k * word(at, 2)
                    w = word(at, 3) + k // deep * step_bytes
                    segment(
                        piece, 0, a, word(at, 1), word(at, 2), w, word(at, 4), word(at, 5), taken
                    )
                    rest -= taken
                    contract_lanes(
                        cores, piece, 1, blk, end, row_tile, j, start, stride, here, out_rs
                    )
                    start, stride = here, out_rs


WORD = np.uint64(0xFFFFFFFF)  # Numba widens 32-bit arithmetic, so words are cut by hand


@helper(returns="uint64", takes="uint64")
def _mix(x):
    """lowbias32 on a word kept in 64 bits: see `rnncc.ir.random`."""
    x = (x ^ (x >> np.uint64(16))) * np.uint64(0x7FEB352D) & WORD
    x = (x ^ (x >> np.uint64(15))) * np.uint64(0x846CA68B) & WORD
    return x ^ (x >> np.uint64(16))


@helper(returns="int64")
def row_key(seed, site, row, step):
    """The random key of one row at one step of one site."""
    low = np.uint64(seed) & WORD
    high = (np.uint64(seed) >> np.uint64(32)) & WORD
    key = _mix(_mix(low) ^ high)
    key = _mix((key + np.uint64(site)) & WORD)
    key = _mix((key + np.uint64(row)) & WORD)
    return np.int64(_mix((key + np.uint64(step)) & WORD))


def _drawer(dtype: str):
    v = vectors(dtype, 4)
    size = 4 if dtype == "float32" else 8

    @helper
    def draw_row(target, key, lane, n):
        """n uniforms in [0, 1) for lanes `lane` and on."""
        for i in range(n):
            bits = _mix((np.uint64(key) + np.uint64(lane + i)) & WORD)
            v.put(target + i * size, np.float64(np.int64(bits >> np.uint64(8))) * 2.0**-24)

    return draw_row


draw_float32 = _drawer("float32")
draw_float64 = _drawer("float64")
