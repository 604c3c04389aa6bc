"""The contractions of weights' gradients: sums over rows that lie far apart, panel after panel.

    out[m, lane] = sum over rows of a[row, m] d[row, lane]

A panel is as many rows as the first cache holds of one tile's lanes of `d`. What is read for many
tiles is copied side by side first, `d`'s lanes and `a`'s columns both: rows lie often at a power
of two that a cache can't hold together, and of copies all pieces of a panel are one segment.

Non-Goals: which gradients, and whose share of tiles (`gemm`).
"""

from rnncc.common.formulas import SUM_BLOCK
from rnncc.runtime.common.weight_formats import PANEL_ROWS
from rnncc.runtime.cpu.intrinsics.kernel_namespace import call_core, vectors, word
from rnncc.runtime.cpu.kernels.loop_helpers import SEGMENT_BYTES, segment, tile_rows
from rnncc.runtime.jit.helper import helper

PANEL_SCRATCH = 64 * 8 * PANEL_ROWS  # a panel at the widest vectors
PACK_TILES = 12  # tiles a panel is read for from which copying it pays
COLUMN_BYTES = 4096  # of a row of `a`: as much is copied at once, at most
TILE_GAP = 16  # between tiles of copied columns, which are written sixteen bytes at a time

quad = vectors("float32", 4)  # sixteen bytes, whatever they mean
single = vectors("float32", 1)


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
def sum_rows(call, table, pieces, zeros, lo, hi):
    """A gradient's contraction: tiles lo to hi of the result, row after row in one column of tiles
    and then the next, as many pieces of the rows summed over at once as a panel holds. Pieces that
    are too short for blocks of their own are one block, added to what there is.

    `call`: its words; the last three say where columns of `a` may be copied to, of how many rows of
    tiles, and from how many tiles in all; none if the rows are 0.
    """
    cores, row_tile, tile_bytes, rows = word(call, 0), word(call, 1), word(call, 3), word(call, 4)
    out, out_rs, block = word(call, 5), word(call, 6), word(call, 13)
    row_tiles, least, longer = tile_rows(rows, row_tile)
    panel, spare = table - PANEL_SCRATCH, table + pieces * SEGMENT_BYTES
    wide = block > 0 and hi - lo >= word(call, 14)
    step = block if wide else row_tiles
    piece = 0
    begun = False
    while piece < pieces or not begun:
        at = table + piece * SEGMENT_BYTES
        count = panel_pieces(at, pieces - piece)
        one_block = are_short(at, count)
        columns = table + word(call, 12) if wide and (one_block or count == 1) else 0
        for tile_lo in range(0, row_tiles, step):
            tile_hi = min(tile_lo + step, row_tiles)
            apart = 0
            if columns:
                apart = copy_columns(columns, at, count, least, longer, tile_lo, tile_hi)
            for j in range(lo // row_tiles, (hi + row_tiles - 1) // row_tiles):
                first = max(lo - j * row_tiles, tile_lo)
                last = min(hi - j * row_tiles, tile_hi)
                entry, tile, depth = at, j, 0
                if columns or last - first >= PACK_TILES:
                    depth = copy_panels(panel, spare, at, count, j, tile_bytes)
                    entry, tile = spare, 0
                for i in range(first, last):
                    m, high = i * least + min(i, longer), least + (i < longer)
                    segments = count
                    if columns:
                        a = columns + (i - tile_lo) * apart
                        segments = merge(spare, a, m, high, panel, tile_bytes, depth, one_block)
                    if one_block and begun:
                        segments = -segments
                    here = out + m * out_rs + j * tile_bytes
                    start, stride = (here, out_rs) if begun else (zeros, 0)
                    core = word(cores, high)
                    call_core(core, entry, segments, m, tile, start, stride, here, out_rs)
        begun = True
        piece += count


@helper(returns="int64")
def are_short(table, pieces):
    """Whether none of these is summed in blocks of its own: then all of them are one."""
    for i in range(pieces):
        if word(table + i * SEGMENT_BYTES, 6) > SUM_BLOCK:
            return 0
    return 1


@helper(returns="int64")
def merge(spare, a, m, rows, panel, row_bytes, depth, one_block):
    """Segments of copies, in place of `spare`'s: where they are one block, as few as have no blocks
    of their own. a: the copied columns m to m + rows."""
    size = word(spare, 1)
    most = SUM_BLOCK if one_block else PANEL_ROWS
    count = 0
    for k in range(0, depth, most):
        column = a + k * rows * size - m * size
        lanes = panel + k * row_bytes
        length = min(depth - k, most)
        count = segment(spare, count, column, size, rows * size, lanes, row_bytes, 0, length)
    return count


@helper(returns="int64")
def panel_pieces(table, pieces):
    """How many of the next pieces a panel holds: at least one, where there is one."""
    depth = 0
    for i in range(pieces):
        depth += word(table + i * SEGMENT_BYTES, 6)
        if depth > PANEL_ROWS:
            return max(i, 1)
    return pieces


@helper(returns="int64")
def copy_panels(panel, spare, table, count, tile, row_bytes):
    """One tile's lanes of some pieces, side by side; their segments, of the copies, to `spare`.
    How many rows they are."""
    rows = 0
    for i in range(count):
        at = table + i * SEGMENT_BYTES
        depth = word(at, 6)
        copy_panel(panel, word(at, 3) + tile * word(at, 5), word(at, 4), depth, row_bytes)
        segment(spare, i, word(at, 0), word(at, 1), word(at, 2), panel, row_bytes, 0, depth)
        panel += depth * row_bytes
        rows += depth
    return rows


@helper
def copy_panel(target, source, stride, rows, row_bytes):
    """Rows of a few vectors, side by side."""
    for r in range(rows):
        for at in range(0, row_bytes, 16):
            quad.store(target + r * row_bytes + at, quad.load(source + r * stride + at))


@helper(returns="int64")
def copy_columns(target, table, count, least, longer, tile_lo, tile_hi):
    """Columns of some pieces' `a`, those of one row of tiles after another; bytes from one to the
    next. Sixteen bytes at a time where that many follow in the row: what is too much of them the
    next row writes over, or lies in the gap."""
    size = word(table, 1)
    depth = 0
    for i in range(count):
        depth += word(table + i * SEGMENT_BYTES, 6)
    apart = depth * (least + (longer > 0)) * size + TILE_GAP
    k = 0
    for i in range(count):
        at = table + i * SEGMENT_BYTES
        for r in range(word(at, 6)):
            row = word(at, 0) + r * word(at, 2)
            for t in range(tile_lo, tile_hi):
                source = row + (t * least + min(t, longer)) * size
                row_bytes = (least + (t < longer)) * size
                here = target + (t - tile_lo) * apart + k * row_bytes
                if t + 4 < tile_hi:
                    for b in range(0, row_bytes, 16):
                        quad.store(here + b, quad.load(source + b))
                else:
                    for b in range(0, row_bytes, 4):
                        single.store(here + b, single.load(source + b))
            k += 1
    return apart
