"""Sums over rows have the same bits whether what they read is copied side by side first or not."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from rnncc.common.formulas import SUM_BLOCK
from rnncc.common.machine import host
from rnncc.runtime.common.memory_pool import aligned
from rnncc.runtime.common.weight_formats import PANEL_ROWS
from rnncc.runtime.cpu.kernels.gemm import sum_bulk
from rnncc.runtime.cpu.kernels.gradient_sums import PANEL_SCRATCH, TILE_GAP
from rnncc.runtime.cpu.kernels.microkernels import SEGMENT_WORDS, cores

KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 2)
VECTORS, ROW_TILE, TILES = 2, 3, 7
GUARD, UNTOUCHED = 4096, 77
# Of (sequences, steps of each): pieces of one block, of several, and none.
ROWS = [(7, 25), (9, 1), (3, SUM_BLOCK), (2, SUM_BLOCK + 1), (1, 2 * PANEL_ROWS + 50), (1, 0)]


class Sums:
    """out[m, lane] = the sum over sequences and steps of a[.., m] * d[.., lane]."""

    def __init__(self, dtype: str, columns: int, n0: int, n1: int) -> None:
        rng = np.random.default_rng([columns, n0, n1])
        self.dtype, self.columns, self.tile_bytes = dtype, columns, VECTORS * host().vector_bytes
        lanes = TILES * VECTORS * host().width(dtype)
        self.a = rng.standard_normal((n0, n1 + 2, columns)).astype(dtype)[:, 1:-1]
        self.d = rng.standard_normal((n0, n1 + 1, lanes)).astype(dtype)[:, 1:]
        self.expected = np.einsum("btm,btl->ml", self.a.astype("d"), self.d.astype("d"))

    def summed(self, block: int, parts: int = 1) -> np.ndarray:
        """block: rows of tiles whose columns are copied at once; 0: none are."""
        n0, n1, _ = self.a.shape
        row_tiles = -(-self.columns // ROW_TILE)
        tables = (n0 * -(-n1 // PANEL_ROWS) + PANEL_ROWS) * SEGMENT_WORDS * 8
        copied = block * (PANEL_ROWS * ROW_TILE * self.a.itemsize + TILE_GAP)
        scratch = aligned((parts, PANEL_SCRATCH + tables + copied + GUARD), np.uint8)
        scratch[...] = UNTOUCHED
        zeros = aligned((self.d.shape[-1],), self.dtype, zero=True)
        out = aligned((self.columns, self.d.shape[-1]), self.dtype)
        out[...] = np.nan
        table = cores(self.dtype).row_table(VECTORS)
        words = [parts, 1, row_tiles * TILES, zeros.ctypes.data]
        words += [scratch.ctypes.data + PANEL_SCRATCH, scratch.strides[0], 0]
        words += [table.ctypes.data, ROW_TILE, TILES, self.tile_bytes, self.columns]
        words += [out.ctypes.data, out.strides[0], n0, n1, 1, 0, 1, tables, block, row_tiles]
        words += [self.a.ctypes.data, self.a.itemsize, *self.a.strides[:2]]
        words += [self.d.ctypes.data, *self.d.strides[:2]]
        head = np.array(words, np.int64)
        for part in range(parts):
            KERNEL(sum_bulk.address)(head.ctypes.data, part)
        assert (scratch[:, -GUARD:] == UNTOUCHED).all()
        if block and n1:
            assert (scratch[:, PANEL_SCRATCH + tables : -GUARD] != UNTOUCHED).any()
        return out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n0, n1", ROWS)
def test_bits_of_what_is_copied(n0: int, n1: int, dtype: str) -> None:
    for columns in (1, 16, 37):
        sums = Sums(dtype, columns, n0, n1)
        plain = sums.summed(0)
        exact = 1e-4 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(plain, sums.expected, rtol=exact, atol=exact)
        for block, parts in ((1, 1), (5, 1), (13, 1), (5, 2)):
            assert sums.summed(block, parts).tobytes() == plain.tobytes(), (columns, block, parts)
