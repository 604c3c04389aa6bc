"""Second derivatives of a layer along random cotangents, and their arrays by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncc.runtime.api.gradients import Gradients
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.second_pullback import SecondGradients
from tests.support.cases import Arrays
from tests.support.kernel_pair import Pair


def flat(value: Any, name: str = "") -> Arrays:
    """The arrays of nested results, by where they are."""
    if isinstance(value, Gradients | SecondGradients):
        kinds = ("inputs", "weights", "initial_state")
        value = {k: getattr(value, k) for k in (*kinds, "dy") if hasattr(value, k)}
    if isinstance(value, tuple | list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        return {n: a for k, v in value.items() for n, a in flat(v, f"{name} {k}").items()}
    return {} if value is None else {name: value}


def like(value: Any, seed: int) -> Any:
    """Random arrays in the same arrangement."""
    rng = np.random.default_rng(seed)
    if isinstance(value, dict):
        return {k: like(v, seed + 7 * i) for i, (k, v) in enumerate(value.items())}
    if isinstance(value, tuple):
        return tuple(like(v, seed + 7 * i) for i, v in enumerate(value))
    return None if value is None else rng.standard_normal(value.shape).astype(value.dtype)


def cotangents_of(grads: Gradients, seed: int = 3) -> dict[str, Any]:
    kinds = ("inputs", "weights", "initial_state")
    return {k: like(getattr(grads, k), seed + i) for i, k in enumerate(kinds)}


def twice(layer: Layer, pair: Pair) -> tuple[Gradients, SecondGradients]:
    inputs, states = pair.call(layer, pair.arguments)
    y, pullback = layer.vjp(inputs, initial_state=states, training=False)
    grads, pullback2 = pullback.vjp(like(y, 1))
    return grads, pullback2(cotangents_of(grads))
