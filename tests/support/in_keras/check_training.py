"""Models: shapes, fit in every way a backend has, masks, dropout, regularizers, files."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from rnncc import keras as own
from tests.support.in_keras.helpers import (
    BACKEND,
    NAMES,
    WHOLE,
    X,
    assert_close,
    model_of,
    numbers,
    pair,
    uniform,
    whole,
)
from tests.support.paths import ROOT

INPUTS = uniform(64, 7, 4)
TARGETS = (INPUTS.sum((1, 2)) > 0).astype("int32")
# How a model may be told to run its steps on this backend.
WAYS: dict[str, list[dict[str, Any]]] = {
    "torch": [{}],
    "jax": [{"jit_compile": True}],
    "tensorflow": [{}, {"run_eagerly": True}],
}


def compiled(*body: Any, **keywords: Any) -> Any:
    model = model_of(*body, layers.Dense(2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"], **keywords)
    return model


@pytest.mark.parametrize("way", WAYS[BACKEND], ids=str)
def test_fit(way: dict[str, Any]) -> None:
    """The same losses and weights as with Keras's layer."""
    count = 32 if way.get("run_eagerly") else 64
    x, y = INPUTS[:count], TARGETS[:count]
    models = [compiled(layer, **way) for layer in pair("LSTM", 6)]
    models[1].set_weights(models[0].get_weights())
    histories = [m.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0) for m in models]
    losses = [h.history["loss"] for h in histories]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert losses[1][1] < losses[1][0]
    for a, b in zip(models[1].get_weights(), models[0].get_weights()):
        np.testing.assert_allclose(a, b, atol=1e-5)
    scores = [m.evaluate(x, y, verbose=0) for m in models]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4)
    np.testing.assert_allclose(*(m.predict(INPUTS[:5], verbose=0) for m in models), atol=1e-5)


