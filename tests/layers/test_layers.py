"""rnncc.layers: Keras's layers against their equations in NumPy, against torch, and each other.

Against Keras itself: tests/layers/test_against_keras.py, which needs it. All of it passed on Keras
3.15.1 with torch 2.13 as its backend.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

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
    SimpleRNNCell,
    StackedRNNCells,
)
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.cpu.execution import time_chunks
from tests.support.arrays import uniform
from tests.support.counting_pool import Counting
from tests.support.nested import F64, leaves, same, stack

MODES = ("concat", "sum", "mul", "ave", None)


def with_random_weights(layer: Any, seed: int = 7) -> Any:
    """Biases that aren't zero show a gate in the wrong place."""
    layer.set_weights([uniform(*w.shape, seed=seed + i) for i, w in enumerate(layer.get_weights())])
    return layer


def built(layer: Any, features: int) -> Any:
    layer.build((None, None, features))
    return with_random_weights(layer)


# ---- Keras's equations -------------------------------------------------------------------------


def sigmoid(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-v))


def lstm(x: np.ndarray, w: list[np.ndarray]) -> list[np.ndarray]:
    """y, h, c: Keras's i, f, c, o."""
    kernel, recurrent, bias = w
    h = c = np.zeros((len(x), len(recurrent)))
    ys = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        ys.append(h)
    return [np.stack(ys, 1), h, c]


def gru(x: np.ndarray, w: list[np.ndarray], reset_after: bool = True) -> list[np.ndarray]:
    """y, h: Keras's z, r, h, with a bias for inputs and one for states when reset_after."""
    kernel, recurrent, bias = w
    b, rb = bias if reset_after else (bias, np.zeros_like(bias))
    h = np.zeros((len(x), len(recurrent)))
    ys = []
    for t in range(x.shape[1]):
        xz, xr, xh = np.split(x[:, t] @ kernel + b, 3, axis=-1)
        hz, hr, hh = np.split(h @ recurrent + rb, 3, axis=-1)
        z, r = sigmoid(xz + hz), sigmoid(xr + hr)
        units = len(recurrent)
        inner = r * hh if reset_after else (r * h) @ recurrent[:, 2 * units :]
        h = z * h + (1 - z) * np.tanh(xh + inner)
        ys.append(h)
    return [np.stack(ys, 1), h]


def simple(x: np.ndarray, w: list[np.ndarray]) -> list[np.ndarray]:
    kernel, recurrent, bias = w
    h = np.zeros((len(x), len(recurrent)))
    ys = []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ kernel + h @ recurrent + bias)
        ys.append(h)
    return [np.stack(ys, 1), h]


@pytest.mark.parametrize(
    ("made", "meaning"),
    [
        (lambda **k: LSTM(5, **k), lstm),
        (lambda **k: GRU(5, **k), gru),
        (lambda **k: GRU(5, reset_after=False, **k), lambda x, w: gru(x, w, False)),
        (lambda **k: SimpleRNN(5, **k), simple),
    ],
    ids=["lstm", "gru", "gru reset before", "simple"],
)
def test_keras_weights_mean_what_they_do_in_keras(
    made: Callable[..., Layer], meaning: Callable[..., list[np.ndarray]]
) -> None:
    x = uniform(3, 7, 4)
    layer = built(made(return_sequences=True, return_state=True, **F64), 4)
    for own, expected in zip(layer(x), meaning(x, layer.get_weights()), strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-12)


def test_names_and_shapes_are_keras_s() -> None:
    layers = SimpleRNN(5), GRU(5), GRU(5, reset_after=False), LSTM(5)
    biases = [(5,), (2, 15), (15,), (20,)]
    for layer, bias in zip(layers, biases):
        layer.build((None, None, 4))
        width = bias[-1]
        assert {n: w.shape for n, w in layer.weights.items()} == {
            "kernel": (4, width),
            "recurrent_kernel": (5, width),
            "bias": bias,
        }


