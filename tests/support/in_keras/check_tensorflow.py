"""Graphs of TensorFlow: ops of our own, control flow, errors from within, what isn't there."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from rnncc import keras as own
from tests.support.in_keras.helpers import BACKEND, MASK, X, uniform

if BACKEND != "tensorflow":
    pytest.skip("on tensorflow", allow_module_level=True)

import tensorflow as tf

from rnncc.keras import in_tensorflow, tf_ops
from rnncc.operations.operation import Operation


@pytest.fixture(params=["ops", "numpy_function"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways out of a graph."""
    if request.param == "numpy_function":
        monkeypatch.setattr(tf_ops, "UNAVAILABLE", "of another version")
    return str(request.param)


def built(name: str = "LSTM", **options: Any) -> Any:
    layer = getattr(own, name)(5, seed=2, **options)
    layer(X)
    return layer


def slopes(call: Callable[..., Any], layer: Any, *tensors: Any) -> list[Any]:
    """[results, gradients of the sum of their squares: by tensors, by weights]."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        found = tf.nest.flatten(call(*tensors))
        loss = tf.add_n([tf.reduce_sum(t**2) for t in found])
    weights = [w.value for w in layer.trainable_variables]
    return [found, tape.gradient(loss, [*tensors, *weights])]


def trained(layer: Any) -> Callable[..., Any]:
    return lambda x: layer(x, training=True)


def assert_same(found: Any, expected: Any, atol: float = 0) -> None:
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=atol and 1e-5)


# ---- the ops -------------------------------------------------------------------------------------


def call_out(fill: Any, owner: Any, key: str = "a test", **options: Any) -> Any:
    @tf.function
    def run(x: Any) -> Any:
        shapes: Any = lambda arrays: [arrays[0].shape, ()]  # noqa: E731
        types = [tf.float64, tf.int32]
        return tf_ops.call_out(key, owner, fill, shapes, types, [x], stateful=False)

    return run


class Owner:
    pass


def test_ops() -> None:
    def fill(arrays: Sequence[np.ndarray], places: Sequence[np.ndarray]) -> None:
        places[0][...] = 2 * arrays[0]
        places[1][...] = arrays[0].size

    assert not tf_ops.UNAVAILABLE and "ops of our own" in in_tensorflow.HOW
    run, owner = call_out(fill, owner=(kept := Owner())), kept
    for shape in ((2, 3), (), (0, 3), (4, 0)):
        x = tf.constant(uniform(*shape))
        doubled, count = run(x)
        np.testing.assert_array_equal(doubled, 2.0 * x.numpy())
        assert count == x.numpy().size
    assert owner is kept


def test_errors_say_what_went_wrong() -> None:
    def fail(*_: Any) -> None:
        raise ValueError("nobody made this")

    owner: Any = Owner()
    run = call_out(fail, owner, "a failure")
    with pytest.raises(tf.errors.InvalidArgumentError, match="nobody made this"):
        run(tf.zeros(2))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"line \d+, in fail"):
        run(tf.zeros(2))
    del owner
    gc.collect()


def test_a_library_without_these_functions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tf_ops, "_api", None)
    assert "came without" in tf_ops._register("")
    assert "can't be loaded" in tf_ops._register("/nowhere/libtensorflow_framework.so.2")
    other = tmp_path / "none.so"
    other.write_bytes(b"")
    assert "can't be loaded" in tf_ops._register(str(other))
    numpy = np._core._multiarray_umath.__file__
    assert "another version: " in tf_ops._register(str(numpy))


# ---- layers in graphs ----------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("what", ["last", "masked", "states", "drawn", "both"])
def test_graphs_are_eager_calls(what: str, training: bool, transport: str) -> None:
    """The same bits, forwards and backwards."""
    options: dict[str, Any] = {
        "masked": {"return_sequences": True, "go_backwards": True},
        "states": {"return_state": True},
        "drawn": {"dropout": 0.4},
    }.get(what, {})
    layer: Any = built(**options)
    if what == "both":
        layer = own.Bidirectional(own.GRU(4, return_sequences=True, seed=1))
        layer(X)
    tensors = [tf.constant(X)]
    if what == "states":
        tensors += [tf.constant(uniform(3, 5, seed=n)) for n in range(2)]
    mask = tf.constant(MASK) if what == "masked" else None

    def call(x: Any, *states: Any) -> Any:
        return layer(x, mask=mask, initial_state=[*states] or None, training=training)

    if what == "both":
        call = lambda x: layer(x, training=training)  # noqa: E731
    seeds = [v for v in layer.non_trainable_variables if "seed" in v.path]
    before = [v.numpy() for v in seeds]
    expected = slopes(call, layer, *tensors)
    for v, number in zip(seeds, before, strict=True):
        v.assign(number)
    found = tf.function(lambda *t: slopes(call, layer, *t))(*tensors)
    assert_same(found, expected)


def test_loops_of_a_graph(transport: str) -> None:
    """Batches that only the run knows, another in each turn."""
    layer, x = built(), tf.constant(X)

    def turns(x: Any) -> Any:
        def turn(n: Any, total: Any) -> Any:
            return n + 1, total + tf.reduce_sum(layer(x[: n + 1], training=True) ** 2)

        return tf.sqrt(tf.while_loop(lambda n, _: n < 3, turn, [0, 0.0])[1])

    def rows(x: Any) -> Any:
        return tf.map_fn(lambda row: layer(row[None], training=True)[0], x)

    expected = slopes(turns, layer, x)
    assert_same(tf.function(lambda x: slopes(turns, layer, x))(x), expected, atol=1e-6)
    expected = slopes(trained(layer), layer, x)
    assert_same(tf.function(lambda x: slopes(rows, layer, x))(x), expected, atol=1e-6)


def test_no_rows_and_no_steps(transport: str) -> None:
    layer = built(return_state=True, return_sequences=True)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 4])])
    def run(x: Any) -> Any:
        return slopes(trained(layer), layer, x)

    for batch, time in ((0, 7), (3, 0), (0, 0), (2, 3)):
        (y, h, _), (dx, kernel, *_) = run(tf.ones([batch, time, 4]))
        assert y.shape == (batch, time, 5) and h.shape == (batch, 5)
        assert dx.shape == (batch, time, 4) and np.any(kernel) == bool(batch and time)


def test_results_of_a_size_worth_writing_in_place() -> None:
    layer, x = own.GRU(64, return_sequences=True), tf.constant(uniform(32, 40, 48))
    layer(x)
    expected = slopes(trained(layer), layer, x)
    found = tf.function(lambda x: slopes(trained(layer), layer, x))(x)
    assert found[0][0].numpy().nbytes > 2**17
    assert_same(found, expected)


def test_threads_run_graphs_at_once() -> None:
    layers = [built(), built("GRU")]
    graphs = [tf.function(lambda x, own=own: own(x, training=True)) for own in layers]
    expected = [layer(X).numpy() for layer in layers]
    wrong: list[Any] = []

    def work(which: int) -> None:
        for turn in range(20):
            rows = turn % 3 + 1
            found = graphs[which](tf.constant(X[:rows])).numpy()
            wrong.extend([rows] * (not np.array_equal(found, expected[which][:rows])))

    threads = [threading.Thread(target=work, args=(n % 2,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_layer_that_is_gone(transport: str) -> None:
    layer = built()
    run = tf.function(layer).get_concrete_function(tf.TensorSpec([None, 7, 4]))
    run(tf.constant(X))
    del layer
    keras.backend.clear_session()
    gc.collect()
    with pytest.raises(tf.errors.OpError, match="runs LSTM is gone: keep the model"):
        run(tf.constant(X))


def test_a_wrong_state_is_refused_within_a_graph(transport: str) -> None:
    layer = built()
    spec = [tf.TensorSpec([None, 7, 4]), tf.TensorSpec([None, 5])]
    run = tf.function(lambda x, h: layer(x, initial_state=[h, h]), input_signature=spec)
    with pytest.raises(tf.errors.OpError, match=r"state h of LSTM has shape \[2, 5\], expected"):
        run(tf.constant(X), tf.zeros([2, 5]))


def test_a_graph_that_was_told_another_shape() -> None:
    """Memory is read as far as it goes, whatever `set_shape` says."""
    layer = built()

    @tf.function
    def run() -> Any:
        x = tf.numpy_function(lambda: X[:1], [], tf.float32)
        x.set_shape(X.shape)
        return layer(x)

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"was told: \[3, 7, 4\]"):
        run()


def test_no_xla_in_functions() -> None:
    layer = built()
    run = tf.function(lambda x: layer(x), jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match=tf_ops.PLAIN):
        run(tf.constant(X))


def test_cotangents_that_are_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads the last states: their cotangents are not handed over."""
    handed: list[Any] = []
    real = Operation.backward
    monkeypatch.setattr(
        Operation, "backward", lambda self, *a: handed.append(a[1]) or real(self, *a)
    )
    layer = built()
    tf.function(lambda x: slopes(trained(layer), layer, x))(tf.constant(X))
    assert [d is None for d in handed[0]] == [False, True, True]


