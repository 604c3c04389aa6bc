"""Figures: what stands in their axes, held against traces and gradients; what is refused."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

import rnncc.torch
from rnncc.layers import GRU, LSTM, RNN, Bidirectional, GRUCell, LSTMCell
from rnncc.plot import gates, gradient_flow, saturation
from tests.support.arrays import uniform

F64: dict[str, Any] = {"dtype": "float64"}


def test_gates() -> None:
    layer, x = LSTM(7, seed=1, **F64), uniform(3, 5, 4)
    traced = layer.trace(x)
    figure = gates(layer, x, row=2)
    pictures = [a for a in figure.axes if a.images]
    assert [a.get_ylabel() for a in pictures] == ["i, unit", "f, unit", "o, unit"]
    for axis, name in zip(pictures, "ifo"):
        np.testing.assert_array_equal(axis.images[0].get_array(), traced[name][2].T)
    assert pictures[-1].get_xlabel() == "step"
    (axis,) = [a for a in gates(traced, names=["c"]).axes if a.images]
    np.testing.assert_array_equal(axis.images[0].get_array(), traced["c"][0].T)
    cell = rnncc.torch.LSTM(4, 7, batch_first=True)
    assert len([a for a in gates(cell, torch.ones(2, 5, 4)).axes if a.images]) == 3


def test_saturation() -> None:
    values = np.zeros((2, 5, 3))
    values[0, :, 1], values[:, :2, 2], values[:, 2:, 2] = 1, 0.95, 0.5
    figure = saturation({"gate": values, "other": -values})
    (axis,) = figure.axes
    (points,) = axis.collections
    np.testing.assert_allclose(points.get_offsets(), [[0, 1], [0.5, 0.5], [0.4, 0]])
    assert "0.1 of 1" in axis.get_xlabel() and axis.get_legend().get_texts()[0].get_text() == "gate"
    (both,) = saturation({"gate": values, "other": -values}, names=["other"]).axes
    np.testing.assert_allclose(both.collections[0].get_offsets()[:, 1], [0, 0.5, 0.4])


@pytest.mark.parametrize("options", [{}, {"go_backwards": True, "time_major": True}])
def test_gradient_flow(options: dict[str, Any]) -> None:
    """The last norm is that of the initial state's gradient, the one before of a sequence that is a
    step shorter."""
    layer, x = LSTM(7, seed=1, **options, **F64), uniform(5, 3, 4)
    x = x if options else x.swapaxes(0, 1)
    (axis,) = gradient_flow(layer, x).axes
    lines = {line.get_label(): line.get_ydata() for line in axis.lines}
    assert [*lines] == ["h", "c"] and [*axis.lines[0].get_xdata()] == [1, 2, 3, 4, 5]
    y, pullback = layer.vjp(x, training=False)
    for name, d in zip("hc", pullback(np.ones_like(y)).initial_state):
        np.testing.assert_allclose(lines[name][-1], np.linalg.norm(d), rtol=1e-9)
    assert axis.get_yscale() == "log" and "steps back" in axis.get_xlabel()


def test_gradient_flow_of_a_stack() -> None:
    stack, x = RNN([LSTMCell(7, seed=1, **F64), GRUCell(6, seed=2, **F64)]), uniform(3, 5, 4)
    (axis,) = gradient_flow(stack, x).axes
    y, pullback = stack.vjp(x, training=False)
    (dh, dc), dh1 = pullback(np.ones_like(y)).initial_state
    norms = [np.linalg.norm(d) for d in (dh, dc, dh1)]
    np.testing.assert_allclose([line.get_ydata()[-1] for line in axis.lines], norms, rtol=1e-9)


@pytest.mark.parametrize("time_major", [False, True])
def test_gradient_flow_of_both_directions(time_major: bool) -> None:
    """Of each, that of the layer it is, which one of them runs backwards."""
    x = uniform(3, 5, 4)
    x = x.swapaxes(0, 1) if time_major else x
    whole = Bidirectional(LSTM(7, seed=1, time_major=time_major, **F64), merge_mode="mul")
    start = {"backward.c": np.full((3, 7), 0.3)}
    (axis,) = gradient_flow(whole, x, initial_state=start).axes
    lines = {line.get_label(): line.get_ydata() for line in axis.lines}
    assert [*lines] == ["forward.h", "forward.c", "backward.h", "backward.c"]
    for name, back in (("forward", False), ("backward", True)):
        alone = LSTM(7, go_backwards=back, time_major=time_major, **F64)
        alone.build(x.shape)
        weights = {n: whole.weights[f"{name}.{n}"] for n in alone.weights}
        alone.set_weights([*weights.values()])
        own = {"c": start["backward.c"]} if back else None
        (expected,) = gradient_flow(alone, x, initial_state=own).axes
        for line in expected.lines:
            np.testing.assert_allclose(lines[f"{name}.{line.get_label()}"], line.get_ydata())


def test_gradient_flow_of_stacks_in_both_directions() -> None:
    cells = [LSTMCell(7, seed=1, **F64), GRUCell(6, seed=2, **F64)]
    whole, x = Bidirectional(RNN(cells)), uniform(3, 5, 4)
    (axis,) = gradient_flow(whole, x).axes
    y, pullback = whole.vjp(x, training=False)
    d = [d for group in pullback(np.ones_like(y)).initial_state for d in group_of(group)]
    norms = [np.linalg.norm(one) for one in d]
    np.testing.assert_allclose([line.get_ydata()[-1] for line in axis.lines], norms, rtol=1e-9)


def group_of(given: Any) -> Any:
    return given if isinstance(given, tuple) else (given,)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = GRU(3, seed=1, **F64), uniform(2, 4, 3)
    traced = layer.trace(x)
    for make, message in (
        (lambda: gates(layer), "give its inputs"),
        (lambda: gates(traced, x), "has been made"),
        (lambda: gates(3), "layer or its trace"),
        (lambda: gates(traced, names=["hh"]), "did you mean h"),
        (lambda: gates(traced, row=2), "2 rows"),
        (lambda: gates({"v": np.full((1, 2, 3), 5.0)}), "between 0 and 1"),
        (lambda: gates({"v": np.ones((1, 2))}, names="v"), "expected"),
        (lambda: saturation(traced, margin=0.7), "margin"),
        (lambda: gradient_flow(torch.nn.LSTM(3, 3), x), "not LSTM"),
        (lambda: gradient_flow(Bidirectional(GRU(3, **F64)), x[:, :0]), "no steps"),
        (lambda: gradient_flow(layer, x[:, :0]), "no steps"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            make()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'rnncc\[plot\]'"):
        gates(traced)
