"""Vector operations against NumPy: errors in ulp, special values, the same bits at every width."""

import math
from functools import cache

import numpy as np
import pytest

from rnncc.common.machine import Machine
from rnncc.runtime.common.memory_pool import aligned
from rnncc.runtime.cpu.intrinsics.simd import LIBRARY, vectors
from rnncc.runtime.jit.module_cache import text_module

WIDTHS = {"float32": (8, 4, 16), "float64": (4, 2, 8)}

HEADER = '''"""A loop over one vector function, for tests."""

from rnncc.runtime.jit.kernel import core
from rnncc.runtime.cpu.intrinsics.kernel_namespace import vectors

v = vectors("{dtype}", {width})
'''
LOOP = """

@core
def f_{name}(x, y, z, out, n, _5, _6, _7):
    for i in range(0, n * v.size, v.bytes):
        a, b, c = v.load(x + i), v.load(y + i), v.load(z + i)
        v.store(out + i, {expression})
"""
# name: (expression, oracle, ulp allowed in float32, in float64)
CASES = {
    "exp": ("v.exp(a)", lambda a, b, c: np.exp(a), 1.5, 1.5),
    "expm1": ("v.expm1(a)", lambda a, b, c: np.expm1(a), 2, 2.5),
    "log": ("v.log(a)", lambda a, b, c: np.log(a), 1, 1),
    "log1p": ("v.log1p(a)", lambda a, b, c: np.log1p(a), 1, 1),
    "tanh": ("v.tanh(a)", lambda a, b, c: np.tanh(a), 5.5, 3),
    "softplus": ("v.softplus(a)", lambda a, b, c: np.logaddexp(0, a), 2.5, 2.5),
    "log_sigmoid": ("v.log_sigmoid(a)", lambda a, b, c: -np.logaddexp(0, -a), 2.5, 2.5),
    "sin": ("v.sin(a)", lambda a, b, c: np.sin(a), 1, 1),
    "cos": ("v.cos(a)", lambda a, b, c: np.cos(a), 1, 1),
    "tan": ("v.tan(a)", lambda a, b, c: np.tan(a), 3, 3),
    "exp2": ("v.exp2(a)", lambda a, b, c: np.exp2(a), 1.5, 1.5),
    "log2": ("v.log2(a)", lambda a, b, c: np.log2(a), 2, 2),
    "log10": ("v.log10(a)", lambda a, b, c: np.log10(a), 2, 2),
    "sinh": ("v.sinh(a)", lambda a, b, c: np.sinh(a), 3.5, 3.5),
    "cosh": ("v.cosh(a)", lambda a, b, c: np.cosh(a), 3.5, 3.5),
    "arcsin": ("v.arcsin(a)", lambda a, b, c: np.arcsin(a), 2, 2),
    "arccos": ("v.arccos(a)", lambda a, b, c: np.arccos(a), 2, 2),
    "arctan": ("v.arctan(a)", lambda a, b, c: np.arctan(a), 3, 3),
    "arctan2": ("v.arctan2(a, b)", lambda a, b, c: np.arctan2(a, b), 3, 3),
    "arcsinh": ("v.arcsinh(a)", lambda a, b, c: np.arcsinh(a), 3, 3),
    "arccosh": ("v.arccosh(a)", lambda a, b, c: np.arccosh(a), 3, 3),
    "arctanh": ("v.arctanh(a)", lambda a, b, c: np.arctanh(a), 3, 3),
    "erfc": ("v.erfc(a)", lambda a, b, c: np.vectorize(math.erfc)(a), 1, 1),
    "pow": ("v.pow(v.abs(a), b)", lambda a, b, c: np.abs(a) ** b, 1, 1),
    "erf": ("v.erf(a)", lambda a, b, c: np.vectorize(math.erf)(a), 1, 1),
    "sqrt": ("v.sqrt(a)", lambda a, b, c: np.sqrt(a), 0.5, 0.5),
    "rsqrt": ("v.rsqrt(v.abs(a))", lambda a, b, c: 1 / np.sqrt(np.abs(a)), 1.5, 1.5),
    "floor": ("v.floor(a)", lambda a, b, c: np.floor(a), 0, 0),
    "ceil": ("v.ceil(a)", lambda a, b, c: np.ceil(a), 0, 0),
    "round": ("v.round(a)", lambda a, b, c: np.round(a), 0, 0),
    "trunc": ("v.trunc(a)", lambda a, b, c: np.trunc(a), 0, 0),
    "mod": ("v.mod(a, b)", lambda a, b, c: np.mod(a, b), 0.5, 0.5),
    "floor_divide": ("v.floor_divide(a, b)", lambda a, b, c: np.floor_divide(a, b), 1, 1),
    "sign": ("v.sign(a)", lambda a, b, c: np.sign(a), 0, 0),
    "minimum": ("v.minimum(a, b)", lambda a, b, c: np.minimum(a, b), 0, 0),
    "maximum": ("v.maximum(a, b)", lambda a, b, c: np.maximum(a, b), 0, 0),
    "divide": ("1 / -a", lambda a, b, c: 1 / -a, 0.5, 0.5),
    "scalars": ("v.maximum(a, 3) - 2.5", lambda a, b, c: np.maximum(a, 3) - 2.5, 0.5, 0.5),
    "choose": (
        "v.select((a < b) & ~(c >= 1.0) | (c != c), a, 3.0)",
        lambda a, b, c: np.where((a < b) & ~(c >= 1) | (c != c), a, 3.0),
        0,
        0,
    ),
}


