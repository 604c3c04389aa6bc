"""rnncc itself. Calls that keep their states are a stream's."""

from __future__ import annotations

import numpy as np

from bench.case import TRAINING, Case, Data
from bench.contenders import Run
from bench.reference import call_options


def unavailable() -> str:
    return ""


def refuses(case: Case) -> str:
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

    stream = layer.stream(data.x) if case.stateful else None

    def step() -> object:
        assert stream is not None
        return stream(data.x)

    def training() -> object:
        _, pullback = layer.vjp(data.x, **call)
        return pullback(data.dy)

    def outputs() -> dict[str, np.ndarray]:
        if stream is not None:
            y = np.concatenate([stream(data.x), stream(data.x)], axis=1)
            stream.reset()
            return {"y": y}
        if case.mode != TRAINING:
            return {"y": layer(data.x, **call)}
        y, pullback = layer.vjp(data.x, **call)
        grads = pullback(data.dy)
        return {"y": y, "dx": grads.inputs} | {f"d_{n}": g for n, g in grads.weights.items()}

    made = step if case.stateful else training if case.mode == TRAINING else forward
    return Run("cpu kernels, a stream" if stream else "cpu kernels", made, outputs)
