"""What people set, read and give beside tensors: input_shape, attributes, states, lists."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from rnncc import keras as own
from tests.support.in_keras.helpers import X, assert_close, same_weights, uniform, whole


def test_input_shape_as_keras_takes_it() -> None:
    shape = X.shape[1:]
    models = [
        keras.Sequential([library.LSTM(4, input_shape=shape)]) for library in (own, keras.layers)
    ]
    assert [m.built for m in models] == [True, True]
    models[0].set_weights(models[1].get_weights())
    assert_close(models[0](X), models[1](X))
    assert (
        own.GRU(4, input_dim=3)._input_shape_arg
        == keras.layers.GRU(4, input_dim=3)._input_shape_arg
    )


@whole
def test_attributes_are_keras_s() -> None:
    for name in ("SimpleRNN", "GRU", "LSTM"):
        theirs, mine = (getattr(library, name)(4) for library in (keras.layers, own))
        names = {n for n in vars(theirs.cell) if not n.startswith("_")} & set(dir(theirs))
        public = {n for n in names if n not in ("cell", "built")} | {"cell", "states", "state_size"}
        assert not {n for n in public if not hasattr(mine, n)}
    layer = own.LSTM(4, unit_forget_bias=False)
    assert layer.unit_forget_bias is False and layer.cell.unit_forget_bias is False


def test_states_are_set() -> None:
    theirs, mine = (library.GRU(4, stateful=True) for library in (keras.layers, own))
    same_weights(theirs, mine, X)
    begun = uniform(3, 4, seed=7)
    theirs.states[0].assign(begun)
    mine.states = [begun]
    kept = mine.states[0]
    assert_close(mine(X), theirs(X))
    assert mine.states[0] is kept  # a variable that graphs know
    assert_close(kept, theirs.states[0])
    mine.states = None
    assert not np.any(ops.convert_to_numpy(kept))
    for wrong, words in (([begun[:2]], "expected"), ([begun, begun], "1 states that stay")):
        with pytest.raises(ValueError, match=words):
            mine.states = wrong
    with pytest.raises(ValueError, match="build a stateful layer first"):
        own.GRU(4).states = [begun]


@whole
def test_no_time_major_and_no_sequences_of_a_cell() -> None:
    makers: list[Any] = [
        lambda: own.LSTM(4, time_major=True),
        lambda: own.RNN("gru", units=4, time_major=True),
        lambda: own.RNN(own.GRUCell(4), time_major=True),
        lambda: own.Bidirectional(own.GRU(4), time_major=True),
        lambda: own.Cell("gru", units=4, time_major=True),
    ]
    for make in makers:
        with pytest.raises((TypeError, ValueError), match="time_major"):
            make()
    for option in ("return_sequences", "stateful", "go_backwards", "return_state"):
        for make in (own.GRUCell, lambda units, **more: own.Cell("gru", units=units, **more)):
            with pytest.raises(TypeError, match=f"computes one step: give {option} to RNN"):
                make(4, **{option: True})


@whole
def test_lists_of_numbers_are_refused_with_words() -> None:
    uneven = [[[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]]]
    for given in (uneven, uneven[1:]):
        with pytest.raises(ValueError, match="pad them, and say with mask="):
            own.GRU(4)(given)


class Grouped(keras.layers.Layer):
    """A cell whose states are in groups, and groups of those."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.state_size, self.output_size = [[4, 3], [2, [4, 4]]], 4

    def call(self, inputs: Any, states: Any) -> Any:
        (a, b), (c, (d, e)) = states
        return a, [[a + 1.0, b], [c, [d, e]]]


@whole
def test_states_in_groups_are_refused_with_words() -> None:
    with pytest.raises(ValueError, match=r"state_size is \[\[4, 3\], \[2, \[4, 4\]\]\]: .*flat"):
        own.RNN(Grouped())(X)


def test_constants_are_said_to_be_gone() -> None:
    for layer in (own.LSTM(4), own.RNN(own.GRUCell(4)), own.Bidirectional(own.LSTM(4))):
        with pytest.raises(TypeError, match=r"takes no constants: Keras 3's RNN has none"):
            layer(X, constants=[X[:, 0]])
