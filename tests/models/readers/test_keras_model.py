"""Keras's models out of both of its files: outputs by Keras decide, weights go back bit for bit."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.files import FileError, Tensors, read
from rnncc.models.readers.building import LoadWarning
from rnncc.models.readers.keras_model import read_keras_model
from tests.support.in_onnx.exported import graph, session

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")
kl = keras.layers

RNG = np.random.default_rng(4)
X = RNG.standard_normal((3, 20, 4)).astype("f")
HOLES = X.copy()
HOLES[1, 5:8] = HOLES[0, :2] = HOLES[2, 13:] = 0
WORDS = RNG.integers(1, 11, (3, 20))
WORDS[0, 9:] = WORDS[1, 3:6] = 0


def chain(*layers: Any, shape: Any = (None, 4), dtype: str = "float32") -> Any:
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def seq(cls: Any, units: int = 5, **keywords: Any) -> Any:
    return cls(units, return_sequences=True, **keywords)


def states() -> Any:
    """An encoder's states start a decoder; outputs of several kinds."""
    x, z = keras.Input((None, 4), name="x"), keras.Input((None, 4), name="z")
    y, *encoded = kl.LSTM(5, return_state=True, return_sequences=True, name="encoder")(x)
    decoded = kl.LSTM(5, return_sequences=True, name="decoder")(z, initial_state=encoded)
    _, *both = kl.Bidirectional(kl.GRU(5, return_state=True), name="both")(y)
    joined = kl.Concatenate(name="joined")([*both, encoded[0]])
    return keras.Model([x, z], [decoded, joined])


def masks() -> Any:
    """Masks that meet: all steps count that count for one."""
    x = keras.Input((None, 4))
    marked = kl.Masking()(x)
    other = kl.Masking(2.0)(kl.Rescaling(-1.5, 0.5)(x))
    added = kl.Add()([kl.Dense(4)(marked), other])
    y = seq(kl.GRU)(added)
    unmarked = kl.Average()([y, kl.Dense(5)(x)])
    return keras.Model(
        x, [kl.GlobalAveragePooling1D()(y), kl.SimpleRNN(5)(unmarked), kl.GlobalMaxPooling1D()(y)]
    )


def within() -> Any:
    """Models in a model."""
    x = keras.Input((20, 4))
    inner = chain(seq(kl.GRU), kl.Dense(4), shape=(20, 4))
    a = keras.Input((20, 4))
    graph = keras.Model(a, kl.Subtract()([kl.Dense(4, name="left")(a), kl.Dense(4)(a)]))
    y = kl.Multiply()([inner(x), graph(x)])
    y = kl.Permute((2, 1))(kl.Maximum()([y, kl.Minimum()([y, x])]))
    y = kl.RepeatVector(3)(kl.Dense(5)(kl.Flatten()(kl.Reshape((8, -1))(y))))
    return keras.Model(x, y)


def shared() -> Any:
    """Layers that are called twice, side by side and one behind the other."""
    x, z = keras.Input((None, 4), name="x"), keras.Input((None, 4), name="z")
    inner, gru, head = kl.Dense(4), kl.GRU(5, return_sequences=True), kl.Dense(5)
    both = [gru(kl.Masking()(x)), gru(inner(inner(z)))]
    return keras.Model([x, z], kl.LSTM(5)(kl.Subtract()([head(y) for y in both])))


def options(cls: Any) -> Callable[[], Any]:
    """What a layer of Keras can be told."""
    extra = {"recurrent_activation": "hard_sigmoid"} if cls is not kl.SimpleRNN else {}
    other = {"reset_after": False} if cls is kl.GRU else {}
    return lambda: chain(
        seq(cls, use_bias=False),
        seq(cls, activation="relu", dropout=0.2, recurrent_dropout=0.1, **extra),
        seq(cls, go_backwards=True, **other),
        kl.Bidirectional(seq(cls), merge_mode="sum"),
        kl.Bidirectional(seq(cls), merge_mode="ave", backward_layer=seq(cls, go_backwards=True)),
        cls(5),
    )


