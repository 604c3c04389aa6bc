"""How many dropout masks are drawn: Keras's own layers and ours, held to the same models."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from rnncc import keras as own
from tests.support.gate_masks import Readable, all_kinds, correlations
from tests.support.in_keras.helpers import (
    WHOLE,
    numbers,
)

ROWS, UNITS = 5000, 2
BOTH = Readable("LSTM", 0.4, 0.3)
# How many masks a cell draws is its text's business, and Keras's.
MODULES = [own, keras.layers][: 1 + WHOLE]
KINDS = all_kinds() if WHOLE else [BOTH, Readable("GRU", 0.4, 0.0)]


def made(module: Any, readable: Readable, rows: int = ROWS, **keywords: Any) -> tuple[Any, Any]:
    """A layer whose masks can be read, and its initial states."""
    name = readable.kind.split()[0]
    layer = getattr(module, name)(UNITS, seed=7, **readable.keywords, **keywords)
    layer.build((rows, 1, UNITS))
    layer.set_weights([w.astype("float32") for w in readable.weights(UNITS)])
    count = 2 if name == "LSTM" else 1
    return layer, [np.ones((rows, UNITS), "float32") for _ in range(count)]


def first_outputs(layer: Any, states: Any) -> np.ndarray:
    x = np.ones((len(states[0]), 1, UNITS), "float32")
    given = [ops.convert_to_tensor(s) for s in states]
    return numbers(layer(x, initial_state=given, training=True))[0]


@pytest.mark.parametrize("module", MODULES, ids=["ours", "Keras's"][: len(MODULES)])
@pytest.mark.parametrize("readable", KINDS, ids=str)
def test_as_many_masks_as_keras_draws(module: Any, readable: Readable) -> None:
    outputs = first_outputs(*made(module, readable))
    per_gate = readable.recurrent_dropout > 0
    assert readable.holds(outputs, per_gate)
    assert readable.gates == 1 or not readable.holds(outputs, not per_gate)


@pytest.mark.parametrize("module", MODULES, ids=["ours", "Keras's"][: len(MODULES)])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU before"][: 1 + 2 * WHOLE])
def test_implementation_says_how_many(module: Any, kind: str) -> None:
    # With cuDNN's shortcut Keras fails on more masks than one.
    only = Readable(kind, 0.4, 0.0)
    for number in (1, 2):
        layer, states = made(module, only, implementation=number, use_cudnn=False)
        outputs = first_outputs(layer, states)
        assert only.holds(outputs, number == 1) and not only.holds(outputs, number == 2)
    dropped = Readable(kind, 0.4, 0.3)
    layer, states = made(module, dropped, implementation=2)
    assert dropped.holds(first_outputs(layer, states), True)


@pytest.mark.parametrize("module", MODULES, ids=["ours", "Keras's"][: len(MODULES)])
def test_cells_of_an_rnn_draw_likewise(module: Any) -> None:
    """RNN(LSTMCell): masks for each gate, which know nothing of each other, and stay for all
    steps."""
    cell = module.LSTMCell(UNITS, seed=3, **BOTH.keywords)
    layer = module.RNN(cell, return_sequences=True)
    layer.build((ROWS, 3, UNITS))
    layer.set_weights([w.astype("float32") for w in BOTH.weights(UNITS)])
    states = [np.ones((ROWS, UNITS), "float32") for _ in range(2)]
    x = np.ones((ROWS, 3, UNITS), "float32")
    given = [ops.convert_to_tensor(s) for s in states]
    found = numbers(layer(x, initial_state=given, training=True))[0]
    assert BOTH.holds(found[:, 0], True)
    kept = BOTH.read(found[:, 0])
    columns = np.moveaxis(kept, 2, 0).reshape(ROWS, -1)
    assert np.abs(correlations(columns)).max() < 5
    now = states
    for t in range(3):
        now = BOTH.step(x[:, t], now, kept)
        np.testing.assert_allclose(found[:, t], now[0], rtol=1e-3, atol=1e-3)


def test_what_was_chosen_is_kept() -> None:
    layer = own.LSTM(3, dropout=0.2, implementation=1)
    for each in (layer, own.LSTM.from_config(layer.get_config())):
        assert dict(each.cell.compiled.cell.options)["dropout_per_gate"]
        assert each.get_config()["implementation"] == 1
    plain = own.GRU(3, recurrent_dropout=0.2)
    assert "implementation" not in plain.get_config()
    assert dict(plain.cell.compiled.cell.options)["dropout_per_gate"]
    one = own.GRU(3, recurrent_dropout=0.2, dropout_per_gate=False)
    again = own.GRU.from_config(one.get_config())
    assert not dict(again.cell.compiled.cell.options)["dropout_per_gate"]


def test_rates_are_chosen_where_a_layer_is_made() -> None:
    layer = own.LSTM(3, dropout=0.2)
    assert (layer.dropout, layer.cell.recurrent_dropout) == (0.2, 0.0)
    for owner in (layer, layer.cell):
        with pytest.raises(AttributeError, match="recurrent_dropout is chosen where LSTM"):
            owner.recurrent_dropout = 0.3