def inputs(dtype):
    """Every magnitude, both signs, the edges of exp and tanh, and the special values."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, info.max, -info.max, info.tiny, info.tiny / 8]
    edges += [88.72, 88.73, -87.4, -103.9, -104.1, 709.7, 709.9, -708.5, -745.0, -746.0]
    edges += [7.9, -7.9, 8.0, 9.0, 9.1, 20.0, -20.0, 0.5, 1.0, -1.0, 2.0]
    parts = [rng.standard_normal(1500) * scale for scale in (1e-6, 1e-2, 1.0, 5.0, 30.0, 300.0)]
    parts += [np.geomspace(info.tiny / 16, 1e35, 1500), -np.geomspace(info.tiny, 1e35, 1500)]
    a = np.concatenate([*parts, edges]).astype(dtype)
    arrays = [aligned(-(-a.size // 16) * 16, dtype, zero=True) for _ in range(3)]
    arrays[0][: a.size] = a
    arrays[1][:] = np.roll(arrays[0], 7)
    arrays[1][: a.size : 3] = rng.standard_normal(len(arrays[1][: a.size : 3])) * 2
    arrays[2][:] = np.roll(arrays[0], 31)
    return arrays


@cache
def module(dtype, width):
    body = "".join(LOOP.format(name=name, expression=case[0]) for name, case in CASES.items())
    text = HEADER.format(dtype=dtype, width=width) + body
    return text_module(f"test_simd_{dtype}x{width}", text)


def run(dtype, width, name, arrays):
    import ctypes

    entry = getattr(module(dtype, width), f"f_{name}")
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)(entry.address)
    out = aligned(arrays[0].shape, dtype)
    call(*(array.ctypes.data for array in arrays), out.ctypes.data, out.size, 0, 0, 0)
    return out


def ulps(got, exact, dtype):
    """Error in units of the exact result's last place; special values must match outright."""
    rounded = exact.astype(dtype)
    special = ~np.isfinite(rounded)
    np.testing.assert_array_equal(got[special], rounded[special])
    assert np.isfinite(got[~special]).all()
    spacing = np.spacing(np.maximum(np.abs(rounded), np.finfo(dtype).tiny)).astype(np.longdouble)
    with np.errstate(invalid="ignore"):
        error = np.abs(got.astype(np.longdouble) - exact) / spacing
    return np.where(special, 0, error)


@pytest.mark.parametrize("dtype", WIDTHS)
@pytest.mark.parametrize("name", CASES)
def test_against_numpy(dtype, name):
    arrays = inputs(dtype)
    expression, oracle, *allowed = CASES[name]
    got = run(dtype, WIDTHS[dtype][0], name, arrays)
    with np.errstate(all="ignore"):
        exact = oracle(*(array.astype(np.longdouble) for array in arrays)).astype(np.longdouble)
        error = ulps(got, exact, dtype)
    worst = error.argmax()
    limit = allowed[dtype == "float64"]
    where = f"{expression}: {error[worst]} ulp at {arrays[0][worst]!r}"
    assert error[worst] <= limit * 1.0001, where