@pytest.mark.skipif(BACKEND != "torch", reason="torch.compile")
def test_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a whole step of fit, and of a layer as one graph. Graphs are run as they are: what a C++
    compiler makes of them takes half a minute."""
    import torch

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    model = compiled(own.LSTM(6, dropout=0.3), jit_compile=True)
    losses = [
        model.fit(INPUTS[:32], TARGETS[:32], batch_size=32, verbose=0).history["loss"][0]
        for _ in range(2)
    ]
    assert np.isfinite(losses).all()

    layer = own.LSTM(6, dropout=0.5)
    x = torch.from_numpy(X)
    layer(x)
    run = torch.compile(lambda t: layer(t, training=True), fullgraph=True)
    assert not np.allclose(*(run(x).detach().numpy() for _ in range(2)))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA in TensorFlow")
def test_no_xla_in_tensorflow() -> None:
    assert not own.LSTM(6).supports_jit
    assert "no XLA" in own.LSTM(6).plan()


@whole
def test_shapes_of_the_guide() -> None:
    model = keras.Sequential(
        [
            layers.Embedding(1000, 64),
            own.GRU(256, return_sequences=True),
            own.SimpleRNN(128),
            layers.Dense(10),
        ]
    )
    model.build((None, None))
    counts = [layer.count_params() for layer in model.layers]
    assert counts == [64000, 247296, 49280, 1290] and model.count_params() == 361866
    lines: list[str] = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    assert "247,296" in "\n".join(lines)


@pytest.mark.parametrize("functional", [False, True])
def test_dynamic_shapes(functional: bool) -> None:
    layer = own.GRU(5, return_sequences=True, return_state=True)
    if functional:
        inputs = keras.Input((None, 4))
        y, h = layer(inputs)
        assert y.shape == (None, None, 5) and h.shape == (None, 5)
        model = keras.Model(inputs, [y, h])
    else:

        class Subclassed(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.body = layer

            def call(self, inputs: Any, training: bool = False) -> Any:
                return self.body(inputs, training=training)

        model = Subclassed()
    for steps in (7, 3):
        y, h = model(X[:, :steps])
        assert_close(y[:, -1], h)
        assert numbers(model.predict(X[:2, :steps], verbose=0))[0].shape == (2, steps, 5)


def test_masks_of_layers() -> None:
    tokens = np.array([[3, 5, 2, 0, 0], [1, 0, 4, 0, 2], [4, 4, 4, 4, 4]])
    embedding = layers.Embedding(10, 4, mask_zero=True)
    x = np.array(ops.convert_to_numpy(embedding(tokens)))
    for sequences in (False, True):
        body = own.LSTM(5, return_sequences=sequences)
        model = keras.Sequential([embedding, body])
        assert_close(model(tokens), body(x, mask=tokens != 0))
        found = body.compute_mask(x, tokens != 0)
        assert (found is not None) == sequences
    x[1, 3] = 0
    last = own.GRU(3)
    masked = keras.Sequential([layers.Masking(), own.LSTM(5, return_sequences=True), last])
    y = masked(x)
    first = masked.layers[1](x, mask=x.any(-1))
    assert_close(y, last(first, mask=x.any(-1)))
    # A mask reaches a layer that is given states, too.
    states = [uniform(3, 5), uniform(3, 5)]
    body = own.LSTM(5)
    inputs = keras.Input((None,), dtype="int32")
    given = [keras.Input((5,)), keras.Input((5,))]
    model = keras.Model([inputs, *given], body(embedding(inputs), initial_state=given))
    x = np.array(ops.convert_to_numpy(embedding(tokens)))
    expected = body(x, initial_state=states, mask=tokens != 0)
    assert_close(model([tokens, *states]), expected)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_fresh_in_every_call(name: str) -> None:
    layer = getattr(own, name)(8, dropout=0.4, recurrent_dropout=0.3, seed=3)
    again = getattr(own, name)(8, dropout=0.4, recurrent_dropout=0.3, seed=3)
    first = layer(X, training=True)
    again(X)
    again.set_weights(layer.get_weights())
    assert_close(again(X, training=True), first, atol=0)  # the same seed, the same masks
    second = layer(X, training=True)
    assert not np.allclose(*numbers([first, second]))
    assert_close(layer(X), layer(X), atol=0)


@pytest.mark.parametrize("way", WAYS[BACKEND], ids=str)
def test_dropout_is_fresh_in_every_step(way: dict[str, Any]) -> None:
    """Also in a graph that was made once: no weight learns, so that only masks tell steps apart."""
    model = compiled(own.GRU(8, dropout=0.5, seed=1), **way)
    model.optimizer.learning_rate = 0.0
    x, y = INPUTS[:16], TARGETS[:16]
    losses = {float(model.train_on_batch(x, y)[0]) for _ in range(4)}
    # Losses are means over an epoch.
    assert len({round(loss, 6) for loss in losses}) == 4


@whole
def test_regularizers_and_constraints() -> None:
    options = {
        "kernel_regularizer": "l2",
        "recurrent_regularizer": keras.regularizers.L1(0.1),
        "bias_constraint": "non_neg",
        "kernel_constraint": keras.constraints.MaxNorm(0.3),
        "kernel_initializer": keras.initializers.RandomNormal(seed=1),
        "activity_regularizer": keras.regularizers.L2(0.1),
    }
    theirs, mine = pair("GRU", 5, **options)
    for layer in (theirs, mine):
        layer(X)
    mine.set_weights(theirs.get_weights())
    losses = []
    for layer in (theirs, mine):
        layer(X)
        losses.append([float(v) for v in layer.losses])
    np.testing.assert_allclose(sorted(losses[1]), sorted(losses[0]), rtol=1e-5)
    models = [compiled(layer) for layer in (theirs, mine)]
    models[1].set_weights(models[0].get_weights())
    for model in models:
        model.fit(INPUTS, TARGETS, batch_size=32, shuffle=False, verbose=0)
    for a, b in zip(*(m.get_weights() for m in models)):
        np.testing.assert_allclose(a, b, atol=1e-5)
    norms = np.linalg.norm(models[1].get_weights()[0], axis=0)
    assert norms.max() <= 0.3 + 1e-6


def test_weights_that_are_not_trained() -> None:
    layer = own.LSTM(6)
    model = compiled(layer)
    layer.trainable = False
    before = layer.get_weights()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(INPUTS, TARGETS, verbose=0)
    for a, b in zip(layer.get_weights(), before):
        np.testing.assert_array_equal(a, b)
    assert layer.trainable_variables == [] and len(layer.weights) == 3


def test_new_weights_are_seen() -> None:
    layer = own.LSTM(6)
    first = numbers(layer(X))[0]
    values = layer.get_weights()
    layer.set_weights([w * 2 for w in values])
    assert not np.allclose(numbers(layer(X))[0], first)
    layer.cell.kernel.assign(values[0])
    layer.set_weights(values)
    np.testing.assert_array_equal(numbers(layer(X))[0], first)


@pytest.mark.parametrize("way", WAYS[BACKEND], ids=str)
def test_stateful_models(way: dict[str, Any]) -> None:
    """States go from batch to batch in fit and predict, also in a graph."""
    body = own.GRU(5, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(16, 7, 4)), body, layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss, **way)
    model.fit(INPUTS[:32], TARGETS[:32], batch_size=16, shuffle=False, verbose=0)
    plain = own.GRU(5, return_state=True)
    plain(X)
    plain.set_weights(body.get_weights())
    _, h = plain(INPUTS[:16])
    _, h = plain(INPUTS[16:32], initial_state=h)
    assert_close(body.states[0].value, h)
    body.reset_state()
    model.predict(INPUTS[:16], batch_size=16, verbose=0)
    assert_close(body.states[0].value, plain(INPUTS[:16])[1])
    assert len(model.get_weights()) == 5


def bodies() -> dict[str, Any]:
    found = {
        "options": own.LSTM(
            5,
            activation="relu",
            dropout=0.1,
            kernel_regularizer="l2",
            bias_initializer=keras.initializers.Constant(0.1),
            return_sequences=True,
        ),
        "both": own.Bidirectional(own.GRU(5), merge_mode="sum"),
        "stack": own.RNN([own.LSTMCell(5), own.GRUCell(3)], return_sequences=True),
        "file": own.RNN(str(ROOT / "examples" / "coupled_peephole.rnn"), units=6),
        "named": own.RNN("peephole_lstm", units=5),
    }
    return found if WHOLE else {name: found[name] for name in ("both", "file")}


LOAD = """
import sys
import numpy as np
import rnncc.keras
import keras
x = np.load(sys.argv[1] + "/x.npy")
for name in sys.argv[2:]:
    model = keras.models.load_model(f"{sys.argv[1]}/{name}.keras")
    np.save(f"{sys.argv[1]}/{name}.npy", model.predict(x, verbose=0))
