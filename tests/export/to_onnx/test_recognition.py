"""Which cells are a node of ONNX: their equations say so, however they are written."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx isn't installed")
pytest.importorskip("onnxruntime", reason="onnxruntime isn't installed")

import rnncc
import rnncc.export
from rnncc import oracle
from rnncc.frontend.parse import parse, parse_file
from tests.support.in_onnx.exported import (
    filled,
    given,
    graph,
    kinds,
    session,
    worst,
)
from tests.support.paths import ROOT

SHAPE = (None, None, 4)


def made(file: str, dtype: str = "float32", **options: Any) -> Any:
    spec = parse_file(ROOT / "rnncc" / f"{file}.rnn")
    size = {"torch": "hidden_size"}.get(file.split("/")[0], "units")
    cls = oracle.layer_class(spec, dtype)
    return filled(cls(**{size: 3}, return_sequences=True, return_state=True, **options), SHAPE)


def node_of(model: Any) -> tuple[str, dict[str, Any]]:
    import onnx

    (node,) = [n for n in model.graph.node if n.op_type in ("LSTM", "GRU", "RNN", "Scan")]
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    found.pop("hidden_size", None)
    return node.op_type, found


def said(*names: str, **more: Any) -> dict[str, Any]:
    return {"activations": [n.encode() for n in names], **more}


NODES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("cells/lstm", {}, "LSTM", {}),
    ("cells/peephole_lstm", {}, "LSTM", {}),
    ("cells/coupled_lstm", {}, "LSTM", {"input_forget": 1}),
    ("cells/gru", {}, "GRU", {"linear_before_reset": 1}),
    ("cells/gru", {"reset_after": False}, "GRU", {}),
    ("cells/gru", {"use_bias": False}, "GRU", {"linear_before_reset": 1}),
    ("cells/simple_rnn", {}, "RNN", {}),
    ("torch/lstm", {}, "LSTM", {}),
    ("torch/gru", {}, "GRU", {"linear_before_reset": 1}),
    ("torch/rnn", {}, "RNN", {}),
    ("models/onnx/lstm", {"peepholes": True}, "LSTM", {}),
    ("cells/simple_rnn", {"activation": "linear"}, "RNN",
     said("Affine", activation_alpha=[1.0], activation_beta=[0.0])),
    ("cells/simple_rnn", {"activation": "relu"}, "RNN", said("Relu")),
    ("cells/simple_rnn", {"activation": "lambda v: maximum(0.0, v)"}, "RNN", said("Relu")),
    ("cells/simple_rnn", {"activation": "leaky_relu"}, "RNN",
     said("LeakyRelu", activation_alpha=[pytest.approx(0.2)])),
    ("cells/simple_rnn", {"activation": "elu"}, "RNN", said("Elu", activation_alpha=[1.0])),
    ("cells/simple_rnn", {"activation": "softsign"}, "RNN", said("Softsign")),
    ("cells/simple_rnn", {"activation": "softplus"}, "RNN", said("Softplus")),
    ("cells/simple_rnn", {"activation": "lambda v: tanh(clip(v, -0.5, 0.5))"}, "RNN",
     {"clip": 0.5}),
    ("cells/lstm", {"recurrent_activation": "hard_sigmoid"}, "LSTM",
     said("HardSigmoid", "Tanh", "Tanh", activation_alpha=[pytest.approx(1 / 6)],
          activation_beta=[0.5])),
    # The slope before the weights goes into them; that of the output has to stay.
    ("cells/lstm", {"activation": "lambda v: 1.7 * tanh(0.6 * v)"}, "LSTM",
     said("Sigmoid", "ScaledTanh", "ScaledTanh",
          activation_alpha=pytest.approx([1.7, 1.7]), activation_beta=pytest.approx([1.0, 0.6]))),
    ("cells/gru", {"recurrent_activation": "lambda v: clip(0.2 * v + 0.5, 0.0, 1.0)"}, "GRU",
     said("HardSigmoid", "Tanh", activation_alpha=[1.0], activation_beta=[0.0],
          linear_before_reset=1)),
    ("cells/lstm", {"activation": "swish"}, "Scan", {}),
    # Bounded in one function alone; of all, onnxruntime leaves out one of an LSTM's.
    ("cells/lstm", {"activation": "lambda v: tanh(clip(v, -1.0, 1.0))"}, "Scan", {}),
    *((f"cells/{n}", {}, "Scan", {}) for n in ("indrnn", "light_gru", "minimal_gated_unit", "sru")),
    ("cells/projected_lstm", {"projection": 3}, "Scan", {}),
    ("cells/layer_norm_lstm", {}, "Scan", {}),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(NODES)), ids=lambda n: f"{n}-{NODES[n][0]}")
def test_what_is_a_node(number: int) -> None:
    file, options, operator, attributes = NODES[number]
    layer = made(file, **options)
    model = graph(layer)
    found = node_of(model)
    assert found[0] == operator
    if operator != "Scan":
        assert found[1] == attributes
    assert worst(layer, model, ((3, 8),)) <= 1e-6


HEAD = "cell: Other\nfeatures: size\nunits: size\nx: input[features]\nh: state[units]\n"
# Inputs and states in one matrix, matrices transposed or of three axes, signs and scales.
BEFORE = """W: weight[features + units, units] = zeros
V: weight[units, features + units] = zeros
U: weight[units, units] = zeros
K: weight[units, features] = zeros
b: weight[units] = zeros
z = sigmoid(concat(x[t], h[t-1]) @ W + b)
r = sigmoid(0.5 * (V[:, :features] @ x[t] + V[:, features:] @ h[t-1]))
"""
BEHIND = """W: weight[features, 2, units] = zeros
V: weight[units, units, 2] = zeros
U: weight[features, units] = zeros
b: weight[units] = zeros
q = reshape(h[t-1] @ reshape(V, (units, 2 * units)), (units, 2))
p = einsum("k,kgu->gu", x[t], W) + transpose(q)
z = sigmoid(p[0])
h[t] = z * h[t-1] + tanh(x[t] @ U + sigmoid(p[1]) * (h[t-1] @ V[:, :, 0] + b)) * (-z + 1)
"""
INNER = "tanh(K[:, ::-1] @ x[t] - (h[t-1] * r) @ U)"


@pytest.mark.parametrize(
    "text, operator",
    [
        (BEHIND, "GRU"),
        (BEFORE + f"h[t] = {INNER} * (1 - z) - (-h[t-1]) * z\n", "GRU"),
        (BEFORE + f"h[t] = -(z * -h[t-1] - {INNER} * (1 - z))\n", "GRU"),
        # What the equations don't multiply out isn't multiplied out here.
        (BEFORE + f"h[t] = h[t-1] + (1 - z) * ({INNER} - h[t-1])\n", "Scan"),
    ],
)
def test_other_ways_to_write_a_gru(text: str, operator: str) -> None:
    spec = parse(f"{HEAD}{text}return h[t]\n")
    layer = filled(oracle.layer_class(spec, "float32")(units=3, return_sequences=True), SHAPE)
    model = graph(layer)
    assert kinds(model) == [operator]
    assert worst(layer, model, ((3, 8),)) <= 1e-6


TRACED = [
    ("h[t] = tanh(x[t] @ W + h[t-1] @ U)\n", True),
    ("h[t] = tanh(x[t] @ W + h[t-1] @ transpose(U) + b[1] + b[0])\n", True),
    ("h[t] = tanh(x[t] @ (2 * W) + h[t-1] @ U)\n", True),  # W + W
    # Not elements of weights, more than two of them, or not in blocks.
    ("h[t] = tanh(x[t] @ (3 * W) + h[t-1] @ U)\n", False),
    ("h[t] = tanh(x[t] @ A @ W + h[t-1] @ U)\n", False),
    ("h[t] = tanh(x[t] @ W + h[t-1] @ (U + 1))\n", False),
    ("h[t] = tanh(x[t] @ W + h[t-1] @ U + b[0] + b[1] + b[2])\n", False),
    ("h[t] = tanh(x[t] @ W + h[t-1] @ U[::-1])\n", False),
    # A number of the function is a weight.
    ("h[t] = a * tanh(x[t] @ W + h[t-1] @ U)\n", False),
]


@pytest.mark.parametrize("number", range(len(TRACED)))
def test_weights_that_are_values(number: int) -> None:
    """Put together of them where they lie; else the cell is a Scan of them."""
    from rnncc.emit.onnx.graph import GraphWriter, model_of
    from rnncc.export.to_onnx.cell_graph import CellGraph, CellWriter, LayerInputs

    step, is_node = TRACED[number]
    shapes = {"W": "features, units", "U": "units, units", "A": "features, features"}
    shapes |= {"b": "3, units", "a": ""}
    declared = "".join(
        f"{n}: weight{f'[{s}]' if s else ''} = zeros\n"
        for n, s in shapes.items()
        if re.search(rf"\b{n}\b", step)
    )
    spec = parse(f"{HEAD}{declared}{step}return h[t]\n")
    layer = filled(oracle.layer_class(spec, "float32")(units=3, return_sequences=True), SHAPE)
    w, plain = GraphWriter("float32"), CellGraph.of(layer)
    names = {n: w.name(n) for n in layer.weights}
    inputs = [w.value(n, "float32", layer.weights[n].shape) for n in names]
    x = w.name("x")
    cell = replace(plain, arrays={}, names=names)
    found = CellWriter(w).cell(cell, LayerInputs({"x": x}, w.size(x, 1)), False)
    inputs.append(w.value(x, "float32", ["T", "B", 4]))
    outputs = [w.value(w.last(found["h"], "y"), "float32", ["T", "B", 3])]
    model = model_of(w.graph("g", inputs, outputs), "", "", "")
    assert kinds(model) == ["RNN" if is_node else "Scan"]
    array = np.random.default_rng(0).standard_normal((7, 2, 4)).astype("f")
    (y,) = session(model).run(None, {**layer.weights, "x": array})
    np.testing.assert_allclose(y.swapaxes(0, 1), layer(array.swapaxes(0, 1)), atol=1e-6)


def test_signs_of_weights_say_nothing() -> None:
    """Nor do weights of zeros, which look like none."""
    for number in (-1.0, 0.0, 1.0):
        for name, kind in (("gru", "GRU"), ("peephole_lstm", "LSTM"), ("simple_rnn", "RNN")):
            layer = made(f"cells/{name}", use_bias=False)
            for weight in list(layer.weights):
                layer.weights[weight] = number * abs(layer.weights[weight])
            model = graph(layer)
            assert kinds(model) == [kind]
            assert worst(layer, model, ((3, 8),)) <= 1e-6


def test_a_weight_apart_is_seen() -> None:
    """One gate that is unlike the others by a number is no node; the same in a name is one."""
    text = (ROOT / "rnncc/cells/lstm.rnn").read_text().replace("cell: LSTM", "cell: Rainfall")
    for old, new, kind in (
        ("g = activation(z_g)", "g = activation(z_g)", "LSTM"),
        ("c[t] = f * c[t-1] + i * g", "c[t] = f * c[t-1] + 0.5 * i * g", "Scan"),
        ("c[t] = f * c[t-1] + i * g", "c[t] = f * c[t-1] + i * g + 0.001", "Scan"),
        ("h[t] = o * activation(c[t])", "h[t] = o * activation(c[t-1])", "Scan"),
        ("return h[t]", "return c[t]", "Scan"),
    ):
        assert old in text
        cls = oracle.layer_class(parse(text.replace(old, new)), "float32")
        layer = filled(cls(units=3, return_sequences=True), SHAPE)
        model = graph(layer)
        assert kinds(model) == [kind]
        assert worst(layer, model, ((3, 8),)) <= 1e-6


def test_float64_is_a_scan_unless_asked() -> None:
    layer = made("cells/lstm", "float64")
    assert kinds(graph(layer)) == ["Scan"]
    assert kinds(graph(layer, form="node")) == ["LSTM"]


@pytest.mark.parametrize(
    "name, options",
    [
        ("cells/peephole_lstm", {}),
        ("cells/coupled_lstm", {"activation": "relu"}),
        ("cells/gru", {"reset_after": False}),
        ("cells/gru", {}),
        ("cells/simple_rnn", {"activation": "lambda v: tanh(clip(v, -0.5, 0.5))"}),
    ],
)
def test_there_and_back(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """What `rnncc.load_model` makes of the file gives the layer's numbers."""
    layer = made(name, "float64", **options)
    rnncc.export.onnx(layer, tmp_path / "m.onnx", form="node", lengths=True)
    model = rnncc.load_model(tmp_path / "m.onnx", plain="reference")
    assert any(n.part.kind == "onnx recurrent" for n in model.nodes)
    (inputs, keywords), feed = given(layer, 3, 7, graph(layer, form="node", lengths=True))
    right = layer(inputs, **keywords)
    found = model(feed)
    for array, name in zip(right, [v.name for v in model.outputs], strict=True):
        np.testing.assert_allclose(found[name], array, atol=1e-12)


def test_a_file_of_the_door_runs(tmp_path: Path) -> None:
    layer = made("cells/lstm")
    path = rnncc.export.onnx(layer, tmp_path / "m.onnx")
    assert path.read_bytes() == rnncc.export.onnx(layer, tmp_path / "n.onnx").read_bytes()
    (inputs, _), feed = given(layer, 2, 5, graph(layer))
    found = session(path.read_bytes()).run(None, feed)[0]
    np.testing.assert_allclose(found, layer(inputs)[0], atol=1e-6)
