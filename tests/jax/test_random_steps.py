"""Random steps of random operations are read, and proven to be what JAX computes: what is refused
says so, what is read wrongly would fail here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from jax import lax, nn  # noqa: E402

from rnncc.jax.reading.flat import flatten  # noqa: E402
from rnncc.jax.reading.read import read  # noqa: E402
from rnncc.jax.reading.steps import Step  # noqa: E402

jnp = jax.numpy
BATCH, UNITS = 5, 6
UNARY: tuple[Callable[[Any], Any], ...] = (
    jnp.tanh,
    nn.sigmoid,
    nn.relu,
    nn.softplus,
    nn.silu,
    nn.gelu,
    nn.elu,
    jnp.abs,
    lambda v: jnp.exp(-jnp.abs(v)),
    lambda v: jnp.sqrt(v * v + 0.1),
    lambda v: jnp.clip(v, -0.7, 0.9),
    lambda v: nn.softmax(v, axis=-1),
    lambda v: nn.log_softmax(v, axis=-1),
    lambda v: v[:, ::-1],
    lambda v: jnp.roll(v, 2, axis=-1),
    lambda v: jnp.cumsum(v, axis=-1),
    lambda v: v - v.mean(-1, keepdims=True),
    lambda v: v / (1 + v.var(axis=1)[:, None]),
    lambda v: v.reshape(v.shape[0], 2, 3).swapaxes(1, 2).reshape(v.shape),
    lambda v: v.reshape(-1, 3).max(-1).reshape(v.shape[0], 2).repeat(3, axis=1),
    lambda v: jnp.concatenate([v[:, 4:], v[:, :4]], -1),
    lambda v: jnp.pad(v[:, 1:5], ((0, 0), (2, 0))),
    lambda v: v.at[:, 1:3].set(0.5),
    lambda v: jnp.where(jnp.arange(UNITS) % 2 == 0, v, -v),
    lambda v: lax.stop_gradient(v) * v,
    lambda v: lax.fori_loop(0, 2, lambda i, u: jnp.sin(u) + i, v),
    lambda v: jax.vmap(lambda row: row * row.sum())(v),
    lambda v: v**3,
    lambda v: jnp.stack(jnp.split(v, 2, axis=1), 1).prod(1).repeat(2, axis=-1),
)
BINARY: tuple[Callable[[Any, Any], Any], ...] = (
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: a - 0.5 * b,
    lambda a, b: a / (1 + b * b),
    jnp.maximum,
    lambda a, b: jnp.where(a > b, a, 0.3 * b),
    lambda a, b: jnp.einsum("bi,bj->bij", a, b).sum(1),
    lambda a, b: jnp.einsum("bij,bj->bi", a[:, :, None] * b[:, None, :], b),
    lambda a, b: (a * b).sum(-1, keepdims=True) * a,
    lambda a, b: jnp.where((a > 0) & ~(b > 0), a, b),
)


def step_of(rng: Any, weights: Any) -> Callable[[Any, Any], Any]:
    """The same operations at each call."""
    chosen = [
        (int(rng.integers(4)), int(rng.integers(99)), int(rng.integers(99)), int(rng.integers(99)))
        for _ in range(int(rng.integers(3, 9)))
    ]

    def step(h: Any, x: Any) -> Any:
        values = [h, x @ weights[0], x * 0.5 + h]
        for kind, which, first, second in chosen:
            a, b = values[first % len(values)], values[second % len(values)]
            if kind == 0:
                values.append(BINARY[which % len(BINARY)](a, b))
            elif kind == 1:
                values.append(a @ weights[which % len(weights)])
            else:
                values.append(UNARY[which % len(UNARY)](a))
        return jnp.tanh(values[-1]), (values[-2], values[len(values) // 2])

    return step


def checked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [jnp.asarray(rng.standard_normal((UNITS, UNITS)), "float32") for _ in range(2)]
    h = jax.ShapeDtypeStruct((BATCH, UNITS), np.dtype("float32"))
    tree = jax.tree.structure(0)
    step = Step(step_of(rng, weights), tree, tree, (h,), (h,), ("h",), ("x",), f"step_{seed}")
    flat = flatten(step.trace((h,), (h,)).jaxpr)
    found = read(step, flat, {}, None, np.dtype("float32"), {})
    assert found.has_batch


@pytest.mark.parametrize("seed", range(12))
def test_random_steps(seed: int) -> None:
    checked(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 40))
def test_many_random_steps(seed: int) -> None:
    checked(seed)
