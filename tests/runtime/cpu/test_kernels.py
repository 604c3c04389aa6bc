"""Kernels against the interpreter and against slopes: every cell, many sizes, both precisions.

Sizes are tried on one layer class, so that no size may compile anything again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnncc import compiler, oracle
from rnncc.frontend.elaborate import sizes_of
from rnncc.lowering.cell_interface import check_text
from rnncc.runtime.api.layer import Layer
from tests.support import cases
from tests.support.cases import error
from tests.support.kernel_pair import (
    SINGLE,
    SLOPE_LIMIT,
    Pair,
)

# units, batch, time, features: every value of the table, in pairs that differ.
SHAPES = (
    (3, 5, 2, 7),
    (17, 33, 50, 1),
    (1, 1, 1, 1),
    (64, 1, 50, 7),
    (130, 5, 2, 7),
    (64, 33, 1, 1),
    (1, 5, 50, 7),
)
NARROW = ((3, 5, 2, 7), (17, 33, 50, 7), (1, 1, 1, 1))
SLOPES = ((3, 5, 2, 7), (17, 1, 50, 1))
# Fewer steps in float32. A reset at a threshold either happens or doesn't; normalised states
# part as chaos does: after 50 steps half a unit in the last place of the weights is up to 1e-4,
# and the interpreter with every op correctly rounded to float32 is 1.3e-5 to 4.3e-5 away.
SHORT = {"comparisons": 2, "layer_norm_lstm": 10, "normalized": 10}
# Slopes so near that no state passes the threshold.
STEPS = {"comparisons": 1e-6}


def loaded(layer: Layer) -> frozenset[str]:
    """The generated kernels that have run for the layer's cell."""
    engine: Any = layer._last
    found: frozenset[str] = engine.loaded
    return found


def check_sizes(name: str, dtype: str, shapes: tuple[tuple[int, int, int, int], ...]) -> None:
    before: frozenset[str] = frozenset()
    for shape in shapes:
        pair = Pair.of(name, dtype, shape)
        pair.assert_equal(dtype, shape)
        made = loaded(pair.kernels)
        assert made and (not before or made == before), f"{shape} compiled {made ^ before}"
        before = made


@pytest.mark.parametrize("name", cases.NAMES)
def test_float64_is_the_interpreter_at_every_size(name: str) -> None:
    check_sizes(name, "float64", SHAPES)


@pytest.mark.parametrize("name", SINGLE)
def test_float32_is_near_the_interpreter(name: str) -> None:
    most = SHORT.get(name, 50)
    check_sizes(name, "float32", tuple((u, b, min(t, most), f) for u, b, t, f in NARROW))


@pytest.mark.parametrize("shape", SLOPES, ids=str)
@pytest.mark.parametrize("name", cases.SLOPED)
def test_gradients_are_slopes_of_the_kernels(name: str, shape: tuple[int, int, int, int]) -> None:
    """Inputs, contexts, initial states and weights, along three random directions each."""
    pair = Pair.of(name, "float64", shape)
    layer = pair.kernels
    rng = np.random.default_rng(3)
    for wrt, gradient in pair.gradients(layer)[1].items():
        at = layer.weights[wrt].copy() if wrt in layer.weights else pair.arguments[wrt]

        def value(array: np.ndarray, wrt: str = wrt, at: np.ndarray = at) -> float:
            if wrt not in layer.weights:
                return cases.total(pair.values(layer, **{wrt: array}), pair.cotangents)
            layer.weights[wrt] = array
            found = cases.total(pair.values(layer), pair.cotangents)
            layer.weights[wrt] = at
            return found

        errors = list(cases.slope_errors(value, at, gradient, rng, step=STEPS.get(name, 1e-4)))
        assert len(errors) == 3 and max(errors) <= SLOPE_LIMIT, wrt


