"""Options of layers: the order of steps, states that are kept, checkpoints, chunks, unrolling."""

from __future__ import annotations

import copy
import pickle
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnncc import compiler, oracle
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.pullback import Gradients
from tests.support import cases
from tests.support.arrays import uniform
from tests.support.cases import error

BATCH, TIME, FEATURES, UNITS = 3, 7, 4, 5
NOISE = dict.fromkeys(("dropout", "step_dropout", "weight_dropout", "zoneout_h", "zoneout_c"), 0.3)
RATES = {"noise": NOISE}
CELLS = ("lstm", "gru", "delays", "noise")


def made(name: str, engine: Any = compiler, **keywords: Any) -> Layer:
    """A layer with the weights that every other one here has, too."""
    spec = cases.spec_of(name)
    cls = spec_class(engine, spec)
    given = {"units": UNITS, "seed": 1, **RATES.get(name, {}), **keywords}
    layer: Layer = cls(**given)
    layer.build((None, None, FEATURES))
    return layer


def spec_class(engine: Any, spec: Any) -> Any:
    if engine is compiler:
        return compiler.layer_class(spec, "cpu", "float64")
    return engine.layer_class(spec)


def run(layer: Layer, x: np.ndarray, **keywords: Any) -> tuple[tuple[np.ndarray, ...], Any]:
    """What a training call returns, and its pullback."""
    y, pullback = layer.vjp(x, training=True, seed=5, **keywords)
    return (y if isinstance(y, tuple) else (y,)), pullback


def same(found: Any, right: Any) -> None:
    if isinstance(right, dict):
        assert found.keys() == right.keys()
        found, right = tuple(found.values()), tuple(right.values())
    if isinstance(right, tuple):
        assert len(found) == len(right)
        for a, b in zip(found, right):
            same(a, b)
    else:
        np.testing.assert_array_equal(found, right)


def close(found: Any, right: Any, limit: float) -> None:
    for name, array in right.items():
        assert error(found[name], array) <= limit, name


# ---- order of steps ----------------------------------------------------------------------------


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_orders_are_views_of_the_plain_layer(name: str, sequences: bool) -> None:
    """Reversed inputs, transposed arrays: values, draws and gradients have the same bits."""
    options: dict[str, Any] = {"return_sequences": sequences, "return_state": True}
    x = uniform(BATCH, TIME, FEATURES)
    for backwards, major in product((True, False), repeat=2):
        plain, turned = (
            made(name, **options),
            made(name, go_backwards=backwards, time_major=major, **options),
        )

        def steps(array: np.ndarray, major: bool = major) -> np.ndarray:
            return np.ascontiguousarray(array.swapaxes(0, 1)) if major else array

        as_run = np.ascontiguousarray(x[:, ::-1]) if backwards else x
        right, pull = run(plain, as_run)
        found, pull_turned = run(turned, steps(x))
        assert all(a.flags.c_contiguous for a in found)
        y = steps(right[0]) if sequences else right[0]
        same(found, (y, *right[1:]))
        y, *states = plain(as_run)
        same(turned(steps(x)), (steps(y) if sequences else y, *states))
        d = tuple(uniform(*a.shape, seed=i) for i, a in enumerate(right))
        expected, gradients = pull(d), pull_turned((steps(d[0]) if sequences else d[0], *d[1:]))
        dx = expected.inputs[:, ::-1] if backwards else expected.inputs
        same(gradients.inputs, steps(dx))
        assert gradients.inputs.flags.c_contiguous
        same(gradients.weights, expected.weights)
        same(gradients.initial_state, expected.initial_state)


@pytest.mark.parametrize("name", ["delays", "noise"])
def test_orders_on_the_interpreter(name: str) -> None:
    options: dict[str, Any] = {"return_sequences": True, "go_backwards": True, "time_major": True}
    x, dy = (
        uniform(TIME, BATCH, FEATURES),
        uniform(TIME, BATCH, UNITS * (1 + (name == "delays")), seed=1),
    )
    layers = made(name, **options), made(name, oracle, **options)
    layers[1].set_weights(layers[0].get_weights())
    (found, pull), (right, right_pull) = (run(layer, x) for layer in layers)
    assert error(found[0], right[0]) <= 1e-12
    gradients, expected = pull(dy), right_pull(dy)
    assert error(gradients.inputs, expected.inputs) <= 1e-11
    close(gradients.weights, expected.weights, 1e-11)


