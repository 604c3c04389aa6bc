"""Models of parts: wiring, calls, streams, gradients, and what is said of a wrong input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnncc.layers import GRU, LSTM, Bidirectional
from rnncc.models import Component, Model, Port, Wired
from rnncc.models.component import Arrays, Given, NoGradient, NoStream
from rnncc.models.recurrent import Recurrent


class Gain(Component, kind="gain of a test"):
    def __init__(self, name: str, factor: float) -> None:
        super().__init__(name)
        self.factor = factor

    def __call__(self, *inputs: Given) -> Arrays:
        assert inputs[0] is not None
        return (inputs[0] * self.factor,)


def model(*parts: Component) -> Model:
    nodes = [Wired(p, (f"v{i}",), (f"v{i + 1}",)) for i, p in enumerate(parts)]
    inputs = [Port("v0", ("batch", "time", 3))]
    return Model(inputs, [Port(f"v{len(parts)}", ("batch", "time", 5))], nodes)


def layer(cls: Any = LSTM, **keywords: Any) -> Any:
    made = cls(5, seed=1, **{"return_sequences": True, **keywords})
    made.build((None, None, 3))
    return made


X = np.random.default_rng(1).standard_normal((2, 7, 3)).astype("f")


def test_calls_streams_and_gradients() -> None:
    lstm = layer()
    whole = model(Recurrent("rnn", lstm))
    y = whole(X)
    assert np.array_equal(y, lstm(X)) and np.array_equal(whole({"v0": X})["v1"], y)
    stream = whole.stream(X[:, :1])
    for _ in range(2):
        steps = [stream(X[:, t : t + 1]) for t in range(7)]
        assert np.array_equal(np.concatenate(steps, 1), y)
        assert [s.shape for s in stream.states["rnn"]] == [(2, 5), (2, 5)]
        stream.reset()
    y, pullback = whole.vjp(X)
    found, own = pullback(np.cos(y)), lstm.vjp(X, training=False)[1](np.cos(y))
    assert np.array_equal(found.inputs["v0"], own.inputs)
    assert np.array_equal(found.weights["rnn/kernel"], own.weights["kernel"])
    assert whole.weights.keys() == {f"rnn/{n}" for n in lstm.weights}
    shown: list[str] = []
    whole.summary(shown.append)
    assert "v0 [batch, time, 3] float32 -> v1" in shown[0] and "rnn/recurrent_kernel" in shown[0]
    assert whole.plan().startswith("rnn (recurrent): ")


def test_states_it_was_trained_to_start_from() -> None:
    lstm = layer(return_state=True)
    starts = [np.full((1, 5), v, "f") for v in (0.3, -0.4)]
    nodes = [Wired(Recurrent("rnn", lstm, starts), ("x",), ("y", "h", "c"))]
    inputs, outputs = [Port("x", ("batch", "time", 3))], [Port(n, ()) for n in "yhc"]
    whole = Model(inputs, outputs, nodes)
    expected = lstm(X, initial_state=tuple(np.repeat(s, 2, 0) for s in starts))
    assert all(map(np.array_equal, whole(X), expected))
    stream = whole.stream(X)
    assert all(map(np.array_equal, stream(X), expected))
    _, pullback = whole.vjp(X)
    only_h = pullback({"h": np.ones((2, 5))}).inputs["x"]
    zeros = np.zeros_like(expected[0]), np.ones((2, 5), "f"), np.zeros((2, 5), "f")
    states = tuple(np.repeat(s, 2, 0) for s in starts)
    _, own = lstm.vjp(X, initial_state=states, training=False)
    assert np.array_equal(only_h, own(zeros).inputs)


@pytest.mark.parametrize("cls", [LSTM, GRU])
def test_a_part_is_made_again(cls: Any) -> None:
    part = Recurrent("rnn", layer(cls), [np.ones((1, 5), "f")] * (1 + (cls is LSTM)))
    again = Component.kinds[part.kind].made("rnn", part.config(), part.weights)
    assert np.array_equal(part(X)[0], again(X)[0])


def test_what_cant_be() -> None:
    both = Bidirectional(layer())
    both.build((None, None, 3))
    for part in (Recurrent("back", layer(go_backwards=True)), Recurrent("both", both)):
        with pytest.raises(NoStream, match=part.name):
            model(part).stream(X)
    with pytest.raises(NoGradient, match="gain"):
        model(Gain("gain", 2.0)).vjp(X)
    with pytest.raises(ValueError, match="nobody makes before"):
        Model([], [], [Wired(Gain("g", 1.0), ("x",), ("y",))])
    with pytest.raises(ValueError, match="there already"):
        Model([Port("x", ())], [], [Wired(Gain("g", 1.0), ("x",), ("x",))])
    with pytest.raises(ValueError, match=r"shape \[2, 7, 4\], expected \[batch, time, 3\]"):
        model(Gain("g", 1.0))(np.zeros((2, 7, 4)))
    with pytest.raises(ValueError, match="unknown"):
        model(Gain("g", 1.0))({"v1": X})
    with pytest.raises(TypeError, match="not numbers"):
        model(Gain("g", 1.0))(np.array("text"))


def test_weights_given_are_not_drawn() -> None:
    made, again = layer(), LSTM(5)
    with pytest.raises(ValueError, match=r"not \['kernel'\]"):
        again.build_with(made.sizes, {"kernel": made.weights["kernel"]})
    again.build_with(made.sizes, dict(made.weights))
    assert all(np.array_equal(made.weights[n], again.weights[n]) for n in made.weights)
    with pytest.raises(ValueError, match="already"):
        again.build_with(made.sizes, dict(made.weights))


def test_weights_in_order_are_not_drawn() -> None:
    for make in (lambda: LSTM(5), lambda: Bidirectional(GRU(5))):
        made, again = make(), make()
        made.build((None, None, 3))
        arrays = made.get_weights()
        for wrong in (arrays[:-1], [*arrays[1:], arrays[0]], [*arrays, arrays[0]]):
            with pytest.raises(ValueError, match="not of shapes"):
                again.build_in_order((None, None, 3), wrong)
        again.build_in_order((None, None, 3), arrays)
        assert all(map(np.array_equal, again.get_weights(), arrays))
        with pytest.raises(ValueError, match="already"):
            again.build_in_order((None, None, 3), arrays)
    huge = LSTM(10**9)
    with pytest.raises(ValueError, match="not of shapes"):
        huge.build_in_order((None, None, 3), arrays)
