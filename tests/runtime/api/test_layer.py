"""Layers: calls, states, weights, pullbacks, files, copies; on the interpreter and on kernels.

RNNCC_TEST_ENGINE=oracle (or kernels) runs them on one of the two.
"""

from __future__ import annotations

import copy
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc import compiler, oracle
from rnncc.artifact.cell import CellDescription, Variant
from rnncc.frontend.spec import CellSpec
from rnncc.lowering.cell_interface import check_text
from rnncc.lowering.describe import describe
from rnncc.runtime.api.layer import Layer, frozen_layer_class
from tests.support.arrays import uniform
from tests.support.paths import CELLS

ENGINES = (
    [os.environ["RNNCC_TEST_ENGINE"]]
    if "RNNCC_TEST_ENGINE" in os.environ
    else [
        "oracle",
        "kernels",
    ]
)
Compile = Callable[..., type[Layer]]


@pytest.fixture(params=ENGINES)
def compiled(request: pytest.FixtureRequest) -> Compile:
    """compiled("lstm"), compiled("delays") of tests/cells, or a text; float64 unless told."""

    def compile_cell(source: str, dtype: str = "float64") -> type[Layer]:
        spec = read(source)
        if request.param == "oracle":
            return oracle.layer_class(spec, dtype)
        return compiler.layer_class(spec, "cpu", dtype)

    return compile_cell


def read(source: str) -> CellSpec:
    if "\n" in source:
        return check_text(source)
    path = CELLS / f"{source}.rnn"
    return compiler.load_spec(path if path.exists() else source)


# ---- calls -----------------------------------------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_an_lstm_is_an_lstm(compiled: Compile) -> None:
    layer = compiled("lstm")(units=5, return_sequences=True, return_state=True, seed=1)
    x = uniform(2, 4, 3)
    y, h, c = layer(x)
    w, hs, cs = layer.weights, np.zeros((2, 5)), np.zeros((2, 5))
    for t in range(4):
        z = x[:, t] @ w["kernel"] + hs @ w["recurrent_kernel"] + w["bias"]
        i, f, g, o = np.split(z, 4, axis=1)
        cs = sigmoid(f) * cs + sigmoid(i) * np.tanh(g)
        hs = sigmoid(o) * np.tanh(cs)
        np.testing.assert_allclose(y[:, t], hs, atol=1e-12)
    np.testing.assert_array_equal(h, y[:, -1])
    np.testing.assert_allclose(c, cs, atol=1e-12)


def test_the_last_step_is_the_default(compiled: Compile) -> None:
    cls, x = compiled("lstm"), uniform(2, 4, 3)
    last, whole = cls(units=5, seed=1), cls(units=5, seed=1, return_sequences=True)
    y = last(x)
    assert y.shape == (2, 5) and y.dtype == np.float64
    np.testing.assert_array_equal(y, whole(x)[:, -1])


def test_chunks_equal_the_whole(compiled: Compile) -> None:
    layer = compiled("lstm")(units=5, seed=1, return_sequences=True, return_state=True)
    x = uniform(2, 7, 3)
    y, *states = layer(x)
    first, *middle = layer(x[:, :3])
    second, *last = layer(x[:, 3:], initial_state=middle)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), y)
    for a, b in zip(states, last):
        np.testing.assert_array_equal(a, b)


def test_delays_are_states_after_the_declared_ones(compiled: Compile) -> None:
    layer = compiled("delays")(units=3, seed=1, return_sequences=True, return_state=True)
    assert [s.name for s in layer.cell.states][:3] == ["fast", "slow", "tick"]
    x = uniform(2, 6, 4)
    y, *_ = layer(x)
    first, *states = layer(x[:, :2])
    second, *_ = layer(x[:, 2:], initial_state=tuple(states))
    np.testing.assert_allclose(np.concatenate([first, second], 1), y, atol=1e-14)


