"""Cells, RNN, stacks, cells from files, nested inputs, states and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import rnncc
from rnncc import keras as own
from tests.support.in_keras.helpers import (
    BACKEND,
    MASK,
    NAMES,
    X,
    assert_close,
    compare_gradients,
    gradients,
    numbers,
    pair,
    same_weights,
    uniform,
)
from tests.support.paths import ROOT

NESTED = Path(rnncc.__file__).parent / "cells" / "nested.rnn"
COUPLED = ROOT / "examples" / "coupled_peephole.rnn"
FEW = BACKEND == "jax"
STARTED = """
cell: Started
features: size
units: size
x: input[features]
h: state[units] = start
W: weight[features, units] = glorot_uniform
U: weight[units] = ones
start: weight[units] = ones
shift: constant[units] = zeros
h[t] = tanh(x[t] @ W + U * h[t-1] + shift)
return h[t]
"""


@pytest.mark.parametrize("name", NAMES)
def test_one_step(name: str) -> None:
    theirs, mine = pair(f"{name}Cell", 5)
    states = [uniform(3, 5, seed=n) for n in range(1 + (name == "LSTM"))]
    same_weights(theirs, mine, X[:, 0], states)
    y, after = mine(X[:, 0], states)
    expected, then = theirs(X[:, 0], states)
    assert_close([y, *keras.tree.flatten(after)], [expected, *keras.tree.flatten(then)])
    assert mine.state_size == theirs.state_size and mine.output_size == theirs.output_size
    assert [w.path.split("/")[-1] for w in mine.weights] == [
        w.path.split("/")[-1] for w in theirs.weights
    ]
    assert_close(mine.get_initial_state(batch_size=2), theirs.get_initial_state(batch_size=2))


def test_a_cell_in_an_rnn_of_keras() -> None:
    cell = own.LSTMCell(5)
    theirs, mine = layers.RNN(cell), own.RNN(cell)
    assert_close(theirs(X), mine(X))


@pytest.mark.parametrize("options", [{}, {"return_sequences": True, "return_state": True}][FEW:])
@pytest.mark.parametrize("names", [["LSTMCell"], ["LSTMCell", "GRUCell", "SimpleRNNCell"]][FEW:])
def test_stacks(names: list[str], options: dict[str, Any]) -> None:
    made = []
    for module in (layers, own):
        cells = [getattr(module, c)(units) for c, units in zip(names, (5, 3, 4))]
        cell = cells[0] if len(cells) == 1 else module.StackedRNNCells(cells)
        made.append(module.RNN(cell, **options))
    theirs, mine = made
    same_weights(theirs, mine, X)
    assert_close(mine(X), theirs(X))
    compare_gradients(theirs, mine, X)
    if len(names) > 1 and options:
        _, (h, c), h_1, h_2 = mine(X)
        again = mine(X, initial_state=[[h, c], h_1, h_2])
        flat = mine(X, initial_state=[h, c, h_1, h_2])
        assert_close(again, flat, atol=0)
    found = keras.tree.flatten(mine.compute_output_shape((3, 7, 4)))
    assert found == keras.tree.flatten([a.shape for a in numbers(mine(X))])


def test_an_rnn_of_a_cell_has_the_bits_of_the_layer() -> None:
    layer, rnn = own.LSTM(10), own.RNN(own.LSTMCell(10))
    for body in (layer, rnn):
        body(X)
    rnn.set_weights(layer.get_weights())
    np.testing.assert_array_equal(*numbers([layer(X), rnn(X)]))


def test_two_layers_of_one_class_keep_their_weights_apart() -> None:
    stack = own.RNN([own.LSTMCell(4), own.LSTMCell(4)])
    stack(X)
    first, second = own.LSTM(4, return_sequences=True), own.LSTM(4)
    second(first(X))
    first.set_weights(stack.get_weights()[:3])
    second.set_weights(stack.get_weights()[3:])
    assert_close(stack(X), second(first(X)), atol=1e-6)


def test_cells_from_files_and_classes() -> None:
    path = COUPLED
    made = rnncc.compile(path)
    native = made(units=6, return_sequences=True)
    expected = native(X)
    for spec in (str(path), path, made):
        layer = own.RNN(spec, units=6, return_sequences=True, name="body")
        layer(X)
        layer.set_weights(native.get_weights())
        np.testing.assert_allclose(numbers(layer(X))[0], expected, atol=1e-6)
    y, pullback = native.vjp(X)
    found = gradients(layer, lambda body, x: body(x), [X])
    expected_grads = pullback(uniform(*y.shape, seed=10))
    np.testing.assert_allclose(found[0], expected_grads.inputs, atol=1e-5)
    for a, b in zip(found[1:], expected_grads.weights.values()):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_weights_that_states_start_from() -> None:
    """And constants, and what a compiled cell's own weights can be given."""
    made = rnncc.compile_text(STARTED)
    layer = own.RNN(
        made,
        units=6,
        regularizers={"W": "l2"},
        initializers={"U": "zeros"},
        constraints={"start": "non_neg"},
        return_sequences=True,
    )
    y = numbers(layer(X))[0]
    assert [w.name for w in layer.trainable_weights] == ["W", "U", "start"]
    assert [w.name for w in layer.non_trainable_weights] == ["shift"]
    assert len(layer.losses) == 1 and not numbers(layer.cell.U)[0].any()
    native = made(units=6, return_sequences=True)
    native.build(X.shape)
    native.set_weights(
        [*map(np.array, (layer.cell.W, layer.cell.U, layer.cell.start)), 0 * y[0, 0]]
    )
    np.testing.assert_allclose(y, native(X), atol=1e-6)
    _, pullback = native.vjp(X)
    expected = pullback(uniform(*y.shape, seed=10))
    found = gradients(layer, lambda body, x: body(x), [X])
    np.testing.assert_allclose(found[3], expected.weights["start"], atol=1e-5)
    assert_close(layer.get_initial_state(batch_size=2), np.ones((2, 6)))
    again = own.RNN.from_config(layer.get_config())
    again(X)
    assert len(again.losses) == 1
    with pytest.raises(ValueError, match="there is no weight 'V'"):
        own.RNN(made, units=6, regularizers={"V": "l2"})


