"""Every op of the IR has its operators of ONNX, or is refused by name."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx isn't installed")
pytest.importorskip("onnxruntime", reason="onnxruntime isn't installed")

from rnncc import compile_text
from rnncc.emit.onnx.arrays import ARRAYS
from rnncc.emit.onnx.graph import GraphWriter, model_of
from rnncc.emit.onnx.pointwise import POINTWISE
from rnncc.emit.onnx.program import NoOnnxForm, ProgramWriter
from rnncc.frontend.parse import parse
from rnncc.ir.opdef import OPS, Kind
from rnncc.ir.program import Type
from rnncc.lowering.lower import lower
from tests.support.in_onnx.exported import graph, session

REFUSED = {"uniform", "sum_over", "strided_pad"}
CONSTANTS = {"full", "extent"}  # of a graph, whatever made them
GONE = {"surrogate"}  # by `passes.settle`
# What onnxruntime lacks in float64.
ONLY_FLOAT32 = {"erf", "erfc", "arcsin", "arccos", "arctan", "arctan2"}
BOOLS = {"and", "or", "not"}
DOMAINS = {
    "log log2 log10 sqrt rsqrt": lambda x: abs(x) + 0.01,
    "log1p": lambda x: abs(x) - 0.5,
    "arcsin arccos arctanh": lambda x: np.tanh(x) * 0.99,
    "arccosh": lambda x: abs(x) + 1,
}
EDGES = [0, -0.0, 1e-6, -1e-6, 0.5, -0.5, 1, -1, 2.5, -2.5, 3, -3, 1.5, 17, -17, 60, -60]


def test_every_op_has_one_or_is_refused() -> None:
    named = POINTWISE.keys() | ARRAYS.keys() | REFUSED | CONSTANTS | GONE
    assert named == OPS.keys()
    assert not (POINTWISE.keys() | ARRAYS.keys()) & REFUSED
    assert all(OPS[n].kind is Kind.POINTWISE for n in POINTWISE)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pointwise_ops_are_numpys(dtype: str) -> None:
    """All of them in one graph; maxima and sums are relative to what is larger than 1."""
    w, rng = GraphWriter(dtype), np.random.default_rng(3)
    names = [n for n in POINTWISE if dtype == "float32" or n not in ONLY_FLOAT32]
    feed, inputs, outputs, right = {}, [], [], []
    for name in names:
        op, xs = OPS[name], []
        count = 1 + op.expr.count("{1}") + op.expr.count("{2}")
        for place in range(count):
            x = np.r_[EDGES, rng.standard_normal(200) * 3]
            x = np.roll(x, 5 * place)
            if name in ("pow", "mod", "floor_divide"):
                x = abs(x) % 4 + 0.01 if place == 0 and name == "pow" else x + 0.015
            for some, domain in DOMAINS.items():
                x = domain(x) if name in some.split() else x
            kind = "bool" if name in BOOLS or (name == "where" and not place) else dtype
            key = w.name(f"{name}_{place}")
            feed[key] = x > 0 if kind == "bool" else x.astype(dtype)
            inputs.append(w.value(key, kind, ["n"]))
            xs.append(key)
        kind = op.infer({}, *[Type()] * count).dtype.replace("float", dtype)
        outputs.append(w.value(w.last(POINTWISE[name](w, *xs), name), kind, ["n"]))
        with np.errstate(all="ignore"):
            right.append(op.numpy(*(_wide(feed[k]) for k in xs)))
    model = model_of(w.graph("g", inputs, outputs), "", "", "")
    found = session(model).run(None, feed)
    off = {}
    for name, array, expected in zip(names, found, right):
        with np.errstate(all="ignore"):
            error = abs(_wide(array) ^ expected if array.dtype == bool else array - expected)
            error = error / np.maximum(abs(expected), 1)
        same = (array == expected) | (np.isnan(array) & np.isnan(expected))
        off[name] = np.where(same, 0, error).max()
    most = 5e-6 if dtype == "float32" else 2e-14
    assert not {n: e for n, e in off.items() if not e <= most}


def _wide(array: np.ndarray) -> np.ndarray:
    return array if array.dtype == bool else array.astype(np.float64)


@pytest.mark.parametrize("name", ["log1p", "expm1", "log_sigmoid", "sinh", "arcsinh"])
def test_small_arguments_keep_their_digits(name: str) -> None:
    w = GraphWriter("float32")
    x = np.array([1e-7, -1e-7, 3e-5, -2e-4, 1e-20, 0.3], "f")
    x = x - 20 if name == "log_sigmoid" else x
    y = w.last(POINTWISE[name](w, w.name("x")), "y")
    graph = w.graph("g", [w.value("x", "float32", ["n"])], [w.value(y, "float32", ["n"])])
    (found,) = session(model_of(graph, "", "", "")).run(None, {"x": x})
    np.testing.assert_allclose(found, OPS[name].numpy(x.astype("f8")), rtol=1e-6)


def test_what_draws_is_refused_with_its_line() -> None:
    text = "cell: Draws\nunits: size\nx: input[units]\nh: state[units]\np: rate = 0.5\n"
    spec = parse(text + "h[t] = drop(x[t], p) + h[t-1]\nreturn h[t]\n")
    program = lower(spec, training=True, active_rates=frozenset({"p"}))
    w = GraphWriter("float32")
    writer = ProgramWriter(w, program, {"units": 3}, {"p": np.array(0.5)})
    with pytest.raises(NoOnnxForm, match=r"uniform of Draws \(line 6\) draws random numbers"):
        writer.results({n: w.name(n) for n in ("x", "h", "seed")})


def test_a_step_that_reads_no_sequence_runs_as_often() -> None:
    """A Scan has to have something to go along."""
    text = "cell: Counts\nunits: size\nx: input[units]\nn: state\nw: weight = ones\n"
    cls = compile_text(text + "n[t] = n[t-1] + w\nreturn n[t], x[t]\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = cls(units=2, return_sequences=True)
    layer.build((None, None, 2))
    model = graph(layer)
    n, x = session(model).run(None, {"x": np.ones((3, 5, 2), "f")})
    np.testing.assert_array_equal(n, np.tile(np.arange(1.0, 6), (3, 1)))
    np.testing.assert_array_equal(x, np.ones((3, 5, 2)))


def test_an_output_that_waits_for_no_step() -> None:
    """A Scan of last states alone, backwards."""
    text = "cell: Passes\nunits: size\nx: input[units]\nn: state[units]\n"
    cls = compile_text(text + "n[t] = 0.5 * n[t-1] + x[t]\nreturn 2 * x[t]\n")
    layer = cls(units=2, return_sequences=True, return_state=True, go_backwards=True)
    layer.build((None, None, 2))
    x = np.random.default_rng(1).standard_normal((3, 5, 2)).astype("f")
    for found, right in zip(session(graph(layer)).run(None, {"x": x}), layer(x)):
        np.testing.assert_allclose(found, right, atol=1e-6)
