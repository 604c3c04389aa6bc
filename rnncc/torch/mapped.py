"""Nodes under torch.func.vmap: many calls side by side.

    fold        rows of all of them are rows of one call: kernels run once. Where weights are alike,
                and no gradient of them is wanted, which would be one for all
    each_alone  one after another: what they find is put side by side

Non-Goals: which nodes there are (`derivatives`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Dims = Sequence[int | None]


def _axes(kind: Any) -> list[int | None]:
    """Of each of a call's tensors, the axis of its rows; None of a mask's, and [] of weights'."""
    recurrence = kind.recurrence
    recipe, cell = recurrence.recipe, recurrence.cell
    timed = 1 if recipe.time_major else 0
    axes: list[int | None] = [timed if n in recurrence.timed else 0 for n in cell.arguments]
    axes += [None] * kind.masked
    axes += [1 if recipe.stacked else 0] * (len(recurrence.states) * kind.given)
    return axes


def _result_axes(kind: Any) -> list[int]:
    recurrence = kind.recurrence
    recipe = recurrence.recipe
    out = 1 if recipe.return_sequences and recipe.time_major else 0
    states = [1 if recipe.stacked else 0] * len(recurrence.states)
    return [*[out] * len(recurrence.outputs), *states]


def folds(kind: Any, dims: Dims, wanted: Sequence[bool] = ()) -> bool:
    """Whether rows alone are mapped over, and looked at. dims: of a call's tensors."""
    rows = len(_axes(kind))
    mapped = any(d is not None for d in dims[:rows])
    return mapped and not any(d is not None for d in dims[rows:]) and not any(wanted[rows:])


def fold(
    kind: Any, size: int, dims: Dims, tensors: Sequence[Any], *, results: bool = False
) -> list[Any]:
    """Tensors, or cotangents of results, whose rows are those of all calls."""
    axes = _result_axes(kind) if results else _axes(kind)
    found = []
    for number, (t, dim) in enumerate(zip(tensors, dims, strict=True)):
        if number >= len(axes) or t is None:
            found.append(t)
            continue
        axis = axes[number]
        if axis is None:  # lengths [batch], a mask [batch, time], with resets [2, batch, time]
            axis = 1 if t.ndim - (dim is not None) == 3 else 0
        if dim is None:
            side_by_side = t.unsqueeze(axis).expand(*t.shape[:axis], size, *t.shape[axis:])
        else:
            side_by_side = t.movedim(dim, axis)
        found.append(side_by_side.flatten(axis, axis + 1))
    return found


def unfold(
    kind: Any, size: int, found: Sequence[Tensor], wanted: Sequence[bool] | None = None
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Results, or gradients of tensors wanted, of each call, and the axis they stand along."""
    axes: list[Any] = [*_result_axes(kind)]
    if wanted is not None:
        axes = [a for a, w in zip(_axes(kind), wanted, strict=False) if w]
    pairs = zip(found, axes, strict=True)
    return tuple([t.unflatten(a, (size, t.shape[a] // size)) for t, a in pairs]), tuple(axes)


def each_alone(
    function: Any, size: int, dims: Any, given: tuple[Any, ...]
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """What a node returns for each call, side by side along the first axis."""
    leaves, tree = pytree.tree_flatten(given)
    flat = pytree.tree_leaves(dims)
    calls = []
    for i in range(size):
        own = [t if d is None else t.select(d, i) for t, d in zip(leaves, flat, strict=True)]
        calls.append(function.apply(*pytree.tree_unflatten(own, tree)))
    columns = zip(*calls, strict=True)
    found = tuple([torch.stack(column) for column in columns])
    return found, (0,) * len(found)
