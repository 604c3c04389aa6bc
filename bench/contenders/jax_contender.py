"""jax: lax.scan over steps, jit, XLA on its CPU device. Its own layout, [time, batch, ...]."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.case import TRAINING, Case, Data
from bench.contenders import Run, missing
from bench.contenders.cells import code_of, ops_of, refuses_cell


def unavailable() -> str:
    return missing("jax", "jaxlib")


def refuses(case: Case) -> str:
    return refuses_cell(case)


def prepare(case: Case, data: Data) -> Run:
    import jax
    import jax.numpy as jnp

    code, ops = code_of(case), ops_of("jax")
    assert code is not None
    w = {n: jnp.asarray(a) for n, a in data.weights.items()}
    x, dy = (jnp.asarray(a.swapaxes(0, 1)) for a in (data.x, data.dy))
    mask = data.mask.T if case.masked else None
    given = None if data.kept is None else jnp.asarray(data.kept)
    keep = 1 - case.option("recurrent_dropout", 0)

    def scan(w: Any, x: Any, kept: Any, states: Any) -> Any:
        """Outputs [time, batch, units], and the last states."""

        def step(states: Any, at: Any) -> Any:
            z, valid = at
            new = code.step(ops, w, z, kept, *states)
            if valid is not None:
                like = [valid.reshape(-1, *[1] * (a.ndim - 1)) for a in new]
                new = tuple(map(jnp.where, like, new, states))
            return new, new[0]

        last, y = jax.lax.scan(step, states, (code.before(ops, w, x), mask))
        return y.reshape(case.time, case.batch, -1), last

    zeros = tuple(jnp.zeros(s, case.dtype) for s in code.shapes(case.batch, case.units))

    def gradients(w: Any, x: Any, kept: Any) -> Any:
        y, pullback = jax.vjp(lambda w, x: scan(w, x, kept, zeros)[0], w, x)
        return y, *pullback(dy)

    def drawn(w: Any, x: Any, key: Any) -> Any:
        kept = None
        if given is not None:
            kept = jax.random.bernoulli(jax.random.key(key), keep, given.shape) / keep
        return gradients(w, x, kept)

    run, train, train_on = jax.jit(scan), jax.jit(drawn), jax.jit(gradients)
    states, calls = zeros, 0

    def forward() -> Any:
        return run(w, x, None, zeros)[0].block_until_ready()

    def step() -> Any:
        nonlocal states
        y, states = run(w, x, None, states)
        return y.block_until_ready()

    def training() -> Any:
        nonlocal calls
        calls += 1
        return jax.block_until_ready(train(w, x, calls))

    def outputs() -> dict[str, np.ndarray]:
        if case.stateful:
            return {"y": np.concatenate([step(), step()]).swapaxes(0, 1)}
        if case.mode != TRAINING:
            return {"y": np.asarray(forward()).swapaxes(0, 1)}
        y, d_w, dx = train_on(w, x, given)
        found = {"y": np.asarray(y).swapaxes(0, 1), "dx": np.asarray(dx).swapaxes(0, 1)}
        return found | {f"d_{n}": np.asarray(g) for n, g in d_w.items()}

    call = step if case.stateful else training if case.mode == TRAINING else forward
    return Run(f"jax {jax.__version__}, lax.scan under jit", call, outputs)
