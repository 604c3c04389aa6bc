"""What notebooks show of torch modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import rnncc.torch
from rnncc.drawing import notebook
from rnncc.drawing.notebook import PlanText


class Leaky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.units, self.inner = 4, nn.Linear(9, 4)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.lerp(h, torch.tanh(self.inner(torch.cat([x, h], -1))), 0.5)
        return h, h


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes time."""
    monkeypatch.setattr(notebook, "_drawn", lambda _: None)


@pytest.mark.parametrize(
    ("module", "kinds", "row"),
    [
        (rnncc.torch.LSTM(5, 4, 2, bidirectional=True), 1, ("weight_hh_l1_reverse", "[16, 4]")),
        (rnncc.torch.LSTM(5, 4, proj_size=3).half(), 1, ("weight_hr_l0", "[3, 4]")),
        (rnncc.torch.GRUCell(5, 4), 1, ("weight_ih", "[12, 5]")),
        (rnncc.torch.convert(nn.GRU(5, 4)), 1, ("bias_hh_l0", "[12]")),
        (rnncc.torch.Recurrent("gru", units=4), 1, ("kernel", "not known yet")),
        (rnncc.torch.Recurrent("gru", units=4, input_size=5), 1, ("bias", "[2, 12]")),
        (
            rnncc.torch.RecurrentStack(["lstm", "gru", "lstm"], units=4, input_size=4),
            2,
            ("layers.1.kernel", "[4, 12]"),
        ),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_modules_show_their_cells(module: nn.Module, kinds: int, row: tuple[str, str]) -> None:
    shown = module._repr_html_()
    assert shown.count("<math") == kinds
    assert f"<td>{row[0]}</td><td>{row[1]}</td>" in shown


def test_a_cell_of_torch_shows_what_was_read() -> None:
    module = rnncc.torch.Recurrent(Leaky())
    assert "<math" not in module._repr_html_()
    assert "<td>cell.inner.weight</td><td>[4, 9]</td>" in module._repr_html_()
    module(torch.zeros(2, 3, 5))
    module.cell.inner.bias.requires_grad_(False)
    assert module._repr_html_().count("<math") == 1
    assert "<td>cell.inner.bias (frozen)</td>" in module._repr_html_()
    assert "trace of Leaky" in module.trace(torch.zeros(2, 3, 5))._repr_html_()


def test_plans_keep_their_lines() -> None:
    for module in (rnncc.torch.LSTM(5, 4), rnncc.torch.Recurrent("gru", units=4, input_size=5)):
        module(torch.zeros(2, 3, 5))
        assert isinstance(module.plan(), PlanText)
    assert isinstance(rnncc.torch.GRUCell(5, 4).plan(), PlanText)
