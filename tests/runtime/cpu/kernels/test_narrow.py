"""Narrow weights: what packers write, and cores of them against NumPy, bit for bit across tiles."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from rnncc.common.machine import Machine, host
from rnncc.runtime.common.memory_pool import aligned
from rnncc.runtime.common.weight_formats import BFLOAT16, GROUP, INT8, STORAGES, Storage
from rnncc.runtime.cpu.kernels.microkernels import SEGMENT_WORDS, cores
from rnncc.runtime.cpu.kernels.quantized_packing import PACKERS
from tests.support.rounding import bfloat16, int8, quantized

CORE = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)
SMALL = Machine(vector_bytes=32, registers=16)
LARGE = Machine(vector_bytes=64, registers=32)
EDGES = np.array(
    [0.0, -0.0, 1.0, 1.00390625, 1.01171875, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan, 1e-45, 2.5],
    np.float32,
)


def laid(storage: Storage, w: np.ndarray, span: int) -> np.ndarray:
    """[k, lanes] as cores read it, in NumPy: [tile][step] of bytes."""
    parts = []
    for tile in range(w.shape[1] // span):
        own = np.ascontiguousarray(w[:, tile * span : (tile + 1) * span])
        for k in range(0, len(own), storage.depth):
            step = np.zeros((storage.depth, span), np.float32)
            step[: len(own) - k] = own[k : k + storage.depth]
            if storage is BFLOAT16:
                words = bfloat16(step).view(np.uint32)
                parts.append((words[0] >> 16 | words[1]).tobytes())
            else:
                q, scales = quantized(step)
                parts.append(scales.tobytes() + q.tobytes())
    return np.frombuffer(b"".join(parts), np.uint8)


def described(w: np.ndarray, storage: Storage, blocks: int, units: int) -> np.ndarray:
    """[k1, k2, gates, units] packed by the compiled packer: the bytes of all tiles."""
    k1, k2, gates, lanes = w.shape
    assert units == lanes
    width = host().width("float32")
    row = gates * blocks * host().vector_bytes
    tiles = -(-units // (blocks * width))
    out = aligned((tiles * k1 * storage.bytes(k2, row),), np.uint8, zero=True)
    desc = [k1, k2, gates, blocks, units]
    for g in range(gates):
        desc += [w.ctypes.data + g * w.strides[2], w.strides[0], w.strides[1], w.strides[3]]
    block = np.array(desc, np.int64)
    packer = PACKERS[storage.name]
    assert packer is not None
    CORE(packer.address)(out.ctypes.data, block.ctypes.data, 0, tiles, 0, 0, 0, 0)
    return out


def filled(shape: tuple[int, ...], seed: int) -> np.ndarray:
    array = aligned(shape, np.float32)
    array[...] = np.random.default_rng(seed).standard_normal(shape)
    return array


# ---- packing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("storage", [BFLOAT16, INT8], ids=lambda s: s.name)
@pytest.mark.parametrize("k", [1, 2, GROUP, GROUP + 1, 2 * GROUP - 3])
def test_packers_write_what_numpy_does(storage: Storage, k: int, turned: bool) -> None:
    """Odd depths, a last vector that isn't full, two unit blocks, weights of any strides."""
    width, k1, gates = host().width("float32"), 2, 3
    units = 4 * width - 3
    w = filled((k1, k, gates, units), 1)
    w[0, :, 1, 0] = 0  # a column without a largest weight
    if turned:
        w = np.asfortranarray(w)
    found = described(w, storage, 2, units)
    padded = np.zeros((k1, k, gates, 4 * width), np.float32)
    padded[..., :units] = w
    # [k1, k, gates, tile, block, width] -> [tile][k1][k][block, gate, width]
    order = padded.reshape(k1, k, gates, 2, 2, width).transpose(3, 0, 1, 4, 2, 5)
    rows = order.reshape(2, k1, k, -1)
    right = [laid(storage, rows[t, i], rows.shape[-1]) for t in range(2) for i in range(k1)]
    np.testing.assert_array_equal(found, np.concatenate(right))


def test_bfloat16_at_the_edges() -> None:
    """Ties to even, infinity, NaN, the largest and the smallest."""
    width = host().width("float32")
    w = np.resize(EDGES, (1, 1, 1, 2 * width)).astype(np.float32)
    words = described(w, BFLOAT16, 1, 2 * width).view(np.uint32)
    found = (words << np.uint32(16)).view(np.float32)
    np.testing.assert_array_equal(found, bfloat16(w).ravel())
    got = dict(zip(EDGES.tolist(), found.tolist(), strict=False))
    assert got[1.00390625] == 1.0 and got[1.01171875] == 1.015625  # halfway, to the even one
    assert got[float(np.float32(3.4e38))] == np.inf
    assert np.isnan(found[9]) and np.isinf(found[7:9]).all()


