"""Ten cells as their users write them in torch, from the papers; none of them knows of rnncc.

Non-Goals: what is asked of them (`tests.torch.modules.test_user_cells`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tests.support.torch_cells.attention_decoder import AttnDecoderCell
from tests.support.torch_cells.cfc import CfCCell
from tests.support.torch_cells.gru_d import GRUDCell
from tests.support.torch_cells.layer_norm_lstm import LayerNormLSTMCell
from tests.support.torch_cells.lif import LIFCell
from tests.support.torch_cells.lmu import LMUCell
from tests.support.torch_cells.ltc import LTCCell
from tests.support.torch_cells.mingru import MinGRUCell
from tests.support.torch_cells.mlstm import MLSTMCell
from tests.support.torch_cells.mogrifier import MogrifierLSTMCell

Inputs = Callable[[int, int, int, torch.dtype], Any]


@dataclass(frozen=True)
class UserCell:
    """make: (features, units) -> module. inputs: (batch, time, features, dtype) -> of a layer.
    step: (inputs, t) -> the arguments of forward but the state. zeros: (batch, units, features,
    dtype) -> the state it begins with. keywords: (features, units) -> of Recurrent. state_alone:
    forward gives nothing else. matrix: it has a matrix memory."""

    make: Callable[[int, int], torch.nn.Module]
    zeros: Callable[[int, int, int, torch.dtype], Any]
    inputs: Inputs = lambda b, t, f, d: torch.randn(b, t, f, dtype=d)
    step: Callable[[Any, int], tuple[Any, ...]] = lambda x, t: (x[:, t],)
    keywords: Callable[[int, int], Mapping[str, Any]] = lambda f, u: {}
    state_alone: bool = False
    matrix: bool = False


def _one(b: int, u: int, f: int, d: torch.dtype) -> Any:
    return torch.zeros(b, u, dtype=d)


def _two(b: int, u: int, f: int, d: torch.dtype) -> Any:
    return torch.zeros(b, u, dtype=d), torch.zeros(b, u, dtype=d)


def _gaps(b: int, t: int, f: int, d: torch.dtype) -> Any:
    return torch.randn(b, t, f, dtype=d), torch.rand(b, t, dtype=d)


def _remembered(b: int, t: int, f: int, d: torch.dtype) -> Any:
    return torch.randn(b, t, f, dtype=d), torch.randn(b, 9, 20, dtype=d)


def _with_missing(b: int, t: int, f: int, d: torch.dtype) -> Any:
    mask = (torch.rand(b, t, f) > 0.4).to(d)
    return {"x": torch.randn(b, t, f, dtype=d), "mask": mask, "delta": torch.rand(b, t, f, dtype=d)}


CELLS: dict[str, UserCell] = {
    "ltc": UserCell(LTCCell, _one),
    "cfc": UserCell(CfCCell, _one, _gaps, lambda x, t: (x[0][:, t], x[1][:, t])),
    "lif": UserCell(LIFCell, lambda b, u, f, d: (*_two(b, u, f, d), _one(b, u, f, d))),
    "lmu": UserCell(LMUCell, lambda b, u, f, d: (_one(b, u, f, d), _one(b, 12, f, d))),
    "mingru": UserCell(MinGRUCell, _one, state_alone=True),
    "mlstm": UserCell(
        MLSTMCell,
        lambda b, u, f, d: MLSTMCell(1, u).get_initial_state(b, dtype=d),
        matrix=True,
    ),
    "mogrifier": UserCell(MogrifierLSTMCell, _two, state_alone=True),
    "layer_norm_lstm": UserCell(LayerNormLSTMCell, _two),
    "attention_decoder": UserCell(
        AttnDecoderCell,
        _one,
        _remembered,
        lambda x, t: (x[0][:, t], x[1]),
        lambda f, u: {"contexts": ("encoder_outputs",)},
    ),
    "gru_d": UserCell(
        GRUDCell,
        lambda b, u, f, d: {"h": _one(b, u, f, d), "x_last": _one(b, f, u, d)},
        _with_missing,
        lambda x, t: ({n: v[:, t] for n, v in x.items()},),
        lambda f, u: {"state": {"h": u, "x_last": f}},
    ),
}
