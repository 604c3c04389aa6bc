"""rnncc.torch.LSTM in torch.nn.LSTM's place: the same parameters, autograd and calls."""

from __future__ import annotations

from bench.case import Case, Data
from bench.contenders import Run, torch_contender


def unavailable() -> str:
    return torch_contender.unavailable()


def refuses(case: Case) -> str:
    return "" if case.cell == "lstm" and torch_contender.is_plain(case) else "nn.LSTM alone"


def prepare(case: Case, data: Data) -> Run:
    import rnncc.torch

    model = rnncc.torch.LSTM(case.features, case.units, batch_first=True)
    return torch_contender.run_model(model, case, data, lambda call: "rnncc's kernels")
