"""rnncc itself."""

from __future__ import annotations

import numpy as np

from bench.case import TRAINING, Case, Data
from bench.contenders import Run
from bench.reference import call_options


def unavailable() -> str:
    return ""


def prepare(case: Case, data: Data) -> Run:
    import rnncc

    layer = rnncc.compile(case.cell, dtype=case.dtype)(
        units=case.units, return_sequences=True, **dict(case.options)
    )
    call = call_options(case, data)
    layer.build(data.x.shape)
    layer.set_weights([data.weights[name] for name in layer.weights])

    def forward() -> object:
        return layer(data.x, **call)

    def training() -> object:
        _, pullback = layer.vjp(data.x, **call)
        return pullback(data.dy)

    def outputs() -> dict[str, np.ndarray]:
        if case.mode != TRAINING:
            return {"y": layer(data.x, **call)}
        y, pullback = layer.vjp(data.x, **call)
        grads = pullback(data.dy)
        return {"y": y, "dx": grads.inputs} | {f"d_{n}": g for n, g in grads.weights.items()}

    return Run("cpu kernels", training if case.mode == TRAINING else forward, outputs)