def test_counts_of_the_guide() -> None:
    """SCENARIOS of the guide "RNN with Keras": 1, 2, 4, 6, 7, 8 and 13."""

    def count(layer: Any, features: int) -> int:
        layer.build((None, None, features))
        return int(layer.count_params())

    assert count(LSTM(128), 64) == 98_816
    assert count(GRU(256, return_sequences=True), 64) == 247_296
    assert count(SimpleRNN(128), 256) == 49_280
    assert count(LSTM(64), 64) == 33_024
    assert count(RNN(LSTMCell(64)), 64) == 33_024
    assert count(LSTM(64, stateful=True), 50) == 4 * 64 * (50 + 64 + 1)
    assert count(Bidirectional(LSTM(64, return_sequences=True)), 10) == 38_400
    assert count(Bidirectional(LSTM(32)), 128) == 41_216
    nested = Cell(rnncc.compile("nested")(unit_1=10, unit_2=20, unit_3=30))
    nested.build(((None, 32), (None, 64, 32)))
    assert nested.count_params() == 32 * 10 + 64 * 32 * 20 * 30
    assert nested.state_size == [10, (20, 30)] and nested.output_size == (10, (20, 30))


def test_initial_weights() -> None:
    layer = LSTM(4, seed=1)
    layer.build((None, None, 3))
    bias = layer.weights["bias"]
    np.testing.assert_array_equal(bias, np.repeat([0, 1, 0, 0], 4))
    flat = LSTM(4, unit_forget_bias=False, bias_initializer="constant(0.5)")
    flat.build((None, None, 3))
    assert (flat.weights["bias"] == 0.5).all()
    both = LSTM(4, bias_initializer="constant(0.5)")
    both.build((None, None, 3))
    np.testing.assert_array_equal(both.weights["bias"], np.repeat([0.5, 1, 0.5, 0.5], 4))
    own = GRU(4, kernel_initializer=lambda shape, dtype: np.full(shape, 3, dtype))
    own.build((None, None, 3))
    assert (own.weights["kernel"] == 3).all()
    plain = rnncc.compile("lstm")(units=4, seed=1, features=3)
    same(layer.get_weights(), plain.get_weights())
    two = RNN([LSTMCell(4, seed=1), LSTMCell(3, seed=1)])
    two.build((None, None, 3))
    same(two.get_weights()[:3], plain.get_weights())
    way = Bidirectional(LSTM(4, seed=1))
    way.build((None, None, 3))
    same(way.get_weights()[:3], plain.get_weights())
    assert (way.get_weights()[3] != way.get_weights()[0]).any()


def test_arguments_are_keras_s_in_order() -> None:
    """By position as in Keras 3."""
    layer = LSTM(4, "relu", "hard_sigmoid", False)
    assert dict(layer.cell.functions) == {
        "activation": "relu",
        "recurrent_activation": "hard_sigmoid",
    }
    assert dict(layer.cell.options)["use_bias"] is False
    none = SimpleRNN(4, None)
    assert dict(none.cell.functions) == {"activation": "linear"}
    own = SimpleRNN(4, "lambda v: v / (1 + abs(v))")
    assert "abs" in dict(own.cell.functions)["activation"]


# ---- one cell ------------------------------------------------------------------------------------


CELLS = [
    (LSTMCell, LSTM, {}),
    (GRUCell, GRU, {}),
    (SimpleRNNCell, SimpleRNN, {}),
]


