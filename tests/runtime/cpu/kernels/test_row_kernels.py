"""Row helpers against NumPy in float64: odd sizes, garbage in the padding, NaN, strides."""

import numpy as np
import pytest

from rnncc.common.machine import Machine, host
from rnncc.runtime.common.memory_pool import Pool, aligned
from rnncc.runtime.cpu.kernels.row_kernels import rows

DTYPES = ("float32", "float64")
SIZES = (1, 3, 15, 16, 17, 64, 101)
OPERATIONS = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}


def padded(outer, n, dtype, seed=0):
    """[outer, n] inside rows padded to 16, the padding NaN."""
    whole = aligned((outer, -(-n // 16) * 16), dtype)
    whole[...] = np.nan
    view = whole[:, :n]
    view[...] = np.random.default_rng(seed).standard_normal((outer, n))
    return view


@pytest.mark.parametrize("kind", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_reduce_last(dtype, kind):
    for n in SIZES:
        src, dst = padded(5, n, dtype), aligned((5, 2), dtype)
        args = (src.ctypes.data, dst.ctypes.data, 5, n, src.strides[0], dst.strides[0])
        rows(dtype).call(f"reduce_last_{kind}", *args)
        want = OPERATIONS[kind](src.astype("d"), axis=1)
        np.testing.assert_allclose(dst[:, 0], want, atol=n * TOLERANCE[dtype])
        src[2, n // 2] = np.nan
        rows(dtype).call(f"reduce_last_{kind}", *args)
        assert list(np.isnan(dst[:, 0])) == [False, False, True, False, False]


def test_reduce_last_has_a_fixed_order():
    """Element i goes to lane i % 16 in order, then lanes fold by halves: on every machine."""
    src = padded(1, 1001, "float32") * 1000
    lanes = np.zeros(16, "float32")
    for start in range(0, 1001, 16):
        part = src[0, start : start + 16]
        lanes[: part.size] += part
    while lanes.size > 1:
        lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
    for machine in (host(), Machine(vector_bytes=64, registers=32), Machine(vector_bytes=16)):
        dst = aligned((1,), "float32")
        args = (src.ctypes.data, dst.ctypes.data, 1, 1001, 0, 0)
        rows("float32", machine).call("reduce_last_sum", *args)
        assert dst[0] == lanes[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dot_last(dtype):
    for n in SIZES:
        a, b, dst = padded(3, n, dtype), padded(3, n, dtype, 1), aligned((3,), dtype)
        args = (a.ctypes.data, b.ctypes.data, dst.ctypes.data, 3, n, a.strides[0], b.strides[0])
        rows(dtype).call("dot_last", *args, dst.itemsize)
        want = (a.astype("d") * b.astype("d")).sum(1)
        np.testing.assert_allclose(dst, want, atol=n * TOLERANCE[dtype])


@pytest.mark.parametrize("kind", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_reduce_axis(dtype, kind):
    for inner in SIZES:
        src = padded(2 * 7, inner, dtype)
        row = src.strides[0]
        dst = aligned((2, inner + 4), dtype)
        dst[...] = 77
        args = (src.ctypes.data, dst.ctypes.data, 2, 7, inner, 7 * row, row, dst.strides[0])
        rows(dtype).call(f"reduce_axis_{kind}", *args)
        want = OPERATIONS[kind](src.astype("d").reshape(2, 7, inner), axis=1)
        np.testing.assert_allclose(dst[:, :inner], want, atol=10 * TOLERANCE[dtype])
        assert (dst[:, inner:] == 77).all()


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_cumsum_last(dtype, reverse):
    for n in SIZES:
        src, dst = padded(3, n, dtype), padded(3, n, dtype)
        args = (src.ctypes.data, dst.ctypes.data, 3, n, src.strides[0], dst.strides[0], reverse)
        rows(dtype).call("cumsum_last", *args)
        step = -1 if reverse else 1
        assert (dst == src[:, ::step].cumsum(1, dtype=dtype)[:, ::step]).all()


def describe(src, dst):
    desc = aligned((1 + 3 * src.ndim,), np.int64)
    desc[:] = src.ndim, *src.shape, *src.strides, *dst.strides
    return desc


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape",
    [(5,), (37,), (3, 40), (37, 19), (3, 16, 33), (2, 3, 4, 5), (2, 1, 3, 2, 2, 3), (0, 4)],
)
def test_strided_copies(dtype, shape):
    source = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    for src in (source, source.T, source[..., ::-1], np.moveaxis(source, -1, -min(2, source.ndim))):
        dst = np.full(src.shape, 5, dtype)
        desc = describe(src, dst)
        rows(dtype).call("copy_strided", src.ctypes.data, dst.ctypes.data, desc.ctypes.data)
        assert (dst == src).all()
        rows(dtype).call("add_strided", src.ctypes.data, dst.ctypes.data, desc.ctypes.data)
        assert (dst == src + src).all()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("units, gates, blocks", [(1, 4, 1), (7, 1, 2), (33, 4, 1), (64, 3, 2)])
def test_pack(units, gates, blocks, transposed):
    dtype, width = "float32", host().width("float32")
    k1, k2 = 3, 37
    shape = (units, gates, k1, k2) if transposed else (k1, k2, gates, units)
    source = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    # As [gate, k1, k2, unit] whatever the layout.
    view = source.transpose(1, 2, 3, 0) if transposed else source.transpose(2, 0, 1, 3)
    tiles = -(-units // (blocks * width))
    desc = aligned((5 + 4 * gates,), np.int64)
    desc[:5] = k1, k2, gates, blocks, units
    for g in range(gates):
        desc[5 + 4 * g] = source.ctypes.data + g * view.strides[0]
        desc[6 + 4 * g : 9 + 4 * g] = view.strides[1:]
    packed = aligned((tiles, k1 * k2, blocks, gates, width), dtype)
    packed[...] = np.nan
    rows(dtype).call("pack", packed.ctypes.data, desc.ctypes.data, 0, tiles)
    want = np.zeros((gates, k1 * k2, tiles * blocks * width), dtype)
    want[:, :, :units] = view.reshape(gates, k1 * k2, units)
    want = want.reshape(gates, k1 * k2, tiles, blocks, width).transpose(2, 1, 3, 0, 4)
    assert (packed == want).all()


def test_unknown_helpers_are_refused():
    with pytest.raises(ValueError, match="dot_last"):
        rows("float32").address("dot")


def test_memory():
    for shape in ((), (1,), (3, 5), 7):
        array = aligned(shape, "float32", zero=True)
        assert array.ctypes.data % 64 == 0 and not array.any()
    pool = Pool(keep=1)
    with pool.borrow(100) as first:
        assert pool.take(100) is not first
    assert pool.take(100) is first
