"""What generated loop nests call: shares of a range, segments of a contraction, random rows.

Non-Goals: lanes (`simd`); whole-row moves and reductions (`row_kernels`).
"""

import numpy as np

from rnncc.runtime.common.weight_formats import SUM_BLOCK
from rnncc.runtime.cpu.intrinsics.kernel_namespace import (
    call_core,
    prefetch,
    set_words,
    vectors,
    word,
)
from rnncc.runtime.jit.helper import FOUR, PAIR, helper

CACHE_LINE = 64
SEGMENT_BYTES = 56
ROW_BLOCK = 48  # rows a panel of weights is used for before the next panel comes
TILE_BYTES = 4096  # scratch of one group's tile: at most 8 rows of 8 vectors of 64 bytes
GROUPS = 8  # of contractions in one stage that tiles are kept for
SPILLS_AT = GROUPS * TILE_BYTES  # then values that cross from loop to loop of an epilogue
POINTERS_AT = SPILLS_AT + 8 * TILE_BYTES  # then the addresses of a panel's rows, worked out once
POINTER_BYTES = 8 * 96  # a row's addresses: as many as any stage needs
TURN_AT = POINTERS_AT + ROW_BLOCK * POINTER_BYTES  # then steps run so far, by the last calls too
PANEL_AT = TURN_AT + CACHE_LINE  # then a panel of a gradient's contraction, and tables of segments
PACK_TILES = 12  # tiles a panel is read for from which copying it pays
# Rows of a tile's weights, or of a gradient's terms, that are used at once: whole blocks of a sum,
# and whole steps of every storage of weights.
PANEL_ROWS = 2 * SUM_BLOCK
PANEL_SCRATCH = 64 * 8 * PANEL_ROWS  # a panel at the widest vectors

pair = vectors("float64", 2)  # sixteen bytes, whatever they mean


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
def lane_range(n, shared, index, count):
    """All lanes, or this thread's share where threads share the lanes of every row."""
    if shared:
        return n * index // count, n * (index + 1) // count
    return 0, n


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


@helper(returns="int64")
def row_segments(table, index, a, a_rs, a_0, a_1, d, d_ts, d_0, d_1, n0, n1):
    """Segments over rows, n1 of them PANEL_ROWS at a time for each of n0; the next free index."""
    for r0 in range(n0):
        for r1 in range(0, n1, PANEL_ROWS):
            count = min(PANEL_ROWS, n1 - r1)
            index = segment(
                table,
                index,
                a + r0 * a_0 + r1 * a_1,
                a_rs,
                a_1,
                d + r0 * d_0 + r1 * d_1,
                d_1,
                d_ts,
                count,
            )
    return index


@helper
def fetch_tile(wanted, row_pointers, first, rows, count, tile, size):
    """Asks for what an epilogue will touch of a tile, before its contraction runs: of each of its
    rows, `first` and on, `count` places of `size` bytes. Nothing unless it is wanted."""
    for r in range(first, first + rows if wanted else first):
        row = row_pointers + r * POINTER_BYTES
        for n in range(count):
            at = word(row, n) + tile * size
            for b in range(0, size, CACHE_LINE):
                prefetch(at + b)


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
    for m in range(row_lo, row_hi, row_tile):
        core = word(cores, min(row_tile, row_hi - m))
        call_core(core, table, count, m, j, init + m * init_rs, init_rs, out + m * out_rs, out_rs)


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
    out,
    out_rs,
    out_j,
):
    """A contraction whose result goes straight where it belongs: panels of rows, then lanes.

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
    for blk in range(row_lo, row_hi, ROW_BLOCK):
        end = min(blk + ROW_BLOCK, row_hi)
        for j in range(lane_lo, lane_hi):
            here = out + j * out_j
            start, stride = init + j * init_j, 0
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


@helper
def sum_rows(
    cores, table, pieces, rows, row_tile, row_tiles, tile_bytes, out, out_rs, zeros, panel, lo, hi
):
    """A gradient's contraction: tiles lo to hi of the result, row after row in one column of tiles
    and then the next, as many pieces of the rows summed over at once as the first cache holds.

    Rows lie far apart, often at a power of two that a cache can't hold together; where a tile's
    lanes are read often enough to pay for it, they are copied side by side into `panel` first.
    """
    spare = table + pieces * SEGMENT_BYTES
    piece = 0
    begun = False
    while piece < pieces or not begun:
        at = table + piece * SEGMENT_BYTES
        count = panel_pieces(at, pieces - piece)
        for j in range(lo // row_tiles, (hi + row_tiles - 1) // row_tiles):
            first = max(lo - j * row_tiles, 0)
            last = min(hi - j * row_tiles, row_tiles)
            entry, tile = at, j
            if last - first >= PACK_TILES:
                copy_panels(panel, spare, at, count, j, tile_bytes)
                entry, tile = spare, 0
            for m in range(first * row_tile, min(last * row_tile, rows), row_tile):
                here = out + m * out_rs + j * tile_bytes
                start, stride = (here, out_rs) if begun else (zeros, 0)
                call_core(
                    word(cores, min(row_tile, rows - m)),
                    entry,
                    count,
                    m,
                    tile,
                    start,
                    stride,
                    here,
                    out_rs,
                )
        begun = True
        piece += count


@helper(returns="int64")
def panel_pieces(table, pieces):
    """How many of the next pieces a panel holds: at least one, where there is one."""
    depth = 0
    for i in range(pieces):
        depth += word(table + i * SEGMENT_BYTES, 6)
        if depth > PANEL_ROWS:
            return max(i, 1)
    return pieces


@helper
def copy_panels(panel, spare, table, count, tile, row_bytes):
    """One tile's lanes of some pieces, side by side; their segments, of the copies, to `spare`."""
    for i in range(count):
        at = table + i * SEGMENT_BYTES
        depth = word(at, 6)
        copy_panel(panel, word(at, 3) + tile * word(at, 5), word(at, 4), depth, row_bytes)
        segment(spare, i, word(at, 0), word(at, 1), word(at, 2), panel, row_bytes, 0, depth)
        panel += depth * row_bytes


@helper
def copy_panel(target, source, stride, rows, row_bytes):
    """Rows of a few vectors, side by side."""
    for r in range(rows):
        for at in range(0, row_bytes, 16):
            pair.store(target + r * row_bytes + at, pair.load(source + r * stride + at))


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
