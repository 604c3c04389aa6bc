"""Calls of graphs that bring addresses alone: the bits of those that look everything up."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from rnncc import keras as own
from rnncc.operations import graph_calls
from tests.support.in_keras.helpers import BACKEND, uniform

pytestmark = pytest.mark.skipif(BACKEND == "torch", reason="torch has paths of its own")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all steps": {"return_sequences": True},
    "backwards": {"go_backwards": True},
    "backwards, all steps": {"go_backwards": True, "return_sequences": True},
    "dropout": {"dropout": 0.3, "recurrent_dropout": 0.2, "seed": 3},
    "frozen": {"trainable": False},
}
# Each backend compiles every model anew: dropout on both, the rest on one of them.
FEW = {
    "jax": ("backwards, all steps", "dropout", "frozen"),
    "tensorflow": ("plain", "all steps", "backwards", "dropout"),
}
X, Y = uniform(32, 7, 4), uniform(32, 1, seed=1)


def trained(options: dict[str, Any]) -> list[np.ndarray]:
    """What three epochs, with a smaller batch at the end of each, make of a model."""
    keras.utils.set_random_seed(1)
    every = options.get("return_sequences", False)
    begin, steps = keras.Input((3,)), keras.Input((7, 4))
    y = own.GRU(5, **options)(layers.Dense(4)(steps), initial_state=layers.Dense(5)(begin))
    y = own.LSTM(3)(y) if every else y
    model = keras.Model([steps, begin], layers.Dense(1)(y))
    model.compile("adam", "mse", jit_compile=BACKEND == "jax")
    inputs = [X, uniform(32, 3, seed=2)]
    model.fit(inputs, Y, batch_size=12, epochs=3, shuffle=False, verbose=0)
    return [*model.get_weights(), model.predict(inputs, verbose=0, batch_size=20)]


@pytest.mark.parametrize("name", FEW.get(BACKEND, OPTIONS))
def test_the_same_bits(name: str, monkeypatch: Any) -> None:
    gone: list[str] = []
    for what in ("forward", "backward"):
        run = getattr(graph_calls.GraphPath, what)

        def counted(*given: Any, run: Any = run, what: str = what) -> Any:
            gone.append(what)
            return run(*given)

        monkeypatch.setattr(graph_calls.GraphPath, what, counted)
    found = trained(OPTIONS[name])
    assert gone.count("forward") >= 6 and gone.count("backward") >= 4, gone
    monkeypatch.setattr(graph_calls, "path_of", lambda *_: None)
    gone.clear()
    expected = trained(OPTIONS[name])
    assert not gone
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