@pytest.mark.parametrize(("cell", "layer", "options"), CELLS, ids=["lstm", "gru", "simple"])
def test_rnn_of_a_cell_is_the_layer(cell: Any, layer: Any, options: dict[str, Any]) -> None:
    """Scenario 5, bit for bit: values, gradients, and draws."""
    x = uniform(3, 7, 4)
    common = {"return_sequences": True, "return_state": True}
    one = built(layer(5, dropout=0.3, seed=3, **F64, **common), 4)
    other = RNN(cell(5, dropout=0.3, seed=3, **F64), **common)
    other.build((None, None, 4))
    other.set_weights(one.get_weights())
    assert [*other.weights] == [*one.weights]
    same(one(x), other(x))
    for _ in range(2):  # a draw, and the next one
        y, back = one.vjp(x)
        y2, back2 = other.vjp(x)
        same(y, y2)
        dy = tuple(uniform(*a.shape, seed=5) for a in y)
        g, g2 = back(dy), back2(dy)
        same([g.inputs, *g.weights.values()], [g2.inputs, *g2.weights.values()])
        same(g.initial_state, g2.initial_state)


def test_second_derivatives_of_one_cell() -> None:
    x, found = uniform(2, 3, 4), []
    every = {"return_sequences": True}
    for layer in (LSTM(5, seed=3, **every, **F64), RNN(LSTMCell(5, seed=3, **F64), **every)):
        y, back = layer.vjp(x)
        grads, again = back.vjp(np.ones_like(y))
        second = again({"inputs": grads.inputs})
        found.append([second.inputs, *second.weights.values()])
    same(*found)


def test_a_cell_is_a_step() -> None:
    x = uniform(3, 6, 4)
    cell = LSTMCell(5, seed=2, **F64)
    layer = RNN(cell, return_sequences=True, return_state=True)
    y, *last = layer(x)
    assert cell.built  # they share their weights
    assert (cell.state_size, cell.output_size, cell.units) == ([5, 5], 5, 5)
    states = cell.get_initial_state(3)
    for t in range(6):
        out, states = cell(x[:, t], states)
        np.testing.assert_array_equal(out, y[:, t])
    same(states, last)
    same(cell(x[:, 0])[0], y[:, 0])
    cell.set_weights([0 * w for w in cell.get_weights()])
    assert not layer(x)[0].any() and not layer.get_weights()[0].any()
    assert GRUCell(4).state_size == 4


def test_cells_of_any_class() -> None:
    """Made by rnncc.compile, several inputs, states and outputs: scenario 13."""
    cls = rnncc.compile("nested", dtype="float64")
    sizes = {"unit_1": 3, "unit_2": 2, "unit_3": 4}
    plain = cls(**sizes, seed=1, return_sequences=True, return_state=True)
    layer = RNN(cls(**sizes, seed=1), return_sequences=True, return_state=True)
    x1, x2 = uniform(2, 5, 3), uniform(2, 5, 4, 3, seed=1)
    same(plain((x1, x2)), layer((x1, x2)))
    same(plain((x1, x2)), layer({"x1": x1, "x2": x2}))
    (a, b), s1, s2 = layer((x1, x2))
    (u, v), (t1, t2) = layer.cells[0]((x1[:, 0], x2[:, 0]))
    same([u, v], [a[:, 0], b[:, 0]])
    assert s1.shape == t1.shape == (2, 3) and s2.shape == t2.shape == (2, 2, 4)
    _, back = layer.vjp((x1, x2))
    grads = back(((None, uniform(2, 5, 2, 4)), None, None))
    assert grads.inputs[1].shape == x2.shape and not grads.inputs[0].any()


# ---- stacks ----------------------------------------------------------------------------------


def test_a_stack_is_its_layers_in_turn() -> None:
    x = uniform(3, 7, 4)
    layer = stack(return_sequences=True, return_state=True)
    y, *states = layer(x)
    assert [*layer.weights][:4] == [
        "cell_0.kernel",
        "cell_0.recurrent_kernel",
        "cell_0.bias",
        "cell_1.kernel",
    ]
    inner, kept = x, []
    for cls, units, i in ((LSTM, 5, 0), (GRU, 3, 1), (LSTM, 4, 2)):
        one = cls(units, return_sequences=True, return_state=True, seed=i + 1, **F64)
        inner, *own = one(inner)
        kept.append(tuple(own) if len(own) > 1 else own[0])
    same(y, inner)
    same(states, kept)
    assert layer.state_size == [[5, 5], 3, [4, 4]] and layer.output_size == 4
    same(stack()(x), y[:, -1])


