"""Layers on kernels and on the interpreter, called with whatever says something of single steps.

Non-Goals: asserting what that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnncc import compiler, oracle
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.validation import array_shape
from tests.support import cases
from tests.support.cases import Arrays, error
from tests.support.kernel_pair import GRADIENT_LIMIT, VALUE_LIMIT

UNITS, BATCH, TIME, FEATURES = 17, 6, 7, 3
# cell: its options
CELLS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "gru": {},
    "gru, reset before": {"reset_after": False},
    "simple_rnn": {},
    "layer_norm_lstm": {},
    "fast_weights": {},
    "nested": {},
    "delays": {},
    "learned_start": {},  # outputs that aren't states
}
# Compiled in single precision, too.
SINGLE = ("lstm", "fast_weights", "delays", "learned_start")
STEPS = np.arange(TIME)


def dtype_of(what: str) -> str:
    return "float32" if what in SINGLE else "float64"


def layers(what: str, dtype: str, **chosen: Any) -> tuple[Layer, Layer]:
    """On kernels and on the interpreter, with the same weights."""
    spec = cases.spec_of(what.split(",")[0])
    sizes = cases.sizes_for(spec, UNITS, FEATURES)
    given: dict[str, Any] = {"return_sequences": True, "return_state": True, "seed": 7}
    given |= {**sizes, **CELLS[what], **chosen}
    layer = compiler.layer_class(spec, "cpu", dtype)(**given)
    twin = oracle.layer_class(spec)(**given)
    for made in (layer, twin):
        made.build({i.name: (None, None, *array_shape(i, sizes)) for i in layer.cell.inputs})
    twin.set_weights(layer.get_weights())
    return layer, twin


def arguments(layer: Layer, mask: np.ndarray | None = None) -> tuple[Arrays, Arrays]:
    """Inputs, NaN and infinite where they are masked, and initial states."""
    rng = np.random.default_rng(0)
    x = {}
    for i in layer.cell.inputs:
        shape = array_shape(i, layer._fixed)
        x[i.name] = cases.draw(rng, (BATCH, TIME, *shape)).astype(layer.dtype)
        if mask is not None:
            x[i.name][~mask] = np.nan
            x[i.name][~mask, 0] = np.inf
    start = {}
    for state in layer.cell.states:
        shape = (BATCH, *array_shape(state, layer._fixed))
        drawn = cases.draw(rng, shape, state.name in cases.POSITIVE)
        start[state.name] = drawn.astype(layer.dtype)
    return x, start


def cleaned(x: Arrays, mask: np.ndarray) -> Arrays:
    return {n: np.where(mask.reshape(*mask.shape, *[1] * (a.ndim - 2)), a, 0) for n, a in x.items()}


def results(layer: Layer, found: Any) -> Arrays:
    parts = found if isinstance(found, tuple) else (found,)
    outputs = parts[0] if isinstance(parts[0], tuple) else (parts[0],)
    names = [*(o.name for o in layer.cell.outputs), *(f"final_{s}" for s in layer._states)]
    return dict(zip(names, [*outputs, *parts[1:]], strict=False))


def cotangents(found: Any) -> Any:
    """Like what was returned."""
    rng = np.random.default_rng(1)

    def drawn(part: Any) -> Any:
        if isinstance(part, tuple):
            return tuple(map(drawn, part))
        return cases.draw(rng, part.shape).astype(part.dtype)

    return drawn(found)


def pulled(layer: Layer, x: Any, start: Any, **call: Any) -> tuple[Arrays, Arrays]:
    """Values and gradients by name."""
    call.setdefault("training", False)
    found, pullback = layer.vjp(x, initial_state=start, **call)
    grads = pullback(cotangents(found))
    gradients = {**grads.inputs, **grads.weights}
    if isinstance(grads.initial_state, dict):
        gradients |= grads.initial_state
    return results(layer, found), gradients


def assert_near(
    dtype: str, found: tuple[Arrays, Arrays], right: tuple[Arrays, Arrays], what: object
) -> None:
    for limits, a, b in zip((VALUE_LIMIT, GRADIENT_LIMIT), found, right, strict=True):
        assert a.keys() == b.keys()
        for name, array in b.items():
            assert error(a[name], array) <= limits[dtype], (what, name)


def assert_same(found: Arrays, right: Arrays) -> None:
    assert found.keys() == right.keys()
    for name, array in right.items():
        np.testing.assert_array_equal(found[name], array, name)


def value_of(
    layer: Layer, given: Arrays, call: Mapping[str, Any], d: Arrays, name: str, array: np.ndarray
) -> float:
    """sum(d * y) of a call with one of the arrays changed."""
    start = {s: array if s == name else given[s] for s in layer._states}
    x = {i: array if i == name else given[i] for i in layer.cell.arguments}
    if name in layer.weights:
        layer.weights[name] = array
    found = results(layer, layer(x, initial_state=start, **call))
    if name in layer.weights:
        layer.weights[name] = given[name]
    return cases.total(found, d)


def arranged(layer: Layer, named: Arrays) -> Any:
    """Values by name as a layer returns them."""
    outputs = tuple(named[o.name] for o in layer.cell.outputs)
    return (outputs if len(outputs) > 1 else outputs[0], *(named[n] for n in layer._finals))