def test_int8_of_what_is_not_finite() -> None:
    """Its lane is NaN in that group; others aren't touched."""
    width = host().width("float32")
    w = filled((1, GROUP, 1, width), 2)
    w[0, 3, 0, 1], w[0, 5, 0, 2] = np.nan, np.inf
    out = described(w, INT8, 1, width)
    scales = out[: width * 4].view(np.float32)
    q = out[width * 4 :].view(np.int8).reshape(GROUP, width)
    assert not np.isfinite(scales[1:3]).any() and not q[:, 1:3].any()  # 0 * that is NaN
    others = [0, *range(3, width)]
    np.testing.assert_array_equal(q[:, others], quantized(w[0, :, 0, others].T)[0])


# ---- cores -------------------------------------------------------------------------------------


class Case:
    """init + a @ w1 + a @ w2 for 24 rows: two segments of depths that end within a step."""

    def __init__(self, storage: Storage, lanes: int) -> None:
        self.storage, self.rows, self.lanes = storage, 24, lanes
        self.a = [filled((self.rows, 2 * GROUP + 5), 1), filled((self.rows, 3), 2)]
        self.w = [filled((a.shape[1], lanes), 3 + i) for i, a in enumerate(self.a)]
        self.init = filled((self.rows, lanes), 9)

    def expected(self) -> np.ndarray:
        whole = self.init.astype("d")
        for a, w in zip(self.a, self.w, strict=True):
            r = bfloat16(w) if self.storage is BFLOAT16 else int8(w)
            whole = whole + a.astype("d") @ r.astype("d")
        return whole

    def run(self, machine: Machine, rows: int, vectors: int) -> np.ndarray:
        core = CORE(cores("float32", machine, self.storage).address(rows, vectors))
        span = vectors * machine.width("float32")
        row = vectors * machine.vector_bytes
        segs = aligned((2, SEGMENT_WORDS), np.int64)
        keep: list[Any] = []
        for seg, a, w in zip(segs, self.a, self.w, strict=True):
            packed = aligned((self.lanes // span * self.storage.bytes(len(w), row),), np.uint8)
            packed[...] = laid(self.storage, w, span)
            keep.append(packed)
            tile = self.storage.bytes(len(w), row)
            seg[:] = a.ctypes.data, a.strides[0], 4, packed.ctypes.data, row, tile, len(w)
        out = aligned((self.rows, self.lanes), np.float32)
        out[...] = np.nan
        stride = out.strides[0]
        for m in range(0, self.rows - rows + 1, rows):
            for tile in range(self.lanes // span):
                at = m * stride + tile * span * 4
                start, to = self.init.ctypes.data + at, out.ctypes.data + at
                core(segs.ctypes.data, 2, m, tile, start, stride, to, stride)
        return out[: self.rows // rows * rows, : self.lanes // span * span]


@pytest.mark.parametrize("storage", [BFLOAT16, INT8], ids=lambda s: s.name)
def test_cores_against_numpy_and_one_another(storage: Storage) -> None:
    case = Case(storage, 128)
    full = case.run(SMALL, 1, 1)
    np.testing.assert_allclose(full, case.expected(), atol=3e-5)
    for machine, rows, vectors in [
        (SMALL, 3, 4),
        (SMALL, 1, 8),
        (LARGE, 6, 4),
        (LARGE, 1, 8),
        (LARGE, 2, 1),
        (Machine(vector_bytes=16), 2, 4),
    ]:
        got = case.run(machine, rows, vectors)
        assert got.tobytes() == full[: got.shape[0], : got.shape[1]].tobytes(), (rows, vectors)


def test_far_cores_have_the_bits_of_near_ones() -> None:
    machine = host()
    for storage in STORAGES.values():
        near, far = cores("float32", machine, storage), cores("float32", machine, storage, True)
        assert (near.kernel(1, 8) is far.kernel(1, 8)) == (storage.name != "")
    # What they compute, whole calls tell: tests/runtime/cpu/test_storage.py.


def test_a_step_is_told_to_the_loops_around_cores() -> None:
    for storage in STORAGES.values():
        table = cores("float32", SMALL, storage).row_table(4)
        assert (table[0] & 0xFFFFFFFF, table[0] >> 32) == (storage.depth, storage.rows)
    assert (BFLOAT16.depth, BFLOAT16.rows) == (2, 1)
    assert INT8.bytes(GROUP, 256) == 256 + GROUP * 64 and INT8.bytes(GROUP + 1, 256) == 2 * 17 * 256
