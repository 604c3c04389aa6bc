"""Calls of rnncc.torch's modules as nodes of ONNX whose weights are values of the graph."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="onnx isn't installed")
pytest.importorskip("onnxruntime", reason="onnxruntime isn't installed")

from rnncc.emit.onnx.graph import GraphWriter, model_of
from rnncc.torch import GRU, LSTM, RNN, Recurrent
from rnncc.torch.exporting.recurrence_graph import GraphTensor, recurrence_nodes
from rnncc.torch.recurrence import Recurrence
from tests.support.in_onnx.exported import kinds, session

Call = tuple[Recurrence, list[torch.Tensor], dict[str, Any], list[torch.Tensor]]


def calls(module: Any, monkeypatch: pytest.MonkeyPatch, *args: Any, **keywords: Any) -> list[Call]:
    """What a module's call runs, and what that gives."""
    import rnncc.torch.ops as ops

    found: list[Call] = []
    real = ops._called

    def noted(recurrence: Any, tensors: Any, seed: Any, *how: bool) -> Any:
        results = real(recurrence, tensors, seed, *how)
        found.append(
            (recurrence, [*tensors], dict(zip(("training", "given", "masked"), how)), results)
        )
        return results

    monkeypatch.setattr(ops, "_called", noted)
    with torch.no_grad():
        module.eval()(*args, **keywords)
    monkeypatch.undo()
    return found


def same(call: Call, dtype: str = "float32") -> list[str]:
    """The graph gives what the call gave; which recurrent nodes it has."""
    recurrence, tensors, how, results = call
    w = GraphWriter(dtype)
    inputs, given, feed = [], [], {}
    for i, tensor in enumerate(tensors):
        array = tensor.detach().numpy()
        name = w.name(f"t{i}")
        given.append(GraphTensor(name, array.ndim, array.dtype.name))
        inputs.append(w.value(name, array.dtype.name, [f"{name}_{k}" for k in range(array.ndim)]))
        feed[name] = array
    names = recurrence_nodes(
        w, recurrence, given, given=how["given"], masked=how["masked"], save=True
    )
    kinds_of = [*[dtype] * (len(names) - 1), "int64"]
    ranks = [*(r.ndim for r in results), 1]
    outputs = [
        w.value(n, kind, [f"{n}_{k}" for k in range(rank)])
        for n, kind, rank in zip(names, kinds_of, ranks, strict=True)
    ]
    model = model_of(w.graph("g", inputs, outputs), "", "", "")
    found = session(model).run(None, feed)
    for a, b in zip(results, found):
        assert tuple(a.shape) == b.shape
        np.testing.assert_allclose(a.detach().numpy(), b, atol=2e-6)
    return kinds(model)


@pytest.mark.parametrize("cls", [LSTM, GRU, RNN])
def test_in_place_of_torchs(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for first, both, bias in itertools.product((True, False), repeat=3):
        options: dict[str, Any] = {"nonlinearity": "relu"} if cls is RNN and both else {}
        module = cls(4, 3, 2, batch_first=first, bidirectional=both, bias=bias, **options)
        x = torch.randn(2, 7, 4) if first else torch.randn(7, 2, 4)
        found = calls(module, monkeypatch, x)
        assert [k for c in found for k in same(c)] == [cls.__name__] * (4 if both else 2)


def test_states_lengths_and_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, h = torch.randn(3, 6, 4), torch.randn(3, 3)
    mask = torch.rand(3, 6) < 0.6
    for name, kind in (("lstm", "LSTM"), ("sru", "Scan"), ("layer_norm_lstm", "Scan")):
        for sequences, back in itertools.product((True, False), repeat=2):
            options = {"return_sequences": sequences, "go_backwards": back}
            module = Recurrent(name, units=3, input_size=4, return_state=True, **options)
            states = tuple(h + i for i in range({"sru": 1}.get(name, 2)))
            (call,) = calls(module, monkeypatch, x, initial_state=states)
            assert same(call) == [kind]
            (call,) = calls(module, monkeypatch, x, mask=mask)
            assert same(call) == ["Scan"]
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [6, 2, 4], True, enforce_sorted=False)
    for call in calls(LSTM(4, 3, batch_first=True, bidirectional=True), monkeypatch, packed):
        if isinstance(call[0], Recurrence):
            assert same(call) == ["LSTM", "LSTM"]


def test_float64_is_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    module = LSTM(4, 3, dtype=torch.float64)
    (call,) = calls(module, monkeypatch, torch.randn(5, 2, 4, dtype=torch.float64))
    assert same(call, "float64") == ["Scan"]


def test_resets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Recurrent("lstm", units=3, input_size=4, return_sequences=True)
    resets = torch.rand(2, 5) < 0.3
    (call,) = calls(module, monkeypatch, torch.randn(2, 5, 4), resets=resets)
    with pytest.raises(ValueError, match="resets have no ONNX form"):
        same(call)
