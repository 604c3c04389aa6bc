"""A recurrence over the rows of a PackedSequence: padded, run with their lengths as the mask, and
packed again, all in one call.

    rows of step 0 | rows of step 1 | …   <->   [time, batch, ...], the longest sequence first

In that order a step's rows lie one after another in both, so moving them is a copy a step, or one
of all steps that have as many rows. Padding and packing are linear, each is the other's transpose:
so is what becomes of cotangents and gradients.

Non-Goals: graphs and other devices, which keep torch's own functions (`stack`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ctypes import memmove, memset
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnncc.runtime.common.memory_pool import address_of
from rnncc.torch.base import Steps
from rnncc.torch.paths import new
from rnncc.torch.recipe import DTYPES
from rnncc.torch.recurrence import Recurrence

_SHARED_BYTES = 2**18  # of a copy, from which a second thread is worth waking
_DTYPES = {torch_dtype: np.dtype(name) for name, torch_dtype in DTYPES.items()}


class PackedRows:
    """Where the rows of PackedSequences with these batch sizes stand.

    lengths: of each sequence, [batch]; None where they are alike."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.steps, self.batch = len(sizes), sizes[0]
        self.count = sum(sizes)
        there = np.arange(self.batch)[:, None] < np.array(sizes)
        self.lengths = None if there.all() else there.sum(axis=1)
        self._counted = {d: there.astype(d) for d in _DTYPES.values()}
        self._pieces = [*_pieces(sizes)]
        ends = [(t * self.batch + n, self.batch - n) for t, n in enumerate(sizes)]
        self._gaps = [(at, count) for at, count in ends if count]

    def counted(self, dtype: np.dtype) -> Steps:
        """Which steps count, and which are shown, the same; nothing where all do."""
        return () if self.lengths is None else (self._counted[dtype],) * 2

    def pad(self, data: Tensor, *, clear: bool = False) -> Tensor:
        """[rows, ...] -> [time, batch, ...] with zeros, or anything, where there is no row."""
        data = data.resolve_neg().contiguous()
        rest = data.shape[1:]
        padded = new((self.steps, self.batch, *rest), _DTYPES[data.dtype], data.dtype)
        width = rest.numel() * data.itemsize
        there, here = padded.data_ptr(), data.data_ptr()
        for at, first, count in self._pieces:
            if count * width < _SHARED_BYTES:
                memmove(there + at * width, here + first * width, count * width)
            else:  # by all of torch's threads
                rows = padded.view(-1, *rest)[at : at + count]
                rows.copy_(data[first : first + count])
        for at, count in self._gaps if clear else ():
            memset(there + at * width, 0, count * width)
        return padded

    def pack(self, padded: Tensor) -> Tensor:
        """[time, batch, ...] -> [rows, ...], in the memory of what is given if that is contiguous:
        rows of steps that no sequence has left yet are there already."""
        array = padded.detach().contiguous().numpy()
        flat = array.reshape(-1, *array.shape[2:])
        width = flat[:1].nbytes
        there = address_of(flat)
        for at, first, count in self._pieces:
            if at != first:  # it moves towards the begin, so the pieces before aren't harmed
                memmove(there + first * width, there + at * width, count * width)
        return torch.from_numpy(flat[: self.count])


def _pieces(sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Rows that lie one after another in both orders: (the first one padded, packed, how many).

    >>> list(_pieces([3, 3, 2, 1]))
    [(0, 0, 6), (6, 6, 2), (9, 8, 1)]
    """
    batch, first, t = sizes[0], 0, 0
    while t < len(sizes):
        end = t + 1
        while sizes[t] == batch and end < len(sizes) and sizes[end] == batch:
            end += 1
        count = sizes[t] * (end - t)
        yield t * batch, first, count
        first, t = first + count, end


@lru_cache(64)
def _rows(sizes: tuple[int, ...]) -> PackedRows:
    return PackedRows(sizes)


def rows_of(batch_sizes: Tensor) -> PackedRows:
    """The rows of a PackedSequence."""
    return _rows(tuple(batch_sizes.tolist()))


@torch.compiler.disable(reason="how many rows a PackedSequence has is known when it runs")
def uncompiled(call: Callable[..., Any], *given: Any) -> Any:
    """A call with a PackedSequence that a compiler meets: it runs as it is, beside its graphs, as
    torch.nn's do. Unsupported, from torch.compile, with fullgraph=True."""
    return call(*given)


@dataclass(slots=True)
class _Saved:
    """What a call leaves: that of the padded call, whose tensors are others."""

    inner: Any


class OverRows:
    """A recurrence, [time, batch, ...], over packed rows: what `ops.run` takes for a recurrence.

    Its tensors are the recurrence's with rows, and no mask."""

    in_graphs = False  # its key is that of the recurrence

    def __init__(self, recurrence: Recurrence, rows: PackedRows) -> None:
        self._recurrence, self._rows = recurrence, rows
        self._masked = rows.lengths is not None
        self.cell, self.draws, self.key = recurrence.cell, recurrence.draws, recurrence.key
        self.torch_dtype = recurrence.torch_dtype

    def forward(
        self,
        tensors: Sequence[Tensor],
        seed: Tensor | None,
        training: bool,
        given: bool,
        masked: bool,
        save: bool,
    ) -> tuple[list[Tensor], Any]:
        """See `Recurrence.forward`."""
        recurrence, rows = self._recurrence, self._rows
        data, *rest = tensors
        inner = [rows.pad(data), *self._lengths(), *rest]
        counted = rows.counted(recurrence.dtype)
        results, saved = recurrence.forward(
            inner, seed, training, given, self._masked, save, counted
        )
        return [rows.pack(results[0]), *results[1:]], _Saved(saved) if save else None

    def backward(
        self, saved: _Saved, cotangents: Sequence[Tensor | None], wanted: Sequence[bool]
    ) -> list[Tensor | None]:
        """See `Recurrence.backward`."""
        handed = [self._padded(cotangents[0]), *cotangents[1:]]
        grads = self._recurrence.backward(saved.inner, handed, self._with_lengths(wanted, False))
        return self._packed(grads)

    def second(
        self,
        saved: _Saved,
        cotangents: Sequence[Tensor | None],
        d_grads: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """See `Recurrence.second`."""
        handed = [self._padded(cotangents[0]), *cotangents[1:]]
        padded_d_grads = self._with_lengths([self._padded(d_grads[0]), *d_grads[1:]], None)
        asked = self._with_lengths(wanted, False)
        back, grads = self._recurrence.second(saved.inner, handed, padded_d_grads, asked)
        return [self._pack(back[0]), *back[1:]], self._packed(grads)

    # ---- tensors ------------------------------------------------------------------------------

    def _lengths(self) -> list[Tensor]:
        lengths = self._rows.lengths  # kept as an array: transforms would wrap a tensor
        return [] if lengths is None else [torch.from_numpy(lengths)]

    def _with_lengths(self, values: Sequence[Any], value: Any) -> list[Any]:
        """One of each tensor of the padded call, out of one of each of ours."""
        return [values[0], *([value] if self._masked else []), *values[1:]]

    def _padded(self, d: Tensor | None) -> Tensor | None:
        return None if d is None else self._rows.pad(d, clear=True)

    def _pack(self, padded: Tensor | None) -> Tensor | None:
        return None if padded is None else self._rows.pack(padded)

    def _packed(self, grads: list[Tensor | None]) -> list[Tensor | None]:
        return [self._pack(grads[0]), *grads[1 + self._masked :]]
