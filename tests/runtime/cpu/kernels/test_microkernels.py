"""Contraction cores against NumPy in float64, and the same bits for every tile and width."""

import ctypes
import re

import numpy as np
import pytest

from rnncc.common.formulas import SUM_BLOCK
from rnncc.common.machine import Machine, host
from rnncc.runtime.common.memory_pool import aligned
from rnncc.runtime.cpu.kernels.microkernels import SEGMENT_WORDS, cores, max_rows

CORE = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)
NARROW = Machine(vector_bytes=32, registers=16)
WIDE = Machine(vector_bytes=64, registers=32)


def filled(shape, dtype, seed):
    array = aligned(shape, dtype)
    array[...] = np.random.default_rng(seed).standard_normal(shape)
    return array


class Case:
    """out = init + a1 @ w1 + a2 @ w2 for `rows` rows and `lanes` lanes: two segments, odd sizes."""

    def __init__(self, dtype, lanes, k=(37, 5), rows=24):
        self.dtype, self.lanes, self.rows = dtype, lanes, rows
        self.size = np.dtype(dtype).itemsize
        self.a = [filled((rows, k[0] + 3), dtype, 1), filled((k[1], rows), dtype, 2)]
        self.w = [filled((n, lanes), dtype, 3 + i) for i, n in enumerate(k)]
        self.init = filled((rows, lanes), dtype, 9)
        self.k = k

    def packed(self, nv, width):
        """[tile][k][lane] for tiles of nv vectors."""
        span = nv * width
        tiles = self.lanes // span
        out = []
        for w in self.w:
            p = aligned((tiles, w.shape[0], span), self.dtype)
            p[...] = w[:, : tiles * span].reshape(-1, tiles, span).transpose(1, 0, 2)
            out.append(p)
        return out

    def expected(self):
        a1 = self.a[0][:, : self.k[0]].astype("d")
        a2 = self.a[1].T.astype("d")
        w1, w2 = (w.astype("d") for w in self.w)
        return self.init.astype("d") + a1 @ w1 + a2 @ w2

    def run(self, machine, m, nv):
        """All tiles of the case with cores of m rows and nv vectors."""
        c = cores(self.dtype, machine)
        width = machine.width(self.dtype)
        span = nv * width
        core = CORE(c.address(m, nv))
        weights = self.packed(nv, width)
        rs, ks = self.a[0].strides[0], self.size
        segs = aligned((2, SEGMENT_WORDS), np.int64)
        for seg, a, w, strides in zip(
            segs, self.a, weights, ((rs, ks), (ks, self.a[1].strides[0])), strict=True
        ):
            k = w.shape[1]
            seg[:] = a.ctypes.data, *strides, w.ctypes.data, w.strides[1], w.strides[0], k
        out = aligned((self.rows, self.lanes), self.dtype)
        out[...] = np.nan
        for row in range(0, self.rows - m + 1, m):
            for tile in range(self.lanes // span):
                at = row * self.init.strides[0] + tile * span * self.size
                stride = self.init.strides[0]
                core(
                    segs.ctypes.data,
                    2,
                    row,
                    tile,
                    self.init.ctypes.data + at,
                    stride,
                    out.ctypes.data + at,
                    stride,
                )
        done = self.rows // m * m
        return out[:done, : self.lanes // span * span]


def tiles(machine):
    return [(m, nv) for nv in range(1, 9) for m in range(1, max_rows(nv, machine.registers) + 1)]


@pytest.mark.parametrize("m, nv", tiles(host()))
def test_every_tile_of_the_host(m, nv):
    case = Case("float32", 8 * host().width("float32"))
    got = case.run(host(), m, nv)
    want = case.expected()[: got.shape[0], : got.shape[1]]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("k", [(37, 5), (SUM_BLOCK, 2 * SUM_BLOCK + 7), (SUM_BLOCK + 1, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_for_every_tile_and_width(dtype, k):
    size = 128 // np.dtype(dtype).itemsize * 4
    case = Case(dtype, size, k)
    full = case.run(NARROW, 1, 1)
    np.testing.assert_allclose(full, case.expected(), atol=1e-4 if dtype == "float32" else 1e-12)
    for machine, m, nv in [
        (NARROW, 3, 4),
        (NARROW, 6, 2),
        (NARROW, 1, 8),
        (WIDE, 6, 4),
        (WIDE, 2, 1),
        (Machine(vector_bytes=16), 2, 4),
        (Machine(vector_bytes=16, registers=32), 6, 4),
        (Machine(vector_bytes=16, registers=32), 8, 3),
    ]:
        got = case.run(machine, m, nv)
        assert got.tobytes() == full[: got.shape[0], : got.shape[1]].tobytes(), (machine, m, nv)


@pytest.mark.parametrize("far", [False, True])
def test_long_sums_are_taken_in_blocks_from_zero(far):
    """Ones, added to a number to which float32 can add no single one: short segments stay below."""
    large, n = 2.0**24, 2 * SUM_BLOCK + 10
    lanes = host().width("float32")
    ones, init = aligned((n, lanes), "float32"), aligned((1, lanes), "float32")
    ones[...], init[...] = 1, large
    core = CORE(cores("float32", far=far).address(1, 1))

    def summed(*depths):
        segs = aligned((len(depths), SEGMENT_WORDS), np.int64)
        segs[:] = [(ones.ctypes.data, 4, 4, ones.ctypes.data, lanes * 4, 0, k) for k in depths]
        out = aligned((1, lanes), "float32")
        core(segs.ctypes.data, len(depths), 0, 0, init.ctypes.data, 0, out.ctypes.data, 0)
        return set(out[0])

    assert summed(SUM_BLOCK) == summed(SUM_BLOCK, SUM_BLOCK) == {large}
    assert summed(n) == {large + n} and summed(5, n, n) == {large + 2 * n}


def test_no_segments_copies_the_start():
    case = Case("float32", 64)
    out = aligned((3, 64), "float32")
    core = CORE(cores("float32", NARROW).address(3, 4))
    data = case.init.ctypes.data
    core(0, 0, 0, 0, data, 0, out.ctypes.data, out.strides[0])
    assert (out[:, :32] == case.init[0, :32]).all()


def test_row_table():
    c = cores("float32", NARROW)
    table = c.row_table(4)
    assert table.ctypes.data % 64 == 0 and len(table) == 4
    assert [c.address(m, 4) for m in (1, 2, 3)] == list(table[1:])


@pytest.mark.parametrize("rows, vectors", [(4, 4), (0, 1), (2, 5), (1, 9)])
def test_tiles_that_do_not_fit_are_refused(rows, vectors):
    with pytest.raises(ValueError):
        cores("float32", NARROW).address(rows, vectors)


def test_accumulators_stay_in_registers(monkeypatch, tmp_path):
    """No vector is spilled in any loop over k: what a core's speed hangs on."""
    monkeypatch.setenv("RNNCC_CACHE", str(tmp_path))
    from rnncc.runtime.cpu.kernels.microkernels import Cores

    if host().vector_bytes < 32:
        pytest.skip("reads x86 assembly of the host's own vectors")
    fresh = Cores("float32", host())
    for m, nv in [(fresh.max_rows(4), 4), (fresh.max_rows(2), 2), (1, 8)]:
        loop = longest_fma_loop(fresh.kernel(m, nv).assembly())
        assert len(loop) > m * nv
        spilled = [line for line in loop if re.search(r"vmov.*(\(%rsp\)|-\d+\(%rbp\))", line)]
        assert not spilled, (m, nv)


def longest_fma_loop(assembly):
    """The basic block with most fused multiply-adds, as lines."""
    blocks, block = [], []
    for line in assembly.splitlines():
        if line.startswith(".LBB"):
            blocks.append(block)
            block = []
        block.append(line)
    return max([*blocks, block], key=lambda lines: sum("fmadd" in line for line in lines))
