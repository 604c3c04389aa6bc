"""torch's modules on a GPU's kernels: the same modules on the CPU's kernels agree.

Tensors here are the CPU's, made believe: a carrier copies them to the simulated grid and back. How
tensors of a real GPU are read is `torch_tensors`, which needs one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnncc.runtime.cuda.arrays.torch_tensors import has_dense_rows
from tests.support import cases
from tests.support.gpu_simulator.grid import Simulator
from tests.support.gpu_simulator.tensors import Believing

torch = pytest.importorskip("torch")

from rnncc.torch import GRU, LSTM, Recurrent, on_device  # noqa: E402


def results(module: Any, x: Any, *more: Any, **keywords: Any) -> list[Any]:
    """Values and gradients."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    found = module(x, *more, **keywords)
    flat = [found] if isinstance(found, torch.Tensor) else [*_flat(found)]
    generator = torch.Generator().manual_seed(0)
    sum((t * torch.randn(t.shape, generator=generator)).sum() for t in flat).backward()
    return [*flat, x.grad, *(p.grad for p in module.parameters())]


def _flat(values: Any) -> Any:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        else:
            yield from _flat(value)


def agree(
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    x: Any,
    *more: Any,
    found_by: Any = results,
    **keywords: Any,
) -> None:
    """The same from the kernels of the CPU and from those of a simulated GPU."""
    right = [t.detach().clone() for t in found_by(module, x, *more, **keywords)]
    simulator = Simulator(seed=1)
    with monkeypatch.context() as patch:
        patch.setattr("rnncc.torch.recurrence.is_elsewhere", lambda t: True)
        patch.setattr(on_device, "carrier_of", lambda t: Believing(simulator))
        found = found_by(module, x, *more, **keywords)
    assert simulator.launches, "the CPU's kernels ran"
    for one, other in zip(found, right, strict=True):
        assert cases.error(one.detach().numpy(), other.numpy()) <= 1e-5


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_lstm(monkeypatch: pytest.MonkeyPatch, bidirectional: bool, batch_first: bool) -> None:
    torch.manual_seed(0)
    module = LSTM(3, 4, batch_first=batch_first, bidirectional=bidirectional)
    states = tuple(torch.randn(1 + bidirectional, 2, 4) for _ in range(2))
    x = torch.randn(2, 5, 3) if batch_first else torch.randn(5, 2, 3)
    agree(monkeypatch, module, x)
    agree(monkeypatch, module, x, states)


def test_packed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module, x = GRU(3, 4, batch_first=True, bidirectional=True), torch.randn(3, 6, 3)

    class Packs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Any) -> Any:
            rnn = torch.nn.utils.rnn
            packed = rnn.pack_padded_sequence(x, torch.tensor([5, 3, 2]), batch_first=True)
            y, h = self.inner(packed)
            return rnn.pad_packed_sequence(y, batch_first=True)[0], h

    agree(monkeypatch, Packs(), x)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_sequences": True, "go_backwards": True},
        {"return_sequences": True, "zero_output_for_mask": True},
    ],
    ids=["last", "backwards", "zeros"],
)
def test_masked_cells(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    path = cases.ROOT / "rnncc" / "cells" / "peephole_lstm.rnn"
    module = Recurrent(path, units=4, input_size=3, return_state=True, **options)
    mask = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]], dtype=torch.bool)
    agree(monkeypatch, module, torch.randn(2, 6, 3), mask=mask)
    resets = torch.tensor([[0, 1, 0, 1, 0, 0], [0, 0, 0, 1, 0, 1]])
    start = [torch.randn(2, 4) for _ in range(2)]
    agree(monkeypatch, module, torch.randn(2, 6, 3), mask=mask, resets=resets)
    agree(monkeypatch, module, torch.randn(2, 6, 3), resets=resets, initial_state=start)


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "mask"])
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
def test_checkpoints(monkeypatch: pytest.MonkeyPatch, sequences: bool, masked: bool) -> None:
    torch.manual_seed(0)
    options = {"return_sequences": sequences, "checkpoint_every": 2, "return_state": True}
    module = Recurrent("gru", units=4, input_size=3, **options)
    mask = torch.tensor([[1, 0, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]], dtype=torch.bool)
    agree(monkeypatch, module, torch.randn(2, 6, 3), **({"mask": mask} if masked else {}))


def seconds(module: Any, x: Any, **keywords: Any) -> list[Any]:
    """Gradients of a penalty on the input's slope, by everything: the weights' are second ones."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    y = module(x, **keywords)
    y = y if isinstance(y, torch.Tensor) else y[0]
    dy = torch.linspace(-1, 1, y.numel()).reshape(y.shape).requires_grad_()
    (slope,) = torch.autograd.grad(y, x, dy, create_graph=True)
    slope.square().sum().backward()
    return [slope, x.grad, dy.grad, *(p.grad for p in module.parameters())]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["plain", "mask", "resets"])
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
def test_second_derivatives(monkeypatch: pytest.MonkeyPatch, sequences: bool, what: str) -> None:
    torch.manual_seed(0)
    module = Recurrent("simple_rnn", units=4, input_size=3, return_sequences=sequences)
    flags = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 0, 0, 0]], dtype=torch.bool)
    given = {} if what == "plain" else {what: flags}
    agree(monkeypatch, module, torch.randn(2, 5, 3), found_by=seconds, **given)


@pytest.mark.slow
def test_second_derivatives_of_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = GRU(3, 4, batch_first=True, bidirectional=True)
    agree(monkeypatch, module, torch.randn(2, 4, 3), found_by=seconds)


def test_rows_of_views() -> None:
    x = torch.zeros(4, 5, 6)
    assert has_dense_rows(x.transpose(0, 1), 2) and has_dense_rows(x[:, ::2], 2)
    assert not has_dense_rows(x[..., ::2], 2) and not has_dense_rows(x.permute(2, 0, 1), 1)
    assert np.array_equal(x.transpose(0, 1).stride(), (6, 30, 1))
