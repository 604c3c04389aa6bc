"""What generated loop nests call: shares of a range, segments of a contraction, random rows.

Non-Goals: lanes (`simd`); whole-row moves and reductions (`rows`).
"""

import numpy as np

from rnncc.runtime.kernel import helper
from rnncc.runtime.raw import call_core, set_word, word
from rnncc.runtime.simd import vectors

SEGMENT_BYTES = 56
ROW_BLOCK = 48  # rows a panel of weights is used for before the next panel comes
STEP_BLOCK = 128  # rows of a gradient's contraction that stay in the first cache


@helper
def share(n, part, parts):
    """[low, high): this part's share of range(n); shares differ by one at most."""
    return n * part // parts, n * (part + 1) // parts


@helper
def row_range(n0, n1, part, parts):
    """This part's share of a two-level range of rows: of the outer level where it is long enough."""
    if n0 >= parts:
        return n0 * part // parts, n0 * (part + 1) // parts, 0, n1
    return 0, n0, n1 * part // parts, n1 * (part + 1) // parts


@helper
def segment(table, index, a, a_rs, a_ks, w, w_ks, w_ts, k):
    """One segment of a contraction: see the cores' module for its seven words."""
    at = table + index * SEGMENT_BYTES
    set_word(at, 0, a)
    set_word(at, 1, a_rs)
    set_word(at, 2, a_ks)
    set_word(at, 3, w)
    set_word(at, 4, w_ks)
    set_word(at, 5, w_ts)
    set_word(at, 6, k)


@helper
def row_segments(table, index, a, a_rs, a_0, a_1, d, d_ts, d_0, d_1, n0, n1):
    """Segments over rows, n1 of them STEP_BLOCK at a time for each of n0; the next free index."""
    for r0 in range(n0):
        for r1 in range(0, n1, STEP_BLOCK):
            count = min(STEP_BLOCK, n1 - r1)
            segment(
                table, index, a + r0 * a_0 + r1 * a_1, a_rs, a_1,
                d + r0 * d_0 + r1 * d_1, d_1, d_ts, count,
            )
            index += 1
    return index


DESC_WORDS = 21  # source offset, target offset, then a copy's description of rank up to 6


@helper
def copy_pieces(copy, src, dst, descs, count):
    """Strided copies: each description is preceded by its offsets from src and dst."""
    for i in range(count):
        at = descs + i * DESC_WORDS * 8
        call_core(copy, src + word(at, 0), dst + word(at, 1), at + 16, 0, 0, 0, 0, 0)


@helper
def _mix(x):
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


@helper
def row_key(seed, site, row, step):
    """The random key of one row at one step of one site (see `rnncc.ir.random`)."""
    key = _mix(_mix(np.uint32(seed & 0xFFFFFFFF)) ^ np.uint32((seed >> 32) & 0xFFFFFFFF))
    key = _mix(np.uint32(key + np.uint32(site)))
    key = _mix(np.uint32(key + np.uint32(row)))
    return np.int64(_mix(np.uint32(key + np.uint32(step))))


def _drawer(dtype: str):
    v = vectors(dtype, 4)
    scale = 2.0**-24
    size = 4 if dtype == "float32" else 8

    @helper
    def draw_row(target, key, lane, n):
        """n uniforms in [0, 1) for lanes `lane` and on."""
        for i in range(n):
            bits = _mix(np.uint32(np.uint32(key) + np.uint32(lane + i)))
            v.put(target + i * size, np.float64(np.int64(bits) >> 8) * scale)

    return draw_row


draw_float32 = _drawer("float32")
draw_float64 = _drawer("float64")

