"""Amplifiers: files written here against NumPy written out, real ones against what made them."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.files import FileError
from tests.support.in_onnx.exported import agree

FOLDER = Path(os.environ.get("RNNCC_MODELS", Path(__file__).parents[4] / "shared" / "models"))
RNG = np.random.default_rng(3)
X = RNG.standard_normal((2, 30, 1))


def drawn(*shape: int) -> np.ndarray:
    return RNG.uniform(-0.5, 0.5, shape).astype("f").astype("d")


def sigmoid(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-v))


def lstm(x: np.ndarray, w: Any, u: Any, b: Any, h: Any, c: Any) -> np.ndarray:
    """w [in, 4H], u [H, 4H]; gates i f g o. x [batch, time, in] -> [batch, time, H]."""
    out = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ w + h @ u + b, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out, 1)


def gru(x: np.ndarray, w: Any, u: Any, b: Any) -> np.ndarray:
    """Keras's with reset_after: gates z r h, b [2, 3H]."""
    h = np.zeros((len(x), len(u)))
    out = []
    for t in range(x.shape[1]):
        x_z, x_r, x_h = np.split(x[:, t] @ w + b[0], 3, -1)
        h_z, h_r, h_h = np.split(h @ u + b[1], 3, -1)
        z = sigmoid(x_z + h_z)
        h = z * h + (1 - z) * np.tanh(x_h + sigmoid(x_r + h_r) * h_h)
        out.append(h)
    return np.stack(out, 1)


def written(document: Any, tmp_path: Path) -> Path:
    path = tmp_path / "amp.json"
    path.write_text(json.dumps(document))
    return path


def nam(layers: int = 2, units: int = 3, features: int = 1) -> tuple[dict[str, Any], list[Any]]:
    arrays = []
    for i in range(layers):
        reads = features if i == 0 else units
        arrays += [drawn(4 * units, reads + units), drawn(4 * units), drawn(units), drawn(units)]
    arrays += [drawn(units), drawn(1)]
    config = {"input_size": features, "hidden_size": units, "num_layers": layers}
    flat = np.concatenate([a.ravel() for a in arrays]).tolist()
    document = {
        "version": "0.5.4",
        "architecture": "LSTM",
        "config": config,
        "weights": flat,
        "sample_rate": 44100,
    }
    return document, arrays


def nam_by_hand(arrays: list[Any], x: np.ndarray) -> np.ndarray:
    """Each layer W over [x, h], bias, h0, c0; then the head."""
    *layers, head, bias = arrays
    for w, b, h, c in zip(*(layers[i::4] for i in range(4))):
        reads = x.shape[-1]
        starts = [np.repeat(s[None], len(x), 0) for s in (h, c)]
        x = lstm(x, w[:, :reads].T, w[:, reads:].T, b, *starts)
    found: np.ndarray = x @ head[:, None] + bias
    return found


def test_nam(tmp_path: Path) -> None:
    document, arrays = nam()
    model = rnncc.load_model(written(document, tmp_path), dtype="float64")
    expected = nam_by_hand(arrays, X)
    np.testing.assert_allclose(model(X), expected, atol=1e-14)
    assert model.metadata["sample_rate"] == 44100
    stream = model.stream(X[:, :5])
    blocks = [stream(X[:, t : t + 5]) for t in range(0, 30, 5)]
    np.testing.assert_allclose(np.concatenate(blocks, 1), expected, atol=1e-14)
    model.save(tmp_path / "folder")
    again = rnncc.load_model(tmp_path / "folder")
    assert np.array_equal(again(X), model(X)) and again.metadata == model.metadata


KERNEL, U, B, HEAD = drawn(4, 12), drawn(3, 12), drawn(12), drawn(3, 1)
IN, IN_BIAS, G, GU, GB = drawn(1, 4), drawn(4), drawn(3, 9), drawn(3, 9), drawn(2, 9)
STATISTICS = [drawn(3), drawn(3), drawn(3), drawn(3) ** 2]
SLOPES = drawn(1, 3)


def entry(kind: str, *arrays: np.ndarray, activation: str = "", **rest: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "activation": activation,
        "shape": [None, None, 3],
        "weights": [a.tolist() for a in arrays],
        **rest,
    }


RTNEURAL: dict[str, Any] = {
    "in_shape": [None, None, 1],
    "layers": [
        entry("time-distributed-dense", IN, IN_BIAS, activation="tanh"),
        entry("lstm", KERNEL, U, B, activation="tanh"),
        entry("batchnorm", *STATISTICS, epsilon=0.01),
        entry("prelu", SLOPES),
        entry("gru", G, GU, GB, activation="tanh"),
        entry("activation", activation="sigmoid"),
        entry("dense", HEAD, np.zeros(1)),
    ],
}


