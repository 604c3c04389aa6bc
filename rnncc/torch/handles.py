"""What a call saved, as a tensor of one number: graphs and transforms carry nothing but tensors.

What was saved lives for as long as torch keeps the tensor's memory.

Non-Goals: what to do where it is gone (`ops`, `derivatives`).
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor


class _Handle(np.ndarray):
    """One number, and what it stands for."""

    saved: Any


_handles: weakref.WeakValueDictionary[int, _Handle] = weakref.WeakValueDictionary()
_numbers = itertools.count(1)
NOTHING = torch.zeros(1, dtype=torch.int64)  # the handle of what was not saved


def handle_of(saved: Any) -> Tensor:
    """A handle, [1] of int64."""
    if saved is None:
        return NOTHING
    number = next(_numbers)
    array = np.array([number], np.int64).view(_Handle)
    array.saved = saved
    _handles[number] = array
    return torch.from_numpy(array)


def saved_by(handle: Tensor) -> Any:
    """What a call saved; None where it is gone."""
    entry = _handles.get(int(handle))
    return None if entry is None else entry.saved
