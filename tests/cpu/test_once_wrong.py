"""Cells that once gave wrong numbers: their kernels, simulated, against the interpreter.

Called twice with other inputs and the same weights: what is made once for the weights has to be
there, and what isn't must not be.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnncc import oracle
from rnncc.passes.interface import check_text
from tests.cpu.simulate import Simulator, simulated_class
from tests.cpu.twins import LIMIT, Twins
from tests.once_wrong import CELLS, SIZES

BATCH, TIME = 3, 4


def twins(name: str, simulator: Simulator, seed: int, layers: tuple[Any, Any]) -> Twins:
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


@pytest.mark.parametrize("name", CELLS)
def test_kernels(name: str) -> None:
    spec = check_text(CELLS[name])
    simulator = Simulator(32, 2, seed=len(name))
    given = {n: v for n, v in SIZES.items() if spec.find(n)}
    given |= {"return_sequences": True, "return_state": bool(spec.states), "seed": 3}
    layer = simulated_class(spec, simulator=simulator)(**given)
    reference = oracle.layer_class(spec)(**given)
    for seed in range(3):
        made = twins(name, simulator, seed, (layer, reference))
        if not seed:
            for one in (layer, reference):
                one.build({n: a.shape for n, a in made.inputs.items()})
            reference.set_weights(layer.get_weights())
        error, whose = made.worst()
        assert error <= LIMIT["float64"], (seed, whose, error)
