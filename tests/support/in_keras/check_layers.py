"""Layers against Keras's own with the same weights: outputs, states, gradients, arguments."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
import pytest

from rnncc import keras as own
from tests.support.in_keras.helpers import (
    BACKEND,
    MASK,
    NAMES,
    X,
    assert_close,
    compare_gradients,
    numbers,
    pair,
    same_weights,
    uniform,
)

OPTIONS: list[dict[str, Any]] = [
    {},
    {"return_sequences": True, "return_state": True},
    {"return_sequences": True, "go_backwards": True},
    {"go_backwards": True, "return_state": True},
    {"use_bias": False, "activation": "relu"},
    {"dropout": 0.2, "recurrent_dropout": 0.2},  # not at inference
]
TRAINED = OPTIONS[1:3]
MODES = [
    ("concat", True),
    (None, True),
    ("concat", False),
    ("sum", False),
    ("mul", True),
    ("ave", True),
]
FEW = BACKEND == "jax"  # where each call of Keras's layers is compiled anew: a second each
if FEW:
    OPTIONS, MODES = TRAINED, MODES[1:2]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_layers(name: str, options: dict[str, Any]) -> None:
    theirs, mine = pair(name, 5, **options)
    same_weights(theirs, mine, X)
    assert_close(mine(X), theirs(X))
    if options in TRAINED:
        compare_gradients(theirs, mine, X)


@pytest.mark.parametrize("reset_after", [False, True])
def test_gru(reset_after: bool) -> None:
    options = {"recurrent_activation": "hard_sigmoid", "reset_after": reset_after}
    theirs, mine = pair("GRU", 5, **options)
    same_weights(theirs, mine, X)
    assert_close(mine(X), theirs(X))


@pytest.mark.parametrize("name", NAMES[2 * FEW :])
def test_initial_states(name: str) -> None:
    theirs, mine = pair(name, 5, return_sequences=True, return_state=True)
    states = [uniform(3, 5, seed=n) for n in range(1 + (name == "LSTM"))]
    same_weights(theirs, mine, X, initial_state=states)
    assert_close(mine(X, initial_state=states), theirs(X, initial_state=states))
    compare_gradients(theirs, mine, X, *states)


@pytest.mark.parametrize("name", NAMES[2 * FEW :])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("zeros", [False, True])
def test_masks(name: str, sequences: bool, zeros: bool) -> None:
    # Keras documents zero_output_for_mask for every step's outputs, and zeroes the last one too.
    if zeros and not sequences:
        return
    options = {"return_sequences": sequences, "return_state": True, "zero_output_for_mask": zeros}
    theirs, mine = pair(name, 5, **options)
    same_weights(theirs, mine, X, mask=MASK)
    found, expected = mine(X, mask=MASK), theirs(X, mask=MASK)
    if BACKEND == "jax" and sequences and not zeros:
        found, expected = (after_the_first_valid(r) for r in (found, expected))
    assert_close(found, expected)
    if BACKEND != "jax":
        compare_gradients(theirs, mine, X, mask=MASK)


def after_the_first_valid(results: Any) -> Any:
    """Keras on JAX has initial states before a row's first valid step, else zeros."""
    y, *states = numbers(results)
    y[1, 0] = 0
    return [y, *states]


@pytest.mark.parametrize(("mode", "sequences"), MODES)
def test_bidirectional(mode: str | None, sequences: bool) -> None:
    made = []
    for module in (keras.layers, own):
        inner = module.LSTM(5, return_sequences=sequences, return_state=True)
        made.append(module.Bidirectional(inner, merge_mode=mode))
    theirs, mine = made
    same_weights(theirs, mine, X)
    assert_close(mine(X), theirs(X))
    assert type(mine(X)) is type(theirs(X)) and len(mine(X)) == len(theirs(X))
    states = [uniform(3, 5, seed=n) for n in range(4)]
    assert_close(mine(X, initial_state=states), theirs(X, initial_state=states))
    if sequences:
        compare_gradients(theirs, mine, X, *states)
    if BACKEND != "jax":
        assert_close(mine(X, mask=MASK), theirs(X, mask=MASK))
    shapes = mine.compute_output_shape((3, 7, 4))
    assert keras.tree.flatten(shapes) == keras.tree.flatten(theirs.compute_output_shape((3, 7, 4)))


def test_a_layer_for_the_way_back() -> None:
    for turned in (False, True)[: 2 - FEW]:
        made = []
        for module in (keras.layers, own):
            ways = [
                module.LSTM(5, return_sequences=True, go_backwards=turned),
                module.LSTM(5, return_sequences=True, go_backwards=not turned),
            ]
            made.append(module.Bidirectional(ways[0], backward_layer=ways[1]))
        same_weights(*made, X)
        assert_close(made[1](X), made[0](X))


