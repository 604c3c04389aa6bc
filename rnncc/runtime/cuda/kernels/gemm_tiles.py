"""Contractions over many rows in tiles: x @ W before a loop, gradients behind it.

    out[m, n] = begin + sum over k of a[m, k] * w[k, n]

m and k are each one axis or two, one inside the other, so that rows of a batch at every step are
either; n is one. A block has 64 by 64 results and stages 16 k of both operands in shared memory; a
thread has 4 by 4. Where results are few and k is long, blocks share k and a second kernel adds
their parts, in order.

Non-Goals: which contractions there are (`tiler`); matrix units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rnncc.artifact.kernel_args import PartialSums, ZeroRow
from rnncc.runtime.cuda.kernels.kernel import kernel
from rnncc.runtime.cuda.kernels.kernel_namespace import F, add_products, cuda, put_sum, v
from rnncc.runtime.planning.copies import Point

TILE = 64  # results of a block, each way
DEPTH = 16  # of k at a time
ROW = 68  # elements from k to k in shared memory: banks apart, and a multiple of four
THREADS = 256
PART = 512  # of k, at least, for each of several blocks
ZEROS, CONSTANTS, ADDS = 0, 1, 2  # what a result begins with: nothing, a row, what is there


@kernel
def contract(
    step_lo, step_hi, level_lo, level_hi,
    a, a_m0, a_m1, a_k0, a_k1, a_along_k,  # address, strides; whether its k lie side by side
    w, w_k0, w_k1, w_n, w_along_k,
    out, out_m0, out_m1, out_n, out_part,  # out_part: from one part of k's sums to the next
    begin, constants, constants_n,
    m_count, m_inner, n_count, k_count, k_inner, k_part, m_tiles, n_tiles,
):  # fmt: skip
    """A block: results [64, 64] over its part of k."""
    thread = cuda.threadIdx.x
    tile = cuda.blockIdx.x % (m_tiles * n_tiles)
    part = cuda.blockIdx.x // (m_tiles * n_tiles)
    m_lo, n_lo = tile // n_tiles * 64, tile % n_tiles * 64
    k_lo = part * k_part
    k_hi = min(k_lo + k_part, k_count)
    # Whom a thread loads for: along whatever lies side by side.
    a_x, a_y, a_step = thread % 64, thread // 64, 4
    if a_along_k:
        a_x, a_y, a_step = thread // 16, thread % 16, 16
    w_x, w_y, w_step = thread % 64, thread // 64, 4
    if w_along_k:
        w_x, w_y, w_step = thread // 16, thread % 16, 16
    row, column = thread // 16 * 4, thread % 16 * 4
    sums = cuda.local.array(16, F)
    for i in range(16):
        sums[i] = v.splat(0.0)
    k_at = k_lo
    while k_at < k_hi:
        for i in range(4):
            x = v.splat(0.0)
            m, k = m_lo + a_x, k_at + a_y + i * a_step
            if a_along_k:
                m, k = m_lo + a_x + i * a_step, k_at + a_y
            k0, k1 = 0, k
            if k_inner < k_count:
                k0, k1 = k // k_inner, k % k_inner
            if m < m_count and k < k_hi:
                at = a + m // m_inner * a_m0 + m % m_inner * a_m1
                x = v.load(at + k0 * a_k0 + k1 * a_k1)
            v.shared_store((k - k_at) * 68 + m - m_lo, x)
            y = v.splat(0.0)
            n, k = n_lo + w_x, k_at + w_y + i * w_step
            if w_along_k:
                n, k = n_lo + w_x + i * w_step, k_at + w_y
            k0, k1 = 0, k
            if k_inner < k_count:  # dividing takes longer than loading
                k0, k1 = k // k_inner, k % k_inner
            if n < n_count and k < k_hi:
                y = v.load(w + k0 * w_k0 + k1 * w_k1 + n * w_n)
            v.shared_store((16 + k - k_at) * 68 + n - n_lo, y)
        cuda.syncthreads()
        add_products(sums, row, column)
        cuda.syncthreads()
        k_at += 16
    for i in range(4):
        for j in range(4):
            m, n = m_lo + row + i, n_lo + column + j
            if m < m_count and n < n_count:
                at = out + part * out_part + m // m_inner * out_m0 + m % m_inner * out_m1
                put_sum(at + n * out_n, sums[i * 4 + j], begin, constants + n * constants_n)


@kernel
def add_parts(
    step_lo, step_hi, level_lo, level_hi,
    parts, part_bytes, part_count, row_bytes, size,
    out, out_m0, out_m1, out_n, m_count, m_inner, n_count,
):  # fmt: skip
    """out[m, n] = the parts' sums [part, m, n], the first one first."""
    item = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    while item < m_count * n_count:
        m, n = item // n_count, item % n_count
        total = v.splat(0.0)
        for part in range(part_count):
            total = total + v.load(parts + part * part_bytes + m * row_bytes + n * size)
        v.store(out + m // m_inner * out_m0 + m % m_inner * out_m1 + n * out_n, total)
        item += cuda.gridDim.x * cuda.blockDim.x


@dataclass(frozen=True, slots=True)
class TileOperand:
    """An operand or result: what it is in, bytes from there, and
    strides of m or n and k."""

    point: Point
    offset: int
    m: tuple[int, int] = (0, 0)
    k: tuple[int, int] = (0, 0)
    n: int = 0


@dataclass(frozen=True, slots=True)
class Contraction:
    a: TileOperand
    w: TileOperand
    out: TileOperand
    counts: tuple[int, int, int]  # m, n, k
    m_inner: int
    k_inner: int
    begin: int = ZEROS
    constants: TileOperand | None = None

    @property
    def work(self) -> int:
        return math.prod(self.counts)


# ---- launches --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TileLaunch:
    """Words of `contract`, and of `add_parts` where blocks share k.

    patches: (word, point, bytes from there).
    """

    words: list[int]
    patches: list[tuple[int, Point, int]]
    blocks: int
    parts: int
    part_bytes: int
    adds: list[int]
    add_patches: list[tuple[int, Point, int]]

    @property
    def shared(self) -> int:
        """Elements of shared memory."""
        return 2 * DEPTH * ROW


def launch_of(c: Contraction, item: int, processors: int) -> TileLaunch:
    """How one contraction is launched, on so many multiprocessors."""
    m, n, k = c.counts
    m_tiles, n_tiles = -(-m // TILE), -(-n // TILE)
    parts = 1
    if c.begin == ZEROS and k > 2 * PART:
        parts = max(min(2 * processors // (m_tiles * n_tiles), -(-k // PART)), 1)
    k_part = math.ceil(math.ceil(k / parts) / DEPTH) * DEPTH
    parts = -(-k // k_part)
    out, part_bytes = c.out, 0
    if parts > 1:
        part_bytes = m * n * item
        out = TileOperand(PartialSums(), 0, (n * item, 0), n=item)
    m_inner = 1 if parts > 1 else c.m_inner
    a_m = c.a.m
    if parts > 1:  # rows of parts are one axis
        assert c.m_inner == m, "gradients' m is one axis"
        a_m = (c.a.m[1], 0)
    constants = c.constants or TileOperand(ZeroRow(), 0)
    words = [
        0, *a_m, *c.a.k, int(c.a.k[1] == item),
        0, *c.w.k, c.w.n, int(c.w.k[1] == item),
        0, *out.m, out.n, part_bytes,
        c.begin, 0, constants.n,
        m, m_inner, n, k, c.k_inner, k_part, m_tiles, n_tiles,
    ]  # fmt: skip
    patches = [
        (0, c.a.point, c.a.offset),
        (6, c.w.point, c.w.offset),
        (11, out.point, out.offset),
        (17, constants.point, constants.offset),
    ]
    adds = [0, part_bytes, parts, n * item, item, 0, *c.out.m, c.out.n, m, c.m_inner, n]
    add_patches = [(0, PartialSums(), 0), (5, c.out.point, c.out.offset)]
    blocks = m_tiles * n_tiles * parts
    return TileLaunch(words, patches, blocks, parts, part_bytes * parts, adds, add_patches)
