"""Slopes where they jump, as torch has them: states start from zeros, so these are no rare numbers.

A reading is proven on states of zeros, outputs and gradients: what is read here has torch's slope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnncc.torch import Recurrent
from rnncc.torch.reading.words import WORDS

Line = Callable[[Tensor], Tensor]


class Cell(nn.Module):
    """A step around one line of its state."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 4, dtype=torch.float64))
        self.line = line

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(x @ self.w) + self.line(h)


def quietly(h: Tensor) -> Tensor:
    """A write that autograd doesn't hear of: the gradient is that of what stood there."""
    y = h * 3
    with torch.no_grad():
        y.clamp_(min=0.5)
        y[:, 1:3].mul_(0.5)
    return y


LINES: dict[str, Line] = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "hardtanh": lambda h: F.hardtanh(h, 0.0, 1.0),
    "clamp": lambda h: h.clamp(0.0, 1.0),
    "clamp_min": lambda h: h.clamp(min=0),
    "clamp_max": lambda h: h.clamp(max=0),
    "clamp_tensors": lambda h: torch.clamp(h, h * 2, h * 3),
    "maximum": lambda h: torch.maximum(h, 2 * h),
    "fmax": lambda h: torch.fmax(h, 2 * h),
    "fmin": lambda h: torch.fmin(h, 2 * h),
    "abs": torch.abs,
    "amax": lambda h: h.amax(1, keepdim=True),
    "max": lambda h: h.max(1, keepdim=True).values,
    "min": lambda h: h.min(-1, keepdim=True)[0],
    "std": lambda h: h.std(1, keepdim=True),
    "norm": lambda h: h.norm(dim=1, keepdim=True),
    "hypot": lambda h: torch.hypot(h, 2 * h),
    "celu": lambda h: F.celu(h, 0.7),
    "hardsigmoid": F.hardsigmoid,
    "cosine_similarity": lambda h: F.cosine_similarity(h, h + 0.3, dim=1)[:, None] * h,
    "no_grad": quietly,
}


def read(line: Line) -> str:
    return str(Recurrent(Cell(line), state=(4,), input_size=3).equations)


def test_writes_of_nothing_are_none() -> None:
    def line(h: Tensor) -> Tensor:
        y = torch.ones(len(h), 4, dtype=h.dtype)
        y[:, 4:] = 0.5
        return y * h

    assert "table" not in read(line)


@pytest.mark.parametrize("name", LINES)
def test_slopes_are_torchs(name: str) -> None:
    read(LINES[name])


def test_other_slopes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof sees them."""
    monkeypatch.setitem(WORDS, "fmax", lambda reads, a, b: reads.r.pointwise("maximum", a, b))
    with pytest.raises(TypeError, match="is read wrongly: the gradient of h"):
        read(LINES["fmax"])


def test_what_has_no_gradient_at_all_is_read() -> None:
    class Reservoir(Cell):
        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x, h)

    assert "stop_gradient(" in Recurrent(Reservoir(torch.sin), state=(4,), input_size=3).equations


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (lambda h: h // 0.4, "torch itself has no gradients of it"),
        (lambda h: _through_detached(h), "a view of what was written in place"),
    ],
)
def test_refused(line: Any, what: str) -> None:
    with pytest.raises(TypeError, match=what):
        read(line)


def _through_detached(h: Tensor) -> Tensor:
    y = h * 2
    y.detach().mul_(1.5)
    return y