MODELS: dict[str, tuple[Callable[[], Any], list[np.ndarray]]] = {
    "words": (
        lambda: chain(
            kl.Embedding(11, 4, mask_zero=True),
            kl.Bidirectional(seq(kl.LSTM)),
            kl.TimeDistributed(kl.Dense(4, activation="gelu")),
            kl.SpatialDropout1D(0.2),
            kl.RNN([kl.LSTMCell(5), kl.GRUCell(3)], return_sequences=True),
            kl.RNN(kl.SimpleRNNCell(5)),
            kl.Dense(3, activation="softmax"),
            shape=(None,),
            dtype="int32",
        ),
        [WORDS],
    ),
    "around": (
        lambda: chain(
            kl.BatchNormalization(epsilon=0.01),
            kl.LayerNormalization(center=False),
            kl.Dense(5, activation=kl.LeakyReLU(negative_slope=0.1)),
            kl.PReLU(shared_axes=[1]),
            kl.Activation("swish"),
            kl.ReLU(max_value=1.5, negative_slope=0.1, threshold=0.2),
            kl.GaussianNoise(0.1),
            kl.BatchNormalization(scale=False),
            kl.TimeDistributed(kl.LayerNormalization()),
            kl.LeakyReLU(),
            kl.ELU(0.7),
            kl.Softmax(),
        ),
        [X],
    ),
    "masked": (
        lambda: chain(
            kl.Masking(), seq(kl.GRU), kl.Dropout(0.1), kl.Dense(5), kl.GlobalAveragePooling1D()
        ),
        [HOLES],
    ),
    "convolved": (
        lambda: chain(
            kl.Masking(),
            kl.Conv1D(6, 4, padding="causal", activation="relu"),
            kl.Conv1D(5, 3, strides=2, use_bias=False),
            kl.Conv1D(5, 3, dilation_rate=2, padding="same"),
            seq(kl.GRU),
        ),
        [HOLES],
    ),
    "states": (states, [X, X[:, :9]]),
    "masks": (masks, [HOLES]),
    "shared": (shared, [HOLES, X]),
    "within": (within, [X]),
    "SimpleRNN": (options(kl.SimpleRNN), [X]),
    "GRU": (options(kl.GRU), [X]),
    "LSTM": (options(kl.LSTM), [X]),
}


def numbers(value: Any) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(v) for v in keras.tree.flatten(value)]


def drawn(model: Any) -> Any:
    """The model with weights that none is zero of."""
    for variable in model.weights:
        low = 0.3 if "variance" in variable.path else -0.5
        if "float" in variable.dtype:
            variable.assign(RNG.uniform(low, 0.7, variable.shape))
    return model