@pytest.mark.parametrize("name", NAMES[2 * FEW :])
def test_stateful(name: str) -> None:
    theirs, mine = pair(name, 5, stateful=True, return_sequences=True)
    same_weights(theirs, mine, X)
    for layer in (theirs, mine):
        layer.reset_states()
    for _ in range(2):
        assert_close(mine(X), theirs(X))
    assert_close(mine.states, theirs.states)
    assert [v.shape for v in mine.get_weights()] == [v.shape for v in theirs.get_weights()]
    with pytest.raises(ValueError, match="this call has batch 2"):
        mine(X[:2])
    mine.reset_state()
    assert not any(a.any() for a in numbers([s.value for s in mine.states]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", ["", "Cell"])
def test_arguments(name: str, suffix: str) -> None:
    """Keras's, in order, with its defaults."""
    theirs, mine = (
        {
            k: p.default
            for k, p in inspect.signature(
                getattr(module, name + suffix).__init__
            ).parameters.items()
            if p.kind is not p.VAR_KEYWORD
        }
        for module in (keras.layers, own)
    )
    assert [*mine] == [*theirs] and mine == theirs


@pytest.mark.parametrize("name", NAMES)
def test_names_of_weights(name: str) -> None:
    theirs, mine = pair(name, 5, name="body")
    for layer in (theirs, mine):
        layer(X)
    assert [w.path for w in mine.weights] == [w.path for w in theirs.weights]
    assert mine.count_params() == theirs.count_params()
    assert mine.units == 5 and mine.kernel_initializer.__class__.__name__ == "GlorotUniform"


def test_functions() -> None:
    a = own.LSTM(5, activation=keras.activations.softsign)
    b = keras.layers.LSTM(5, activation="softsign")
    same_weights(b, a, X)
    assert_close(a(X), b(X))
    text = own.LSTM(5, activation="lambda v: v / (1 + abs(v))")
    text(X)
    text.set_weights(a.get_weights())
    assert_close(text(X), a(X))
    with pytest.raises(TypeError, match="it is compiled, so give its name or its text"):
        own.LSTM(5, activation=lambda v: v)


def test_dtypes() -> None:
    mixed = own.LSTM(5, dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(mixed(X).dtype) == "bfloat16"
    assert mixed.weights[0].dtype == "float32"
    with pytest.raises(ValueError, match="weights of bfloat16"):
        own.LSTM(5, dtype="bfloat16")
    if BACKEND == "jax":
        with pytest.raises(ValueError, match="jax_enable_x64"):
            own.LSTM(5, dtype="float64")
        return
    x = X.astype("float64")
    theirs, mine = pair("LSTM", 5, dtype="float64")
    same_weights(theirs, mine, x)
    np.testing.assert_allclose(*numbers([mine(x), theirs(x)]), atol=1e-7)


def test_no_rows_and_no_steps() -> None:
    layer = own.LSTM(5, return_sequences=True, return_state=True)
    layer(X)
    if BACKEND != "jax":  # whose callbacks have no results without numbers
        assert numbers(layer(X[:0]))[0].shape == (0, 7, 5)
    state = [uniform(3, 5), uniform(3, 5)]
    _, h, c = layer(X, mask=np.zeros((3, 7), bool), initial_state=state)
    assert_close([h, c], state)


def test_errors() -> None:
    with pytest.raises(TypeError, match="units is a whole number"):
        own.LSTM(5.5)
    with pytest.raises(ValueError, match="units is at least 1"):
        own.GRU(0)
    with pytest.raises(ValueError, match="in \\[0, 1\\)"):
        own.GRU(3, dropout=1.0)
    with pytest.raises(ValueError, match="use_cudnn"):
        own.LSTM(3, use_cudnn="yes")
    with pytest.raises(TypeError, match="a recurrent layer of rnncc"):
        own.Bidirectional(keras.layers.LSTM(3))
    with pytest.raises(TypeError, match="a layer, not a cell"):
        own.Bidirectional(own.LSTMCell(3))
    with pytest.raises(ValueError, match="merge_mode is one of"):
        own.Bidirectional(own.LSTM(3), merge_mode="max")
    layer = own.LSTM(5)
    layer(X)
    with pytest.raises(ValueError, match="has 2 states"):
        layer(X, initial_state=[uniform(3, 5)])
    assert_close(layer(X, mask=MASK[:, :, None]), layer(X, mask=MASK))
    for mask in (MASK[:, :4], MASK[:2], MASK[0], MASK[:, :, None].repeat(2, 2)):
        with pytest.raises(ValueError, match=r"expected \[batch=3, time=7\]"):
            layer(X, mask=mask)
    with pytest.raises(ValueError, match="batch size has to be known"):
        keras.Sequential([keras.Input((7, 4)), own.LSTM(5, stateful=True)])