@pytest.mark.parametrize("name", ["lstm", "fast_weights", "two_inputs", "learned_start", "shapes"])
def test_the_last_step_alone(name: str) -> None:
    pair = Pair.of(name, "float64", (17, 5, 7, 7))
    whole = pair.values(pair.kernels)
    spec, layer = cases.spec_of(name), pair.kernels
    sizes = cases.sizes_for(spec, 17, 7)
    last = compiler.layer_class(spec, "cpu", "float64")(**sizes, return_state=True, seed=7)
    inputs, states = pair.call(layer, pair.arguments)
    found = pair.named(last(inputs, initial_state=states))
    for output in layer.cell.outputs:
        np.testing.assert_array_equal(found[output.name], whole[output.name][:, -1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simple_rnn", "lstm", "gru_d", "slstm", "noise"])
def test_what_is_drawn_is_drawn_again(name: str) -> None:
    """Dropout and zoneout: of inputs, states, weights and gates, a step's or a sequence's."""
    rates = {r.name: 0.3 for r in cases.spec_of(name).rates}
    pair = Pair.of(name, "float64", (17, 5, 6, 3), **rates)
    pair.drawn()
    values = pair.values(pair.kernels)
    inputs, states = pair.call(pair.kernels, pair.arguments)
    drawn = pair.named(pair.kernels(inputs, initial_state=states, training=True, seed=99))
    assert any((drawn[n] != a).any() for n, a in values.items())


TINY = [
    # What is handed on is what is returned, saved or handed back: one value, several places.
    ("h[t] = h[t-1] + x[t]", "h[t]"),
    ("h[t] = h[t-1] + x[t]", "h[t-1]"),
    ("h[t] = h[t-1] + x[t]", "0 * x[t]"),
    ("h[t] = x[t]", "h[t]"),
    ("h[t] = x[t]", "0 * x[t]"),
    ("h[t] = x[t] * h[t-1]", "h[t], h[t-1]"),
]


@pytest.mark.parametrize(("equation", "returned"), TINY)
def test_tiny_cells(equation: str, returned: str) -> None:
    spec = check_text(
        '"""A cell."""\ncell: Tiny\nunits: size\nx: input[units]\nh: state[units]\n'
        f"{equation}\nreturn {returned}\n"
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 4, 3))
    found = []
    for make in (compiler.layer_class(spec, "cpu", "float64"), oracle.layer_class(spec)):
        y, pullback = make(return_sequences=True).vjp(x)
        dy = np.random.default_rng(1).standard_normal(x.shape)
        gradients = pullback((dy, 2 * dy) if isinstance(y, tuple) else dy)
        outputs = y if isinstance(y, tuple) else (y,)
        found.append([*outputs, gradients.inputs, *gradients.initial_state])
    for a, b in zip(*found):
        assert error(a, b) <= 1e-14


@pytest.mark.parametrize(
    ("equation", "returned"),
    [
        ("tanh(mean(x[t]) + h[t-1] @ W + b + c)", "h[t]"),
        ("tanh(mean(x[t]) + h[t-1])", "h[t-1] @ W + b + c"),
    ],
)
def test_two_biases_of_one_sum(equation: str, returned: str) -> None:
    """Weights of another layer each time: what the first call finds, no call before has left."""
    spec = check_text(
        "cell: Two\nunits: size\nx: input[units]\nh: state[units]\n"
        "W: weight[units, units]\nb: weight[units] = uniform\nc: weight[units] = uniform\n"
        f"h[t] = {equation}\nreturn {returned}\n"
    )
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    for seed in range(3):
        found, right = (
            cls(seed=seed, return_sequences=True)(x)
            for cls in (compiler.layer_class(spec, "cpu", "float64"), oracle.layer_class(spec))
        )
        assert error(found, right) <= 1e-14, seed


OPTIONS = [
    ("gru", {"reset_after": False}),
    ("gru", {"use_bias": False}),
    ("lstm", {"use_bias": False, "activation": "relu", "recurrent_activation": "hard_sigmoid"}),
    ("slstm", {"forget_gate": "exp"}),
    ("options", {"recurrence": "diagonal", "gated": False, "order": 3}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chosen"), OPTIONS, ids=str)
def test_other_options(name: str, chosen: dict[str, Any]) -> None:
    pair = Pair.of(name, "float64", (17, 5, 6, 3), **chosen)
    pair.assert_equal("float64", chosen)


def test_every_size_of_the_table_is_tried() -> None:
    units, batch, time, features = map(set, zip(*SHAPES))
    assert units == {1, 3, 17, 64, 130} and batch == {1, 5, 33}
    assert time == {1, 2, 50} and features == {1, 7}
    for name in cases.NAMES:  # and the cells' own sizes follow
        spec = cases.spec_of(name)
        bound = [cases.sizes_for(spec, u) for u in units]
        assert {s["units"] for s in bound if "units" in s} in (units, set()), name
        assert sizes_of(spec).keys() == cases.sizes_for(spec).keys()