def rtneural_by_hand(x: np.ndarray) -> np.ndarray:
    x = np.tanh(x @ IN + IN_BIAS)
    zeros = np.zeros((len(x), 3))
    x = lstm(x, KERNEL, U, B, zeros, zeros)
    gamma, beta, mean, variance = STATISTICS
    x = (x - mean) / np.sqrt(variance + 0.01) * gamma + beta
    x = np.where(x > 0, x, SLOPES[0] * x)
    found: np.ndarray = sigmoid(gru(x, G, GU, GB)) @ HEAD
    return found


def test_rtneural_and_aida(tmp_path: Path) -> None:
    model = rnncc.load_model(written(RTNEURAL, tmp_path), dtype="float64")
    np.testing.assert_allclose(model(X), rtneural_by_hand(X), atol=1e-13)
    about = {"samplerate": "48000", "name": "amp"}
    aida = {**RTNEURAL, "in_skip": 1, "in_gain": 6.0, "out_gain": -3.0, "metadata": about}
    model = rnncc.load_model(written(aida, tmp_path), dtype="float64")
    louder = X * 10 ** (6 / 20)
    expected = (rtneural_by_hand(louder) + louder) * 10 ** (-3 / 20)
    np.testing.assert_allclose(model(X), expected, atol=1e-13)
    assert model.metadata["aida"] == about


def test_proteus(tmp_path: Path) -> None:
    w, u, b, head, bias = drawn(12, 2), drawn(12, 3), drawn(12), drawn(1, 3), drawn(1)
    state = {"rec.weight_ih_l0": w, "rec.weight_hh_l0": u, "rec.bias_ih_l0": b}
    state |= {"rec.bias_hh_l0": 2 * b, "lin.weight": head, "lin.bias": bias}
    data = {"input_size": 2, "hidden_size": 3, "unit_type": "LSTM", "num_layers": 1}
    document = {
        "model_data": {**data, "output_size": 1, "skip": 1},
        "state_dict": {n: a.tolist() for n, a in state.items()},
    }
    model = rnncc.load_model(written(document, tmp_path), dtype="float64")
    x = RNG.standard_normal((2, 30, 2))
    zeros = np.zeros((2, 3))
    expected = lstm(x, w.T, u.T, 3 * b, zeros, zeros) @ head.T + bias + x[..., :1]
    np.testing.assert_allclose(model(x), expected, atol=1e-13)
    for change, said in (
        ({"unit_type": "QRNN"}, "unit_type is 'QRNN'"),
        ({"hidden_size": 4}, "hidden_size is 3, layers says 4"),
        ({"skip": 2}, "skip is 2"),
        ({"num_layers": 0}, "num_layers"),
        ({"output_size": True}, "output_size"),
    ):
        wrong = {**document, "model_data": {**document["model_data"], **change}}
        with pytest.raises(FileError, match=said):
            rnncc.load_model(written(wrong, tmp_path))


def changed(document: Any, path: str, value: Any) -> Any:
    """The document with another value at "layers/1/type"."""
    whole = copy.deepcopy(document)
    *before, last = path.split("/")
    inner = whole
    for key in before:
        inner = inner[int(key) if isinstance(inner, list) else key]
    inner[int(last) if isinstance(inner, list) else last] = value
    return whole


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("in_shape", None, "in_shape and layers are lists"),
        ("in_shape/2", 0, "in_shape's last is a whole number"),
        ("in_shape/2", 2, "0_time_distributed_dense reads 1 features, what is before it has 2"),
        ("layers", [], "lists"),
        ("layers/0", 7, "layers/0: a layer is an object"),
        ("layers/1/type", "conv1d", "layers/1: its type is 'conv1d'; read are dense"),
        ("layers/1/activation", "relu", "RTNeural's have tanh"),
        ("layers/1/weights/1", [[1.0]], "layers/1: weights of"),
        ("layers/1/weights/2", [1.0], "layers/1: weights of"),
        ("layers/1/weights", [[1.0]], "1 arrays of weights, expected 3"),
        ("layers/2/weights/3", [-9.0] * 3, "variance"),
        ("layers/2/epsilon", "small", "epsilon is a finite number"),
        ("layers/3/weights/0", [[1.0, 2.0]], "2 slopes for 3 features"),
        ("layers/5/activation", "warp", "its activation is 'warp'"),
        ("layers/6/weights/0", [[1.0], [2.0, 3.0]], "no list of numbers"),
        ("layers/6/weights/0", [["a"]], "no list of numbers"),
        ("layers/6/weights/1", [1e300], "infinite as float32"),
        ("layers/6/weights/1", [1.0, 2.0], "a dense layer of shapes"),
        ("in_skip", 2, "in_skip is 0 or 1"),
        ("in_gain", 1e6, "in_gain is"),
        ("out_gain", [], None),
        ("out_gain", "loud", "out_gain is a finite number"),
    ],
)
def test_rtneural_that_isnt(path: str, value: Any, said: str | None, tmp_path: Path) -> None:
    file = written(changed(RTNEURAL, path, value), tmp_path)
    if said is None:
        rnncc.load_model(file)
    else:
        with pytest.raises(FileError, match=said):
            rnncc.load_model(file)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("architecture", "WaveNet", "its architecture is 'WaveNet'; LSTM is what is read"),
        ("config", None, "config is an object"),
        ("config/num_layers", 10**6, "num_layers is a whole number"),
        ("config/hidden_size", 4, "weights has 160 numbers, config asks for 261"),
        ("config/input_size", 1.0, "input_size is a whole number"),
        ("weights/3", "x", "weights is no list of numbers"),
        ("weights/3", float("nan"), "NaN"),
    ],
)
def test_nam_that_isnt(path: str, value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=said):
        rnncc.load_model(written(changed(nam()[0], path, value), tmp_path))