def test_outputs_are_in_the_order_they_run() -> None:
    """As in Keras: the first output is of the last step."""
    layer = made("lstm", go_backwards=True, return_sequences=True)
    x = uniform(BATCH, TIME, FEATURES)
    last = made("lstm", return_sequences=True)(x[:, -1:])
    np.testing.assert_array_equal(layer(x)[:, :1], last)


def test_views_are_read_where_they_are() -> None:
    layer = made("lstm", return_sequences=True)
    x = uniform(TIME, BATCH, 3, FEATURES)[:, :, 1]
    right = layer(np.ascontiguousarray(x.swapaxes(0, 1)))
    same(layer(x.swapaxes(0, 1)), right)
    same(layer(x.swapaxes(0, 1).tolist()), right)
    _, pullback = layer.vjp(x.swapaxes(0, 1))
    dy = uniform(TIME, BATCH, UNITS, seed=1)
    gradients = pullback(dy.swapaxes(0, 1))
    same(gradients.weights, pullback(np.ascontiguousarray(dy.swapaxes(0, 1))).weights)


def test_shapes_in_messages_are_the_users() -> None:
    layer = made("lstm", time_major=True, return_sequences=True)
    with pytest.raises(
        ValueError, match=r"x has shape \[7, 3, 9\], expected \[time, batch, features=4\]"
    ):
        layer(uniform(TIME, BATCH, 9))
    _, pullback = layer.vjp(uniform(TIME, BATCH, FEATURES))
    with pytest.raises(ValueError, match=r"shape \[3, 7, 5\], expected .*\[7, 3, 5\]"):
        pullback(uniform(BATCH, TIME, UNITS))


def test_no_steps_and_no_rows() -> None:
    for major, backwards in product((True, False), repeat=2):
        layer = made("lstm", time_major=major, go_backwards=backwards, return_sequences=True)
        for batch, time in ((0, 4), (4, 0)):
            lead = (time, batch) if major else (batch, time)
            y, pullback = layer.vjp(np.zeros((*lead, FEATURES)))
            assert y.shape == (*lead, UNITS)
            assert pullback(y).inputs.shape == (*lead, FEATURES)


# ---- stateful ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lstm", "delays"])
def test_states_go_on_from_call_to_call(name: str) -> None:
    x = uniform(BATCH, TIME, FEATURES)
    layer = made(name, stateful=True, return_sequences=True)
    whole = made(name, return_sequences=True, return_state=True)
    assert layer.states is None
    right = whole(x)
    found = [layer(x[:, :3]), layer(x[:, 3:])]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), right[0])
    same(layer.states, right[1:])
    assert len(layer.states) == len(layer.cell.states)
    for array in layer.states:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    layer.reset_states()
    assert layer.states is None
    same(layer(x), right[0])
    layer.reset_state()
    y, _ = layer.vjp(x[:, :3])
    same(y, right[0][:, :3])
    same(layer(x[:, 3:]), right[0][:, 3:])


def test_states_that_are_given_go_before() -> None:
    x = uniform(BATCH, TIME, FEATURES)
    layer = made("lstm", stateful=True, return_state=True)
    layer(x)
    start = {"h": np.full((BATCH, UNITS), 0.25)}
    kept = layer.states
    found = layer(x, initial_state=start)
    same(found, made("lstm", return_state=True)(x, initial_state={**start, "c": kept[1]}))
    found[1][...] = 9.0
    assert not (layer.states[0] == 9.0).any()


def test_one_batch_size() -> None:
    layer = made("lstm", stateful=True)
    layer(uniform(4, 2, FEATURES))
    with pytest.raises(ValueError, match="this call has batch 3, the one before had 4"):
        layer(uniform(3, 2, FEATURES))
    with pytest.raises(ValueError, match="batch 3, the one before had 4"):
        layer(uniform(3, 2, FEATURES), initial_state=(np.zeros((3, UNITS)),) * 2)
    assert layer.states[0].shape == (4, UNITS)
    layer.reset_states()
    layer(uniform(3, 2, FEATURES))


