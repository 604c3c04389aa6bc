"""rnncc.torch.LSTM in torch.nn.LSTM's place: the same parameters, autograd and calls.

Variant layer: the NumPy layer of the same equations, on torch's threads, with the same gradients
asked for: what the module takes longer is the adapter's.
"""

from __future__ import annotations

import numpy as np

from bench.case import TRAINING, Case, Data
from bench.contenders import Run, reorder, torch_contender
from bench.contenders.torch_contender import ORDER


def unavailable(variant: str = "") -> str:
    return torch_contender.unavailable()


def refuses(case: Case, variant: str = "") -> str:
    return "" if case.cell == "lstm" and torch_contender.is_plain(case) else "nn.LSTM alone"


def prepare(case: Case, data: Data, variant: str = "") -> Run:
    import rnncc.torch

    if variant == "layer":
        return _layer(case, data)
    model = rnncc.torch.LSTM(case.features, case.units, batch_first=True)
    return torch_contender.run_model(model, case, data, lambda call: "rnncc's kernels")


def _layer(case: Case, data: Data) -> Run:
    from rnncc.torch.builtin_cells import builtin_cell

    order, w = ORDER[case.cell], data.weights
    layer = builtin_cell("lstm")(hidden_size=case.units, return_sequences=True)
    layer.build(data.x.shape)
    kernels = (reorder(w[n], order).T for n in ("kernel", "recurrent_kernel"))
    layer.set_weights([*kernels, reorder(w["bias"], order), np.zeros_like(w["bias"])])

    def forward() -> object:
        return layer(data.x)

    def training() -> object:
        _, pullback = layer.vjp(data.x)
        return pullback(data.dy, wrt=("inputs", "weights"))

    def outputs() -> dict[str, np.ndarray]:
        if case.mode != TRAINING:
            return {"y": layer(data.x)}
        y, pullback = layer.vjp(data.x)
        grads = pullback(data.dy)
        d = {n: reorder(g, order, 0) for n, g in grads.weights.items()}
        return {
            "y": y,
            "dx": grads.inputs,
            "d_kernel": d["weight_ih"].T,
            "d_recurrent_kernel": d["weight_hh"].T,
            "d_bias": d["bias_ih"],
        }

    call = training if case.mode == TRAINING else forward
    return Run("cpu kernels on torch's threads, weights as torch has them", call, outputs)
