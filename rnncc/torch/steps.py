"""mask=, lengths=, resets= of a module -> one tensor that goes with a call, in graphs, too.

    mask [batch, time] | lengths [batch] | both [2, batch, time]: which count, before which rows
                                           start anew

Non-Goals: what they mean, and whether their numbers are such (`runtime.api.masking`): a graph's are
known when it runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from rnncc.runtime.api.masking import WANTED
from rnncc.runtime.api.validation import an


def steps_of(mask: Any, lengths: Any, resets: Any, time: int) -> Tensor | None:
    """What says something of a call's steps; None where nobody does."""
    if mask is not None and lengths is not None:
        raise TypeError("mask and lengths are both given: give one of them")
    given: Tensor | None = None
    if mask is not None:
        if not isinstance(mask, Tensor):
            raise TypeError(f"mask is {an(type(mask).__name__)}: give a torch tensor")
        if mask.ndim != 2:
            raise ValueError(f"mask has shape {list(mask.shape)}, expected [batch, time]")
        given = mask
    elif lengths is not None:
        given = torch.as_tensor(lengths)
        if given.ndim != 1:
            raise ValueError(f"lengths has shape {list(given.shape)}, expected [batch]")
    return given if resets is None else with_resets(given, resets, time)


def row_of(given: Any, axes: int) -> Any:
    """What says something of one sequence, as of a batch of one."""
    if isinstance(given, int):
        given = torch.as_tensor(given)
    return given.unsqueeze(0) if isinstance(given, Tensor) and given.ndim == axes else given


def with_resets(steps: Tensor | None, resets: Any, time: int) -> Tensor:
    """A mask, or lengths, together with resets."""
    resets = resets_of(resets)
    if steps is None:
        steps = torch.ones_like(resets, dtype=torch.bool)
    elif steps.ndim == 1:
        if steps.is_floating_point() or steps.dtype is torch.bool:
            raise TypeError(f"lengths holds {_dtype(steps)} values: give ints in 0 ... {time}")
        own = torch.arange(resets.shape[1], device=steps.device)
        steps = own < steps[:, None]
    elif steps.is_floating_point() or steps.is_complex():
        raise TypeError(f"mask holds {_dtype(steps)} values: give bools, True where a step counts")
    if steps.shape != resets.shape:
        shape = [*steps.shape[:1], time]
        raise ValueError(f"resets has shape {list(resets.shape)}, expected [batch, time], {shape}")
    return torch.stack([steps.to(resets.device).to(resets.dtype), resets])


def resets_of(resets: Any) -> Tensor:
    """resets as a tensor of two axes. TypeError, ValueError for what can't be any."""
    if isinstance(resets, PackedSequence):
        raise TypeError("resets is a PackedSequence, the input is none: give [batch, time]")
    if not isinstance(resets, Tensor):
        try:
            resets = torch.as_tensor(resets)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"resets can't become a tensor ({error}): give {WANTED}") from None
    if resets.requires_grad:
        raise TypeError(f"resets asks for a gradient, but has none: give {WANTED}, or detach it")
    if resets.is_complex():
        raise TypeError(f"resets holds {_dtype(resets)} values: give {WANTED}")
    if resets.ndim != 2:
        raise ValueError(f"resets has shape {list(resets.shape)}, expected [batch, time]")
    return resets


def packed_steps(lengths: Tensor, resets: Any, packed: PackedSequence) -> Tensor:
    """Lengths of a PackedSequence's rows, in its own order, together with resets: packed alike, or
    [batch, time] in the order of the user's rows."""
    if isinstance(resets, PackedSequence):
        _refuse_other_packing(resets, packed)
        own, _ = torch._VF._pad_packed_sequence(  # type: ignore[attr-defined]
            resets.data, packed.batch_sizes, True, 0.0, len(packed.batch_sizes)
        )
    else:
        own = resets_of(resets)
        batch, time = int(packed.batch_sizes[0]), len(packed.batch_sizes)
        if own.shape != (batch, time):
            raise ValueError(
                f"resets has shape {list(own.shape)}, expected [{batch=}, {time=}]: the longest row"
            )
        if packed.sorted_indices is not None:
            own = own.index_select(0, packed.sorted_indices.to(own.device))
    return with_resets(lengths, own, own.shape[1])


def padded_alike(resets: PackedSequence, packed: PackedSequence) -> Tensor:
    """[batch, time], in the order of the user's rows."""
    _refuse_other_packing(resets, packed)
    return pad_packed_sequence(resets, batch_first=True)[0]


def _refuse_other_packing(resets: PackedSequence, packed: PackedSequence) -> None:
    orders = [p.sorted_indices for p in (resets, packed)]
    alike = torch.equal(resets.batch_sizes, packed.batch_sizes)
    if None in orders:
        alike = alike and orders[0] is orders[1]
    else:
        alike = alike and torch.equal(*orders)
    if not alike:
        raise ValueError("resets is a PackedSequence of other lengths than the input: pack alike")
    if resets.data.ndim != 1:
        raise ValueError(f"resets has rows of shape {list(resets.data.shape[1:])}, expected []")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
