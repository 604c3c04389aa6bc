"""Cells as people write them for jax.lax.scan are read without a change, and compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from rnncc.jax import scan  # noqa: E402
from tests.support.in_jax.cells import CELLS, Problem, Sizes  # noqa: E402

jnp = jax.numpy


def cast(tree: Any, dtype: str) -> Any:
    """Floats of that dtype."""
    return jax.tree.map(
        lambda a: jnp.asarray(a, dtype if np.asarray(a).dtype.kind == "f" else None), tree
    )


def computed(own_scan: Callable[..., Any], problem: Problem, dtype: str) -> list[np.ndarray]:
    """Results, and gradients of parameters, the first carry, and xs."""

    def run(params: Any, carry: Any, xs: Any) -> Any:
        return own_scan(problem.step(params), carry, xs)

    def loss(params: Any, carry: Any, xs: Any) -> Any:
        results = jax.tree.leaves(run(params, carry, xs))
        weights = [np.cos(np.arange(r.size, dtype=dtype)).reshape(r.shape) for r in results]
        return sum((r * w).sum() for r, w in zip(results, weights, strict=True))

    given = cast((problem.params, problem.carry, problem.xs), dtype)
    results = jax.jit(run)(*given)
    grads = jax.jit(jax.grad(loss, (0, 1, 2), allow_int=True))(*given)
    return [
        np.asarray(a) for a in jax.tree.leaves((results, grads)) if a.dtype != jax.dtypes.float0
    ]


@pytest.mark.parametrize("name", CELLS)
def test_results_and_gradients(name: str) -> None:
    problem = CELLS[name](Sizes())
    with jax.enable_x64(True):
        expected = computed(jax.lax.scan, problem, "float64")
        found = computed(scan, problem, "float64")
    for a, b in zip(found, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * max(1, np.abs(b).max(initial=0)))


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_float32_is_as_near_as_jax(name: str) -> None:
    """Of float64, in the mean of all arrays. XLA sums gradients of weights in more chains than
    kernels do, which differ from float64 by a half more than its own here, at most by twice."""
    problem = CELLS[name](Sizes(batch=16, time=20, features=28, units=64))
    theirs = computed(jax.lax.scan, problem, "float32")
    ours = computed(scan, problem, "float32")
    with jax.enable_x64(True):
        expected = computed(jax.lax.scan, problem, "float64")
    results = len(jax.tree.leaves(problem.carry))  # and the first of ys

    def error(found: list[np.ndarray], some: slice) -> float:
        each = [
            np.sqrt(((a - b) ** 2).mean() / (b**2).mean())
            for a, b in zip(found[some], expected[some], strict=True)
            if b.size and b.any()
        ]
        return float(np.exp(np.mean(np.log(np.maximum(each, 1e-9)))))

    first, rest = slice(results + 1), slice(results + 1, None)
    assert error(ours, first) <= 1.5 * error(theirs, first)
    assert error(ours, rest) <= 2.5 * error(theirs, rest)
