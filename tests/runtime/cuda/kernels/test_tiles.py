"""Contractions in tiles on the simulated grid: as cells use them, and by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from rnncc.artifact.kernel_args import PartialSums, ZeroRow
from rnncc.runtime.cuda.kernels import gemm_tiles
from rnncc.runtime.cuda.kernels.gemm_tiles import ADDS, CONSTANTS, ZEROS, Contraction, TileOperand
from rnncc.runtime.cuda.planning import tiler
from rnncc.runtime.planning.copies import Point
from tests.support.gpu_simulator.grid import Simulator
from tests.support.gpu_simulator.twins import Twins
from tests.support.twins import LIMIT


@pytest.mark.parametrize("name", ["lstm"])
def test_cells_in_tiles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiler, "LEAST_WORK", 1)
    monkeypatch.setattr(gemm_tiles, "PART", 4)
    twins = Twins.of(name, "plain", (3, 4, 9, 2))
    engine = twins.layer._engine(False, False)[1]
    simulator = Simulator(seed=6, size=1 << 22)
    for side in (engine._forward, engine._backward):
        side.made.clear()
    try:
        error, whose = twins.worst(simulator, "block")
    finally:
        for side in (engine._forward, engine._backward):
            side.made.clear()
    assert error <= LIMIT["float32"], (whose, error)
    ran = {name for name, *_ in simulator.launches}
    assert {"contract", "add_parts"} <= ran


def launched(c: Contraction, arrays: dict[Point, np.ndarray], out: np.ndarray) -> np.ndarray:
    """The contraction, by its launches."""
    simulator = Simulator(seed=3, size=1 << 21)
    points = {n: simulator.upload(a).address for n, a in arrays.items()}
    points["out"] = simulator.upload(out).address
    made = gemm_tiles.launch_of(c, 4, processors=8)
    points[PartialSums()] = simulator.empty(max(made.part_bytes, 1)).address
    runs = [(gemm_tiles.contract, made.words, made.patches, made.blocks)]
    if made.parts > 1:
        runs.append((gemm_tiles.add_parts, made.adds, made.add_patches, 2))
    for kernel, words, patches, blocks in runs:
        own = np.array([0, 1, 0, 1, *words], np.int64)
        for i, point, at in patches:
            own[4 + i] = points[point] + at
        simulator.launch(kernel, "float32", blocks, 256, own, shared=made.shared * 4)
    found = np.empty_like(out)
    simulator.download(points["out"], found)
    return found


def test_ragged_tiles() -> None:
    """Rows of a batch and of time that lie apart, a transposed weight, a row to start from."""
    rng = np.random.default_rng(0)
    batch, time, k, n = 5, 14, 19, 66
    a, w, row = (rng.standard_normal(s).astype("float32") for s in ((time, batch, k), (n, k), (n,)))
    c = Contraction(
        TileOperand("a", 0, (4 * k, 4 * k * batch), (0, 4)),
        TileOperand("w", 0, k=(0, 4), n=4 * k),
        TileOperand("out", 0, (4 * n * time, 4 * n), n=4),
        (batch * time, n, k),
        time,
        k,
        CONSTANTS,
        TileOperand("row", 0, n=4),
    )
    found = launched(c, {"a": a, "w": w, "row": row}, np.zeros((batch, time, n), "float32"))
    right = np.einsum("tbk,nk->btn", a.astype(float), w) + row
    np.testing.assert_allclose(found, right, atol=2e-5)
    more = launched(
        Contraction(c.a, c.w, c.out, c.counts, c.m_inner, c.k_inner, ADDS),
        {"a": a, "w": w, ZeroRow(): row},
        found,
    )
    np.testing.assert_allclose(more, 2 * right - row, atol=4e-5)


def test_blocks_that_share_k(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm_tiles, "PART", 16)
    rng = np.random.default_rng(0)
    batch, time, m, n = 3, 17, 7, 9
    a, d = (rng.standard_normal((batch, time, x)).astype("float32") for x in (m, n))
    c = Contraction(
        TileOperand("a", 0, (0, 4), (4 * m * time, 4 * m)),
        TileOperand("d", 0, k=(4 * n * time, 4 * n), n=4),
        TileOperand("out", 0, (0, 4 * n), n=4),
        (m, n, batch * time),
        m,
        time,
        ZEROS,
    )
    assert gemm_tiles.launch_of(c, 4, 8).parts == 4
    found = launched(c, {"a": a, "d": d, ZeroRow(): a}, np.zeros((m, n), "float32"))
    np.testing.assert_allclose(found, np.einsum("btm,btn->mn", a.astype(float), d), atol=1e-5)