def test_a_call_that_fails_leaves_the_states() -> None:
    layer = made("lstm", stateful=True)
    layer(uniform(4, 2, FEATURES))
    kept = layer.states
    with pytest.raises(ValueError, match="expected"):
        layer(uniform(4, 2, FEATURES + 1))
    same(layer.states, kept)


def test_states_are_no_weights(tmp_path: Path) -> None:
    layer = made("lstm", stateful=True)
    x = uniform(BATCH, 2, FEATURES)
    layer(x)
    assert len(layer.get_weights()) == 3
    layer.save(tmp_path / "w.npz")
    other = made("lstm", stateful=True)
    other.load(tmp_path / "w.npz")
    assert other.states is None
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        same(twin.states, layer.states)
    same(copy.deepcopy(layer)(x), layer(x))


def test_gradients_end_at_the_call() -> None:
    """A learned start is trained by the first call alone."""
    path = cases.FILES["learned_start"]
    layer = compiler.layer_class(compiler.load_spec(path), "cpu", "float64")(
        units=UNITS, seed=1, stateful=True
    )
    x = uniform(BATCH, 3, FEATURES)
    starts = {s.default for s in layer.cell.states if s.default} & {
        w.name for w in layer.cell.weights
    }
    assert starts
    for first in (True, False):
        y, pullback = layer.vjp(x)
        gradients = pullback(tuple(np.ones_like(a) for a in y))
        for start in starts:
            assert gradients.weights[start].any() == first
        assert gradients.initial_state[0].any()


# ---- chunks, checkpoints, unrolling ----------------------------------------------------------


@pytest.mark.parametrize("name", ["lstm", "gru", "delays"])
def test_chained_chunks_are_the_whole(name: str) -> None:
    """y1, pb1 = vjp(x[:, :k]); y2, pb2 = vjp(x[:, k:], initial_state=states)."""
    layer = made(name, return_sequences=True, return_state=True)
    x, k = uniform(BATCH, TIME, FEATURES), 3
    right, pull = run(layer, x)
    d = tuple(uniform(*a.shape, seed=i) for i, a in enumerate(right))
    expected: Gradients = pull(d)
    first, pull_first = run(layer, x[:, :k])
    second, pull_second = run(layer, x[:, k:], initial_state=first[1:])
    np.testing.assert_array_equal(np.concatenate([first[0], second[0]], axis=1), right[0])
    same(second[1:], right[1:])
    later = pull_second((d[0][:, k:], *d[1:]))
    sooner = pull_first((d[0][:, :k], *later.initial_state))
    dx = np.concatenate([sooner.inputs, later.inputs], axis=1)
    np.testing.assert_array_equal(dx, expected.inputs)
    same(sooner.initial_state, expected.initial_state)
    for weight, array in expected.weights.items():
        assert error(sooner.weights[weight] + later.weights[weight], array) <= 1e-13


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_checkpoints_at_the_layer(name: str, sequences: bool) -> None:
    options: dict[str, Any] = {"return_sequences": sequences, "return_state": True}
    options |= {"go_backwards": True, "time_major": True}
    x = uniform(TIME, BATCH, FEATURES)
    right, pull = run(made(name, **options), x)
    d = tuple(uniform(*a.shape, seed=i) for i, a in enumerate(right))
    expected = pull(d)
    for every in (1, 3, TIME):
        layer = made(name, checkpoint_every=every, **options)
        found, pull_again = run(layer, x)
        same(found, right)
        for gradients in (pull_again(d), pull_again(d, consume=True)):
            same(gradients.inputs, expected.inputs)
            same(gradients.initial_state, expected.initial_state)
            close(gradients.weights, expected.weights, 1e-13)
        assert f"checkpoint_every={every}" in layer.plan()


def test_slopes_through_checkpoints() -> None:
    layer = made("delays", checkpoint_every=2, return_sequences=True)
    x, dy = uniform(BATCH, TIME, FEATURES), uniform(BATCH, TIME, 2 * UNITS, seed=1)
    gradient = layer.vjp(x)[1](dy).inputs
    slopes = cases.slope_errors(
        lambda a: float((layer(a) * dy).sum()), x, gradient, np.random.default_rng(2)
    )
    assert max(slopes) <= 1e-6


