"""Tensors -> NumPy's views of them, and which tensors have none.

Non-Goals: devices, dtypes (`base`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PLAIN = (Tensor, torch.nn.Parameter)


def array_of(t: Tensor) -> np.ndarray:
    """The tensor's own memory; of one whose signs torch has yet to turn, a copy."""
    if t.is_neg():
        t = t.resolve_neg()
    array: np.ndarray = (t.detach() if t.requires_grad else t).numpy()
    return array


def unreadable(t: Tensor) -> str:
    """What a tensor of the CPU is whose numbers don't lie in memory; empty of others."""
    if type(t).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return f"{type(t).__name__}, which stands for other tensors"
    return "" if t.layout is torch.strided else f"{t.layout}, not dense"