def test_one_replica() -> None:
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        model = keras.Sequential([keras.Input((7, 4)), own.LSTM(5), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    losses = model.fit(X, np.ones(3), epochs=3, batch_size=2, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


# ---- second derivatives --------------------------------------------------------------------------


def gradient_of(layer: Any, x: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(layer(x, training=True) ** 2)
    return tape.gradient(y, x)


@pytest.mark.parametrize("graph", ["around", "inside", "forward"])
def test_no_second_derivatives_in_graphs(graph: str, transport: str) -> None:
    layer, x = built(), tf.constant(X)
    call = tf.function(layer) if graph == "forward" else layer
    slope: Any = lambda x: gradient_of(call, x)  # noqa: E731
    inner = tf.function(slope) if graph == "inside" else slope

    def twice(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            penalty = tf.reduce_sum(inner(x) ** 2)
        return tape.gradient(penalty, x)

    run = tf.function(twice) if graph == "around" else twice
    # Where one graph holds both, it isn't made; the gradient of a function says so when it runs.
    expected = NotImplementedError if graph == "around" else tf.errors.InvalidArgumentError
    with pytest.raises(expected, match="second derivatives of LSTM are not available on TensorFl"):
        run(x)


def test_gradients_that_nobody_differentiates(transport: str) -> None:
    layer, x = built(), tf.constant(X)

    @tf.function
    def step(x: Any) -> Any:
        return gradient_of(layer, x), tf.reduce_sum(layer(x, training=True) ** 2)

    with tf.GradientTape() as tape:
        tape.watch(x)
        dx, loss = step(x)
    np.testing.assert_array_equal(tape.gradient(loss, x), dx)


# ---- forwards that run again ---------------------------------------------------------------------


@pytest.mark.parametrize("eager", [False, True])
def test_remat(eager: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is saved, and dropout draws the same masks."""
    kept: list[bool] = []
    real = Operation.forward

    def forward(self: Any, *arguments: Any, save: bool, **options: Any) -> Any:
        kept.append(save)
        return real(self, *arguments, save=save, **options)

    weights, found = None, []
    for mode in (None, "full", "activations"):
        with keras.RematScope(mode):
            body = own.LSTM(5, dropout=0.3, seed=3)
        model = keras.Sequential([keras.Input((7, 4)), body, keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=eager)
        weights = weights or model.get_weights()
        model.set_weights(weights)
        with monkeypatch.context() as patch:
            patch.setattr(Operation, "forward", forward)
            model.fit(X, np.ones(3), shuffle=False, verbose=0)
        found.append(model.get_weights())
        assert kept == {"full": [False, True]}.get(str(mode), [True])
        kept.clear()
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_recompute_grad() -> None:
    layer, x = built(), tf.constant(X)
    call = tf.recompute_grad(trained(layer))
    expected = slopes(trained(layer), layer, x)
    assert_same(slopes(call, layer, x), expected)
    assert_same(tf.function(lambda x: slopes(call, layer, x))(x), expected)
