"""Gradients of gradients over tensors of a GPU: what `gradients.second` does with NumPy's views.

Non-Goals: autograd (`ops`). Nothing here has run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rnncc.common.result_roles import cotangent_name
from rnncc.torch.on_device import OnDevice, SavedOnDevice, repeated_rows, run
from rnncc.torch.recipe import DirectionGradients


def second(
    device: OnDevice,
    saved: SavedOnDevice,
    cotangents: Sequence[Tensor | None],
    d_grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """See `Recurrence.second`."""
    of = device.of
    back = [saved.like.new_zeros(shape) for shape in saved.known.results]
    grads: list[Tensor | None] = [None] * len(saved.shapes)
    asked = [d is not None for d in d_grads]
    for number, way in enumerate(saved.ways):
        everything = of.choose(number, saved.given, saved.masked, asked)
        choice = of.choose(number, saved.given, saved.masked, wanted)
        d = _as_run(device, number, saved, everything, d_grads)
        own_cotangents = device.cotangents(number, saved, cotangents)
        gradients = way.second(device.binding.second_engine, own_cotangents, d, choice.asked)
        device.collect(number, saved, choice, gradients, grads)
        for name, target in zip(of.results, back, strict=True):
            if cotangent_name(name) in gradients:
                _put_back(device, number, saved, name, target, gradients[cotangent_name(name)])
    return list(back), grads


def _as_run(
    device: OnDevice,
    number: int,
    saved: SavedOnDevice,
    choice: DirectionGradients,
    given: Sequence[Tensor | None],
) -> dict[str, Tensor]:
    """Cotangents of one direction's gradients, by parameter, of the steps that ran."""
    of, way, order = device.of, saved.ways[number], device.of.orders[number]
    d: dict[str, Tensor] = {}
    for name, at in choice.tensors.items():
        tensor = given[at]
        assert tensor is not None
        if name in of.timed:
            tensor = run(order, tensor)[:, : way.steps]
        elif name in choice.states and of.recipe.stacked:
            tensor = tensor[number]
        d[name] = tensor.contiguous()
    choice.asked.hand_back(d, saved.known.batch, repeated_rows)
    return d


def _put_back(
    device: OnDevice,
    number: int,
    saved: SavedOnDevice,
    name: str,
    target: Tensor,
    found: Tensor,
) -> None:
    """The gradient of a result's cotangent into its direction's part of `target`."""
    of, way, order = device.of, saved.ways[number], device.of.orders[number]
    if name not in of.outputs:
        (target[number] if of.recipe.stacked else target).copy_(found)
        return
    if len(of.orders) > 1:
        target = target.chunk(len(of.orders), -1)[number]
    if not of.recipe.return_sequences:
        target.copy_(found[:, -1])
        return
    if way.masks is not None and way.steps < way.masks.time:  # every step that was folded
        missing = way.masks.time - way.steps
        last = found[:, -1:].expand(-1, missing, *found.shape[2:])
        found = torch.cat([found, torch.zeros_like(last) if way.masks.zeros else last], 1)
    target.copy_(device.given(found, order))
