"""What a case's outputs should be: the interpreter's, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.case import SEED, TRAINING, Case, Data, spec_of
from rnncc import oracle


def expected(case: Case, data: Data, *, undropped: bool = False) -> dict[str, np.ndarray]:
    """`y`, and in training `dx` and `d_<weight>`. undropped: as if nothing were dropped.

    A stateful case's y is that of two calls, one after the other in time.
    """
    options = {k: v for k, v in case.options if not (undropped and k == "recurrent_dropout")}
    options.pop("weights", None)  # how they are stored is not what they mean
    layer = oracle.layer_class(spec_of(case))(units=case.units, return_sequences=True, **options)
    layer.build(data.x.shape)
    layer.set_weights([data.weights[name].astype("float64") for name in layer.weights])
    x, call = data.x.astype("float64"), call_options(case, data)
    if case.stateful:
        x = np.concatenate([x, x], axis=1)
    if case.mode != TRAINING:
        return {"y": layer(x, **call)}
    y, pullback = layer.vjp(x, **call)
    grads = pullback(data.dy)
    return {"y": y, "dx": grads.inputs} | {f"d_{n}": g for n, g in grads.weights.items()}


def call_options(case: Case, data: Data) -> dict[str, Any]:
    """The keywords of a layer's call: a mask, resets, a seed for what is drawn."""
    found: dict[str, Any] = {"mask": data.mask} if case.masked or case.lengths else {}
    found |= {"resets": data.resets} if case.resets else {}
    return found | {"seed": SEED, "training": case.mode == TRAINING}


def worst_error(found: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> float:
    """The largest max|a - b| / max(1, max|b|) over all arrays; infinite when one is missing."""
    if set(right) - set(found):
        return float("inf")
    errors = [0.0]
    for name, b in right.items():
        a = np.asarray(found[name], np.float64)
        if a.shape != b.shape:
            return float("inf")
        errors.append(float(np.abs(a - b).max(initial=0) / max(1.0, np.abs(b).max(initial=0))))
    return max(errors)
