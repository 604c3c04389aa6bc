"""Tensors -> NumPy's views of them, and which tensors have none.

Non-Goals: devices, dtypes (`base`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

PLAIN = (Tensor, torch.nn.Parameter)
_KINDS = {torch.float32: "<f4", torch.float64: "<f8", torch.int64: "<i8", torch.bool: "|b1"}


class _Memory:
    """What NumPy looks at; it keeps the tensor's memory, not its graph."""

    __slots__ = ("__array_interface__", "_owner")

    def __init__(self, t: Tensor, kind: str) -> None:
        size = t.itemsize
        self._owner = t.detach() if t.requires_grad else t
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "data": (t.data_ptr(), False),
            "shape": tuple(t.shape),
            "typestr": kind,
            "strides": tuple([s * size for s in t.stride()]),
        }


def array_of(t: Tensor) -> np.ndarray:
    """The tensor's own memory; of one whose signs torch has yet to turn, a copy.

    `Tensor.numpy` would do, but it takes the tensor's owner the right to give its memory back
    (`untyped_storage().resize_`), as fully_shard does between two uses of a weight."""
    if t.is_neg():
        t = t.resolve_neg()
    kind = _KINDS.get(t.dtype)
    plain = kind is not None and t.is_cpu and t.layout is torch.strided and t.numel()
    if plain and type(t).__torch_dispatch__ is Tensor.__torch_dispatch__:
        return np.asarray(_Memory(t, kind))  # type: ignore[arg-type]
    array: np.ndarray = (t.detach() if t.requires_grad else t).numpy()
    return array


def is_recorded() -> bool:
    """Whether torch writes down every operation (`make_fx`, `torch.func.linearize`), though tensors
    are plain: what kernels write would not be in the graph."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def unreadable(t: Tensor) -> str:
    """What a tensor of the CPU is whose numbers don't lie in memory; empty of others."""
    if type(t).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return f"{type(t).__name__}, which stands for other tensors"
    return "" if t.layout is torch.strided else f"{t.layout}, not dense"