@pytest.mark.parametrize("kind", ["grouped", "flat", "dict"])
def test_states_of_a_stack(kind: str) -> None:
    x = uniform(3, 7, 4)
    layer = stack(return_sequences=True, return_state=True)
    y, *states = layer(x)
    first, *middle = layer(x[:, :3])
    given: Any = tuple(middle)
    if kind != "grouped":
        given = tuple(a for s in middle for a in (s if isinstance(s, tuple) else (s,)))
    if kind == "dict":
        given = dict(zip([s.name for s in layer.cell.states], given))
    second, *last = layer(x[:, 3:], initial_state=given)
    np.testing.assert_array_equal(np.concatenate([first, second], 1), y)
    same(last, states)
    _, back = layer.vjp(x, initial_state=given)
    d = back((np.ones_like(y), None, None, (None, np.ones((3, 4))))).initial_state
    if kind == "dict":
        assert d.keys() == given.keys()
    else:
        same([np.shape(a) for a in d[:1]], [np.shape(a) for a in given[:1]])
        assert len(d) == len(given)


def test_stacked_cells_step() -> None:
    x = uniform(3, 4, 4)
    cells = StackedRNNCells([LSTMCell(5, **F64), GRUCell(3, **F64)])
    y, *last = RNN(cells, return_sequences=True, return_state=True)(x)
    states = None
    for t in range(4):
        out, states = cells(x[:, t], states)
        np.testing.assert_array_equal(out, y[:, t])
    same(states, last)