# ---- real files ----------------------------------------------------------------------------------


def real(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"{name} is not in {FOLDER}: RNNCC_MODELS names the folder")
    return path


@pytest.mark.parametrize("name", ["rtneural_lstm", "rtneural_gru", "rtneural_lstm_torch"])
def test_real_rtneural(name: str) -> None:
    """Outputs by Keras and torch, as RTNeural keeps them."""
    chain = "lstm(1, 8)@lstm lstm(8, 8, 3)@lstm2 linear(8, 1)@dense" if "torch" in name else None
    model = rnncc.load_model(real(f"{name}.json"), layers=chain)
    x, y = (np.genfromtxt(real(f"{name}_{n}.csv"), delimiter=",") for n in "xy")
    assert len(x) >= 100 and np.abs(y).max() > 0.05
    np.testing.assert_allclose(model(x[None, :, None])[0, :, 0], y, atol=1e-5)
    pytest.importorskip("onnxruntime", reason="onnxruntime isn't installed")
    agree(model, {"x": x[None, :, None].astype("f")}, 1e-6)


@pytest.mark.parametrize("name", ["amp_lstm.nam", "overdrive_lstm_1x16.nam"])
def test_real_nam(name: str) -> None:
    document = json.loads(real(name).read_text())
    units, flat = document["config"]["hidden_size"], np.array(document["weights"])
    cuts = np.cumsum([4 * units * (1 + units), 4 * units, units, units, units])
    w, *rest = np.split(flat, cuts)
    model = rnncc.load_model(real(name))
    x = 0.5 * np.sin(np.arange(200) / 7)[None, :, None]
    expected = nam_by_hand([w.reshape(4 * units, 1 + units), *rest], x)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
    assert model.metadata.get("sample_rate") == document.get("sample_rate")


def test_real_phonemes() -> None:
    """The encoder of a phoneme model: embedding and GRU, in torch's layout."""
    path = real("g2p_gru.npz")
    names = {"enc_emb": "emb.weight"}
    names |= {
        f"enc_{s}_{g}": f"enc.{w}_{g}_l0"
        for s, w in (("w", "weight"), ("b", "bias"))
        for g in ("ih", "hh")
    }
    ignored = ["", "dec*", "fc*"]
    model = rnncc.load_model(
        path, layers="embedding@emb gru(256, 256)@enc", names=names, ignore=ignored
    )
    arrays = {n: a.astype("d") for n, a in np.load(path).items()}
    letters, h = np.array([[5, 9, 3, 28, 0, 17]]), np.zeros((1, 256))
    for t in range(6):
        x_r, x_z, x_n = np.split(
            arrays["enc_emb"][letters[:, t]] @ arrays["enc_w_ih"].T + arrays["enc_b_ih"], 3, -1
        )
        h_r, h_z, h_n = np.split(h @ arrays["enc_w_hh"].T + arrays["enc_b_hh"], 3, -1)
        z = sigmoid(x_z + h_z)
        h = (1 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * h
    np.testing.assert_allclose(model(letters)[:, -1], h, atol=1e-5)


def test_real_speaker() -> None:
    torch = pytest.importorskip("torch")
    path = real("speaker_lstm.npz")
    net = torch.nn.LSTM(40, 256, 3, batch_first=True)
    net.load_state_dict({n: torch.tensor(a) for n, a in np.load(path).items()})
    x = np.random.default_rng(1).random((2, 25, 40)).astype("f")
    model = rnncc.load_model(path, layers="lstm(40, 256, 3)")
    np.testing.assert_allclose(model(x), net(torch.tensor(x))[0].detach().numpy(), atol=1e-5)
