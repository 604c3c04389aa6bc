"""rnncc.layers against Keras itself, where it is installed: the same weights, the same outputs.

Passed on Keras 3.15.1 with torch 2.13 as its backend. Gradients are compared with torch's own in
tests/layers/test_layers.py.
"""

from __future__ import annotations

import inspect
import os
from typing import Any

import numpy as np
import pytest

from rnncc import layers

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

X = np.random.default_rng(0).uniform(-0.9, 0.9, (3, 7, 4)).astype("float32")


def numbers(value: Any) -> list[np.ndarray]:
    if isinstance(value, tuple | list):
        return [leaf for v in value for leaf in numbers(v)]
    return [keras.ops.convert_to_numpy(value)]


def compare(theirs: Any, own: Any, x: np.ndarray = X, calls: int = 1, **keywords: Any) -> None:
    """The same shapes of weights in the same order, and outputs arranged alike."""
    theirs(x, **keywords)
    own.build(x.shape)
    arrays = [np.array(w) for w in theirs.get_weights()]
    rng = np.random.default_rng(1)
    arrays = [rng.uniform(-0.8, 0.8, a.shape).astype("float32") for a in arrays]
    assert [a.shape for a in arrays] == [w.shape for w in own.get_weights()]
    theirs.set_weights(arrays)
    own.set_weights(arrays)
    if getattr(theirs, "stateful", False):
        for inner in (
            theirs,
            getattr(theirs, "forward_layer", 0),
            getattr(theirs, "backward_layer", 0),
        ):
            if hasattr(inner, "reset_states"):
                inner.reset_states()
        own.reset_states()
    for _ in range(calls):
        expected, found = theirs(x, **keywords), own(x, **keywords)
        left, right = numbers(expected), numbers(found)
        assert len(left) == len(right)
        for a, b in zip(left, right):
            np.testing.assert_allclose(b, a, atol=2e-6)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"return_sequences": True},
    {"return_state": True},
    {"return_sequences": True, "return_state": True},
    {"return_sequences": True, "return_state": True, "go_backwards": True},
    {"go_backwards": True},
    {"unroll": True},
    {"stateful": True, "return_sequences": True},
    {"use_bias": False},
    {"activation": "relu"},
    {"activation": None},
    {"dropout": 0.2, "recurrent_dropout": 0.2},  # not in inference
]


@pytest.mark.parametrize("name", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_layers(name: str, options: dict[str, Any]) -> None:
    theirs, own = (getattr(module, name)(5, **options) for module in (keras.layers, layers))
    compare(theirs, own, calls=2 if options.get("stateful") else 1)


@pytest.mark.parametrize("activation", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("reset_after", [False, True])
def test_gru(activation: str, reset_after: bool) -> None:
    options = {"recurrent_activation": activation, "reset_after": reset_after}
    compare(keras.layers.GRU(5, **options), layers.GRU(5, **options))


@pytest.mark.parametrize("name", ["SimpleRNN", "GRU", "LSTM"])
def test_initial_states(name: str) -> None:
    options = {"return_sequences": True, "return_state": True}
    theirs, own = (getattr(module, name)(5, **options) for module in (keras.layers, layers))
    rng = np.random.default_rng(3)
    states = [rng.uniform(-0.8, 0.8, (3, 5)).astype("float32") for _ in range(1 + (name == "LSTM"))]
    compare(theirs, own, initial_state=states)


@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("states", [False, True])
def test_bidirectional(mode: str | None, name: str, sequences: bool, states: bool) -> None:
    made = (
        module.Bidirectional(
            getattr(module, name)(5, return_sequences=sequences, return_state=states),
            merge_mode=mode,
        )
        for module in (keras.layers, layers)
    )
    theirs, own = made
    compare(theirs, own)
    count = 2 * (1 + (name == "LSTM"))
    rng = np.random.default_rng(3)
    given = [rng.uniform(-0.8, 0.8, (3, 5)).astype("float32") for _ in range(count)]
    compare(theirs, own, initial_state=given)


def test_bidirectional_with_a_layer_for_the_way_back() -> None:
    for turned in (False, True):
        made = []
        for module in (keras.layers, layers):
            ways = [
                module.LSTM(5, return_sequences=True, go_backwards=turned),
                module.LSTM(5, return_sequences=True, go_backwards=not turned),
            ]
            made.append(module.Bidirectional(ways[0], backward_layer=ways[1]))
        compare(*made)


@pytest.mark.parametrize("options", OPTIONS[:6], ids=str)
def test_cells_and_stacks(options: dict[str, Any]) -> None:
    for cells in (["LSTMCell"], ["LSTMCell", "GRUCell", "SimpleRNNCell"]):
        made = []
        for module in (keras.layers, layers):
            each = [getattr(module, c)(units) for c, units in zip(cells, (5, 3, 4))]
            cell = each[0] if len(each) == 1 else module.StackedRNNCells(each)
            made.append(module.RNN(cell, **options))
        compare(*made)


MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0]], bool)


@pytest.mark.parametrize("name", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.parametrize("options", [OPTIONS[3], OPTIONS[4], OPTIONS[2]], ids=str)
def test_masks(name: str, options: dict[str, Any]) -> None:
    # Keras documents zero_output_for_mask for every step's outputs, and zeroes the last one too.
    for zeros in (False, True)[: 1 + ("return_sequences" in options)]:
        made = [
            getattr(module, name)(5, zero_output_for_mask=zeros, **options)
            for module in (keras.layers, layers)
        ]
        compare(*made, mask=MASK)


@pytest.mark.parametrize("mode", ["concat", "mul", None])
@pytest.mark.parametrize("sequences", [False, True])
def test_masks_in_both_directions(mode: str | None, sequences: bool) -> None:
    made = [
        module.Bidirectional(
            module.LSTM(5, return_sequences=sequences, return_state=True), merge_mode=mode
        )
        for module in (keras.layers, layers)
    ]
    compare(*made, mask=MASK)


@pytest.mark.parametrize("sequences", [False, True])
def test_masks_of_stacks(sequences: bool) -> None:
    made = [
        module.RNN([module.LSTMCell(5), module.LSTMCell(3)], return_sequences=sequences)
        for module in (keras.layers, layers)
    ]
    compare(*made, mask=MASK)


@pytest.mark.parametrize("name", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.parametrize("suffix", ["", "Cell"])
def test_arguments(name: str, suffix: str) -> None:
    """Keras's, in order, with its defaults."""
    theirs, own = (
        {
            k: p.default
            for k, p in inspect.signature(
                getattr(module, name + suffix).__init__
            ).parameters.items()
            if p.kind is not p.VAR_KEYWORD
        }
        for module in (keras.layers, layers)
    )
    assert [*own] == [*theirs] and own == theirs