@pytest.mark.parametrize("kind", ["tuple", "list", "dict", "list of one"])
def test_initial_states_come_in_many_ways(compiled: Compile, kind: str) -> None:
    h, c = uniform(2, 5, seed=1), uniform(2, 5, seed=2)
    x = uniform(2, 4, 3)
    if kind == "list of one":
        layer = compiled("simple_rnn")(units=5, seed=1)
        assert (layer(x, initial_state=[h]) == layer(x, initial_state=h)).all()
        assert (layer(x, initial_state=(h,)) == layer(x, initial_state={"h": h})).all()
        assert (layer(x, initial_state=h) != layer(x)).any()
        return
    layer = compiled("lstm")(units=5, seed=1)
    given: Any = {"tuple": (h, c), "list": [h, c], "dict": {"c": c, "h": h}}[kind]
    np.testing.assert_array_equal(layer(x, initial_state=given), layer(x, initial_state=(h, c)))
    zero = np.zeros((2, 5))
    some: Any = {"tuple": (None, c), "list": [None, c], "dict": {"c": c}}[kind]
    np.testing.assert_array_equal(layer(x, initial_state=some), layer(x, initial_state=(zero, c)))


def test_states_start_from_weights_and_constants(compiled: Compile) -> None:
    layer = compiled("learned_start")(units=4, seed=1, return_sequences=True)
    x = uniform(2, 3, 2)
    (y, c, _) = layer(x)
    layer.weights["h0"] = layer.weights["h0"] + 1
    moved = layer(x)[0]
    assert (moved != y).any()
    h0 = np.broadcast_to(layer.weights["h0"], (2, 4))
    np.testing.assert_array_equal(layer(x, initial_state={"h": h0})[0], moved)
    layer.constants["c0"] = layer.constants["c0"] * 2
    assert (layer(x)[1] != c).any()


def test_several_inputs_contexts_and_outputs(compiled: Compile) -> None:
    layer = compiled("two_inputs")(units=4, seed=1)
    x, scores = uniform(2, 5, 3, 6), uniform(2, 5, 3)
    y, w = layer((x, scores))
    assert y.shape == (2, 4) and w.shape == (2, 3)
    for other in (layer([x, scores]), layer({"scores": scores, "x": x})):
        np.testing.assert_array_equal(other[0], y)
    layer = compiled("context_attention")(units=4, seed=1, return_sequences=True)
    y, attention = layer((uniform(2, 5, 3), uniform(2, 6, 7)))
    assert y.shape == (2, 5, 4) and attention.shape == (2, 5, 6)
    # No weight has a size of `places`: it may change from call to call.
    assert layer((uniform(2, 5, 3), uniform(2, 9, 7)))[1].shape == (2, 5, 9)


def test_scalars(compiled: Compile) -> None:
    layer = compiled("running_moments")(units=4, seed=1, return_state=True)
    (surprise, h), level, power, last = layer((uniform(2, 5, 3), uniform(2, 5)))
    assert surprise.shape == level.shape == power.shape == (2,)
    np.testing.assert_array_equal(h, last)


@pytest.mark.parametrize(("batch", "time"), [(0, 3), (2, 0), (0, 0)])
def test_nothing_to_do(compiled: Compile, batch: int, time: int) -> None:
    cls = compiled("learned_start")
    layer = cls(units=4, seed=1, return_sequences=True, return_state=True)
    x = np.zeros((batch, time, 3))
    (y, c, f), *states = layer(x)
    assert y.shape == (batch, time, 3) and c.shape == f.shape == (batch, time, 4)
    assert [s.shape for s in states] == [(batch, 4)] * 3
    if batch:
        np.testing.assert_array_equal(states[0], np.tile(layer.weights["h0"], (2, 1)))
    (_, *states), pullback = layer.vjp(x)
    gradients = pullback((None, *(np.ones((batch, 4)) for _ in states)))
    assert gradients.inputs.shape == x.shape
    np.testing.assert_array_equal(gradients.weights["h0"], np.full(4, float(batch)))
    assert not gradients.weights["kernel"].any()
    assert (gradients.initial_state[1] == 1).all()
    prediction, *_ = cls(units=4)(x)
    assert prediction.shape == (batch, 3) and not prediction.any()


