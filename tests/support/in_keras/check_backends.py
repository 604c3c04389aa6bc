"""What each backend asks of an operation: graphs, backwards that come twice, late or never."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import keras
import numpy as np
import pytest

import rnncc
from rnncc import keras as own
from rnncc.operations.calls import Request
from rnncc.operations.pending import Pending
from rnncc.operations.weights import Version, WeightVersions
from tests.support.in_keras.helpers import BACKEND, MASK, X, numbers, same_weights, uniform

only = {
    b: pytest.mark.skipif(b != BACKEND, reason=f"on {b}") for b in ("tensorflow", "jax", "torch")
}


def built(**options: Any) -> Any:
    layer = own.LSTM(5, seed=2, **options)
    layer(X)
    return layer


def expected_gradient(layer: Any, times: int = 1) -> np.ndarray:
    """Of the sum of the output squared, by the kernel."""
    operation = layer.operation()
    weights = numbers([w.value for w in layer.weights])
    y, saved = operation.forward(Request(), [X, *weights], None, save=True)
    shapes = [a.shape for a in (X, *weights)]
    wanted = [False, True, False, False]
    found = operation.backward(saved, [2 * y[0], None, None], wanted, shapes)[1]
    assert found is not None
    return times * np.asarray(found)


@only["tensorflow"]
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("graph", [False, True])
def test_backwards_that_come_twice(graph: bool, training: bool) -> None:
    import tensorflow as tf

    layer = built()

    def twice(x: Any) -> Any:
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_sum(layer(x, training=training) ** 2)
        kernel = layer.cell.kernel.value
        return tape.gradient(loss, kernel), tape.gradient(loss, kernel)

    found = (tf.function(twice) if graph else twice)(tf.constant(X))
    for gradient in found:
        np.testing.assert_allclose(gradient.numpy(), expected_gradient(layer), atol=1e-5)


@only["tensorflow"]
def test_graphs_of_any_batch_and_length() -> None:
    import tensorflow as tf

    layer = built(return_sequences=True)
    signature = [tf.TensorSpec([None, None, 4])]
    run = tf.function(lambda x: layer(x), input_signature=signature)
    assert run.get_concrete_function().structured_outputs.shape.as_list() == [None, None, 5]
    np.testing.assert_array_equal(run(X[:2, :3]).numpy(), layer(X[:2, :3]).numpy())


@only["jax"]
@pytest.mark.parametrize("jitted", [False, True])
def test_functions_of_jax(jitted: bool) -> None:
    import jax

    layer = built()
    wrap = jax.jit if jitted else (lambda f: f)

    def loss(kernel: Any, x: Any, times: int = 1) -> Any:
        with keras.StatelessScope(state_mapping=[(layer.cell.kernel, kernel)]):
            return sum((layer(x) ** 2).sum() for _ in range(times))

    kernel = layer.cell.kernel.value
    expected = expected_gradient(layer)
    value, pull = jax.vjp(lambda k: loss(k, X), kernel)
    for _ in range(2):  # what was saved is gone the second time
        np.testing.assert_allclose(pull(np.float32(1))[0], expected, atol=1e-5)
    many = wrap(jax.grad(lambda k: loss(k, X, 5)))(kernel)
    np.testing.assert_allclose(many, 5 * expected, atol=1e-4)
    again = wrap(jax.grad(jax.checkpoint(lambda k: loss(k, X))))(kernel)
    np.testing.assert_allclose(again, expected, atol=1e-5)
    stacked = np.stack([X, X[::-1], 2 * X])
    losses = wrap(jax.vmap(lambda x: loss(kernel, x)))(stacked)
    np.testing.assert_allclose(losses[:2], [value, value], rtol=1e-5)
    grads = wrap(jax.vmap(jax.grad(loss), (None, 0)))(kernel, stacked)
    np.testing.assert_allclose(grads[0], expected, atol=1e-5)


@only["jax"]
def test_without_the_ffi(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    from rnncc.jax import ffi, mechanism

    assert not ffi.UNAVAILABLE and "typed FFI" in mechanism.HOW
    first = numbers(built()(X))
    monkeypatch.setattr(ffi, "UNAVAILABLE", "of another version")
    layer = built()
    layer.set_weights([uniform(*w.shape) for w in layer.weights])
    found = numbers(layer(X))[0]
    monkeypatch.undo()
    again = built()
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(found, numbers(again(X))[0])
    assert first[0].shape == found.shape
    with pytest.raises(jax.errors.JaxRuntimeError, match="nobody made"):
        results = [jax.ShapeDtypeStruct((), np.float32)]

        def fail(*_: Any) -> None:
            raise ValueError("nobody made this")

        ffi.call_out("a test", fail, fail, results, [np.float32(0)])[0].block_until_ready()


@only["torch"]
def test_torch() -> None:
    import torch

    layer = built()
    x = torch.tensor(X, requires_grad=True)
    loss = (layer(x) ** 2).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    np.testing.assert_allclose(layer.cell.kernel.value.grad, expected_gradient(layer, 2), atol=1e-5)
    with torch.no_grad():  # written in place, past torch's counters too
        before = numbers(layer(X))[0]
        layer.cell.kernel.value.data.mul_(2)
        assert not np.allclose(numbers(layer(X))[0], before)


@only["torch"]
@pytest.mark.parametrize("what", ["last", "masked", "both", "started"])
def test_second_derivatives(what: str) -> None:
    import torch

    from tests.support.in_keras.check_cells import STARTED

    options = {"dtype": "float64"}
    layer: Any = {
        "last": lambda: own.LSTM(3, **options),
        "masked": lambda: own.SimpleRNN(3, return_sequences=True, go_backwards=True, **options),
        "both": lambda: own.Bidirectional(own.SimpleRNN(3, **options), merge_mode="mul"),
        "started": lambda: own.RNN(rnncc.compile_text(STARTED), units=3, **options),
    }[what]()
    x = torch.tensor(uniform(2, 4, 3).astype("float64"), requires_grad=True)
    keywords = {"mask": np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool)} if what == "masked" else {}
    layer(x, **keywords)
    tensors = [v.value for v in layer.trainable_variables]

    def call(x: Any, *_: Any) -> Any:
        return layer(x, **keywords)

    assert torch.autograd.gradcheck(call, (x, *tensors))
    assert torch.autograd.gradgradcheck(call, (x, *tensors))


@only["jax"]
@pytest.mark.parametrize("masked", [False, True])
def test_second_derivatives_on_jax(masked: bool) -> None:
    """As of Keras's own layer, of inputs and weights, in both orders of modes."""
    import jax

    def made(module: Any) -> Any:
        return module.Bidirectional(module.LSTM(5)) if masked else module.LSTM(5)

    theirs, mine = made(keras.layers), made(own)
    same_weights(theirs, mine, X)
    keywords = {"mask": jax.numpy.asarray(MASK)} if masked else {}

    def loss(layer: Any) -> Any:
        def total(x: Any, *values: Any) -> Any:
            others = [v.value for v in layer.non_trainable_variables]
            results = layer.stateless_call([*values], others, x, **keywords)[0]
            return jax.numpy.sin(results).sum()

        return total

    def slopes(layer: Any) -> Any:
        every = tuple(range(1 + len(layer.trainable_variables)))
        gradient = jax.grad(loss(layer), every)
        squares = jax.grad(lambda *a: sum((g**2).sum() for g in gradient(*a)), every)
        values = [v.value for v in layer.trainable_variables]
        given = jax.numpy.asarray(X), *values
        tangents = tuple(jax.numpy.cos(a) for a in given)
        return squares(*given), jax.jvp(gradient, given, tangents)[1]

    for a, b in zip(jax.tree.leaves(slopes(mine)), jax.tree.leaves(slopes(theirs))):
        np.testing.assert_allclose(a, b, atol=2e-4, rtol=2e-3)


