"""Cells that once gave wrong numbers: their kernels, simulated, against the interpreter.

Called twice with other inputs and the same weights: what is made once for the weights has to be
there, and what isn't must not be.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnncc import oracle
from rnncc.lowering.cell_interface import check_text
from tests.support import cases
from tests.support.cpu_simulator.simulate import Simulator, simulated_class
from tests.support.cpu_simulator.twins import Twins
from tests.support.once_wrong import CELLS, SIZES
from tests.support.twins import LIMIT, flat

BATCH, TIME = 3, 4
# What gradients of products of weights leave is there when kernels pack it, and is another one at
# every call.
SECOND = ("A @ B", "U @ U'", "A @ B @ U", "einsum", "nothing remembered", "parts of sums")


def twins(seed: int, layers: tuple[Any, Any]) -> Twins:
    rng = np.random.default_rng(seed)
    layer = layers[0]
    shape = {n: [dict(SIZES).get(s) or int(s) for s in a.shape] for n, a in _arrays(layer)}
    inputs = {n: rng.uniform(-1, 1, (BATCH, TIME, *shape[n])) for n in layer.cell.arguments}
    states = {s.name: rng.uniform(-1, 1, (BATCH, *shape[s.name])) for s in layer.cell.states}
    call: dict[str, Any] = {}
    if seed % 2:
        call["mask"] = rng.random((BATCH, TIME)) < 0.7
    return Twins(*layers, inputs, states, call)


def _arrays(layer: Any) -> list[tuple[str, Any]]:
    return [(a.name, a) for a in (*layer.cell.inputs, *layer.cell.states)]


def pair(name: str, **given: Any) -> tuple[Any, Any]:
    """A layer on simulated kernels, and one on the interpreter."""
    spec = check_text(CELLS[name])
    given |= {n: v for n, v in SIZES.items() if spec.find(n)}
    given |= {"return_sequences": True, "seed": 3}
    simulator = Simulator(32, 2, seed=len(name))
    return simulated_class(spec, simulator=simulator)(**given), oracle.layer_class(spec)(**given)


def build(made: Twins) -> None:
    for one in (made.layer, made.reference):
        one.build({n: a.shape for n, a in made.inputs.items()})
    made.reference.set_weights(made.layer.get_weights())


@pytest.mark.parametrize("name", CELLS)
def test_kernels(name: str) -> None:
    layers = pair(name, return_state=bool(check_text(CELLS[name]).states))
    for seed in range(3):
        made = twins(seed, layers)
        if not seed:
            build(made)
        error, whose = made.worst()
        assert error <= LIMIT["float64"], (seed, whose, error)


@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives(name: str) -> None:
    layers = pair(name)
    for seed in (0, 2):
        made = twins(seed, layers)
        if not seed:
            build(made)
        found = []
        for layer in layers:
            y, pullback = layer.vjp(made.inputs)
            ones = [np.ones_like(a) for a in flat(y)]
            grads, again = pullback.vjp(tuple(ones) if isinstance(y, tuple) else ones[0])
            second = again({"inputs": grads.inputs, "weights": grads.weights})
            dy = {f"dy {i}": a for i, a in enumerate(flat(second.dy))}
            found.append({**second.weights, **second.inputs, **dy})
        error, whose = cases.worst(*found)
        assert error <= LIMIT["float64"], (seed, whose, error)
