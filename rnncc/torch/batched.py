"""A backward under vmap, as `is_grads_batched=True` and vectorized Jacobians ask for one -> one
backward a cotangent.

torch hands batched tensors in, which have no memory of their own. They are taken apart, and what
was found is put side by side and handed back as such.

Non-Goals: vmap over a forward, which `ops` refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_functorch = torch._C._functorch
Backward = Callable[[Sequence[Tensor | None]], Sequence[Tensor | None]]


def is_batched(cotangents: Sequence[Tensor | None]) -> bool:
    """Whether any of them stands for several."""
    return any(d is not None and _kind(d) for d in cotangents)


def _kind(d: Tensor) -> str:
    """Which of torch's two vmaps it comes from: the one of torch.autograd, or torch.func's."""
    if _functorch.is_batchedtensor(d):
        return "func"
    return "autograd" if _functorch.is_legacy_batchedtensor(d) else ""


def one_by_one(backward: Backward, cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
    """What `backward` returns, for each of the cotangents that stand side by side."""
    first = next(d for d in cotangents if d is not None and _kind(d))
    if _kind(first) == "func":
        level = _functorch.maybe_get_level(first)
        count = _apart_func(first, level).shape[0]
        apart, together = _apart_func, _functorch._add_batch_dim
    else:
        level = torch._C._vmapmode_increment_nesting() - 1  # ours is the one before
        torch._C._vmapmode_decrement_nesting()
        count = _apart(first, level).shape[0]
        apart, together = _apart, torch._add_batch_dim
    stacked = [apart(d, level) if d is not None and _kind(d) else None for d in cotangents]
    gradients = []
    for i in range(count):
        pairs = zip(cotangents, stacked, strict=True)
        gradients.append(backward([d if all_ is None else all_[i] for d, all_ in pairs]))
    columns = zip(*gradients, strict=True)
    return [
        None if column[0] is None else together(torch.stack(column), 0, level) for column in columns
    ]


def _apart(d: Tensor, level: int) -> Tensor:
    """[count, ...]."""
    unwrapped: Tensor = torch._remove_batch_dim(d, level, 0, 0)
    return unwrapped


def _apart_func(d: Tensor, level: int) -> Tensor:
    """[count, ...]."""
    if _functorch.maybe_get_level(d) != level:
        raise NotImplementedError(
            "cotangents of several vmaps at once: map over one axis of them, and reshape"
        )
    unwrapped: Tensor = _functorch.get_unwrapped(d).movedim(_functorch.maybe_get_bdim(d), 0)
    return unwrapped
