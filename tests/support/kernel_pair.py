"""A layer on compiled kernels and its twin on the interpreter, and how far they may be apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc import compiler, oracle
from rnncc.lowering.lower import lower
from rnncc.runtime.api.layer import Layer
from tests.support import cases
from tests.support.cases import Arrays, error

# Compiled in single precision, one of a kind; `test_simulated_cells` has every one in both.
SINGLE = (
    "lstm",
    "gru",
    "layer_norm_lstm",
    "slstm",
    "fast_weights",
    "delays",
    "noise",
    "comparisons",
)
VALUE_LIMIT = {"float64": 1e-12, "float32": 1e-5}
GRADIENT_LIMIT = {"float64": 1e-11, "float32": 1e-4}  # sums over rows and steps
# Some cells amplify differences step by step, normalised ones most of all: what rounding the
# weights once more does to the interpreter, the roundings of every step may do this many times.
ROUNDINGS = 20
SLOPE_LIMIT = 1e-6
# units, batch, time, features: rows shared, units shared, nothing shared, sums of many blocks.
SHAPES = ((130, 33, 7, 7), (260, 1, 5, 17), (17, 5, 6, 1), (24, 3, 5, 310))


@dataclass
class Pair:
    """A layer on kernels and its twin on the interpreter, with the same weights and arguments.

    Arrays go by name: inputs, contexts, initial states and weights; results by the Program's.
    """

    kernels: Layer
    reference: Layer
    arguments: Arrays
    cotangents: Arrays

    @staticmethod
    def of(name: str, dtype: str, shape: tuple[int, int, int, int], **chosen: Any) -> Pair:
        units, batch, time, features = shape
        spec = cases.spec_of(name)
        sizes = cases.sizes_for(spec, units, features)
        given = {**sizes, **chosen}
        given |= {"return_sequences": True, "return_state": True, "seed": 7}
        layer = compiler.layer_class(spec, "cpu", dtype)(**given)
        twin = oracle.layer_class(spec)(**given)
        case = cases.Case(lower(spec), sizes, batch, time, seed=11)
        roles = {p.value.name: p.role for p in case.program.params}
        weights = ("weight", "constant", "rate")
        arguments = {
            n: a.astype(dtype) for n, a in case.arguments.items() if roles[n] not in weights
        }
        cotangents = {n: a.astype(dtype) for n, a in case.cotangents().items()}
        pair = Pair(layer, twin, arguments, cotangents)
        layer.build({n: arguments[n].shape for n in layer.cell.arguments})
        twin.build({n: arguments[n].shape for n in layer.cell.arguments})
        twin.set_weights(layer.get_weights())
        return pair

    def drawn(self) -> None:
        """Values and gradients of training calls with the same seed."""
        inputs, states = self.call(self.kernels, self.arguments)
        found = []
        for layer in (self.kernels, self.reference):
            values, pullback = layer.vjp(inputs, initial_state=states, training=True, seed=99)
            d = tuple(self.cotangents[n] for n in self.cotangents)
            gradients = pullback(d)
            found.append((self.named(values), {**gradients.inputs, **gradients.weights}))
        (values, gradients), (right, expected) = found
        for name, array in right.items():
            assert error(values[name], array) <= VALUE_LIMIT["float64"], name
        for name, array in expected.items():
            assert error(gradients[name], array) <= GRADIENT_LIMIT["float64"], name

    def call(self, layer: Layer, arguments: Arrays) -> tuple[Any, Any]:
        inputs = {n: arguments[n] for n in layer.cell.arguments}
        states = {s.name: arguments[s.name] for s in layer.cell.states}
        return inputs, (states or None)

    def values(self, layer: Layer, **changed: np.ndarray) -> Arrays:
        inputs, states = self.call(layer, {**self.arguments, **changed})
        return self.named(layer(inputs, initial_state=states))

    def gradients(self, layer: Layer) -> tuple[Arrays, Arrays]:
        """Values as the training forward has them, and gradients by argument."""
        inputs, states = self.call(layer, self.arguments)
        found, pullback = layer.vjp(inputs, initial_state=states, training=False)
        outputs = tuple(self.cotangents[o.name] for o in layer.cell.outputs)
        finals = (self.cotangents[f"final_{s.name}"] for s in layer.cell.states)
        first = outputs if len(outputs) > 1 else outputs[0]
        gradients = pullback((first, *finals) if states else first)
        return self.named(found), {
            **gradients.inputs,
            **(gradients.initial_state if states else {}),
            **gradients.weights,
        }

    def named(self, found: Any) -> Arrays:
        cell = self.kernels.cell
        parts = found if cell.states else (found,)
        first = parts[0] if len(cell.outputs) > 1 else (parts[0],)
        names = [*(o.name for o in cell.outputs), *(f"final_{s.name}" for s in cell.states)]
        return dict(zip(names, [*first, *parts[1:]], strict=True))

    def assert_equal(self, dtype: str, what: object) -> None:
        """Values of both kinds of call, and gradients."""
        right, expected = self.gradients(self.reference)
        values, gradients = self.gradients(self.kernels)
        looser = {"values": VALUE_LIMIT[dtype], "gradients": GRADIENT_LIMIT[dtype]}
        if dtype == "float32":
            for kind, changes in self.rounded(right, expected).items():
                looser[kind] = max(looser[kind], ROUNDINGS * changes)
                assert looser[kind] <= 100 * GRADIENT_LIMIT[dtype], (what, "says nothing")
        assert values.keys() == right.keys() and gradients.keys() == expected.keys()
        for name, array in [*values.items(), *self.values(self.kernels).items()]:
            assert array.dtype == dtype
            assert error(array, right[name]) <= looser["values"], (what, name)
        for name, array in gradients.items():
            assert array.dtype == dtype
            assert error(array, expected[name]) <= looser["gradients"], (what, name)

    def rounded(self, values: Arrays, gradients: Arrays) -> dict[str, float]:
        """How far the interpreter moves when each weight moves by half a unit in the last place."""
        rng = np.random.default_rng(5)
        weights = self.reference.get_weights()
        half = np.finfo(np.float32).eps / 2
        self.reference.set_weights([w * (1 + half * rng.choice([-1, 1], w.shape)) for w in weights])
        moved_values, moved_gradients = self.gradients(self.reference)
        self.reference.set_weights(weights)
        return {
            "values": cases.worst(moved_values, values)[0],
            "gradients": cases.worst(moved_gradients, gradients)[0],
        }


def bits(name: str, dtype: str, shape: tuple[int, int, int, int]) -> Arrays:
    """Everything a call and its pullback give."""
    pair = Pair.of(name, dtype, shape)
    values, gradients = pair.gradients(pair.kernels)
    alone = pair.values(pair.kernels)
    return {
        **{f"value {n}": a for n, a in alone.items()},
        **{f"trained {n}": a for n, a in values.items()},
        **{f"gradient {n}": a for n, a in gradients.items()},
    }
