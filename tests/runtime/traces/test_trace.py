"""Traces: what equations name at every step, held against the interpreter and against equations
written out in NumPy; the layer and its outputs stay as they are."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc import oracle
from rnncc.compiler import layer_class
from rnncc.frontend.spec import CellSpec
from rnncc.layers import GRU, LSTM, RNN, Bidirectional, GRUCell, LSTMCell
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.validation import array_shape
from tests.support.arrays import uniform
from tests.support.cases import NAMES, error, sizes_for, spec_of

F64: dict[str, Any] = {"dtype": "float64"}
# Every path, and sums that are rounded in another order than the call's.
CELLS = NAMES if os.environ.get("RNNCC_EVERY_CELL") else ["delays", "gru_d", "noise", "spiking"]
MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
FLAGGED = """
cell: Flagged
units: size
x: input[units]
h: state[units]
w: weight[units] = ones
U: weight[units, units] = orthogonal
spare: weight[units] if used else weight = ones
used: option = False
rate: rate = 0
kernel = U * 2
above = x[t] > 0
n = units
twice = 2 * h[t-1]
slow = sigmoid(w)
idle = x[t] * spare
h[t] = where(above, drop(x[t], rate) @ kernel, twice * slow) + (idle if used else 0)
return h[t] * 2, h[t]
"""


def arguments(spec: CellSpec, layer: Layer, sizes: dict[str, int], batch: int, time: int) -> Any:
    rng = np.random.default_rng(3)
    cell = layer.cell
    shapes = {a.name: (batch, time, *array_shape(a, sizes)) for a in cell.inputs}
    shapes |= {a.name: (batch, *array_shape(a, sizes)) for a in cell.contexts}
    return {n: rng.uniform(-0.9, 0.9, s).astype(layer.dtype) for n, s in shapes.items()}


@pytest.mark.parametrize("name", CELLS)
def test_the_interpreters_numbers(name: str) -> None:
    """Every name, at masked steps, too; outputs are the call's."""
    spec = spec_of(name)
    sizes = sizes_for(spec)
    keywords = {s.name: sizes[s.name] for s in spec.sizes}
    right = oracle.layer_class(spec)(**keywords, seed=1)
    layer = layer_class(spec)(**keywords, return_sequences=True, seed=1)
    x = arguments(spec, layer, sizes, 3, 5)
    expected = right.trace(x, mask=MASK)
    traced = layer.trace(x, mask=MASK)
    assert [*traced] == [*expected]
    for value in traced:
        found, wanted = np.asarray(traced[value]), np.asarray(expected[value])
        assert found.shape[:2] == (3, 5)
        if found.dtype == bool:
            np.testing.assert_array_equal(found, wanted, err_msg=value)
        else:
            assert error(found, wanted) < 1e-5, value
    y = layer(x, mask=MASK)
    ys = y if isinstance(y, tuple) else (y,)
    names = dict(layer._traced().outputs)
    for output, array in zip(layer.cell.outputs, ys, strict=True):
        np.testing.assert_array_equal(traced[names[output.name]], array)


def test_gates_of_an_lstm_by_hand() -> None:
    layer = rnncc.compile("lstm", **F64)(units=7, seed=1)
    x = uniform(3, 5, 4)
    traced = layer.trace(x)
    kernel, recurrent, bias = layer.get_weights()
    h, c = np.zeros((3, 7)), np.zeros((3, 7))
    for t in range(5):
        z = x[:, t] @ kernel + h @ recurrent + bias
        i, f, g, o = np.split(z, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-v)) for v in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        for name, value in {"z": z, "i": i, "f": f, "o": o, "c": c, "h": h}.items():
            np.testing.assert_allclose(traced[name][:, t], value, rtol=0, atol=1e-12)


def test_names_that_are_no_plain_arrays() -> None:
    """Flags are bools; what is known beforehand, matrices of weights, and what would need weights
    that the layer was made without have no array, and it is said why."""
    x = uniform(3, 5, 4)
    layer = rnncc.compile_text(FLAGGED, **F64)(units=4, seed=1)
    traced = layer.trace(x)
    assert [*traced] == ["above", "twice", "slow", "h", "output"]
    np.testing.assert_array_equal(traced["above"], x > 0)
    np.testing.assert_array_equal(traced["output"], 2 * traced["h"])
    assert np.ptp(traced["slow"]) == 0 and traced["slow"].shape == (3, 5, 4)
    for name, why in {"n": "known when", "kernel": "weights alone", "idle": "spare"}.items():
        with pytest.raises(KeyError, match=why):
            traced[name]
    with pytest.raises(KeyError, match="did you mean twice"):
        traced["twcie"]
    used = rnncc.compile_text(FLAGGED, **F64)(units=4, seed=1, used=True)
    np.testing.assert_array_equal(used.trace(x)["idle"], x)
    assert "twice" in repr(traced) and pickle.loads(pickle.dumps(traced)).keys() == traced.keys()