def numeric(f: Callable[[], float], array: np.ndarray, places: int = 12) -> dict[Any, float]:
    """Central differences at some elements."""
    indices = [*np.ndindex(*array.shape)]
    found = {}
    for index in indices[:: max(len(indices) // places, 1)]:
        kept, step = array[index], 1e-6
        array[index] = kept + step
        up = f()
        array[index] = kept - step
        down = f()
        array[index] = kept
        found[index] = (up - down) / (2 * step)
    return found


def check_gradients(layer: Any, x: np.ndarray, initial: Any = None, mask: Any = None) -> None:
    """Against differences: inputs, every weight, every initial state."""
    y, back = layer.vjp(x, initial_state=initial, seed=11, mask=mask)
    flat = leaves(y)
    weights = [uniform(*a.shape, seed=20 + i) for i, a in enumerate(flat)]
    grads = back(like(y, iter(weights)))

    def value() -> float:
        now = leaves(layer(x, initial_state=initial, training=True, seed=11, mask=mask))
        return float(sum((a * w).sum() for a, w in zip(now, weights)))

    def close(gradient: np.ndarray, expected: dict[Any, float], what: str) -> None:
        for index, slope in expected.items():
            assert gradient[index] == pytest.approx(slope, rel=2e-5, abs=2e-7), (what, index)

    close(grads.inputs, numeric(value, x), "inputs")
    for name in layer.weights:
        array = layer.weights[name].copy()

        def moved(name: str = name, array: np.ndarray = array) -> float:
            layer.weights[name] = array
            return value()

        close(grads.weights[name], numeric(moved, array, 6), name)
        layer.weights[name] = array
    if initial is not None:
        for own, array in zip(leaves(grads.initial_state), leaves(initial), strict=True):
            close(own, numeric(value, array, 6), "initial state")


def like(value: Any, items: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(like(v, items) for v in value)
    return next(items)


@pytest.mark.parametrize("sequences", [False, True])
def test_gradients_of_a_stack(sequences: bool) -> None:
    layer = built(stack(return_sequences=sequences, return_state=True), 4)
    check_gradients(layer, uniform(2, 5, 4))
    initial = [[uniform(2, 5), uniform(2, 5)], uniform(2, 3), [uniform(2, 4), uniform(2, 4)]]
    check_gradients(layer, uniform(2, 5, 4), initial)


def test_dropout_of_every_cell() -> None:
    """Masks of their own, though the seeds of the cells are one; slopes as drawn."""
    cells = [LSTMCell(5, dropout=0.4, seed=1, **F64), LSTMCell(5, dropout=0.4, seed=1, **F64)]
    layer = built(RNN(cells, return_sequences=True), 5)
    x = uniform(3, 5, 5)
    same(layer(x, training=True, seed=4), layer(x, training=True, seed=4))
    assert (layer(x, training=True, seed=4) != layer(x, training=True, seed=5)).any()
    check_gradients(layer, x)
    one = RNN([LSTMCell(5, dropout=0.4, seed=1, **F64), LSTMCell(5, seed=1, **F64)])
    one = built(one, 5)
    assert (one(x, training=True, seed=4) != layer(x, training=True, seed=4)[:, -1]).any()


def test_blocks_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x = uniform(2, 41, 4)
    layer = stack(return_sequences=True, return_state=True)
    whole = layer(x)
    last = stack()(x)
    monkeypatch.setattr(time_chunks, "BLOCK_BYTES", 1)
    monkeypatch.setattr(time_chunks, "LEAST_STEPS", 8)
    same(layer(x), whole)
    assert "6 block(s) of at most 8 steps" in layer.plan()
    same(stack()(x), last)


PER_STEP = """cell: Drawn
n: size
x: input[n]
h: state[n]
rate_: rate = 0.4
h[t] = x[t] + drop(h[t-1], rate_, per="step")
return 2 * h[t]
"""


def test_blocks_draw_what_the_whole_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = rnncc.compile_text(PER_STEP.replace("rate_", "forget"), dtype="float64")
    layer = RNN([cls(), cls()], return_sequences=True)
    x, mask = uniform(2, 41, 3), np.random.default_rng(1).random((2, 41)) < 0.6
    mask[0, :20] = False
    mask[1, 7:18] = False  # a block in which nothing of a row is valid
    calls = [lambda: layer(x, training=True, seed=3), lambda: layer(x, mask=mask)]
    whole = [call() for call in calls]
    same(whole[0], layer.vjp(x, seed=3)[0])
    monkeypatch.setattr(time_chunks, "BLOCK_BYTES", 1)
    monkeypatch.setattr(time_chunks, "LEAST_STEPS", 8)
    same([call() for call in calls], whole)
    inner = x
    for _ in range(2):
        inner = cls(return_sequences=True)(inner, mask=mask)
    same(whole[1], inner)


@pytest.mark.parametrize("sequences", [False, True])
def test_inference_takes_no_more_memory_for_more_time(
    sequences: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_chunks, "BLOCK_BYTES", 2**16)
    layer = stack(return_sequences=sequences)
    counts = []
    for time in (200, 3000):
        pool = Counting()
        monkeypatch.setattr("rnncc.runtime.common.memory_pool.POOL", pool)
        layer(uniform(2, time, 4))
        counts.append(pool.most)
    assert 0 < counts[1] <= counts[0], counts


def test_a_plan_shows_every_cell() -> None:
    layer = stack(return_sequences=True)
    layer(uniform(2, 9, 4))
    LSTM(6, **F64)(uniform(5, 3, 2))  # on the same kernels
    plan = layer.plan()
    assert "3 cells" in plan and "cell_0:" in plan and "cell_2:" in plan
    assert "batch 2, time 9, {'features': 4, 'units': 5}" in plan
    assert "{'features': 3, 'units': 4}" in plan and "batch 5" not in plan


# ---- both directions ---------------------------------------------------------------------------


def merged(mode: str | None, a: np.ndarray, b: np.ndarray) -> Any:
    return {
        "concat": lambda: np.concatenate([a, b], -1),
        "sum": lambda: a + b,
        "mul": lambda: a * b,
        "ave": lambda: (a + b) / 2,
        None: lambda: (a, b),
    }[mode]()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("sequences", "states"), [(True, True), (True, False), (False, True)])
def test_both_directions(mode: str | None, sequences: bool, states: bool) -> None:
    x = uniform(3, 7, 4)
    layer = Bidirectional(
        LSTM(5, return_sequences=sequences, return_state=states, **F64), merge_mode=mode
    )
    built(layer, 4)
    assert [*layer.weights] == [
        f"{way}.{name}"
        for way in ("forward", "backward")
        for name in ("kernel", "recurrent_kernel", "bias")
    ]
    w = layer.get_weights()
    y, *ahead = lstm(x, w[:3])
    z, *back = lstm(x[:, ::-1], w[3:])
    expected = merged(mode, y, z[:, ::-1]) if sequences else merged(mode, y[:, -1], z[:, -1])
    found = layer(x)
    if states:
        count = 2 if mode is None else 1
        found, kept = found[:count], found[count:]
        found = found if mode is None else found[0]
        for own, other in zip(kept, [*ahead, *back], strict=True):
            np.testing.assert_allclose(own, other, atol=1e-12)
    for own, other in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sequences", [False, True])
def test_gradients_of_both_directions(mode: str | None, sequences: bool) -> None:
    layer = LSTM(3, return_sequences=sequences, return_state=True, dropout=0.3, **F64)
    layer = built(Bidirectional(layer, merge_mode=mode), 4)
    initial = [uniform(2, 3, seed=i) for i in range(4)]
    check_gradients(layer, uniform(2, 5, 4), initial)


def test_directions_of_another_class() -> None:
    """And of layers that are stacks."""
    x = uniform(3, 7, 4)
    ahead = GRU(5, return_sequences=True, **F64)
    back = LSTM(5, return_sequences=True, go_backwards=True, **F64)
    layer = built(Bidirectional(ahead, backward_layer=back), 4)
    w = layer.get_weights()
    y, z = gru(x, w[:3])[0], lstm(x[:, ::-1], w[3:])[0]
    np.testing.assert_allclose(layer(x), np.concatenate([y, z[:, ::-1]], -1), atol=1e-12)
    deep = Bidirectional(stack(return_sequences=True, return_state=True), merge_mode="mul")
    check_gradients(built(deep, 4), uniform(2, 4, 4))
    assert "forward.cell_1.kernel" in deep.weights
    y, *groups = deep(x)
    assert [len(g) if isinstance(g, tuple) else 1 for g in groups] == [2, 1, 2] * 2
    same(deep(x, initial_state=[np.zeros((3, 5)), *leaves(groups)[1:]])[0].shape, y.shape)
    apart = Bidirectional(stack(return_state=True), merge_mode=None)
    check_gradients(built(apart, 4), uniform(2, 4, 4), groups_of_two(apart))


def groups_of_two(layer: Any) -> Any:
    """Initial states for two rows, as the layer returns them."""
    count = itertools.count(1)
    states = layer(uniform(2, 1, 4))[len(layer.cell.outputs) :]
    return [like(s, (uniform(*a.shape, seed=next(count)) for a in leaves(s))) for s in states]


def test_weights_for_both_directions() -> None:
    first = built(Bidirectional(LSTM(5, return_sequences=True, **F64)), 4)
    again = Bidirectional(LSTM(5, return_sequences=True, **F64), weights=first.get_weights())
    x = uniform(3, 7, 4)
    same(again(x), first(x))


def test_backwards_and_time_first() -> None:
    """go_backwards: as if x were turned, outputs in the order they are computed."""
    x = uniform(3, 7, 4)
    for make in (
        lambda **k: LSTM(5, return_sequences=True, seed=1, **F64, **k),
        lambda **k: RNN(
            [LSTMCell(5, seed=1, **F64), GRUCell(3, seed=2, **F64)], return_sequences=True, **k
        ),
    ):
        plain = make()(x)
        same(make(go_backwards=True)(x[:, ::-1]), plain)
        same(make(time_major=True)(x.swapaxes(0, 1)).swapaxes(0, 1), plain)
    major = Bidirectional(LSTM(5, return_sequences=True, time_major=True, seed=1, **F64))
    minor = Bidirectional(LSTM(5, return_sequences=True, seed=1, **F64))
    same(major(x.swapaxes(0, 1)).swapaxes(0, 1), minor(x))


def test_stateful_layers_of_layers() -> None:
    """Scenario 6: chunks equal the whole, until the states are reset; a chunk of another batch is
    refused. Scenario 7: states start another layer."""
    x = uniform(2, 9, 4)
    chunks = np.split(x, 3, axis=1)
    for make in (
        lambda **k: LSTM(5, return_sequences=True, seed=1, **F64, **k),
        lambda **k: stack(return_sequences=True, **k),
    ):
        layer, whole = make(stateful=True), make()(x)
        np.testing.assert_array_equal(np.concatenate([layer(c) for c in chunks], 1), whole)
        with pytest.raises(ValueError, match=r"batch 1.*had 2.*reset_states"):
            layer(x[:1])
        states = layer.states
        layer.reset_states()
        same(layer(chunks[0]), whole[:, :3])
        other = make()(x, initial_state=states)
        assert (other != whole).any()
        assert not {*map(id, states)} & {*map(id, layer.get_weights())}
    way = Bidirectional(LSTM(5, stateful=True, return_sequences=True, seed=1, **F64))
    first = way(x)
    assert (way(x) != first).any()
    way.reset_states()
    same(way(x), first)


@pytest.mark.parametrize("every", [None, 4])
def test_checkpoints_are_handed_down(every: int | None) -> None:
    x = uniform(2, 11, 4)
    found = []
    for layer in (
        stack(return_sequences=True, checkpoint_every=every),
        Bidirectional(LSTM(3, return_sequences=True, seed=1, checkpoint_every=every, **F64), "mul"),
    ):
        y, back = built(layer, 4).vjp(x)
        grads = back(uniform(*y.shape, seed=3))
        found += [y, grads.inputs, *grads.weights.values()]
    if every is None:
        test_checkpoints_are_handed_down.whole = found  # type: ignore[attr-defined]
    else:
        for a, b in zip(found, test_checkpoints_are_handed_down.whole):  # type: ignore[attr-defined]
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


# ---- masks -------------------------------------------------------------------------------------


MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 1, 0, 0], [0] * 7], bool)