def test_any_array_will_do(compiled: Compile) -> None:
    layer = compiled("lstm")(units=5, seed=1)
    x = uniform(2, 4, 3).astype(np.float32).astype(np.float64)
    y = layer(x)
    odd = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float64).reshape(x.shape)
    frozen = x.copy()
    frozen.flags.writeable = False
    ways = {
        "float32": x.astype(np.float32),
        "byte-swapped": x.astype(">f8"),
        "Fortran": np.asfortranarray(x),
        "strided": np.repeat(x, 2, axis=1)[:, ::2],
        "reversed": x[::-1].copy()[::-1],
        "broadcast": np.broadcast_to(x, x.shape),
        "misaligned": odd,
        "read-only": frozen,
        "lists": x.tolist(),
    }
    for way, given in ways.items():
        np.testing.assert_array_equal(layer(given), y, err_msg=way)
    whole = np.arange(24).reshape(2, 4, 3) % 3
    np.testing.assert_array_equal(layer(whole), layer(whole.astype(float)))
    np.testing.assert_array_equal(layer(whole > 0), layer((whole > 0).astype(float)))


# ---- gradients ---------------------------------------------------------------------------------


def numeric(f: Callable[[], float], array: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """Central differences of f with respect to an array that f reads."""
    gradient = np.zeros_like(array)
    for at in np.ndindex(array.shape):
        kept = array[at]
        array[at] = kept + eps
        above = f()
        array[at] = kept - eps
        gradient[at] = (above - f()) / (2 * eps)
        array[at] = kept
    return gradient


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("name", ["lstm", "learned_start", "two_inputs"])
def test_gradients_are_those_of_differences(compiled: Compile, name: str, sequences: bool) -> None:
    layer = compiled(name)(units=3, seed=1, return_sequences=sequences, return_state=True)
    two = name == "two_inputs"
    x = (uniform(2, 3, 2, 2), uniform(2, 3, 2, seed=3)) if two else uniform(2, 3, 2)
    parts, pullback = layer.vjp(x)
    flat, dy = [], []
    for part in parts:
        inner = part if isinstance(part, tuple) else (part,)
        cotangents = tuple(uniform(*p.shape, seed=len(flat) + i) for i, p in enumerate(inner))
        flat += cotangents
        dy.append(cotangents if isinstance(part, tuple) else cotangents[0])

    def value() -> float:
        total, at = 0.0, 0
        for part in layer(x):
            for p in part if isinstance(part, tuple) else (part,):
                total += float((p * flat[at]).sum())
                at += 1
        return total

    gradients = pullback(tuple(dy))
    for given, found in zip(x if two else (x,), gradients.inputs if two else (gradients.inputs,)):
        np.testing.assert_allclose(found, numeric(value, given), atol=1e-8)
    assert list(gradients.weights) == list(layer.weights)
    for weight, found in gradients.weights.items():
        values = layer.weights[weight].copy()

        def moved(weight: str = weight, values: np.ndarray = values) -> float:
            layer.weights[weight] = values
            return value()

        np.testing.assert_allclose(found, numeric(moved, values), atol=1e-8, err_msg=weight)
        layer.weights[weight] = values


def test_a_pullback_may_be_called_again(compiled: Compile) -> None:
    layer = compiled("lstm")(units=3, seed=1, return_sequences=True)
    x, h, c = uniform(2, 4, 2), uniform(2, 3, seed=5), uniform(2, 3, seed=6)
    y, pullback = layer.vjp(x, initial_state=(h, c))
    dy = uniform(*y.shape, seed=2)
    first = pullback(dy)
    # Nothing that happens meanwhile matters, not even to the arrays themselves.
    for array in (x, h, c, y, first.inputs, first.weights["kernel"]):
        array[...] = np.nan
    layer.weights["kernel"] = layer.weights["kernel"] * 8
    layer.vjp(uniform(2, 4, 2, seed=9))[1](dy)
    second, third = pullback(dy), pullback(dy, consume=True)
    for a, b in ((second, third), (second, pullback_of(layer, dy))):
        np.testing.assert_array_equal(a.inputs, b.inputs)
        for name in a.weights:
            np.testing.assert_array_equal(a.weights[name], b.weights[name])
    assert np.isfinite(second.inputs).all()
    with pytest.raises(RuntimeError, match="consumed"):
        pullback(dy)


def pullback_of(layer: Layer, dy: np.ndarray) -> Any:
    """The gradients of test_a_pullback_may_be_called_again, all over again."""
    layer.weights["kernel"] = layer.weights["kernel"] / 8
    h, c = uniform(2, 3, seed=5), uniform(2, 3, seed=6)
    return layer.vjp(uniform(2, 4, 2), initial_state=(h, c))[1](dy)


def test_wrt_chooses_and_zero_is_none(compiled: Compile) -> None:
    layer = compiled("lstm")(units=3, seed=1, return_state=True)
    x = uniform(2, 4, 2)
    (y, h, _), pullback = layer.vjp(x)
    dy = uniform(*y.shape, seed=2)
    whole = pullback((dy, None, None))
    weights = pullback((dy, None, None), wrt=("weights",))
    assert weights.inputs is None and weights.initial_state is None
    np.testing.assert_array_equal(weights.weights["kernel"], whole.weights["kernel"])
    inputs = pullback((dy, np.zeros_like(h), None), wrt="inputs")
    assert inputs.weights == {}
    np.testing.assert_array_equal(inputs.inputs, whole.inputs)
    nothing = pullback(None)
    assert not nothing.inputs.any() and not nothing.weights["bias"].any()
    # The last output is the last h.
    np.testing.assert_allclose(pullback((None, dy, None)).inputs, whole.inputs, atol=1e-15)
    with pytest.raises(ValueError, match="did you mean weights"):
        pullback(None, wrt=("weight",))
    with pytest.raises(TypeError, match="tuple of 3"):
        pullback(dy)
    with pytest.raises(ValueError, match=r"shape \[2, 4\], expected .* \[2, 3\]"):
        pullback((np.ones((2, 4)), None, None))


def test_gradients_are_arranged_as_arguments_were(compiled: Compile) -> None:
    layer = compiled("two_inputs")(units=4, seed=1)
    x = {"scores": uniform(2, 5, 3), "x": uniform(2, 5, 3, 6)}
    h = uniform(2, 4)
    (y, w), pullback = layer.vjp(x, initial_state=h)
    gradients = pullback((y, None))
    assert set(gradients.inputs) == {"x", "scores"}
    assert gradients.inputs["x"].shape == (2, 5, 3, 6) and gradients.initial_state.shape == (2, 4)
    _, pullback = layer.vjp([x["x"], x["scores"]], initial_state={"h": h})
    gradients = pullback((y, w))
    assert isinstance(gradients.inputs, list) and set(gradients.initial_state) == {"h"}
    _, pullback = layer.vjp((x["x"], x["scores"]))
    assert isinstance(pullback((y, w)).initial_state, tuple)


def test_gradients_of_zero_starts_are_computed_when_read(compiled: Compile) -> None:
    layer, x = compiled("lstm")(units=3, seed=1, return_sequences=True), uniform(2, 4, 2)
    asked: list[frozenset[str]] = []

    def watched(given: Any) -> Any:
        y, pullback = layer.vjp(x, initial_state=given)
        engine, pullback._saved.engine = pullback._saved.engine, type("Watched", (), {})()

        def backward(saved: Any, cotangents: Any, wanted: frozenset[str], out: Any) -> Any:
            asked.append(wanted)
            return engine.backward(saved, cotangents, wanted, out)

        pullback._saved.engine.backward = backward
        return y, pullback

    dy = uniform(2, 4, 3, seed=2)
    _, pullback = watched((np.zeros((2, 3)), np.zeros((2, 3))))
    given = pullback(dy)
    assert len(asked) == 1 and {"h", "c", "x", "kernel"} < asked[0]
    _, pullback = watched(None)
    later, copied = pullback(dy), pullback(dy)
    assert not {"h", "c"} & (asked[1] | asked[2])
    kept, dy[...] = dy.copy(), np.nan
    for a, b in zip(later.initial_state, given.initial_state):
        np.testing.assert_array_equal(a, b)
    assert asked[3] == {"h", "c"} and later.initial_state is later.initial_state
    for made in (pickle.loads(pickle.dumps(copied)), copy.deepcopy(later)):
        np.testing.assert_array_equal(made.initial_state[1], given.initial_state[1])
        np.testing.assert_array_equal(made.inputs, given.inputs)
    now = pullback(kept, wrt="initial_state")
    np.testing.assert_array_equal(now.initial_state[0], given.initial_state[0])
    last = pullback(kept, consume=True)  # nothing is left to compute it from afterwards
    assert {"h", "c"} < asked[-1]
    np.testing.assert_array_equal(last.initial_state[0], given.initial_state[0])


def test_a_given_start_hands_nothing_to_the_weight(compiled: Compile) -> None:
    layer = compiled("learned_start")(units=4, seed=1)
    x = uniform(2, 3, 2)
    (y, _, _), pullback = layer.vjp(x)
    own = pullback((np.ones_like(y), None, None))
    np.testing.assert_allclose(own.weights["h0"], own.initial_state[0].sum(0), atol=1e-14)
    _, pullback = layer.vjp(x, initial_state={"h": np.ones((2, 4))})
    given = pullback((np.ones_like(y), None, None))
    assert not given.weights["h0"].any() and given.initial_state["h"].any()


# ---- randomness ----------------------------------------------------------------------------------


def test_dropout_draws_in_training_from_the_seed(compiled: Compile) -> None:
    cls, x = compiled("lstm"), uniform(2, 4, 3)
    layer = cls(units=5, dropout=0.5, recurrent_dropout=0.2, seed=3)
    still = layer(x)
    np.testing.assert_array_equal(layer(x), still)
    first, second = layer(x, training=True), layer(x, training=True)
    assert (first != second).any() and (first != still).any()
    twin = cls(units=5, dropout=0.5, recurrent_dropout=0.2, seed=3)
    np.testing.assert_array_equal(twin(x, training=True), first)
    np.testing.assert_array_equal(twin(x, training=True), second)
    fixed = layer(x, training=True, seed=11)
    np.testing.assert_array_equal(layer(x, training=True, seed=11), fixed)
    y, pullback = layer.vjp(x, seed=11)
    np.testing.assert_array_equal(y, fixed)
    dy = uniform(*y.shape, seed=4)

    def value() -> float:
        return float((layer(x, training=True, seed=11) * dy).sum())

    np.testing.assert_allclose(pullback(dy).inputs, numeric(value, x), atol=1e-8)


def test_rates_that_are_zero_ask_for_no_kernels_of_their_own() -> None:
    asked: list[Variant] = []

    def engine(spec: CellSpec, cell: CellDescription, variant: Variant) -> Any:
        asked.append(variant)
        return oracle.oracle_engine(spec, cell, variant)

    x = uniform(2, 4, 3)
    for name, rates in (("lstm", {}), ("lstm", {"dropout": 0.1}), ("noise", {"zoneout_h": 0.1})):
        layer = compiler.layer_class(read(name), "cpu", "float64", engine)(units=3, **rates)
        for training in (False, True, False, True):
            layer(x, training=training)
    assert asked == [
        Variant(),
        Variant(training=True, active_rates=frozenset({"dropout"})),
        Variant(active_rates=frozenset({"zoneout_h"})),
        Variant(training=True, active_rates=frozenset({"zoneout_h"})),
    ]


# ---- weights -----------------------------------------------------------------------------------


def test_weights_are_read_only_and_replaced(compiled: Compile) -> None:
    layer = compiled("lstm")(units=5, seed=1)
    assert not layer.built and len(layer.weights) == 0
    with pytest.raises(KeyError, match="no weights yet"):
        layer.weights["kernel"]
    x = uniform(2, 4, 3)
    y = layer(x)
    assert list(layer.weights) == ["kernel", "recurrent_kernel", "bias"]
    kernel = layer.weights["kernel"]
    with pytest.raises(ValueError, match="read-only"):
        kernel[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        kernel.flags.writeable = True
    new = np.zeros((3, 20), np.float32)
    layer.weights["kernel"] = new
    new[...] = 9
    assert layer.weights["kernel"].dtype == np.float64 and not layer.weights["kernel"].any()
    assert (layer(x) != y).any()
    layer.weights["kernel"] = kernel
    np.testing.assert_array_equal(layer(x), y)
    with pytest.raises(ValueError, match=r"kernel has shape \[3, 5\], expected \[3, 20\]"):
        layer.weights["kernel"] = np.zeros((3, 5))
    with pytest.raises(TypeError, match="complex128"):
        layer.weights["kernel"] = np.zeros((3, 20), complex)
    with pytest.raises(KeyError, match="did you mean kernel"):
        layer.weights["kernal"] = kernel
    layer.weights["bias"] = np.full(20, np.nan)
    assert np.isnan(layer(x)).all()


def test_lists_of_weights(compiled: Compile) -> None:
    cls, x = compiled("learned_start"), uniform(2, 4, 3)
    one, two = cls(units=5, seed=1), cls(units=5, seed=2)
    one(x), two(x)
    values = one.get_weights()
    assert len(values) == len(one.weights) + len(one.constants)
    assert sum(v.size for v in values) == one.count_params()
    two.set_weights(values)
    np.testing.assert_array_equal(one(x)[0], two(x)[0])
    values[0][...] = 7
    assert (one.get_weights()[0] != 7).all()
    before = two.get_weights()
    with pytest.raises(ValueError, match="expected"):
        two.set_weights([values[0] * 0, *(np.zeros(1) for _ in values[1:])])
    np.testing.assert_array_equal(two.get_weights()[0], before[0])
    with pytest.raises(ValueError, match="1 were given"):
        two.set_weights(values[:1])


def test_counts_of_the_guide() -> None:
    for name, features, units, count in (
        ("lstm", 64, 128, 98_816),
        ("gru", 64, 256, 247_296),
        ("simple_rnn", 256, 128, 49_280),
        ("lstm", 64, 64, 33_024),
    ):
        layer = oracle.layer_class(read(name), "float32")(units)
        layer.build((None, None, features))
        assert layer.count_params() == count


def test_building() -> None:
    cls = oracle.layer_class(read("two_inputs"))
    layer = cls(units=4, seed=1)
    layer.build({"x": (None, None, 3, 6), "scores": (None, None, None)})
    twin = cls(units=4, frames=3, features=6, seed=1)
    assert twin.built  # every size of its weights was given
    for name in layer.weights:
        np.testing.assert_array_equal(layer.weights[name], twin.weights[name])
    lstm = oracle.layer_class(read("lstm"))(units=4)
    with pytest.raises(ValueError, match="need features"):
        lstm.build((None, None, None))
    with pytest.raises(ValueError, match=r"expected \[batch, time, features\]"):
        lstm.build((None, 3))
    assert not lstm.built
    lstm.build((None, None, 3))
    with pytest.raises(ValueError, match=r"features=3.*fixed by the layer's weights"):
        lstm(uniform(2, 4, 5))


def test_a_weight_more_leaves_the_others_as_they_were() -> None:
    with_bias = oracle.layer_class(read("lstm"))(units=4, features=3, seed=5)
    without = oracle.layer_class(read("lstm"))(units=4, features=3, seed=5, use_bias=False)
    assert list(without.weights) == ["kernel", "recurrent_kernel"]
    for name in without.weights:
        np.testing.assert_array_equal(without.weights[name], with_bias.weights[name])
    np.testing.assert_array_equal(with_bias.weights["bias"], np.repeat([0, 1, 0, 0], 4))
    unseeded = oracle.layer_class(read("lstm"))(4, features=3)
    assert (unseeded.weights["kernel"] != with_bias.weights["kernel"]).any()


# ---- files and copies --------------------------------------------------------------------------


def test_saved_weights_come_back(compiled: Compile, tmp_path: Path) -> None:
    cls, x, path = compiled("learned_start"), uniform(2, 4, 3), tmp_path / "weights"
    one = cls(units=5, seed=1)
    with pytest.raises(ValueError, match="no weights yet"):
        one.save(path)
    y = one(x)[0]
    one.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["weights"]
    fresh, built = cls(units=5), cls(units=5)
    built(x)
    for layer in (fresh, built):
        layer.load(path)
        np.testing.assert_array_equal(layer(x)[0], y)
    with pytest.raises(ValueError, match=r"expected \[6\]|has units=5"):
        cls(units=6).load(path)


def test_files_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    x, path = uniform(2, 4, 3), tmp_path / "w.npz"
    lstm = oracle.layer_class(read("lstm"))
    one = lstm(units=5, seed=1)
    y = one(x)
    one.save(path)
    with pytest.raises(ValueError, match="weights of LSTM, not GRU"):
        oracle.layer_class(read("gru"))(units=5).load(path)
    with pytest.raises(ValueError, match=r"activation=.tanh.*strict=False"):
        lstm(units=5, activation="relu").load(path)
    lstm(units=5, activation="relu").load(path, strict=False)
    changed = oracle.layer_class(check_text(read("lstm").text + "# changed\n"))
    with pytest.raises(ValueError, match="another text of LSTM"):
        changed(units=5).load(path)
    changed(units=5).load(path, strict=False)
    with pytest.raises(ValueError, match="also holds bias"):
        lstm(units=5, use_bias=False).load(path, strict=False)
    other = lstm(units=5, seed=2)
    z = other(x)
    torn = {"a": b"", "b": b"PK\x03\x04 and no more", "c": path.read_bytes()[:200]}
    for name, data in torn.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="holds no weights of a layer"):
            other.load(tmp_path / name)
    np.save(tmp_path / "d.npy", x)
    np.savez(tmp_path / "e.npz", kernel=x)
    np.savez(tmp_path / "f.npz", kernel=np.array([object()]))
    for name in ("d.npy", "e.npz", "f.npz"):
        with pytest.raises(ValueError, match="holds no weights of a layer"):
            other.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        other.load(tmp_path / "nowhere.npz")
    np.testing.assert_array_equal(other(x), z)
    other.load(path)
    np.testing.assert_array_equal(other(x), y)


def test_layers_pickle_and_copy(compiled: Compile) -> None:
    layer = compiled("lstm")(units=5, seed=1, dropout=0.5, activation="lambda v: v / (1 + abs(v))")
    x = uniform(2, 4, 3)
    for made in (layer, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert made.built is layer.built
    y, drawn = layer(x), layer(x, training=True)
    copies = [pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), copy.copy(layer)]
    after = layer(x, training=True)
    assert (after != drawn).any()
    for made in copies:
        assert type(made) is type(layer) and repr(made) == repr(layer)
        np.testing.assert_array_equal(made(x), y)
        np.testing.assert_array_equal(made(x, training=True), after)
        with pytest.raises(ValueError, match="read-only"):
            made.weights["bias"][0] = 1
        made.weights["bias"] = made.weights["bias"] + 1
    np.testing.assert_array_equal(layer(x), y)


class Subclass(oracle.layer_class(read("simple_rnn"))):  # type: ignore[misc]
    pass


def test_classes_pickle() -> None:
    cls = rnncc.compile("lstm")
    assert pickle.loads(pickle.dumps(cls)) is cls is rnncc.compile("LSTM")
    assert pickle.loads(pickle.dumps(Layer)) is Layer
    assert copy.deepcopy(cls) is cls
    layer = Subclass(units=3, features=2)
    made = pickle.loads(pickle.dumps(layer))
    assert type(made) is Subclass
    np.testing.assert_array_equal(made.weights["kernel"], layer.weights["kernel"])


def test_a_layer_serves_threads(compiled: Compile) -> None:
    layer = compiled("lstm")(units=5, seed=1)
    xs = [uniform(2, 4, 3, seed=i) for i in range(8)]
    found: dict[int, np.ndarray] = {}

    def call(i: int) -> None:
        y, pullback = layer.vjp(xs[i])
        found[i] = pullback(np.ones_like(y)).inputs

    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, x in enumerate(xs):
        y, pullback = layer.vjp(x)
        np.testing.assert_array_equal(found[i], pullback(np.ones_like(y)).inputs)


# ---- options and frozen classes --------------------------------------------------------------


def test_options_and_functions_are_bound_by_the_constructor(compiled: Compile) -> None:
    cls, x = compiled("gru"), uniform(2, 4, 3)
    after, before = cls(units=4, seed=1), cls(units=4, seed=1, reset_after=False)
    assert (after(x) != before(x)).any()
    assert after.weights["bias"].shape == (2, 12) and before.weights["bias"].shape == (12,)
    np.testing.assert_array_equal(
        cls(units=4, seed=1, activation="relu")(x),
        cls(units=4, seed=1, activation="lambda v: maximum(v, 0)")(x),
    )
    assert "reset_after=False" in repr(before) and "reset_after" not in repr(after)
    assert "GRU(units=4" in after.plan()


def test_a_module_of_the_command_line_is_frozen() -> None:
    spec = read("gru")
    cell = describe(spec, {"reset_after": False}, dtype="float64")
    engines = {Variant(): oracle.oracle_engine(spec, cell, Variant())}
    cls = frozen_layer_class(eval(repr(cell), vars(compiler_description())), engines, __name__)
    layer = cls(units=4, reset_after=False, activation="tanh", seed=1)
    x = uniform(2, 4, 3)
    expected = oracle.layer_class(spec)(units=4, seed=1, reset_after=False)(x)
    np.testing.assert_array_equal(layer(x), expected)
    with pytest.raises(ValueError, match=r"reset_after=False.*--set reset_after=True"):
        cls(units=4, reset_after=True)
    with pytest.raises(ValueError, match="--set activation=relu"):
        cls(units=4, activation="relu")
    with pytest.raises(ValueError, match="--dtype float32"):
        cls(units=4, dtype="float32")
    with pytest.raises(ValueError, match="without kernels for dropout"):
        cls(units=4, dropout=0.1)(x, training=True)
    assert cls(units=4, dropout=0.1)(x).shape == (2, 4)
    with pytest.raises(TypeError, match=r"rnncc\.compile makes layer classes"):
        Layer(units=4)


def compiler_description() -> Any:
    import rnncc.artifact.cell as description

    return description


def test_float32_is_the_default() -> None:
    cls = rnncc.compile("lstm")
    layer = cls(units=3, features=2)
    assert layer.dtype == "float32" and layer.weights["kernel"].dtype == np.float32
    assert cls(units=3, features=2, dtype="float64").weights["kernel"].dtype == np.float64
    assert cls(units=3, dtype=np.float32).dtype == "float32"
