"""torch.nn.LSTM; which path it takes is read off its profiler."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.case import TRAINING, Case, Data
from bench.contenders import Run

WANTED = "2.13.0"


def unavailable() -> str:
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    version = torch.__version__.split("+")[0]
    return "" if version == WANTED else f"torch {version}, not {WANTED}"


def prepare(case: Case, data: Data) -> Run:
    import torch

    if case.cell != "lstm":
        raise ValueError(f"torch has no {case.cell}")
    return run_model(torch.nn.LSTM(case.features, case.units, batch_first=True), case, data, path)


def run_model(model: Any, case: Case, data: Data, path: Callable[[Any], str]) -> Run:
    """A module with torch.nn.LSTM's parameters. path: of a call, which way it takes."""
    import torch

    with torch.no_grad():
        model.weight_ih_l0.copy_(torch.from_numpy(data.weights["kernel"].T.copy()))
        model.weight_hh_l0.copy_(torch.from_numpy(data.weights["recurrent_kernel"].T.copy()))
        model.bias_ih_l0.copy_(torch.from_numpy(data.weights["bias"]))
        model.bias_hh_l0.zero_()
    x, dy = torch.from_numpy(data.x), torch.from_numpy(data.dy)

    def forward() -> Any:
        with torch.inference_mode():
            return model(x)[0]

    def training() -> Any:
        model.zero_grad(set_to_none=True)
        x.grad = None
        y = model(x)[0]
        y.backward(dy)
        return y

    def outputs() -> dict[str, np.ndarray]:
        if case.mode != TRAINING:
            return {"y": forward().numpy()}
        y = training().detach().numpy()
        grad = {n: p.grad.numpy() for n, p in model.named_parameters()}
        return {
            "y": y,
            "dx": x.grad.numpy(),
            "d_kernel": grad["weight_ih_l0"].T,
            "d_recurrent_kernel": grad["weight_hh_l0"].T,
            "d_bias": grad["bias_ih_l0"],
        }

    if case.mode == TRAINING:
        x.requires_grad_(True)
    call = training if case.mode == TRAINING else forward
    return Run(f"torch {torch.__version__}, {path(call)}", call, outputs)


def path(call: Any) -> str:
    from torch.autograd.profiler import profile

    with profile(use_kineto=False) as seen:
        call()
    names = {event.key for event in seen.key_averages()}
    fused = any("mkldnn_rnn" in name for name in names)
    return "oneDNN (mkldnn_rnn_layer)" if fused else "a loop of aten operations"