@only["tensorflow"]
def test_tensorflow_has_no_second_derivatives() -> None:
    import tensorflow as tf

    layer, x = built(), tf.constant(X)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = tf.reduce_sum(layer(x, training=True))
        slope = tf.reduce_sum(inner.gradient(y, x) ** 2)
    with pytest.raises(NotImplementedError, match=r"derivatives of LSTM .* on TensorFlow"):
        outer.gradient(slope, x)


@only["tensorflow"]
def test_tensorflow_asks_for_what_a_tape_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """dx where somebody may want it: a tape, one before this layer, or one around a function."""
    import tensorflow as tf

    from rnncc.operations.operation import Operation

    asked: list[bool] = []
    real = Operation.backward
    monkeypatch.setattr(
        Operation, "backward", lambda self, *a: asked.append(a[2][0]) or real(self, *a)
    )
    layer, x = built(), tf.constant(X)
    kernel = layer.cell.kernel.value

    @tf.function
    def step(x: Any, watch: bool = False) -> Any:
        with tf.GradientTape() as tape:
            if watch:
                tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(loss, [kernel, *([x] if watch else [])]), loss

    np.testing.assert_allclose(step(x)[0][0], expected_gradient(layer), atol=1e-5)
    assert asked[:1] == [False]
    dx = step(x, True)[0][1]
    with tf.GradientTape() as around:
        around.watch(x)
        loss = step(x)[1]
    asked.clear()
    np.testing.assert_array_equal(around.gradient(loss, x), dx)
    assert asked == [True]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    rows = tape.jacobian(y, x).numpy()
    own_rows = rows[np.arange(3), :, np.arange(3)]  # of each row by its own inputs
    np.testing.assert_allclose(np.einsum("bu,butf->btf", 2 * y, own_rows), dx, atol=1e-5)


