"""rnncc.layers: configurations, files, copies, tables, and what is said of mistakes."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.layers import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Cell,
    GRUCell,
    LSTMCell,
    SimpleRNN,
    deserialize,
    serialize,
)
from tests.support.arrays import uniform
from tests.support.nested import F64, leaves, same, stack

# ---- data, files, copies, text ------------------------------------------------------------------


def every_layer() -> list[Any]:
    peephole = rnncc.compile("peephole_lstm", dtype="float64")
    return [
        SimpleRNN(3, seed=1, **F64),
        GRU(3, reset_after=False, seed=1, kernel_initializer="he_normal", **F64),
        LSTM(3, return_sequences=True, return_state=True, dropout=0.1, **F64),
        RNN(LSTMCell(3, **F64), return_sequences=True),
        stack(return_state=True),
        RNN([peephole(units=3), LSTMCell(2, **F64)]),
        Bidirectional(LSTM(3, return_sequences=True, **F64), "ave"),
        Bidirectional(
            LSTM(3, **F64), merge_mode=None, backward_layer=GRU(3, go_backwards=True, **F64)
        ),
        Bidirectional(stack()),
    ]


@pytest.mark.parametrize("number", range(9))
def test_configurations_and_copies(number: int, tmp_path: Path) -> None:
    x, layer = uniform(2, 3, 4), every_layer()[number]
    y = layer(x)
    data = json.loads(json.dumps(serialize(layer)))
    again = deserialize(data)
    assert serialize(again) == data == serialize(layer)
    again.build((None, None, 4))
    again.set_weights(layer.get_weights())
    same(again(x), y)
    if hasattr(type(layer), "from_config"):
        type(layer).from_config(layer.get_config())
    path = tmp_path / "w.npz"
    layer.save(path)
    third = deserialize(data)
    third.load(path)
    same(third(x), y)
    for way in (copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        other = way(layer)
        same(other(x), y)
        other.set_weights([0 * w for w in other.get_weights()])
        same(layer(x), y)
        assert not leaves(other(x))[0].any()
    assert repr(layer).startswith(type(layer).__name__)


def test_copies_keep_cells_and_layer_together() -> None:
    layer = stack()
    layer.build((None, None, 4))
    other = copy.deepcopy(layer)
    other.cells[0].set_weights([0 * w for w in other.cells[0].get_weights()])
    assert not other.weights["cell_0.kernel"].any() and layer.weights["cell_0.kernel"].any()
    back = deserialize(serialize(Cell(GRU(3))))
    assert back.state_size == 3


def test_summaries() -> None:
    layer = Bidirectional(LSTM(64, return_sequences=True))
    layer.build((None, None, 10))
    texts: list[str] = []
    layer.summary(print_fn=texts.append)
    (text,) = texts
    assert "forward.recurrent_kernel" in text and "[64, 256]" in text and "38,400" in text
    with pytest.raises(ValueError, match="no weights yet"):
        LSTM(3).summary()


# ---- mistakes ----------------------------------------------------------------------------------


def wrong(call: Callable[[], object], kind: type[Exception], *words: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_mistakes_in_arguments() -> None:
    wrong(lambda: LSTM(0), ValueError, "units is at least 1, not 0")
    wrong(lambda: LSTM(-3), ValueError, "units is at least 1, not -3")
    wrong(lambda: LSTM(2.5), TypeError, "units is a whole number, not 2.5")  # type: ignore[arg-type]
    wrong(lambda: LSTM(), TypeError, "units")  # type: ignore[call-arg]
    wrong(lambda: LSTM(4, activation=np.tanh), TypeError, "activation", 'activation="tanh"')  # type: ignore[arg-type]
    wrong(lambda: LSTM(4, activation=lambda v: v), TypeError, "lambda v: v / (1 + abs(v))")  # type: ignore[arg-type]
    wrong(lambda: GRU(4, recurrent_activation=3), TypeError, "recurrent_activation", "3")  # type: ignore[arg-type]
    wrong(lambda: LSTM(4, activation="tahn"), ValueError, "tahn", "tanh")
    wrong(lambda: LSTM(4, kernel_regularizer="l2"), TypeError, "kernel_regularizer", "l2", "loss")  # type: ignore[arg-type]
    wrong(lambda: LSTM(4, bias_constraint=1), TypeError, "bias_constraint", "1")  # type: ignore[arg-type]
    wrong(lambda: LSTM(4, kernel_initializer="glorot"), ValueError, "kernel_initializer", "glorot")
    wrong(lambda: LSTM(4, bias_initializer=0), TypeError, "bias_initializer", "0")
    wrong(lambda: LSTM(4, dropout=1.0), ValueError, "dropout", "1.0")
    wrong(lambda: LSTM(4, dropuot=0.1), TypeError, "dropuot", "did you mean dropout")
    wrong(lambda: LSTM(4, use_cudnn="yes"), TypeError, "use_cudnn", "yes")
    wrong(
        lambda: LSTM(4, kernel_initializer=lambda s, dtype: np.ones(3)).build((1, 1, 2)),
        ValueError,
        "kernel",
        "[3]",
        "[2, 16]",
    )


def test_mistakes_in_layers_of_layers() -> None:
    wrong(lambda: Bidirectional(LSTM(3), "max"), ValueError, "merge_mode", "'max'", "'concat'")
    wrong(lambda: Bidirectional(LSTMCell(3)), TypeError, "layer", "RNN(LSTMCell")
    wrong(lambda: Bidirectional(3), TypeError, "layer", "3")
    wrong(lambda: Bidirectional(LSTM(3, go_backwards=True)), ValueError, "go_backwards")
    wrong(lambda: Bidirectional(LSTM(3), backward_layer=LSTM(3)), ValueError, "go_backwards=False")
    wrong(
        lambda: Bidirectional(
            LSTM(3), backward_layer=LSTM(3, go_backwards=True, return_sequences=True)
        ),
        ValueError,
        "return_sequences=False",
        "return_sequences=True",
    )
    other = LSTM(4, go_backwards=True)
    wrong(
        lambda: Bidirectional(LSTM(3), "sum", backward_layer=other).build((None, None, 2)),
        ValueError,
        "sum",
        "3",
        "4",
    )
    wrong(lambda: RNN(LSTM), TypeError, "cell", "LSTM(...)")
    wrong(lambda: RNN(3), TypeError, "cell", "not 3", "states")
    wrong(lambda: RNN(np.tanh), TypeError, "states")
    wrong(lambda: RNN([]), ValueError, "cells is empty")
    wrong(lambda: RNN([LSTMCell(3), 4]), TypeError, "cell 1", "not 4")
    wrong(lambda: RNN(LSTM(3, return_sequences=True)), ValueError, "return_sequences")
    wrong(lambda: LSTMCell(3, stateful=True), TypeError, "stateful", "RNN")
    wrong(lambda: RNN(LSTMCell(3), activation="relu"), TypeError, "activation", "cell")
    wrong(
        lambda: RNN(LSTMCell(3), return_sequence=True), TypeError, "did you mean return_sequences"
    )
    cell = LSTMCell(3)
    wrong(lambda: RNN([cell, cell]), ValueError, "twice")
    wrong(lambda: RNN([LSTMCell(3), LSTMCell(3, **F64)]), ValueError, "float32", "float64")
    nested = rnncc.compile("nested")(unit_1=2, unit_2=2, unit_3=2)
    wrong(lambda: RNN([LSTMCell(3), nested]), ValueError, "cell_1", "cell_0", "2 inputs")
    wide = rnncc.compile("lstm")(units=2, features=4)
    wrong(lambda: RNN([LSTMCell(3), wide]), ValueError, "cell_1 (LSTM)", "is 4", "is 3")
    unknown = Cell(rnncc.compile_text(HELD)())
    wrong(lambda: unknown.state_size, ValueError, "the size of h", "build the cell first")


HELD = "cell: Held\nn: size\nx: input[n]\nh: state[n]\nh[t] = x[t] + h[t-1]\nreturn h[t]\n"


def test_a_cell_without_states() -> None:
    """A layer like any other: alone, in a stack, in both directions."""
    text = "cell: Scale\nn: size\nx: input[n]\nW: weight[n]\nreturn x[t] * W\n"
    cls = rnncc.compile_text(text, dtype="float64")
    x = uniform(2, 5, 4)
    alone = cls(seed=1, return_sequences=True, return_state=True)
    (y,), back = alone.vjp(x)
    same(y, x * alone.weights["W"])
    dy = uniform(*y.shape, seed=1)
    grads = back((dy,))
    same(grads.inputs, dy * alone.weights["W"])
    assert grads.initial_state == ()
    wrong(lambda: back(dy), TypeError, "dy is a tuple of 1")
    assert Cell(cls()).state_size == []
    deep = RNN([LSTMCell(3, **F64), cls(), GRUCell(2, **F64)], return_state=True)
    z, (h, c), last = deep(x)
    assert (z.shape, h.shape, c.shape, last.shape) == ((2, 2), (2, 3), (2, 3), (2, 2))
    assert Bidirectional(alone)(x)[0].shape == (2, 5, 8)


def test_mistakes_in_calls() -> None:
    x = uniform(2, 5, 4)
    way = Bidirectional(LSTM(3, return_sequences=True, **F64))
    wrong(lambda: way(x, initial_state=(uniform(2, 3),)), ValueError, "4 arrays", "1 were given")
    states = [uniform(2, 3), uniform(2, 3), uniform(2, 4), uniform(2, 3)]
    wrong(lambda: way(x, initial_state=states), ValueError, "backward.h", "[2, 4]", "[2, 3]")
    wrong(lambda: way(x[:, :, 0]), ValueError, "[2, 5]", "batch, time")
    deep = stack()
    wrong(lambda: deep(x, initial_state=(1, 2)), ValueError, "5 arrays", "2 were given")
    bad = [[uniform(2, 5)], uniform(2, 3), [uniform(2, 4), uniform(2, 4)]]
    wrong(lambda: deep(x, initial_state=bad), ValueError, "cell 0", "2 states", "1 were given")
    y, back = deep.vjp(x)
    wrong(lambda: back(y[:1]), ValueError, "dy", "[1, 4]", "[2, 4]")
    cell = LSTMCell(3, **F64)
    wrong(lambda: cell(x), ValueError, "[2, 1, 5, 4]")
    wrong(lambda: way.set_weights(way.get_weights()[:3]), ValueError, "6 weights", "3 were given")
    weights = way.get_weights()
    weights[4] = weights[4][:2]
    wrong(lambda: way.set_weights(weights), ValueError, "backward.recurrent_kernel", "[2, 12]")