"""


def test_files_in_a_fresh_process(tmp_path: Path) -> None:
    expected = {}
    np.save(tmp_path / "x.npy", INPUTS[:8])
    for name, body in bodies().items():
        model = model_of(body, layers.Dense(2))
        model.save(tmp_path / f"{name}.keras")
        expected[name] = model.predict(INPUTS[:8], verbose=0)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path), *expected],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, y in expected.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), y)


@whole
def test_weights_of_keras(tmp_path: Path) -> None:
    """A file of weights that Keras's layers wrote, and the other way round."""
    path = str(tmp_path / "model.weights.h5")
    first, second = (
        model_of(
            module.Bidirectional(module.LSTM(5, return_sequences=True)),
            module.RNN([module.GRUCell(4), module.LSTMCell(3)]),
        )
        for module in (layers, own)
    )
    for here, there in ((first, second), (second, first)):
        here.set_weights([w + 0.1 for w in here.get_weights()])
        here.save_weights(path)
        there.load_weights(path)
        assert_close(there.predict(X, verbose=0), here.predict(X, verbose=0))


def test_configurations() -> None:
    for body in bodies().values():
        body(X)
        made = type(body).from_config(body.get_config())
        made(X)
        made.set_weights(body.get_weights())
        assert_close(made(X), body(X), atol=0)
        assert made.get_config() == body.get_config()


@whole
def test_clones() -> None:
    model = model_of(own.GRU(5, return_sequences=True), own.Bidirectional(own.LSTM(3)))
    made = keras.models.clone_model(model)
    made.set_weights(model.get_weights())
    assert_close(made(X), model(X), atol=0)
    assert "forward" in model.layers[0].plan() and "Keras" not in model.layers[0].plan()


@pytest.mark.skipif(BACKEND != "torch", reason="Keras's own layers can't be, either")
def test_rematerialized() -> None:
    """Under RematScope, which on the other backends takes no layer with optional arguments."""
    losses = []
    for scope in (None, keras.RematScope(mode="full")):
        keras.utils.set_random_seed(1)
        with scope or nullcontext():
            body = own.LSTM(6)
        losses += compiled(body).fit(INPUTS, TARGETS, shuffle=False, verbose=0).history["loss"]
    assert losses[0] == losses[1]
