"""Contractions over many rows in tiles: x @ W before a loop, gradients behind it.

    out[m, n] = begin + sum over k of a[m, k] * w[k, n]

m and k are each one axis or two, one inside the other, so that rows of a batch at every step are
either; n is one. A block has 64 by 64 results and stages 16 k of both operands in shared memory; a
thread has 4 by 4. Where results are few and k is long, blocks share k and a second kernel adds
their parts, in order.

Non-Goals: which kernels consist of contractions alone (`schedule`); true matrix units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rnncc.runtime.cuda.bind import Binder
from rnncc.runtime.cuda.kernel import kernel
from rnncc.runtime.cuda.names import F, cuda, v
from rnncc.runtime.tables import Core, Grad, Kernel, Pack, Source, Stage

TILE = 64  # results of a block, each way
DEPTH = 16  # of k at a time
ROW = 68  # elements from k to k in shared memory: banks apart, and a multiple of four
THREADS = 256
MOST_CALLS = 32  # launches that a kernel may become
LEAST_WORK = 1 << 20  # multiply-adds from which tiles are worth their launches
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
        for k in range(16):
            a0, a1, a2, a3 = v.shared_load4(k * 68 + row)
            w0, w1, w2, w3 = v.shared_load4((16 + k) * 68 + column)
            sums[0] = v.fma(a0, w0, sums[0])
            sums[1] = v.fma(a0, w1, sums[1])
            sums[2] = v.fma(a0, w2, sums[2])
            sums[3] = v.fma(a0, w3, sums[3])
            sums[4] = v.fma(a1, w0, sums[4])
            sums[5] = v.fma(a1, w1, sums[5])
            sums[6] = v.fma(a1, w2, sums[6])
            sums[7] = v.fma(a1, w3, sums[7])
            sums[8] = v.fma(a2, w0, sums[8])
            sums[9] = v.fma(a2, w1, sums[9])
            sums[10] = v.fma(a2, w2, sums[10])
            sums[11] = v.fma(a2, w3, sums[11])
            sums[12] = v.fma(a3, w0, sums[12])
            sums[13] = v.fma(a3, w1, sums[13])
            sums[14] = v.fma(a3, w2, sums[14])
            sums[15] = v.fma(a3, w3, sums[15])
        cuda.syncthreads()
        k_at += 16
    for i in range(4):
        for j in range(4):
            m, n = m_lo + row + i, n_lo + column + j
            if m < m_count and n < n_count:
                total = sums[i * 4 + j]
                at = out + part * out_part + m // m_inner * out_m0 + m % m_inner * out_m1
                if begin == 1:
                    total = total + v.load(constants + n * constants_n)
                if begin == 2:
                    total = total + v.load(at + n * out_n)
                v.store(at + n * out_n, total)


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
class Place:
    """An operand or result: a point's name (of a buffer, "ones", "parts"), bytes from there, and
    strides of m or n and k."""

    point: str
    offset: int
    m: tuple[int, int] = (0, 0)
    k: tuple[int, int] = (0, 0)
    n: int = 0


@dataclass(frozen=True, slots=True)
class Contraction:
    a: Place
    w: Place
    out: Place
    counts: tuple[int, int, int]  # m, n, k
    m_inner: int
    k_inner: int
    begin: int = ZEROS
    constants: Place | None = None

    @property
    def work(self) -> int:
        return math.prod(self.counts)


class Tiler:
    """The contractions a kernel consists of, with the numbers of a Binder."""

    def __init__(self, binder: Binder) -> None:
        self.binder, self.d = binder, binder.d
        self.layouts = binder.out.layouts

    def of(self, kernel: Kernel) -> list[Contraction] | None:
        """All that the kernel does; None where tiles have no form for it, or are no gain."""
        stages = [s for s in self.d.stages if s.name in kernel.stages]
        if not stages or kernel.kind not in ("rows", "grads"):
            return None
        found: list[Contraction] = []
        for stage in stages:
            made = list(self._grad(stage) if stage.grad else self._lanes(kernel, stage))
            if not made or len(found) + len(made) > MOST_CALLS:
                return None
            found += made
        return found if sum(c.work for c in found) >= LEAST_WORK else None

    def tile(self) -> None:
        """Kernels that are contractions alone, and large, run in tiles."""
        for each in self.d.kernels:
            found = self.of(each)
            if found is not None:
                self.binder.out.tiles[each.name] = found

    # ---- places ---------------------------------------------------------------------------------

    def _offset(self, source: Source, index: dict[int, int]) -> int:
        """Bytes from a buffer's base to a view's element, the first of the axes not indexed."""
        starts = ",".join(f"{a}:{s}" for a, s in source.starts)
        at = self.binder.offset(("address", source.buffer, source.slot, starts))
        return at + sum(i * self._stride(source, axis) for axis, i in index.items())

    def _stride(self, source: Source, axis: int | None) -> int:
        behind = None if axis is None else source.axes[axis]
        return 0 if behind is None else self.layouts[source.buffer].strides[behind]

    def _rows(self, source: Source, axes: str) -> tuple[int, int]:
        """Strides of rows: of the outer axis and of the inner one."""
        layout = self.layouts[source.buffer]
        strides = {"B": layout.b, "T": layout.t}
        own = "BT" if self.binder.buffers[source.buffer].storage == "carry" else None
        varies = own or self.binder.buffers[source.buffer].axes
        found = [strides[a] if a in varies else 0 for a in axes]
        return (found[0], found[1]) if len(found) == 2 else (0, found[0]) if found else (0, 0)

    def _counts(self, axes: str) -> tuple[int, int]:
        """Rows, and how many of them the inner axis has."""
        call = self.binder.call
        counts = [{"B": call.batch, "T": call.time}[a] for a in axes]
        return math.prod(counts), (counts[-1] if counts else 1)

    # ---- rows -----------------------------------------------------------------------------------

    def _lanes(self, kernel: Kernel, stage: Stage) -> Iterator[Contraction]:
        """Sums over k of weights, for every row: a contraction a gate and segment."""
        outer = [self.binder.size(s) for s in stage.shape[:-1]]
        if not stage.shape or math.prod(outer) > MOST_CALLS:
            return
        for core in stage.cores:
            for gate in range(core.gates):
                for index in _indices(outer):
                    yield from self._sum(kernel, stage, core, gate, index)

    def _sum(
        self, kernel: Kernel, stage: Stage, core: Core, gate: int, index: tuple[int, ...]
    ) -> Iterator[Contraction]:
        out = core.out
        if out is None:
            return
        rows, inner = self._counts(kernel.axes)
        lanes = self.binder.size(stage.shape[-1])
        tiled = core.gates > 1  # rows of gates side by side
        place = {0: gate} if tiled else dict(enumerate(index))
        if tiled:
            out = Source(out.buffer, (0, 1))
        target = Place(
            out.buffer,
            self._offset(out, place),
            self._rows(out, kernel.axes),
            n=self._stride(out, len(out.axes) - 1),
        )
        begin, constants = ZEROS, None
        row = core.init[gate] if core.init else None
        if row is not None:
            at = {i: x for i, x in enumerate(index) if row.axes[i] is not None}
            begin = CONSTANTS
            constants = Place(row.buffer, self._offset(row, at), n=self._stride(row, len(index)))
        for operand, pack in zip(core.operands, core.packs, strict=True):
            if pack is None or len(pack.k) > 2:
                return
            yield self._segment(
                kernel, operand.source, operand.k, operand.outer, pack, gate, index, target,
                (rows, lanes), inner, begin, constants,
            )  # fmt: skip
            begin, constants = ADDS, None

    def _segment(
        self, kernel: Kernel, a: Source, a_k: tuple[int, ...], a_outer: tuple[int | None, ...],
        pack: Pack, gate: int, index: tuple[int, ...], out: Place, counts: tuple[int, int],
        inner: int, begin: int, constants: Place | None,
    ) -> Contraction:  # fmt: skip
        w = pack.gates[gate]
        sizes = [self.binder.size(s) for s in pack.k_sizes]
        a_at = {axis: i for axis, i in zip(a_outer, index, strict=True) if axis is not None}
        w_at = {axis: i for axis, i in zip(pack.outer, index, strict=True) if axis is not None}
        return Contraction(
            Place(
                a.buffer,
                self._offset(a, a_at),
                self._rows(a, kernel.axes),
                _pair([self._stride(a, axis) for axis in a_k]),
            ),
            Place(
                w.buffer,
                self._offset(w, w_at),
                k=_pair([self._stride(w, axis) for axis in pack.k]),
                n=self._stride(w, pack.lane) if pack.lane is not None else 0,
            ),
            out,
            (*counts, math.prod(sizes)),
            inner,
            sizes[-1] if sizes else 1,
            begin,
            constants,
        )

    # ---- gradients ------------------------------------------------------------------------------

    def _grad(self, stage: Stage) -> Iterator[Contraction]:
        """Sums over rows and steps: rows are k."""
        grad = stage.grad
        assert grad is not None
        outer = [self.binder.size(size) for size, _, _, _ in grad.outer]
        if grad.kept or grad.k or math.prod(outer) > MOST_CALLS:
            return
        axes = "".join(x for x in "BT" if x in self._summed(grad))
        count, inner = self._counts(axes)
        lanes = self.binder.size(stage.shape[-1]) if stage.shape else 1
        m_a, m_out = grad.m
        for index in _indices(outer):
            a_at, d_at, out_at = ({}, {}, {})  # type: ignore[var-annotated]
            for i, (_, a_axis, d_axis, out_axis) in zip(index, grad.outer, strict=True):
                for at, axis in ((a_at, a_axis), (d_at, d_axis), (out_at, out_axis)):
                    if axis is not None:
                        at[axis] = i
            a = Place("ones", 0)
            if grad.a is not None:
                m = (0, self._stride(grad.a, m_a))
                a = Place(grad.a.buffer, self._offset(grad.a, a_at), m, self._rows(grad.a, axes))
            last = len(grad.d.axes) - 1
            yield Contraction(
                a,
                Place(
                    grad.d.buffer,
                    self._offset(grad.d, d_at),
                    k=self._rows(grad.d, axes),
                    n=self._stride(grad.d, last) if stage.shape else 0,
                ),
                Place(
                    grad.out.buffer,
                    self._offset(grad.out, out_at),
                    (0, self._stride(grad.out, m_out)),
                    n=self._stride(grad.out, len(grad.out.axes) - 1) if stage.shape else 0,
                ),
                (self.binder.size(grad.rows), lanes, count),
                self.binder.size(grad.rows),
                inner,
            )

    def _summed(self, grad: Grad) -> set[str]:
        found: set[str] = set()
        for source in (grad.a, grad.d):
            if source is not None:
                buffer = self.binder.buffers[source.buffer]
                found |= set("BT" if buffer.storage == "carry" else buffer.axes)
        return found


def _pair(strides: list[int]) -> tuple[int, int]:
    return (strides[0], strides[1]) if len(strides) == 2 else (0, strides[0] if strides else 0)


def _indices(counts: list[int]) -> Iterator[tuple[int, ...]]:
    if not counts:
        yield ()
        return
    for i in range(counts[0]):
        for rest in _indices(counts[1:]):
            yield (i, *rest)


# ---- launches --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TileLaunch:
    """Words of `contract`, and of `add_parts` where blocks share k.

    patches: (word, point, bytes from there).
    """

    words: list[int]
    patches: list[tuple[int, str, int]]
    blocks: int
    parts: int
    part_bytes: int
    adds: list[int]
    add_patches: list[tuple[int, str, int]]

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
        out = Place("parts", 0, (n * item, 0), n=item)
    m_inner = 1 if parts > 1 else c.m_inner
    a_m = c.a.m
    if parts > 1:  # rows of parts are one axis
        assert c.m_inner == m, "gradients' m is one axis"
        a_m = (c.a.m[1], 0)
    constants = c.constants or Place("zeros", 0)
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
    add_patches = [(0, "parts", 0), (5, c.out.point, c.out.offset)]
    blocks = m_tiles * n_tiles * parts
    return TileLaunch(words, patches, blocks, parts, part_bytes * parts, adds, add_patches)
