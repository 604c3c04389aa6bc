"""Slopes where they jump, as JAX has them: states start from zeros, where they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from rnncc.jax.reading import proven  # noqa: E402
from rnncc.jax.reading.flat import flatten  # noqa: E402
from rnncc.jax.reading.read import read  # noqa: E402
from rnncc.jax.reading.steps import Step  # noqa: E402

jnp, nn, lax = jax.numpy, jax.nn, jax.lax

LINES: dict[str, Any] = {
    "abs": jnp.abs,
    "relu": nn.relu,
    "relu6": nn.relu6,
    "hard_tanh": nn.hard_tanh,
    "hard_sigmoid": lambda h: nn.hard_sigmoid(h - 3),
    "leaky_relu": nn.leaky_relu,
    "maximum": lambda h: jnp.maximum(h, 0),
    "clip": lambda h: jnp.clip(h, 0, 1),
    "clamp": lambda h: lax.clamp(0.0, h, 1.0),
    "fmod": lambda h: jnp.fmod(h, 0.6),
    "max": lambda h: h.max(-1, keepdims=True),
}


@pytest.mark.parametrize("name", LINES)
def test_slopes_are_jaxs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proven on zeros."""
    zeros = lambda rng, shape: np.zeros(shape)  # noqa: E731
    monkeypatch.setattr(proven, "_DRAWS", (proven._DRAWS[0], zeros))
    one = jax.ShapeDtypeStruct((5, 4), np.dtype("float32"))
    tree = jax.tree.structure(0)

    def step(h: Any, x: Any) -> Any:
        h = LINES[name](h) + 0.5 * x
        return h, h

    own = Step(step, tree, tree, (one,), (one,), ("h",), ("x",), "step")
    found = read(own, flatten(own.trace((one,), (one,)).jaxpr), {}, None, np.dtype("float32"), {})
    assert found.has_batch
