"""torch.onnx.export(dynamo=True) of models with modules of rnncc.torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import rnncc.torch
from rnncc.torch import GRU, LSTM, Recurrent, convert
from tests.support.in_onnx.exported import kinds, session

DIM = torch.export.Dim
SHAPES = {"x": {0: DIM("rows"), 1: DIM("steps")}}


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


class Tagger(torch.nn.Module):
    def __init__(self, *layers: torch.nn.Module) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)
        self.out = torch.nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            y = layer(x)
            x = y[0] if isinstance(y, tuple) else y
        return self.out(x)


def exported(model: Any, *args: torch.Tensor, shapes: Any = SHAPES) -> Any:
    table = rnncc.torch.onnx_translations()
    program = torch.onnx.export(
        model.eval(),
        args,
        dynamo=True,
        custom_translation_table=table,
        dynamic_shapes=shapes,
        verbose=False,
    )
    return program.model_proto


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda: [LSTM(4, 3, 2, batch_first=True, bidirectional=True)], ["LSTM"] * 4),
        (lambda: [Recurrent("gru", units=6, input_size=4, return_sequences=True)], ["GRU"]),
        (
            lambda: [
                Recurrent("light_gru", units=4, input_size=4, return_sequences=True),
                GRU(4, 6, batch_first=True),
                Recurrent("light_gru", units=6, input_size=6, return_sequences=True),
            ],
            ["Scan", "GRU", "Scan"],
        ),
        (lambda: [convert(torch.nn.LSTM(4, 6, batch_first=True))], ["LSTM"]),
    ],
)
def test_models(make: Any, expected: list[str], quiet: None) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript isn't installed")
    model = Tagger(*make())
    proto = exported(model, torch.randn(2, 5, 4))
    assert kinds(proto) == expected
    run = session(proto)
    for rows, steps in ((2, 5), (1, 20), (6, 3)):
        x = torch.randn(rows, steps, 4)
        (found,) = run.run(None, {run.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(model(x).detach().numpy(), found, atol=2e-6)


def test_what_draws_is_refused(quiet: None) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript isn't installed")
    model = Tagger(Recurrent("lstm", units=6, input_size=4, return_sequences=True, dropout=0.5))
    table = rnncc.torch.onnx_translations()
    with pytest.raises(Exception, match="LSTM draws random numbers in training") as raised:
        torch.onnx.export(
            model.train(), (torch.randn(2, 5, 4),), dynamo=True, custom_translation_table=table
        )
    assert raised.type.__module__.startswith("torch.onnx")


def test_the_older_exporter_is_refused(quiet: None) -> None:
    pytest.importorskip("onnx", reason="onnx isn't installed")
    model = Tagger(LSTM(4, 6, batch_first=True)).eval()
    with pytest.raises(NotImplementedError, match=r"dynamo=True.*onnx_translations.*rnncc export"):
        torch.onnx.export(model, (torch.randn(2, 5, 4),), "never.onnx", dynamo=False)


def test_without_onnxscript(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match="pip install onnx onnxscript"):
        rnncc.torch.onnx_translations()