def saved(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    return path


def outputs(model: rnncc.Model, arrays: list[np.ndarray]) -> list[np.ndarray]:
    given: Any = {p.name: x for p, x in zip(model.inputs, arrays, strict=True)}
    return [*model(given).values()]


def layers_of(model: Any) -> list[Any]:
    """Those with weights, of models within, too."""
    inner = [[m] if not hasattr(m, "layers") else layers_of(m) for m in model.layers]
    return [layer for layers in inner for layer in layers if layer.weights]


@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_weights(name: str, tmp_path: Path) -> None:
    make, arrays = MODELS[name]
    model, fresh = drawn(make()), make()
    given = arrays if len(arrays) > 1 else arrays[0]
    expected = numbers(model(given))
    for ending in ("keras", "h5"):
        path = saved(model, tmp_path / f"model.{ending}")
        loaded = rnncc.load_model(path)
        found = outputs(loaded, arrays)
        assert len(found) == len(expected)
        for a, b in zip(found, expected):
            np.testing.assert_allclose(a, b, atol=1e-6)
        if ending == "keras":
            _in_onnx(loaded, arrays, found)
        loaded.save(tmp_path / ending)
        again = rnncc.load_model(tmp_path / ending)
        assert all(map(np.array_equal, outputs(again, arrays), found))
        # Back to Keras: each layer's weights, in its order.
        parts = {n.part.name.rpartition("/")[2]: n.part for n in again.nodes}
        for theirs, other in zip(layers_of(model), layers_of(fresh), strict=True):
            back = [*parts[theirs.name].weights.values()]
            own = theirs.get_weights()
            if parts[theirs.name].kind in (
                "batch_norm",
                "embedding",
                "dense",
                "convolution",
                "recurrent",
            ):
                assert [b.shape for b in back] == [o.shape for o in own]
            assert all(map(np.array_equal, back, own)), theirs.name
            other.set_weights(back)
    assert all(map(np.array_equal, numbers(fresh(given)), expected))


def _in_onnx(model: rnncc.Model, arrays: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """The same as a file for others."""
    pytest.importorskip("onnxruntime", reason="onnxruntime isn't installed")
    feed = {p.name: x.astype(p.dtype) for p, x in zip(model.inputs, arrays, strict=True)}
    for a, b in zip(session(graph(model)).run(None, feed), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_our_own_layers(tmp_path: Path) -> None:
    rk = pytest.importorskip("rnncc.keras")
    cell = rk.RNN("peephole_lstm", units=5, return_sequences=True)
    model = drawn(chain(cell, seq(rk.LSTM), rk.Bidirectional(rk.GRU(5))))
    loaded = rnncc.load_model(saved(model, tmp_path / "ours.keras"))
    np.testing.assert_allclose(loaded(X), numbers(model(X))[0], atol=1e-6)
    loaded.save(tmp_path / "folder")
    assert (tmp_path / "folder" / "cells" / "peephole_lstm.rnn").is_file()
    assert np.array_equal(rnncc.load_model(tmp_path / "folder")(X), loaded(X))


def test_double(tmp_path: Path) -> None:
    gru, head = seq(kl.GRU, dtype="float64"), kl.Dense(3, dtype="float64")
    model = drawn(chain(gru, head, dtype="float64"))
    loaded = rnncc.load_model(saved(model, tmp_path / "d.keras"))
    assert loaded(X).dtype == np.float64
    kernel, bias = head.get_weights()
    expected = numbers(gru(X.astype("d")))[0] @ kernel + bias  # Keras's own has a float32 in it
    np.testing.assert_allclose(loaded(X), expected, atol=1e-12)


def test_states_that_stay(tmp_path: Path) -> None:
    """A call starts anew, and says so; a stream goes on as Keras does."""
    layer = kl.GRU(5, return_sequences=True, stateful=True)
    model = drawn(keras.Sequential([keras.Input(batch_shape=(3, 10, 4)), layer]))
    with pytest.warns(LoadWarning, match=r"gru\w* is stateful in Keras"):
        loaded = rnncc.load_model(saved(model, tmp_path / "s.keras"))
    expected = [numbers(model(X[:, t : t + 10]))[0] for t in (0, 10)]
    stream = loaded.stream(X[:, :10])
    for t in (0, 10):
        np.testing.assert_allclose(stream(X[:, t : t + 10]), expected[t // 10], atol=1e-6)


def test_keras_2s_hard_sigmoid(tmp_path: Path) -> None:
    """The line that it was then; who wrote the file says which."""
    cell = {"activation": "tanh", "recurrent_activation": "hard_sigmoid"}
    model = drawn(chain(seq(kl.LSTM, **cell), kl.Dense(3, activation="hard_sigmoid")))
    path = saved(model, tmp_path / "model.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = "2.2.4"

    def steep(v: np.ndarray) -> np.ndarray:
        return np.clip(0.2 * v + 0.5, 0, 1)

    w, u, b, k, kb = (a.astype("d") for a in model.get_weights())
    h = c = np.zeros((3, 5))
    for t in range(20):
        i, f, g, o = np.split(X[:, t] @ w + h @ u + b, 4, -1)
        c = steep(f) * c + steep(i) * np.tanh(g)
        h = steep(o) * np.tanh(c)
    np.testing.assert_allclose(rnncc.load_model(path)(X)[:, -1], steep(h @ k + kb), atol=1e-5)
    with h5py.File(path, "r+") as file:
        del file.attrs["keras_version"]
    with pytest.raises(FileError, match="hard_sigmoid is another in Keras 2 than in 3"):
        rnncc.load_model(path)


# ---- what is refused -----------------------------------------------------------------------------


def put(*path: Any) -> Callable[[Any], Any]:
    """Another value, the last of these, at that place."""

    def change(config: Any) -> None:
        *before, last, value = path
        for key in before:
            config = config[key]
        config[last] = value

    return change


FIRST = ("config", "layers", 1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """What is in a file of two layers."""
    model = drawn(chain(kl.GRU(5, name="rnn"), kl.Dense(3, name="head")))
    return read(saved(model, tmp_path_factory.mktemp("small") / "m.keras"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("class_name", "Evil"), "a model of the class 'Evil'"),
        (put(*FIRST, "class_name", "Lambda"), "Lambda"),
        (put(*FIRST, "class_name", 7), "7"),
        (put(*FIRST, "module", "os"), "GRU of os; only Keras's layers"),
        (put(*FIRST, "config", "units", 6), "rnn"),
        (put(*FIRST, "config", "units", -1), "rnn: it can't be made"),
        (put(*FIRST, "config", "units", "many"), "rnn: it can't be made"),
        (put(*FIRST, "config", "use_bias", False), "it holds 3 arrays, expected 2"),
        (put(*FIRST, "config", "activation", "wave"), "activation 'wave' isn't known"),
        (put(*FIRST, "config", "time_major", True), "time_major"),
        (put(*FIRST, "config", "reset_after", False), "rnn"),
        (put(*FIRST, "config", "name", "other"), "it holds the weights of 'rnn', expected other"),
        (put(*FIRST, "config", None), "nor its class, is called None"),
        (put("config", "layers", []), "is no model of Keras"),
        (put("config", "layers", 2, "config", "activation", {"class_name": "ReLU"}), "isn't known"),
        (
            put("config", "layers", 2, "config", "dtype", {"class_name": "QuantizedDTypePolicy"}),
            "quant",
        ),
        (lambda c: c["config"]["layers"].pop() and None, "no layer has the weights"),
        (lambda c: c["config"]["layers"].append(c["config"]["layers"][2]), "dense_1"),
        (lambda c: [c], "is no model of Keras"),
        (put("config", "layers", 0, "config", "batch_shape", [None, "x", 4]), "its input's shape"),
    ],
)
def test_configurations_that_arent(change: Any, said: str, small: Tensors) -> None:
    assert read_keras_model(small)(X).shape == (3, 3)
    config = copy.deepcopy(small.metadata["config"])
    metadata = {**small.metadata, "config": change(config) or config}
    with pytest.raises(FileError, match=said):
        read_keras_model(Tensors(small.where, "keras", small, metadata))


def test_layers_that_arent_read(tmp_path: Path) -> None:
    x = keras.Input((20, 4))
    shared = chain(kl.Dense(4), shape=(20, 4))
    refused: list[tuple[Any, str]] = [
        (chain(kl.Conv1D(4, 3, groups=2)), "2 groups"),
        (chain(kl.Conv1DTranspose(4, 3)), "Conv1DTranspose"),
        (chain(kl.LayerNormalization(axis=1), shape=(20, 4)), "its axis is"),
        (chain(kl.LayerNormalization(rms_scaling=True)), "rms_scaling"),
        (chain(kl.Softmax(axis=1)), "softmax is read of the last axis"),
        (chain(kl.Masking(), kl.Softmax()), "a Softmax behind a mask"),
        (chain(kl.TimeDistributed(kl.LSTM(3)), shape=(20, 4, 2)), "LSTM"),
        (keras.Model(x, shared(shared(x))), "a model that is called twice"),
        (keras.Model(x, kl.GRU(3)(x, training=True)), "training"),
        (keras.Model(x, keras.ops.abs(x)), "Absolute"),
        (chain(kl.ConvLSTM1D(2, 3), shape=(20, 4, 2)), "ConvLSTM1D"),
    ]
    for number, (model, said) in enumerate(refused):
        with pytest.raises(FileError, match=said):
            rnncc.load_model(saved(model, tmp_path / f"{number}.keras"))


def test_weights_without_a_model(tmp_path: Path) -> None:
    chain(kl.GRU(3)).save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(FileError, match=r"rnncc\.load_weights"):
        rnncc.load_model(tmp_path / "m.weights.h5")
