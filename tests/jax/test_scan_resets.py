"""resets= of rnncc.jax.scan, against jax.lax.scan of a step that chooses its carry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp = jax.numpy

from rnncc.jax import scan  # noqa: E402

TIME, BATCH, WIDTH, UNITS = 7, 3, 2, 4
RNG = np.random.default_rng(0)


def drawn(*shape: int) -> Any:
    return jnp.asarray(RNG.standard_normal(shape), "float32")


W, U, X = drawn(WIDTH, UNITS), drawn(UNITS, UNITS) * 0.5, drawn(TIME, BATCH, WIDTH)
H = drawn(BATCH, UNITS)
DONE = jnp.asarray(RNG.random((TIME, BATCH)) < 0.3)


def step(carry: Any, x: Any) -> Any:
    h = jnp.tanh(x @ W + carry @ U)
    return h, h * 2


def chosen(init: Any, xs: Any, done: Any, reverse: bool = False) -> Any:
    """JAX's own: where a row ends, the step before it in reverse was behind it."""
    done = done != 0
    if reverse:
        done = jnp.concatenate([done[1:], jnp.zeros_like(done[:1])])

    def own(carry: Any, given: Any) -> Any:
        x, anew = given
        return step(jnp.where(anew[..., None], init, carry), x)

    return jax.lax.scan(own, init, (xs, done), reverse=reverse)


def close(ours: Any, theirs: Any) -> None:
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def loss(run: Any, init: Any, xs: Any) -> Any:
    last, ys = run(init, xs)
    return (last**2).sum() + (ys**2).sum()


@pytest.mark.parametrize("reverse", [False, True])
def test_as_a_step_that_chooses(reverse: bool) -> None:
    def ours(h: Any, x: Any) -> Any:
        return scan(step, h, x, reverse=reverse, resets=DONE)

    def theirs(h: Any, x: Any) -> Any:
        return chosen(h, x, DONE, reverse)

    assert not np.allclose(ours(H, X)[1], scan(step, H, X, reverse=reverse)[1])
    close(ours(H, X), theirs(H, X))
    gradients = (
        jax.jit(jax.grad(lambda h, x, run=run: loss(run, h, x), (0, 1)))(H, X)
        for run in (ours, theirs)
    )
    close(*gradients)
    numbers = jax.jit(lambda done: scan(step, H, X, reverse=reverse, resets=done))
    close(numbers(DONE.astype("float32")), theirs(H, X))


def test_under_vmap_and_without_a_batch() -> None:
    init, xs, done = drawn(5, BATCH, UNITS), drawn(5, TIME, BATCH, WIDTH), RNG.random((5, TIME, 3))
    done = jnp.asarray(done < 0.3)
    close(
        jax.vmap(lambda h, x, d: scan(step, h, x, resets=d))(init, xs, done),
        jax.vmap(chosen)(init, xs, done),
    )
    close(
        jax.vmap(lambda h, x: scan(step, h, x, resets=done[0]))(init, xs),
        jax.vmap(lambda h, x: chosen(h, x, done[0]))(init, xs),
    )
    close(scan(step, H[0], X[:, 0], resets=DONE[:, 0]), chosen(H[0], X[:, 0], DONE[:, 0]))
    rows = jax.vmap(lambda h, x, d: scan(step, h, x, resets=d), (0, 1, 1), (0, 1))
    close(rows(H, X, DONE), chosen(H, X, DONE))


def test_of_no_rows_and_no_steps() -> None:
    last, ys = scan(step, H[:0], X[:, :0], resets=DONE[:, :0])
    assert last.shape == (0, UNITS) and ys.shape == (TIME, 0, UNITS)
    last, ys = scan(step, H, X[:0], resets=DONE[:0])
    np.testing.assert_array_equal(last, H)
    assert ys.shape == (0, BATCH, UNITS)


def test_refused() -> None:
    with pytest.raises(
        ValueError, match=r"resets has shape \[3, 7\], expected \[time=7, batch=3\]"
    ):
        scan(step, H, X, resets=DONE.T)
    with pytest.raises(TypeError, match="resets holds complex64 values"):
        scan(step, H, X, resets=DONE.astype("complex64"))
    with pytest.raises(TypeError, match="resets can't become an array"):
        scan(step, H, X, resets="yes")
    with pytest.raises(Exception, match="resets holds"):
        jax.block_until_ready(scan(step, H, X, resets=0.5 * DONE))

    def counted(carry: Any, x: Any) -> Any:
        h, n = carry
        h, y = step(h, x)
        return (h + 0.1 * n, n + 1), y

    with pytest.raises(TypeError, match="a carry without a batch"):
        scan(counted, (H, 0), X, resets=DONE)
