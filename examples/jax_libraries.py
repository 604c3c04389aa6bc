"""Cells of Flax (nnx) and of Equinox through rnncc.jax.scan: what is closed over is a weight.

python examples/jax_libraries.py            of the two, those that are installed
"""

from __future__ import annotations

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np

import rnncc.jax

BATCH, TIME, FEATURES, UNITS = 8, 20, 5, 32


def compare(name, step, carry, xs):
    """Both scans of the same step."""
    ours, theirs = (
        jax.jit(lambda carry, xs, scan=scan: scan(step, carry, xs))(carry, xs)
        for scan in (rnncc.jax.scan, jax.lax.scan)
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    print(f"{name}: the same as jax.lax.scan")


def flax(xs):
    """An nnx cell takes (carry, inputs), with a batch."""
    from flax import nnx

    cell = nnx.OptimizedLSTMCell(FEATURES, UNITS, rngs=nnx.Rngs(0))
    graph, state = nnx.split(cell)
    carry = cell.initialize_carry((BATCH, FEATURES), nnx.Rngs(0))

    def step(carry, x):
        return nnx.merge(graph, state)(carry, x)

    compare("flax.nnx.OptimizedLSTMCell", step, carry, xs)


def equinox(xs):
    """An Equinox cell takes (input, hidden) of one row: vmap makes it one of a batch."""
    import equinox as eqx

    cell = eqx.nn.GRUCell(FEATURES, UNITS, key=jax.random.key(0))

    def step(h, x):
        h = jax.vmap(cell)(x, h)
        return h, h

    compare("equinox.nn.GRUCell", step, jnp.zeros((BATCH, UNITS)), xs)


def main():
    xs = jax.random.normal(jax.random.key(1), (TIME, BATCH, FEATURES))
    for name, example in (("flax", flax), ("equinox", equinox)):
        if find_spec(name) is None:
            print(f"{name} isn't installed")
        else:
            example(xs)


if __name__ == "__main__":
    main()