@pytest.mark.parametrize("zeros", [False, True])
def test_a_mask_goes_to_every_cell(zeros: bool) -> None:
    x = uniform(3, 7, 4)
    x[~MASK] = np.nan
    options = {"return_sequences": True, "return_state": True, "zero_output_for_mask": zeros}
    y, *states = stack(**options)(x, mask=MASK)
    inner = x
    for cls, units, i in ((LSTM, 5, 0), (GRU, 3, 1), (LSTM, 4, 2)):
        inner, *last = cls(units, seed=i + 1, **options, **F64)(inner, mask=MASK)
        same(tuple(last) if len(last) > 1 else last[0], states[i])
    same(y, inner)
    assert not y[2].any() and y[1, 3].any() == (not zeros)


@pytest.mark.parametrize("sequences", [False, True])
def test_masks_in_both_directions(sequences: bool) -> None:
    """As if the masked steps weren't there; outputs of every step are zeros in their places."""
    x = uniform(3, 7, 4)
    layer = LSTM(5, return_sequences=sequences, return_state=True, seed=1, **F64)
    way = Bidirectional(layer)
    y, *states = way(np.where(MASK[:, :, None], x, np.nan), mask=MASK)
    for row in range(2):
        z, *last = way(x[row : row + 1, MASK[row]])
        same(y[row, MASK[row]] if sequences else y[row], z[0])
        same([s[row] for s in states], [s[0] for s in last])
    assert not y[2].any() and not states[0][2].any()
    if sequences:
        assert not y[~MASK].any()
    lengths = np.array([7, 4, 2])
    same(way(x, lengths=lengths), way(x, mask=np.arange(7) < lengths[:, None]))


