"""A layer on simulated kernels and its twin on the interpreter: the same weights and calls.

Non-Goals: asserting anything; whose kernels they are (`cpu_simulator`, `gpu_simulator`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from rnncc import oracle
from rnncc.lowering.lower import lower
from tests.support import cases

Shape = tuple[int, int, int, int]  # units, batch, time, features
LIMIT = {"float32": 1e-5, "float64": 1e-12}


@dataclass
class LayerAndReference:
    layer: Any
    reference: Any
    inputs: dict[str, np.ndarray]
    states: dict[str, np.ndarray]
    call: dict[str, Any]

    @classmethod
    def between(
        cls, layer_class: Any, name: str, variant: str, shape: Shape, dtype: str, **chosen: Any
    ) -> Self:
        units, batch, time, features = shape
        spec = cases.spec_of(name)
        sizes = cases.sizes_for(spec, units, features)
        given = {**sizes, "return_sequences": True, "return_state": True, "seed": 7, **chosen}
        if variant == "drawn":
            given |= {r.name: 0.3 for r in spec.rates}
        layer = layer_class(**given)
        exact = {n: v for n, v in given.items() if n != "precision"}
        reference = oracle.layer_class(spec)(**exact)
        case = cases.Case(lower(spec), sizes, batch, time, seed=11)
        inputs = {n: case.arguments[n].astype(dtype) for n in layer.cell.arguments}
        states = {s.name: case.arguments[s.name].astype(dtype) for s in layer.cell.states}
        for one in (layer, reference):
            one.build({n: a.shape for n, a in inputs.items()})
        reference.set_weights(layer.get_weights())
        call: dict[str, Any] = {"training": variant == "drawn", "seed": 99}
        if variant == "mask":
            valid = np.random.default_rng(0).random((batch, time)) < 0.6
            valid[0] = True
            call["mask"] = valid
        if variant == "resets":
            call["resets"] = np.random.default_rng(0).random((batch, time)) < 0.5
        return cls(layer, reference, inputs, states, call)

    def results(self, layer: Any) -> dict[str, np.ndarray]:
        """Values and every gradient, by name."""
        values, pullback = layer.vjp(self.inputs, initial_state=self.states or None, **self.call)
        gradients = pullback(_drawn(values, np.random.default_rng(1)))
        found = {f"value {i}": a for i, a in enumerate(flat(values))}
        found |= {f"d_{n}": a for n, a in gradients.inputs.items()}
        found |= {f"d_{n}": a for n, a in gradients.weights.items()}
        if self.states:
            found |= {f"d_{n}": a for n, a in gradients.initial_state.items()}
        return found


def flat(values: Any) -> list[np.ndarray]:
    if not isinstance(values, tuple):
        return [values]
    return [a for v in values for a in flat(v)]


def _drawn(values: Any, rng: np.random.Generator) -> Any:
    """Cotangents like the values."""
    if isinstance(values, tuple):
        return tuple(_drawn(v, rng) for v in values)
    return rng.standard_normal(values.shape).astype(values.dtype)
