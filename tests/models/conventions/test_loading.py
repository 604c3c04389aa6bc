"""Weights of torch, Keras and ONNX in layers of ours: what comes out is what comes out there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

import rnncc
from rnncc.files import FileError, write_whole
from rnncc.files.safetensors_files import safetensors_writer
from rnncc.layers import GRU, LSTM, RNN, Bidirectional, GRUCell, LSTMCell, SimpleRNN
from rnncc.models.conventions import CONVENTIONS, arrays_of, load_weights

FEATURES, H, T, B = 3, 5, 7, 2
THEIRS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
OURS: dict[str, Any] = {"lstm": LSTM, "gru": GRU, "rnn": SimpleRNN}
CELLS: dict[str, Any] = {"lstm": LSTMCell, "gru": GRUCell}
X = np.random.default_rng(0).standard_normal((B, T, FEATURES))


def ours(kind: str, **options: Any) -> Any:
    return OURS[kind](H, dtype="float64", return_sequences=True, **options)


def saved(path: Path, arrays: dict[str, Any]) -> Path:
    write_whole(path, safetensors_writer({n: np.asarray(a) for n, a in arrays.items()}))
    return path


def of_torch(path: Path, kind: str, **options: Any) -> tuple[Path, Any]:
    """A file, and what torch makes of X."""
    torch.manual_seed(0)
    module = THEIRS[kind](FEATURES, H, batch_first=True, dtype=torch.float64, **options)
    saved(path, {f"net.{n}": t.numpy() for n, t in module.state_dict().items()})
    return path, module(torch.from_numpy(X))[0].detach().numpy()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", THEIRS)
def test_torch_in_layers_of_keras(tmp_path: Path, kind: str, bias: bool) -> None:
    path, expected = of_torch(tmp_path / "w", kind, bias=bias)
    layer = ours(kind, use_bias=bias)
    report = load_weights(layer, path)
    np.testing.assert_allclose(layer(X), expected, rtol=0, atol=1e-14)
    assert not report.left and [n for n, _, _ in report.taken] == list(layer.weights)
    assert "kernel <- net.weight_ih_l0 (torch's)" in str(report)
    if bias:
        assert report.taken[2][1] == ("net.bias_ih_l0", "net.bias_hh_l0")


def test_torch_layers_of_two_directions(tmp_path: Path) -> None:
    path, expected = of_torch(tmp_path / "w", "gru", bidirectional=True)
    both = Bidirectional(ours("gru"))
    load_weights(both, path)
    np.testing.assert_allclose(both(X), expected, rtol=0, atol=1e-14)
    path, expected = of_torch(tmp_path / "w", "lstm", num_layers=12)
    deep = RNN([LSTMCell(H, dtype="float64") for _ in range(12)], return_sequences=True)
    load_weights(deep, path)
    np.testing.assert_allclose(deep(X), expected, rtol=0, atol=1e-14)


def test_a_pattern_chooses(tmp_path: Path) -> None:
    module = torch.nn.LSTM(FEATURES, H, 2, batch_first=True, dtype=torch.float64)
    state = {n: t.numpy() for n, t in module.state_dict().items()}
    path = saved(tmp_path / "w", {**state, "head.weight": np.ones((2, H)), "head.bias": np.ones(2)})
    layer = ours("lstm")
    with pytest.raises(FileError, match=r"1 recurrent cell\(s\) \(LSTM\), the file 2 \(l0, l1\)"):
        load_weights(layer, path)
    report = load_weights(layer, path, names="*_l0")
    np.testing.assert_array_equal(layer.weights["kernel"], state["weight_ih_l0"].T)
    assert len(report.left) == 6 and "head.bias" in report.left
    with pytest.raises(FileError, match=r"the layer has 1 .* the file 0 .*that fit 'none"):
        load_weights(layer, path, names="none.*")


def test_names_say_what_is_what(tmp_path: Path) -> None:
    path, expected = of_torch(tmp_path / "a", "gru")
    plain = {f"w{i}": a for i, a in enumerate(rnncc.files.read(path).values())}
    path = saved(tmp_path / "w", plain)
    roles = dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), ("w0", "w1", "w2", "w3")))
    layer = ours("gru")
    load_weights(layer, path, names=roles)
    np.testing.assert_allclose(layer(X), expected, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="names= has weight for GRU: it takes torch's"):
        load_weights(layer, path, names={"weight": "w0"})
    with pytest.raises(FileError, match="it has no tensor w9"):
        load_weights(layer, path, names={**roles, "bias_ih": "w9"})


def test_what_keras_has(tmp_path: Path) -> None:
    """By number and by name, and not one of its other layers; the last of eleven is the last."""
    rng = np.random.default_rng(1)
    cells = {f"lstm{f'_{i}' if i else ''}": rng.standard_normal((3, 9, 4 * H)) for i in range(11)}

    def arrays(values: Any) -> list[np.ndarray]:
        return [values[0, :FEATURES], values[1, :H], values[2, 0]]

    for form in ("layers/{}/cell/vars/{}", "model_weights/{}/net/{}/cell/{}:0"):
        held: dict[str, np.ndarray] = {"layers/dense/vars/0": np.ones((H, 2)), "b/bias:0": X}
        for name, values in cells.items():
            labels = range(3) if "vars" in form else ("kernel", "recurrent_kernel", "bias")
            parts = [name] * (form.count("{}") - 1)
            held |= {form.format(*parts, n): a for n, a in zip(labels, arrays(values))}
        sizes = [LSTMCell(H, dtype="float64") for _ in cells]
        deep = RNN(sizes, return_sequences=True)
        path = saved(tmp_path / "w", held)
        with pytest.raises(FileError, match=r"cell_1.*shape \[5, 20\]|kernel .*\[3, 20\]"):
            load_weights(deep, path)
        held = {n: a for n, a in held.items() if "lstm_10/" in n or "lstm" not in n}
        layer = ours("lstm")
        load_weights(layer, saved(tmp_path / "w", held))
        for own, given in zip(layer.get_weights(), arrays(cells["lstm_10"])):
            np.testing.assert_array_equal(own, given)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_onnx(tmp_path: Path, op: str, direction: str) -> None:
    rng = np.random.default_rng(2)
    ds, g = (2 if direction == "bidirectional" else 1), {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    shapes = {"W": (ds, g * H, FEATURES), "R": (ds, g * H, H), "B": (ds, 2 * g * H)}
    held = {n: rng.standard_normal(s).astype("float32") / 3 for n, s in shapes.items()}
    chosen = {"linear_before_reset": 1} if op == "GRU" else {}
    node = helper.make_node(
        op, ["x", *held], ["y"], "cell", hidden_size=H, direction=direction, **chosen
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, ["t", "b", FEATURES])],
        [helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(a, n) for n, a in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "w")
    layer = ours(op.lower())
    layer = layer if ds == 1 else Bidirectional(layer)
    load_weights(layer, tmp_path / "w", names="cell")
    session = onnxruntime.InferenceSession(tmp_path / "w", providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": X.astype("float32").swapaxes(0, 1)})
    expected = y.transpose(2, 0, 1, 3).reshape(B, T, ds * H)
    np.testing.assert_allclose(layer(X), expected, atol=2e-6)
    back = arrays_of(layer, "onnx")
    for name, array in held.items():
        if name != "B" or op == "GRU":
            own = [back[f"{p}{name}"] for p in (("",) if ds == 1 else ("forward.", "backward."))]
            np.testing.assert_array_equal(np.stack(own).astype("float32"), array)


# ---- forms -------------------------------------------------------------------------------------

KINDS = {"lstm": 4, "gru": 3, "rnn": 1}


@pytest.mark.parametrize("form", CONVENTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_bit_for_bit(kind: str, form: str) -> None:
    """A form that has one bias is given one; ours -> theirs -> ours."""
    layer = ours(kind, seed=1)
    layer.build(X.shape)
    rng = np.random.default_rng(3)
    weights = [rng.standard_normal(w.shape) for w in layer.get_weights()]
    if kind == "gru" and form == "coreml":
        weights[2][1] = 0  # it has one, outside of the reset gate
    layer.set_weights(weights)
    theirs = CONVENTIONS[form].read(kind, arrays_of(layer, form), True if kind == "gru" else None)
    found = CONVENTIONS["keras"].write(theirs)
    for name, array in zip(layer.weights, weights):
        np.testing.assert_array_equal(found[name], array)


def test_orders_as_the_libraries_write_them() -> None:
    """Written out: gate g of unit 0 holds g's letter. Core ML's as its documentation has them."""
    letters = {"i": 1.0, "f": 2.0, "g": 3.0, "o": 4.0, "z": 5.0, "r": 6.0, "n": 7.0}
    orders = {
        "keras": ("ifgo", "zrn"),
        "torch": ("ifgo", "rzn"),
        "onnx": ("iofg", "zrn"),
        "coreml": ("ifog", "rnz"),
    }
    for kind, own, index in (("lstm", "ifgo", 0), ("gru", "zrn", 1)):
        layer = OURS[kind](1)
        layer.build((None, None, 1))
        values = np.array([letters[g] for g in own])
        kernels = [values[None], values[None] + 10]
        bias = [values] if kind == "lstm" else [np.stack([values, 0 * values])]
        layer.set_weights([*kernels, *bias])
        for form, chosen in orders.items():
            found = arrays_of(layer, form)[CONVENTIONS[form].names["input"]].reshape(-1)
            assert found.tolist() == [letters[g] for g in chosen[index]]


def test_peepholes_and_projections() -> None:
    cell = rnncc.compile("projected_lstm", dtype="float64")(units=4, projection=3, seed=1)
    cell.build((None, None, 2))
    with pytest.raises(ValueError, match="onnx has no projections"):
        arrays_of(cell, "onnx")
    peephole = rnncc.compile("peephole_lstm", dtype="float64")(units=4, seed=1)
    peephole.build((None, None, 2))
    given = peephole.weights
    expected = np.concatenate([given["peephole_i"], given["peephole_o"], given["peephole_f"]])
    np.testing.assert_array_equal(arrays_of(peephole, "onnx")["P"], expected)
    with pytest.raises(ValueError, match="torch has no peepholes"):
        arrays_of(peephole, "torch")


def test_torch_projection(tmp_path: Path) -> None:
    """Into the projected LSTM without peepholes."""
    path, expected = of_torch(tmp_path / "w", "lstm", proj_size=2)
    made = rnncc.compile("projected_lstm", dtype="float64")
    layer = made(units=H, projection=2, use_peepholes=False, return_sequences=True)
    load_weights(layer, path)
    y = layer(X)
    # m = o * act(c) is what is projected in both
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14)


# ---- what is refused -----------------------------------------------------------------------------


def test_refused(tmp_path: Path) -> None:
    """With the file and what is wrong; the layer has the weights that it had."""
    path, _ = of_torch(tmp_path / "gru", "gru")
    lstm, _ = of_torch(tmp_path / "lstm", "lstm")
    held = dict(rnncc.files.read(lstm))
    one = {n: a for n, a in held.items() if "bias_hh" not in n}
    nan = {**held, "net.bias_hh_l0": np.full(4 * H, np.nan)}
    small = {n: a.astype("int8") for n, a in held.items()}
    both, _ = of_torch(tmp_path / "both", "lstm", bidirectional=True)
    del both
    for layer, file, message in (
        (ours("gru", reset_after=False), path, "weights for reset_after=True, the layer has"),
        (ours("gru", use_bias=False), path, "it has a bias, which there is no place for"),
        (ours("lstm"), path, "it is a GRU, LSTM is an LSTM"),
        (ours("lstm"), saved(tmp_path / "nan", nan), "bias_hh_l0: 20 of its 20 numbers are NaN"),
        (ours("lstm"), saved(tmp_path / "int", small), "it holds int8 values, expected floats"),
        (OURS["lstm"](H + 1), lstm, "kernel of LSTM has shape|expected"),
        (Bidirectional(ours("lstm")), tmp_path / "both", None),
        (rnncc.compile("coupled_lstm")(units=H), lstm, "nothing says which gates CoupledLSTM has"),
    ):
        layer.build((None, None, FEATURES))
        before = layer.get_weights()
        if message is None:
            load_weights(layer, file)
            continue
        with pytest.raises(FileError, match=message) as caught:
            load_weights(layer, file)
        assert str(caught.value).startswith(str(file))
        for a, b in zip(before, layer.get_weights()):
            np.testing.assert_array_equal(a, b)
    alone = ours("lstm")
    load_weights(alone, saved(tmp_path / "one", one))  # bias_ih alone is a bias
    with pytest.raises(TypeError, match="takes a layer of rnncc, not LSTM"):
        load_weights(torch.nn.LSTM(3, 4), lstm)  # type: ignore[arg-type]


def test_other_cells_by_their_own_names(tmp_path: Path) -> None:
    """An LSTM that isn't ours by the text may have its gates anywhere: names alone."""
    layer = rnncc.compile("coupled_lstm")(units=H)
    layer.build((None, None, FEATURES))
    own = {n: np.asarray(a) + 1 for n, a in layer.weights.items()}
    load_weights(layer, saved(tmp_path / "w", own))
    for name, array in own.items():
        np.testing.assert_array_equal(layer.weights[name], array)
