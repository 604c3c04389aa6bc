"""Numbers narrower than kernels': what autocast hands on, and modules of bfloat16 or float16.

Kernels read and sum float32. So tensors are widened on the way in, weights among them, and results
rounded to what the caller expects, once: at each call, by torch's own casts, which gradients pass.

    under autocast          results in autocast's dtype (of a module of float64: as they are)
    weights of bfloat16     arguments and states must be bfloat16, too; results are

Non-Goals: weights that kernels themselves read in two bytes or one (`weights=` of a layer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from rnncc.artifact.cell import CellDescription
from rnncc.torch.recipe import WIDER


class WithKernels(Protocol):
    @property
    def cell(self) -> CellDescription: ...
    @property
    def torch_dtype(self) -> torch.dtype: ...


def widened(
    recurrence: WithKernels, tensors: Sequence[Tensor], given: bool, masked: bool
) -> tuple[Sequence[Tensor], torch.dtype | None]:
    """A call's tensors as kernels read them, and what its results become; None: what they are.

    TypeError for arguments and states that aren't of the weights' narrow dtype."""
    inner = recurrence.torch_dtype
    kind = tensors[0].device.type
    if torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled(kind):
        to = torch.get_autocast_dtype(kind) if inner is torch.float32 else None
    else:
        to = tensors[-1].dtype
        if to not in WIDER:
            return tensors, None
        _refuse_others(recurrence.cell, tensors, to, given, masked)
    return [t.to(inner) if _is_narrower(t, inner) else t for t in tensors], to


def _is_narrower(t: Tensor, inner: torch.dtype) -> bool:
    return t.is_floating_point() and t.itemsize < inner.itemsize


def _refuse_others(
    cell: CellDescription, tensors: Sequence[Tensor], own: torch.dtype, given: bool, masked: bool
) -> None:
    names = [*cell.arguments, *(["mask"] if masked else [])]
    names += [s.name for s in cell.states] if given else []
    for name, t in zip(names, tensors, strict=False):
        if name != "mask" and t.dtype is not own:
            raise TypeError(
                f"{name} of {cell.name} is {t.dtype}, the module's weights are {own}: make them "
                "agree"
            )
