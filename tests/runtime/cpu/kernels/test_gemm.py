"""Contractions over all rows at once have the bits of a core that takes the whole sum."""

from __future__ import annotations

import ctypes
from itertools import product

import numpy as np
import pytest

from rnncc.common.formulas import SUM_BLOCK
from rnncc.common.machine import host
from rnncc.runtime.common.memory_pool import aligned
from rnncc.runtime.common.weight_formats import PANEL_ROWS
from rnncc.runtime.cpu.kernels.gemm import contract_bulk
from rnncc.runtime.cpu.kernels.gradient_sums import PANEL_SCRATCH
from rnncc.runtime.cpu.kernels.microkernels import SEGMENT_WORDS, Cores, cores

CORE = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)
KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 2)
ROWS, TILES, VECTORS = 53, 2, 2
# Around the ends of blocks and of pieces.
EDGES = (SUM_BLOCK, PANEL_ROWS, PANEL_ROWS + SUM_BLOCK, 2 * PANEL_ROWS, 2 * PANEL_ROWS + SUM_BLOCK)
DEPTHS = sorted({1, *(edge + by for edge, by in product(EDGES, (-1, 0, 1)))})


def random(*shape: int) -> np.ndarray:
    array = aligned(shape, "float32")
    array[...] = np.random.default_rng(shape).standard_normal(shape)
    return array


class Contraction:
    """out = init + the sum over its operands of a @ w: of each, words as a core reads them."""

    def __init__(self, depths: tuple[int, ...]) -> None:
        self.cores: Cores = cores("float32")
        self.span = VECTORS * host().width("float32")
        self.init = random(1, TILES * self.span)
        self.operands = [(random(ROWS, k), random(TILES, k, self.span)) for k in depths]
        self.row = self.span * 4  # bytes of a tile's lanes
        self.segments = [
            [a.ctypes.data, a.strides[0], 4, w.ctypes.data, w.strides[1], w.strides[0], w.shape[1]]
            for a, w in self.operands
        ]

    def whole(self) -> np.ndarray:
        """Row by row, every tile by one call."""
        table = aligned((len(self.segments), SEGMENT_WORDS), np.int64)
        table[...] = self.segments
        out = aligned((ROWS, TILES * self.span), "float32")
        core = CORE(self.cores.address(1, VECTORS))
        for m, j in product(range(ROWS), range(TILES)):
            at = j * self.row
            core(
                table.ctypes.data,
                len(table),
                m,
                j,
                self.init.ctypes.data + at,
                0,
                out.ctypes.data + m * out.strides[0] + at,
                0,
            )
        return out

    def at_once(self) -> np.ndarray:
        out = aligned((ROWS, TILES * self.span), "float32")
        out[...] = np.nan
        scratch = aligned((PANEL_SCRATCH,), np.uint8)
        cores_ = self.cores.row_table(VECTORS)
        words = [1, 1, 1, ROWS, scratch.ctypes.data, 0, 0]
        words += [cores_.ctypes.data, len(cores_) - 1, TILES, self.init.ctypes.data, self.row]
        words += [out.ctypes.data, 0, out.strides[0], self.row, len(self.segments)]
        for segment in self.segments:
            words += [*segment, 0]
        block = np.array(words, np.int64)
        KERNEL(contract_bulk.address)(block.ctypes.data, 0)
        return out

    def exact(self) -> np.ndarray:
        total = np.repeat(self.init.astype("d"), ROWS, axis=0)
        for a, w in self.operands:
            lanes = w.transpose(1, 0, 2).reshape(w.shape[1], -1)
            total += a.astype("d") @ lanes.astype("d")
        return total


@pytest.mark.parametrize("first", (0, 7, SUM_BLOCK + 5))
@pytest.mark.parametrize("depth", DEPTHS)
def test_bits_of_the_whole_sum(depth: int, first: int) -> None:
    contraction = Contraction((first, depth) if first else (depth,))
    found = contraction.at_once()
    assert found.tobytes() == contraction.whole().tobytes()
    np.testing.assert_allclose(found, contraction.exact(), rtol=1e-4, atol=1e-4)