@pytest.mark.parametrize("dtype", WIDTHS)
def test_sigmoid(dtype):
    """2.5 or 3 ulp while 1 / sigmoid is finite; below, zero to within a denormal's size."""
    text = HEADER.format(dtype=dtype, width=WIDTHS[dtype][0])
    text += LOOP.format(name="sigmoid", expression="v.sigmoid(a)")
    made = text_module(f"test_sigmoid_{dtype}", text)
    import ctypes

    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)(made.f_sigmoid.address)
    (a, *_), out = inputs(dtype), aligned(inputs(dtype)[0].shape, dtype)
    call(a.ctypes.data, a.ctypes.data, a.ctypes.data, out.ctypes.data, a.size, 0, 0, 0)
    with np.errstate(all="ignore"):
        exact = 1 / (1 + np.exp(-a.astype(np.longdouble)))
        error = ulps(out, exact, dtype)
    inside = a > (-87 if dtype == "float32" else -708)
    assert error[inside].max() <= (2.5 if dtype == "float32" else 3)
    assert (out[~inside & ~np.isnan(a)] < 4 * np.finfo(dtype).tiny).all()


@pytest.mark.parametrize(
    ("expression", "oracle", "limit"),
    [
        ("v.tanh(a)", np.tanh, 5.1),
        ("v.sigmoid(a)", lambda a: 1 / (1 + np.exp(-a)), 2.5),
        ("v.exp(a)", np.exp, 1.5),
    ],
    ids=["tanh", "sigmoid", "exp"],
)
def test_errors_over_a_dense_sample(expression, oracle, limit):
    """Every 200th float32 from where they are exact to where they are flat, of both signs."""
    low, high = (int(np.float32(x).view(np.uint32)) for x in (1e-4, 87.0))
    x = np.arange(low, high, 200, np.uint32).view(np.float32)
    a = aligned(-(-2 * x.size // 16) * 16, "float32", zero=True)
    a[: x.size], a[x.size : 2 * x.size] = x, -x
    out = aligned(a.shape, "float32")
    text = HEADER.format(dtype="float32", width=16)
    text += LOOP.format(name="dense", expression=expression)
    made = text_module(f"test_dense_{expression[2:-3]}", text)
    import ctypes

    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)(made.f_dense.address)
    call(a.ctypes.data, a.ctypes.data, a.ctypes.data, out.ctypes.data, a.size, 0, 0, 0)
    exact = oracle(a.astype(np.float64))
    error = np.abs(out - exact) / np.spacing(np.abs(exact).astype(np.float32))
    worst = error.argmax()
    assert error[worst] <= limit, f"{error[worst]} ulp at {a[worst]!r}"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", WIDTHS)
def test_same_bits_at_every_width(dtype, name):
    arrays = inputs(dtype)
    first, *others = (run(dtype, width, name, arrays) for width in WIDTHS[dtype])
    for other in others:
        # Which NaN comes out, its sign among it, is for the processor to choose.
        np.testing.assert_array_equal(np.isnan(first), np.isnan(other))
        assert first[~np.isnan(first)].tobytes() == other[~np.isnan(other)].tobytes()


def test_signed_zero_survives_odd_functions():
    arrays = inputs("float32")
    arrays[0][:2] = 0.0, -0.0
    for name in ("tanh", "expm1", "log1p", "erf", "sin"):
        assert list(np.signbit(run("float32", 8, name, arrays)[:2])) == [False, True], name


@pytest.mark.parametrize("dtype", WIDTHS)
def test_bounded_functions_stay_in_their_bounds(dtype):
    """And reach them where NumPy does, so 1 - tanh(x)**2 is never negative."""
    arrays = inputs(dtype)
    arrays[0][:] = np.linspace(4, 60, arrays[0].size)
    arrays[0][-1] = np.inf
    top = run(dtype, WIDTHS[dtype][0], "tanh", arrays)
    assert top.max() == 1 and (top[arrays[0] > 20] == 1).all()
    arrays[0][:] *= -1
    assert (run(dtype, WIDTHS[dtype][0], "tanh", arrays) == -top).all()


def test_library_functions_are_named():
    assert {"erf", "sin", "pow"} <= LIBRARY
    assert not LIBRARY & {"exp", "tanh", "sigmoid", "log"}


@pytest.mark.parametrize("wrong", [("int32", 8), ("float32", 6), ("float32", 0)])
def test_other_types_are_refused(wrong):
    with pytest.raises(ValueError):
        vectors(*wrong)


def test_machine_is_a_value():
    assert Machine(vector_bytes=64, registers=32).width("float32") == 16
    assert Machine(vector_bytes=16).width("float64") == 2
    with pytest.raises(ValueError, match="vector_bytes"):
        Machine(vector_bytes=24)
