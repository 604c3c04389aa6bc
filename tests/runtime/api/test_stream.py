"""layer.stream: the bits of a stateful layer, call after call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.layers import LSTM, RNN, Bidirectional, GRUCell, LSTMCell
from tests.support.arrays import normal
from tests.support.paths import CELLS


def layer_of(name: str, **keywords: Any) -> Any:
    path = CELLS / f"{name}.rnn"
    return rnncc.compile(str(path) if path.exists() else name)(seed=1, **keywords)


def alike(a: Any, b: Any) -> None:
    one, two = (v if isinstance(v, tuple) else (v,) for v in (a, b))
    for x, y in zip(one, two, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("units", [7, 64])
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 5)])
@pytest.mark.parametrize("name", ["lstm", "gru", "delays", "projected_lstm", "layer_norm_lstm"])
def test_the_bits_of_a_stateful_layer(name: str, batch: int, steps: int, units: int) -> None:
    layer = layer_of(name, units=units, return_sequences=True, stateful=True)
    blocks = [normal(batch, steps, 5, seed=i) for i in range(4)]
    expected = [layer(x) for x in blocks]
    stream = layer.stream(blocks[0], initial_state=[np.zeros_like(s) for s in layer.states])
    kept = [stream(x) for x in blocks]
    for a, b in zip(kept, expected, strict=True):
        alike(a, b)
    alike(stream.states, layer.states)
    stream.reset()
    alike(stream(blocks[0]), expected[0])


def test_states_are_put_where_they_should_go_on() -> None:
    layer = layer_of("lstm", units=7, return_sequences=True, return_state=True)
    x, states = normal(3, 2, 5), (normal(3, 7, seed=1), normal(3, 7, seed=2))
    stream = layer.stream(x)
    stream(x)
    stream.states = states
    y, *last = layer(x, initial_state=states)
    alike(stream(x), y)
    alike(stream.states, tuple(last))
    stream.reset()
    alike(stream(x), layer(x)[0])
    for wrong in (states[:1], (states[0], states[1][:1])):
        with pytest.raises(ValueError, match=r"the stream's are \[\[3, 7\], \[3, 7\]\]"):
            stream.states = wrong


def test_a_stream_of_last_outputs_and_time_major_ones() -> None:
    plain = layer_of("lstm", units=6, stateful=True)
    turned = layer_of("lstm", units=6, stateful=True, time_major=True, return_sequences=True)
    turned.build((None, None, 4))
    x = normal(3, 5, 4)
    alike(plain.stream(x)(x), plain(x))
    turned.set_weights(plain.get_weights())
    stacked = np.ascontiguousarray(x.swapaxes(0, 1))
    alike(turned.stream(stacked)(stacked), turned(stacked))


def test_several_inputs_and_outputs() -> None:
    layer = layer_of("nested", unit_1=3, unit_2=4, unit_3=5, return_sequences=True, stateful=True)
    x = normal(2, 3, 8), normal(2, 3, 6, 7, seed=1)
    expected = [layer(x), layer(x)]
    stream = layer.stream(x, initial_state=[np.zeros_like(s) for s in layer.states])
    for values in expected:
        alike(stream(x), values)
    assert list(stream.inputs) == [i.name for i in layer.cell.inputs]


def test_states_start_from_weights_and_from_what_is_given() -> None:
    layer = layer_of("learned_start", units=4)
    x = normal(2, 3, 5)
    alike(layer.stream(x)(x), layer(x))
    first = [normal(2, 4, seed=i) for i, _ in enumerate(layer.cell.states)]
    alike(layer.stream(x, initial_state=first)(x), layer(x, initial_state=first))


def test_new_weights_are_noticed() -> None:
    layer = layer_of("lstm", units=4)
    x = normal(1, 2, 3)
    stream = layer.stream(x)
    stream(x)
    states = stream.states
    layer.weights["bias"] = layer.weights["bias"] + 1
    alike(stream(x), layer(x, initial_state=states))


def test_results_are_the_callers() -> None:
    layer = layer_of("simple_rnn", units=4)
    x = normal(1, 2, 3)
    stream = layer.stream(x)
    first = stream(x)
    kept = first.copy()
    stream(x)
    alike(first, kept)
    stream.reset()
    stream.inputs["x"][...] = x
    stream.run()
    alike(stream.outputs["h"], kept)


@pytest.mark.parametrize("sequences", [False, True])
def test_a_stack_streams(sequences: bool) -> None:
    layer = RNN([LSTMCell(6), GRUCell(20)], return_sequences=sequences, stateful=True, seed=1)
    x = normal(2, 3, 5)
    stream = layer.stream(x)
    for _ in range(3):
        alike(stream(x), layer(x))
    assert "2 cells" in layer.plan()


def test_what_can_not_stream() -> None:
    x = normal(2, 3, 5)
    with pytest.raises(ValueError, match="both directions need the whole sequence"):
        Bidirectional(LSTM(4)).stream(x)
    with pytest.raises(ValueError, match="go_backwards"):
        layer_of("lstm", units=4, go_backwards=True).stream(x)
    with pytest.raises(ValueError, match="a row and a step"):
        layer_of("lstm", units=4).stream(x[:, :0])
    stream = layer_of("lstm", units=4).stream(x)
    with pytest.raises(ValueError, match=r"x has shape \[2, 4, 5\], expected the shape"):
        stream(normal(2, 4, 5))
    with pytest.raises(TypeError):
        stream("words")
    alike(stream(x.tolist()), stream._layer(x))