@pytest.mark.parametrize("mode", ["concat", "mul"])
def test_gradients_of_masked_layers(mode: str) -> None:
    for sequences in (False, True):
        layer = LSTM(3, return_sequences=sequences, return_state=True, **F64)
        check_gradients(built(Bidirectional(layer, mode), 4), uniform(3, 7, 4), mask=MASK)
    deep = stack(return_sequences=True)
    check_gradients(built(deep, 4), uniform(3, 7, 4), mask=MASK[:, :6].repeat(2, 1)[:, :7])


# ---- torch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("both", [False, True])
def test_against_torch(kind: str, both: bool) -> None:
    """Two layers, one or both directions: outputs, last states and gradients."""
    x = uniform(3, 7, 4)
    cls, own = (torch.nn.LSTM, LSTM) if kind == "lstm" else (torch.nn.GRU, GRU)
    theirs = cls(4, 5, num_layers=2, bidirectional=both, batch_first=True, dtype=torch.float64)
    layers: list[Any] = []
    for depth in range(2):
        layer = own(5, return_sequences=True, **F64)
        layer = Bidirectional(layer) if both else layer
        layer.build((None, None, (10 if both else 5) if depth else 4))
        arrays = []
        for suffix in ("", "_reverse") if both else ("",):
            names = [
                f"{n}_l{depth}{suffix}" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
            arrays += from_torch(kind, [getattr(theirs, n).detach().numpy() for n in names])
        layer.set_weights(arrays)
        layers.append(layer)
    inputs = torch.from_numpy(x).requires_grad_()
    expected = theirs(inputs)[0]
    dy = uniform(*expected.shape, seed=9)
    (expected * torch.from_numpy(dy)).sum().backward()
    y, backs = x, []
    for layer in layers:
        y, back = layer.vjp(y)
        backs.append(back)
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-12)
    d, grads = dy, []
    for back in reversed(backs):
        grads.append(back(d))
        d = grads[-1].inputs
    np.testing.assert_allclose(d, inputs.grad.numpy(), atol=1e-12)  # type: ignore[union-attr]
    kernel = grads[1].weights["forward.kernel" if both else "kernel"]
    same_gates = from_torch(kind, [theirs.weight_ih_l0.grad.numpy()])[0]
    np.testing.assert_allclose(kernel, same_gates, atol=1e-12)
    if not both:
        cell = {"lstm": LSTMCell, "gru": GRUCell}[kind]
        one = RNN([cell(5, **F64), cell(5, **F64)], return_sequences=True)
        one.build((None, None, 4))
        one.set_weights([w for layer in layers for w in layer.get_weights()])
        same(one(x), y)


def from_torch(kind: str, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """kernel, recurrent_kernel, bias: torch's gates are i f g o, and r z n."""

    def turned(a: np.ndarray) -> np.ndarray:
        if kind == "lstm":
            return a
        r, z, n = np.split(a, 3)
        return np.concatenate([z, r, n])

    turn = [turned(a) for a in arrays]
    matrices = [np.ascontiguousarray(a.T) for a in turn[:2]]
    if len(turn) < 4:
        return matrices
    return [*matrices, turn[2] + turn[3] if kind == "lstm" else np.stack(turn[2:])]


def test_seeds_of_a_stack_are_its_cells() -> None:
    draws = [stack().seed for _ in range(2)]
    assert draws[0] == draws[1]
    pairs = itertools.combinations([p.seed(5) for p in stack().parts], 2)
    assert all(a != b for a, b in pairs)
