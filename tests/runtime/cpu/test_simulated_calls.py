"""Ways to call a layer, on simulated kernels: second derivatives, checkpoints, blocks of steps,
streams, narrow weights, and the same numbers as compiled kernels have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.runtime.cpu.execution import time_chunks
from tests.support import cases
from tests.support.cpu_simulator.simulate import Simulator, simulated_class
from tests.support.cpu_simulator.twins import Twins
from tests.support.twins import LIMIT, Shape, flat

SHAPE: Shape = (5, 3, 4, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"go_backwards": True},
        {"time_major": True},
        {"checkpoint_every": 2},
        {"return_sequences": False},
        {"use_bias": False, "activation": "relu"},
        {"unroll": True},
    ],
    ids=lambda o: next(iter(o)),
)
def test_options(options: dict[str, object]) -> None:
    twins = Twins.of("lstm", "plain", SHAPE, Simulator(16, 2, seed=4), **options)
    if "time_major" in options:
        twins.inputs = {n: a.swapaxes(0, 1) for n, a in twins.inputs.items()}
    error, whose = twins.worst()
    assert error <= LIMIT["float64"], (whose, error)


@pytest.mark.parametrize("variant", ["mask", "plain"])
@pytest.mark.parametrize(
    "name", ["gru", "gru, reset before", "delays", "fast_weights", "context_attention"]
)
def test_second_derivatives(name: str, variant: str) -> None:
    name, *before = name.split(", ")
    chosen = {"return_state": False} | ({"reset_after": False} if before else {})
    twins = Twins.of(name, variant, SHAPE, Simulator(32, 2, seed=8), **chosen)
    found = []
    for layer in (twins.layer, twins.reference):
        y, pullback = layer.vjp(twins.inputs, mask=twins.call.get("mask"))
        ones = tuple(map(np.ones_like, y)) if isinstance(y, tuple) else np.ones_like(y)
        grads, again = pullback.vjp(ones)
        second = again({"inputs": grads.inputs, "weights": grads.weights})
        dy = {f"dy {i}": a for i, a in enumerate(flat(second.dy))}
        found.append({**second.weights, **second.inputs, **dy})
    error, whose = cases.worst(*found)
    assert error <= LIMIT["float64"], (whose, error)


def test_blocks_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a block leaves is what the next one starts from."""
    monkeypatch.setattr(time_chunks, "block_steps", lambda *_: 2)
    monkeypatch.setattr("rnncc.runtime.cpu.execution.engine.block_steps", lambda *_: 2)
    monkeypatch.setattr("rnncc.runtime.cpu.execution.engine.LEAST_STEPS", 2)
    twins = Twins.of("delays", "mask", (5, 3, 7, 3), Simulator(32, 2, seed=2))
    call = {"mask": twins.call["mask"], "initial_state": twins.states}
    right = twins.reference(twins.inputs, **call)
    for found, expected in zip(twins.layer(twins.inputs, **call), right):
        assert cases.error(found, expected) <= LIMIT["float64"]


def test_calls_in_turn() -> None:
    """Memory of a call before is of no use, and weights that change are packed again."""
    twins = Twins.of("gru", "plain", SHAPE, Simulator(32, 2, seed=6))
    rng = np.random.default_rng(3)
    for _ in range(3):
        twins.inputs = {n: rng.standard_normal(a.shape) for n, a in twins.inputs.items()}
        for one in (twins.layer, twins.reference):
            one.set_weights([w + 0.01 for w in one.get_weights()])
        error, whose = twins.worst()
        assert error <= LIMIT["float64"], (whose, error)


def test_stream() -> None:
    twins = Twins.of("lstm", "plain", (5, 1, 1, 3), Simulator(32, 2, seed=5))
    stream = twins.layer.stream(twins.inputs, initial_state=twins.states)
    states: Any = twins.states
    for n in range(3):
        x = {name: a + n for name, a in twins.inputs.items()}
        y = stream(x)
        right, *states = twins.reference(x, initial_state=states)
        assert cases.error(y, right) <= LIMIT["float64"]


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_narrow_weights(storage: str) -> None:
    """As the compiled cores, which round alike."""
    spec = cases.spec_of("lstm")
    x = np.random.default_rng(0).standard_normal((2, 3, 70)).astype("float32")
    made = []
    for kind in (rnncc.compile("lstm"), simulated_class(spec, "float32")):
        layer = kind(units=5, seed=3, weights=storage)
        made.append(layer(x))
    assert cases.error(*made) <= LIMIT["float32"]


@pytest.mark.parametrize(("name", "dtype"), [("lstm", "float32"), ("gru", "float32")])
def test_as_compiled(name: str, dtype: str) -> None:
    twins = Twins.of(name, "plain", SHAPE, Simulator(32, 2, seed=7), dtype)
    compiled = rnncc.compile(name, dtype=dtype)(units=5, return_sequences=True, return_state=True)
    compiled.build({n: a.shape for n, a in twins.inputs.items()})
    compiled.set_weights(twins.layer.get_weights())
    error, whose = cases.worst(twins.results(twins.layer), twins.results(compiled))
    assert error <= LIMIT[dtype], (whose, error)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_row_alone_has_the_bits_it_has_in_a_batch(name: str) -> None:
    """Its own last valid step comes before the batch's: past it nothing runs when it is alone."""
    units, batch, time, features = 5, 3, 7, 4
    kind = simulated_class(cases.spec_of(name), "float64", seed=2)
    layer = kind(units=units, return_sequences=True, seed=3)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, time, features))
    dy = rng.standard_normal((batch, time, units))
    lengths = np.array([time, 3, 1])
    together = layer.vjp(x, lengths=lengths)[1](dy)
    for row in range(batch):
        one = slice(row, row + 1)
        alone = layer.vjp(x[one], lengths=lengths[one])[1](dy[one])
        np.testing.assert_array_equal(alone.inputs, together.inputs[one])
