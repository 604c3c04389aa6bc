"""Traces of modules: tensors by the names of the equations; outputs have the bits of a call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnncc
from rnncc.torch import GRU, LSTM, Recurrent

TIMES = torch.tensor([5, 2, 4])


class Leaky(torch.nn.Module):
    """A cell written in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(11, 7)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = 0.5 * h + torch.tanh(self.inner(torch.cat([x, h], -1)))
        return h, h


def inputs(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_cells_of_equations() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        cell = Recurrent("gru", units=7, return_sequences=True, dtype=dtype)
        x = inputs(dtype)
        mask = torch.rand(3, 5) < 0.6
        y = cell(x, mask=mask)
        traced = cell.trace(x, mask=mask)
        assert torch.equal(traced["h"], y) and traced["z"].dtype is dtype
        assert not traced["z"].requires_grad and traced["z"].shape == (3, 5, 7)
    x, start = inputs(), torch.ones(3, 7)
    back = Recurrent("lstm", units=7, go_backwards=True, time_major=True, return_sequences=True)
    stacked = x.transpose(0, 1)
    y = back(stacked, initial_state={"c": start})
    assert torch.equal(back.trace(stacked, initial_state={"c": start})["h"], y)
    with pytest.raises(KeyError, match="did you mean f"):
        back.trace(stacked)["F"]
    with pytest.raises(TypeError, match="torch tensor"):
        back.trace(x.numpy())


def test_equations_are_those_of_the_file(tmp_path: Path) -> None:
    text = "cell: Own\nx: input\nh: state\nh[t] = h[t-1] + x[t]\nreturn h[t]\n"
    (tmp_path / "own.rnn").write_text(text)
    assert Recurrent(tmp_path / "own.rnn").equations == text
    assert "h[t] = " in Recurrent(rnncc.compile("lstm"), 7).equations


def test_draws_are_those_of_a_call() -> None:
    cell = Recurrent("lstm", 7, input_size=4, dropout=0.5, return_sequences=True)
    torch.manual_seed(3)
    y = cell(inputs())
    torch.manual_seed(3)
    assert torch.equal(cell.trace(inputs())["h"], y)
    assert torch.equal(cell.eval().trace(inputs())["h"], cell(inputs()))


def test_a_cell_written_in_torch() -> None:
    cell = Recurrent(Leaky(), return_sequences=True, state=(7,))
    y = cell(inputs())
    traced = cell.trace(inputs())
    assert any(torch.equal(t, y) for t in traced.values())


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_in_place_of_torch(kind: Any) -> None:
    x = inputs()
    body = kind(4, 7, 2, batch_first=True, bidirectional=True, dropout=0.3)
    torch.manual_seed(3)
    y, _ = body(x, lengths=TIMES)
    torch.manual_seed(3)
    traced = body.trace(x, lengths=TIMES)
    assert torch.equal(torch.cat([traced["l1.h"], traced["l1_reverse.h"]], -1), y)

    packed = pack_padded_sequence(x, TIMES, batch_first=True, enforce_sorted=False)
    body.eval()
    ends = body(x, lengths=TIMES)[1]
    y, _ = body(packed, ends)
    traced = body.trace(packed, ends)
    padded, _ = pad_packed_sequence(y, batch_first=True)
    assert torch.equal(torch.cat([traced["l1.h"], traced["l1_reverse.h"]], -1), padded)

    alone = kind(4, 7)
    y, _ = alone(x[0])
    assert torch.equal(alone.trace(x[0])["h"], y)
    with pytest.raises(ValueError, match="input"):
        alone.trace(x.double())


def test_gates_of_an_lstm() -> None:
    """By torch's own operations."""
    x = inputs(torch.float64)
    body = LSTM(4, 7, batch_first=True, dtype=torch.float64)
    traced = body.trace(x)
    before = torch.cat([torch.zeros(3, 1, 7, dtype=torch.float64), traced["h"][:, :-1]], 1)
    z = x @ body.weight_ih_l0.T + before @ body.weight_hh_l0.T + body.bias_ih_l0 + body.bias_hh_l0
    i, f, g, o = z.chunk(4, -1)
    found = [traced[n] for n in ("i", "f", "g", "o")]
    expected = [i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