def test_masks_of_stacks() -> None:
    cells = lambda module: [module.LSTMCell(5), module.LSTMCell(3)]  # noqa: E731
    for sequences in (False, True):
        native = rnncc.layers.RNN(cells(rnncc.layers), return_sequences=sequences)
        layer = own.RNN(cells(own), return_sequences=sequences)
        expected = native(X, mask=MASK)
        layer(X)
        layer.set_weights(native.get_weights())
        np.testing.assert_allclose(numbers(layer(X, mask=MASK))[0], expected, atol=1e-6)


def test_checkpoints() -> None:
    plain, often = (own.RNN(own.LSTMCell(5), checkpoint_every=n) for n in (None, 2))
    for layer in (plain, often):
        layer(X)
    often.set_weights(plain.get_weights())
    call = lambda body, x: body(x)  # noqa: E731
    for a, b in zip(gradients(plain, call, [X]), gradients(often, call, [X])):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_nested() -> None:
    """Scenario 13: two inputs, two states, two outputs."""
    cell = own.Cell(NESTED, unit_1=10, unit_2=20, unit_3=30)
    rnn = own.RNN(cell, return_state=True)
    inputs = keras.Input((None, 32)), keras.Input((None, 64, 32))
    y, s1, s2 = rnn(inputs)
    assert [t.shape for t in y] == [(None, 10), (None, 20, 30)]
    assert (s1.shape, s2.shape) == ((None, 10), (None, 20, 30))
    assert cell.state_size == [10, (20, 30)] and cell.output_size == (10, (20, 30))
    model = keras.Model(inputs, [*y])
    model.compile("adam", loss=["mse", "mse"])
    arrays = [uniform(8, 5, 32), uniform(8, 5, 64, 32)]
    targets = [uniform(8, 10), uniform(8, 20, 30)]
    first = model.evaluate(arrays, targets, verbose=0, return_dict=True)["loss"]
    model.fit(arrays, targets, batch_size=4, epochs=2, verbose=0)
    assert model.evaluate(arrays, targets, verbose=0, return_dict=True)["loss"] < first
    k1, k2 = numbers([cell.kernel_1, cell.kernel_2_3])
    h1 = h2 = 0.0
    for t in range(5):
        h1 = arrays[0][:, t] @ k1 + h1
        h2 = np.einsum("bij,ijkl->bkl", arrays[1][:, t], k2) + h2
    found = model.predict(arrays, verbose=0)
    np.testing.assert_allclose(found[0], h1, atol=1e-4)
    np.testing.assert_allclose(found[1], h2, atol=1e-3)
    made = keras.Model.from_config(model.get_config())
    made.set_weights(model.get_weights())
    assert_close(made.predict(arrays, verbose=0), found)


def test_errors() -> None:
    with pytest.raises(TypeError, match="cells is a list"):
        own.StackedRNNCells(own.LSTMCell(3))
    with pytest.raises(ValueError, match="cells is empty"):
        own.StackedRNNCells([])
    cell = own.LSTMCell(3)
    with pytest.raises(ValueError, match="one cell is there twice"):
        own.StackedRNNCells([cell, cell])
    with pytest.raises(ValueError, match="2 outputs"):
        own.StackedRNNCells([own.Cell(NESTED, unit_1=1, unit_2=2, unit_3=3), own.LSTMCell(3)])
    with pytest.raises(TypeError, match="has no keyword activatoin: did you mean activation"):
        own.RNN("lstm", units=3, activatoin="relu")
    with pytest.raises(ValueError, match="Unrecognized keyword arguments"):
        own.RNN(cell, units=4)
    native = rnncc.layers.LSTM(3)
    with pytest.raises(TypeError, match="units is chosen where"):
        own.Cell(native, units=4)
    with pytest.raises(ValueError, match="no built-in cell is called"):
        own.RNN("lsmt", units=3)
    name = rnncc.compile_text(
        "cell: C\nn: size\nx: input[n]\nh: state[n]\ncall: weight[n]\n"
        "h[t] = x[t] * call + h[t-1]\nreturn h[t]\n"
    )
    with pytest.raises(ValueError, match="an attribute of that name"):
        own.RNN(name, n=3)