@pytest.mark.parametrize(("name", "unroll"), [("lstm", False), ("lstm", 2), ("delays", True)])
def test_unrolling_changes_nothing(name: str, unroll: bool | int) -> None:
    """But the kernels, whether the cell declares it or not; and the plan says how many steps."""
    layer = made(name, unroll=unroll, return_state=True)
    plain = made(name, return_state=True)
    x = uniform(BATCH, TIME, FEATURES)
    right, pull = run(plain, x)
    found, pull_unrolled = run(layer, x)
    same((layer(x), *found), (plain(x), *right))
    d = tuple(uniform(*a.shape, seed=i) for i, a in enumerate(right))
    gradients, expected = pull_unrolled(d), pull(d)
    same(
        (gradients.inputs, *gradients.weights.values()),
        (expected.inputs, *expected.weights.values()),
    )
    kernels = [line for line in layer.plan().split("\n") if "scan:" in line]
    steps = {False: (), 2: ("2", "2"), True: ("4", "4")}[unroll]
    assert tuple(n for line in kernels for n in re.findall(r"(\d+) steps a turn", line)) == steps
    assert (f"unroll={unroll}" in layer.plan()) == bool(unroll)
    assert ("unroll=" in repr(layer)) == bool(unroll)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"unroll": 0}, ValueError, "unroll is at least 1, not 0"),
    ({"unroll": 17}, ValueError, "unroll is at most 16 steps a turn, not 17"),
    ({"unroll": "yes"}, TypeError, "unroll is True, False or a whole number of steps, not 'yes'"),
    ({"checkpoint_every": 0}, ValueError, "checkpoint_every is at least 1, not 0"),
    ({"checkpoint_every": 2.5}, TypeError, "checkpoint_every is a whole number, not 2.5"),
    ({"checkpoint_every": True}, TypeError, "checkpoint_every is a whole number, not the bool"),
    ({"stateful": 1}, TypeError, "stateful is True or False, not 1"),
    ({"go_backwards": None}, TypeError, "go_backwards is True or False, not None"),
    ({"time_major": "x"}, TypeError, "time_major is True or False, not 'x'"),
]


@pytest.mark.parametrize(("keywords", "kind", "message"), BAD, ids=lambda v: str(v)[:30])
def test_wrong_options(keywords: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        made("lstm", **keywords)
    assert message in str(caught.value)


def test_options_are_kept_by_copies() -> None:
    options: dict[str, Any] = {"go_backwards": True, "time_major": True, "stateful": True}
    layer = made("lstm", checkpoint_every=3, unroll=2, return_sequences=True, **options)
    x = uniform(TIME, BATCH, FEATURES)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer)
        same(twin(x), made("lstm", return_sequences=True, **options)(x))
    for word in (*(f"{n}=True" for n in options), "checkpoint_every=3", "unroll=2"):
        assert word in repr(layer)


def test_states_that_stay_are_set() -> None:
    layer, other = made("lstm", stateful=True), made("lstm")
    x = uniform(2, TIME, FEATURES)
    h, c = (np.full((2, UNITS), number) for number in (0.5, -0.5))
    layer.states = [h, c]
    np.testing.assert_array_equal(layer(x), other(x, initial_state=(h, c)))
    layer.states = {"c": c, "h": h}
    h[:] = 9  # its own
    np.testing.assert_array_equal(layer(x), other(x, initial_state=(h * 0 + 0.5, c)))
    layer.states = None
    np.testing.assert_array_equal(layer(x), other(x))
    before = layer.states
    for wrong, words in (
        ([h], r"takes 2 arrays \(h, c\), 1 were given"),
        ({"h": h}, "lacks c: give h, c"),
        ([h, None], "state c of lstm"),
        ([h, c[:1]], r"state c of lstm has shape \[1, 5\], expected"),
        ([h, c[:, :2]], r"expected \['batch', 5\]"),
        ([h, [[1.0], [2.0, 3.0]]], "pad them, and give lengths"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            layer.states = wrong
    assert layer.states is not None and all(map(np.array_equal, layer.states, before))
    with pytest.raises(AttributeError, match="keeps no states"):
        other.states = [h, c]


def test_rows_of_different_lengths_are_refused_with_words() -> None:
    layer = made("gru")
    for uneven in ([[[1.0]], [[1.0], [2.0]]], [np.ones((2, 3)), np.ones((3, 3))]):
        with pytest.raises(ValueError, match="different lengths: pad them, and give lengths"):
            layer(uneven)
