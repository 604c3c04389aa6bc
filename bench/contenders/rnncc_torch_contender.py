"""rnncc.torch.LSTM in torch.nn.LSTM's place: the same parameters, autograd and calls."""

from __future__ import annotations

from bench.case import Case, Data
from bench.contenders import Run, torch_contender


def unavailable() -> str:
    return torch_contender.unavailable()


def prepare(case: Case, data: Data) -> Run:
    import rnncc.torch

    if case.cell != "lstm":
        raise ValueError(f"rnncc.torch's stack has no {case.cell}")
    model = rnncc.torch.LSTM(case.features, case.units, batch_first=True)
    return torch_contender.run_model(model, case, data, lambda call: "rnncc's kernels")