def test_a_wrong_state_is_refused_where_it_is_given() -> None:
    states = [np.zeros((3, 4), "float32"), np.zeros((3, 5), "float32")]
    with pytest.raises(ValueError, match=r"initial state h of LSTM has shape \[3, 4\], expected"):
        built()(X, initial_state=states)


def test_layers_are_let_go() -> None:
    model = keras.Sequential([keras.Input((7, 4)), own.LSTM(5), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X, np.zeros(3), verbose=0)
    gone = weakref.ref(model.layers[0].operation())
    del model
    keras.backend.clear_session()
    gc.collect()
    assert gone() is None


@only["jax"]
def test_what_jax_calls_is_let_go() -> None:
    import jax

    from rnncc.jax import ffi

    gc.collect()
    before = set(ffi._callees)
    layer = built()
    run = jax.jit(layer)
    right, new = run(X), set(ffi._callees) - before
    executable = run.lower(X).compile()
    np.testing.assert_array_equal(executable(X), right)
    del run, layer
    jax.clear_caches()
    keras.backend.clear_session()
    for _ in range(2):  # what the first lets go of holds more
        gc.collect()
    assert new and not new & set(ffi._callees)
    with pytest.raises(Exception, match="runs LSTM is gone: keep the model"):
        jax.block_until_ready(executable(X))


def test_versions() -> None:
    versions = WeightVersions()
    a, b = np.arange(6.0).reshape(2, 3), np.array([np.nan, -0.0])
    first, kept = versions.find([a, b])
    assert versions.find([a.copy(), b.copy()])[0] == first
    b[1] = 0.0
    second, _ = versions.find([a, b])
    assert second != first and np.signbit(kept[1][1])
    assert versions.find([a, kept[1]])[0] == first  # the last two are kept
    assert first[0] != first[1] and first[0][1] != first[1][0] and isinstance(first[0], Version)


def test_pending() -> None:
    pending, entries = Pending(), [object() for _ in range(3)]
    handles = [pending.put(e) for e in entries]  # type: ignore[arg-type]
    assert pending.take(handles[0]) is None  # others came after it: from now on more are kept
    assert pending.take(handles[2]) is entries[2] and pending.take(handles[2]) is None
    handles = [pending.put(e) for e in entries]  # type: ignore[arg-type]
    assert [pending.take(h) for h in handles] == entries
    assert pending.put(None) == 0 and pending.take(0) is None
