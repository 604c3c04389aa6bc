"""Traces of Keras layers: the names of the equations, the bits of a call, nothing left behind."""

from __future__ import annotations

import numpy as np
from keras import ops

from rnncc.keras import GRU, LSTM, RNN, Bidirectional, GRUCell, LSTMCell

MASK = np.arange(5) < np.array([5, 2, 4])[:, None]


def inputs() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, 5, 4)).astype("f")


def equal(found: object, wanted: object) -> None:
    np.testing.assert_array_equal(ops.convert_to_numpy(found), ops.convert_to_numpy(wanted))


def test_gates_and_outputs() -> None:
    x = inputs()
    layer = LSTM(7, return_sequences=True, go_backwards=True, dropout=0.5, seed=1)
    traced = layer.trace(x, mask=MASK)
    y = layer(x, mask=MASK)
    equal(traced["h"], y)
    f, c = (ops.convert_to_numpy(traced[n]) for n in "fc")
    assert f.shape == (3, 5, 7) and f.max() < 1 and c.any()
    traced = layer.trace(x, training=True)
    equal(traced["h"], layer(x, training=True))  # the next draws, which the trace left


def test_stacks_directions_and_states() -> None:
    x = inputs()
    stack = RNN([LSTMCell(7), GRUCell(6)], return_sequences=True, stateful=True)
    for _ in range(2):
        traced = stack.trace(x)
        equal(traced["cell_1.h"], stack(x))
    both = Bidirectional(GRU(7, return_sequences=True))
    y = both(x, mask=MASK)
    traced = both.trace(x, mask=MASK)
    equal(traced["h"], y)
    equal(traced["backward.h"], y[..., 7:])
