"""Second derivatives of a layer against the slopes of its gradients, however they are arranged.

Non-Goals: which layers.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tests.support.arrays import uniform
from tests.support.cases import slope_errors

KINDS = ("inputs", "weights", "initial_state")


def leaves(value: Any) -> list[np.ndarray]:
    """The arrays of nested results."""
    if value is None:
        return []
    if isinstance(value, dict):
        return leaves(tuple(value.values()))
    return [a for v in value for a in leaves(v)] if isinstance(value, tuple | list) else [value]


def filled(value: Any, arrays: Any) -> Any:
    """These arrays, arranged like the value."""
    if isinstance(value, dict):
        return {k: filled(v, arrays) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return tuple(filled(v, arrays) for v in value)
    return None if value is None else next(arrays)


def like(value: Any, seed: int) -> Any:
    """Random arrays in the same arrangement."""
    seeds = itertools.count(seed)
    return filled(value, (uniform(*a.shape, seed=next(seeds)) for a in leaves(value)))


def check_slopes(layer: Any, x: Any, initial: Any, mask: Any = None, resets: Any = None) -> None:
    """<grads, v> has the slopes that second derivatives claim: by x, weights, states and dy."""
    layer.build([a.shape for a in x] if isinstance(x, tuple) else x.shape)
    weights = {n: uniform(*w.shape, seed=40 + i) for i, (n, w) in enumerate(layer.weights.items())}
    layer.set_weights([*weights.values()])
    dy = like(layer(x, initial_state=initial, mask=mask, resets=resets), 100)
    given = {"inputs": x, "weights": weights, "initial_state": initial, "dy": dy}

    def pulled(now: dict[str, Any]) -> Any:
        for name, array in now["weights"].items():
            layer.weights[name] = array
        states = now.get("initial_state")
        return layer.vjp(now["inputs"], initial_state=states, mask=mask, resets=resets, seed=5)[1]

    pullback = pulled(given)
    grads, pullback2 = pullback.vjp(dy)
    plain = pullback(dy)
    for kind in KINDS:
        pair = leaves(getattr(grads, kind)), leaves(getattr(plain, kind))
        for a, b in zip(*pair, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    v = {kind: like(getattr(grads, kind), 7) for kind in KINDS}
    second = pullback2(v)

    def value(now: dict[str, Any]) -> float:
        found = pulled(now)(now["dy"])
        pairs = ((getattr(found, kind), v[kind]) for kind in KINDS)
        return sum(float((a * b).sum()) for p in pairs for a, b in zip(*map(leaves, p)))

    rng = np.random.default_rng(3)
    if initial is None:
        del given["initial_state"]
    for kind, arranged in given.items():
        arrays, claimed = leaves(arranged), leaves(getattr(second, kind))
        for i, (at, gradient) in enumerate(zip(arrays, claimed, strict=True)):

            def moved(a: np.ndarray, i: int = i, kind: str = kind) -> float:
                parts = leaves(given[kind])
                return value(
                    {**given, kind: filled(given[kind], iter([*parts[:i], a, *parts[i + 1 :]]))}
                )

            assert max(slope_errors(moved, at, gradient, rng, directions=1)) <= 1e-5, (kind, i)
