"""The rows of a PackedSequence <-> a padded sequence: where each row stands, and moving them there.

torch's own two functions copy step by step, and what they take is a fifth of a small layer's time;
here all rows move at once. Both are linear, each is the other's gradient, of any order.

Non-Goals: graphs and other devices, which keep torch's (`stack`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnncc.runtime import memory
from rnncc.torch.recipe import array_of


@lru_cache(64)
def _numbers(steps: int, batch: int, batch_first: bool) -> np.ndarray:
    """Of all rows, by step and sequence: which one of the padded sequence it is."""
    numbers = np.arange(steps * batch)
    return numbers.reshape(batch, steps).T if batch_first else numbers.reshape(steps, batch)


class Rows:
    """Where the rows of one PackedSequence stand in [batch, time, ...] or [time, batch, ...].

    lengths: of each sequence, [batch]."""

    def __init__(self, batch_sizes: Tensor, batch_first: bool) -> None:
        sizes = batch_sizes.numpy()
        steps, batch = len(sizes), int(sizes[0])
        self._there = np.arange(batch) < sizes[:, None]
        self.lengths = torch.from_numpy(self._there.sum(axis=0))
        self.lead = (batch, steps) if batch_first else (steps, batch)
        self._numbers = _numbers(steps, batch, batch_first)
        self.places = self._numbers[self._there]

    def pad(self, data: Tensor) -> Tensor:
        """Padded, with anything where there is no row: kernels that have the lengths don't look."""
        if data.requires_grad and torch.is_grad_enabled():
            return _Pad.apply(data, self, False)  # type: ignore[no-any-return]
        return self._padded(data, clear=False)

    def pack(self, padded: Tensor) -> Tensor:
        """The rows of a padded sequence."""
        return _Pack.apply(padded, self)  # type: ignore[no-any-return]

    def _padded(self, data: Tensor, *, clear: bool) -> Tensor:
        array = array_of(data)
        whole = memory.POOL.array((*self.lead, *array.shape[1:]), array.dtype)
        flat = whole.reshape(-1, *array.shape[1:])
        if clear:
            flat[self._numbers[~self._there]] = 0
        flat[self.places] = array
        return torch.from_numpy(whole)

    def _packed(self, padded: Tensor) -> Tensor:
        array = array_of(padded)
        flat = array.reshape(-1, *array.shape[2:])
        rows = memory.POOL.array((len(self.places), *flat.shape[1:]), flat.dtype)
        np.take(flat, self.places, axis=0, out=rows, mode="clip")
        return torch.from_numpy(rows)


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, data: Tensor, rows: Rows, clear: bool) -> Tensor:
        ctx.rows = rows
        return rows._padded(data, clear=clear)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Any:
        return _Pack.apply(d, ctx.rows), None, None


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        return rows._packed(padded)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Any:
        return _Pad.apply(d, ctx.rows, True), None