def test_a_trace_leaves_the_layer_as_it_is() -> None:
    """It shows the next call: the kept states and the draws that it would have."""
    x = uniform(3, 5, 4).astype("f")
    lstm = rnncc.compile("lstm")
    options: dict[str, Any] = {"units": 7, "seed": 1, "return_sequences": True, "dropout": 0.5}
    layer, other = (lstm(**options, stateful=True) for _ in range(2))
    for _ in range(2):
        traced = layer.trace(x, training=True)
        y = layer(x, training=True)
        np.testing.assert_array_equal(traced["h"], y)
        np.testing.assert_array_equal(other(x, training=True), y)
    drawn = layer.trace(x, training=True, seed=5)
    np.testing.assert_array_equal(drawn["h"], layer(x, training=True, seed=5))
    assert layer._engines.keys() == other._engines.keys()


@pytest.mark.parametrize("how", ["mask", "lengths", "resets", "initial_state"])
def test_arguments_of_a_call(how: str) -> None:
    x = uniform(3, 5, 4)
    given = {
        "mask": MASK,
        "lengths": [5, 2, 0],
        "resets": MASK,
        "initial_state": {"c": uniform(3, 7)},
    }[how]
    for more in ({}, {"go_backwards": True, "time_major": True}, {"zero_output_for_mask": True}):
        layer = LSTM(7, return_sequences=True, seed=1, **more, **F64)
        own = x.swapaxes(0, 1) if layer.time_major else x
        traced, y = layer.trace(own, **{how: given}), layer(own, **{how: given})
        np.testing.assert_array_equal(traced["h"], y)
        error_of = np.abs(traced["o"] * np.tanh(traced["c"]) - y)[(y != 0)]
        assert error_of.max() < 1e-12 and error_of.size


def test_layers_of_layers() -> None:
    """Names of parts begin like those of their weights; steps of both directions are in time's
    order."""
    x = uniform(3, 5, 4)
    stack = RNN([LSTMCell(7, seed=1, **F64), GRUCell(6, seed=2, **F64)], return_sequences=True)
    traced = stack.trace(x, mask=MASK)
    np.testing.assert_array_equal(traced["cell_1.h"], stack(x, mask=MASK))
    below = RNN(stack.cells[0], return_sequences=True)
    np.testing.assert_allclose(traced["cell_0.f"], below.trace(x, mask=MASK)["f"], atol=1e-12)

    for mode in ("concat", "ave", None):
        both = Bidirectional(LSTM(7, return_sequences=True, seed=1, **F64), merge_mode=mode)
        y = both(x, mask=MASK)
        traced = both.trace(x, mask=MASK)
        ahead, back = both.parts[0].layer, both.parts[1].layer
        if mode is None:
            np.testing.assert_array_equal(traced["forward.h"], y[0])
            np.testing.assert_array_equal(traced["backward.h"], y[1])
        else:
            np.testing.assert_array_equal(traced["h"], y)
        if mode == "ave":
            total = traced["forward.h"] + traced["backward.h"]
            np.testing.assert_allclose(total / 2, y, atol=1e-12)
        assert ahead.built and not back.go_backwards
        alone = LSTM(7, go_backwards=True, **F64)
        alone.build(x.shape)
        alone.set_weights(back.get_weights())
        own = alone.trace(x)["f"][:, ::-1]
        whole = both.trace(x)
        np.testing.assert_allclose(whole["backward.f"], own, atol=1e-12)

    nested = Bidirectional(RNN([GRUCell(3, seed=1, **F64), LSTMCell(2, seed=2, **F64)]))
    traced = nested.trace(x)
    np.testing.assert_array_equal(traced["h"][:, -1, :2], nested(x)[:, :2])
    assert traced["backward.cell_0.z"].shape[:2] == (3, 5)


def test_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generated module traces by its text; one without says what to do."""
    from rnncc.cli import main

    x = uniform(2, 4, 3).astype("f")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["compile", "simple_rnn", "-o", str(tmp_path / "traced_own.py")]) == 0
    assert (
        main(["compile", "simple_rnn", "--variants", "all", "-o", f"{tmp_path}/bare_own.py"]) == 0
    )
    import bare_own  # type: ignore[import-not-found]
    import traced_own  # type: ignore[import-not-found]

    layer = traced_own.SimpleRNN(units=5, return_sequences=True, seed=1)
    np.testing.assert_array_equal(layer.trace(x)["h"], layer(x))
    with pytest.raises(ValueError, match="without the cell's text"):
        bare_own.SimpleRNN(units=5).trace(x)


def test_refusals() -> None:
    """As a call's, before anything is compiled."""
    layer = GRU(3, seed=1)
    with pytest.raises(ValueError, match="shape"):
        layer.trace(uniform(2, 4))
    with pytest.raises(TypeError, match="mask"):
        layer.trace(uniform(2, 4, 3), mask=np.ones((2, 4)), lengths=[1, 2])
