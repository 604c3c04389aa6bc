"""Traces of modules: by a layer of NumPy arrays that has the module's weights, as tensors again.

    module, its tensors ─layer_of→ Layer ─trace→ CellTrace of tensors, on the module's device

Values are computed on the CPU, and have no gradients.

Non-Goals: what a trace is (`rnncc.Layer.trace`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.validation import an
from rnncc.runtime.traces.traces import CellTrace
from rnncc.torch.recipe import Recipe
from rnncc.torch.steps import padded_alike, row_of


def layer_of(recipe: Recipe, number: int, weights: Sequence[Tensor]) -> Layer:
    """One direction of a recurrence, with these weights and constants, in order."""
    cls: Any = recipe.layer_class
    layer: Layer = cls.__new__(cls)
    keywords = {**dict(recipe.sizes), **dict(recipe.options), **dict(recipe.functions)}
    layer._start(
        (),
        {
            **keywords,
            **dict(recipe.rates),
            "dtype": recipe.dtype,
            "return_sequences": True,
            "go_backwards": recipe.directions[number],
            "time_major": recipe.time_major,
            "zero_output_for_mask": recipe.zeros,
            "precision": recipe.precision,
            "weights": recipe.storage or None,
            "unroll": recipe.unroll if recipe.unroll > 1 else False,
        },
    )
    cell = layer.cell
    names = [a.name for a in (*cell.weights, *cell.constants)]
    arrays = {n: as_numpy(t) for n, t in zip(names, weights, strict=True)}
    layer.build_with(dict(recipe.sizes), arrays)
    return layer


def traced_direction(
    recipe: Recipe,
    number: int,
    weights: Sequence[Tensor],
    inputs: Any,
    *,
    training: bool,
    seed: int | None = None,
    **given: Any,
) -> tuple[CellTrace, dict[str, Tensor]]:
    """What a direction names, and its outputs by their own names: tensors like the inputs.

    seed: what dropout draws from. given: initial_state, mask, lengths, resets as tensors."""
    layer = layer_of(recipe, number, weights)
    arrays = {n: as_numpy(v) for n, v in given.items() if v is not None}
    found = layer.trace(as_numpy(inputs), training=training, seed=seed, **arrays)
    like = next(t for t in weights_and(inputs, weights))
    turned = recipe.in_place and recipe.directions[number]
    axis = 0 if recipe.time_major else 1
    tensors = {}
    for name, array in found.items():
        own = np.flip(array, axis) if turned else array
        t = torch.from_numpy(np.ascontiguousarray(own))
        tensors[name] = t.to(like.device, like.dtype if t.is_floating_point() else None)
    outputs = {output: tensors[name] for output, name in layer._traced().outputs}
    return CellTrace(layer.cell.name, tensors, found.left_out), outputs


def traced_layers(module: Any, input: Any, hx: Any, lengths: Any, resets: Any) -> CellTrace:
    """Of layers in place of torch.nn's, one above the other (`stack`). Raises as a call of them."""
    module._renew()
    name = type(module).__name__
    if isinstance(input, PackedSequence):
        if lengths is not None:
            raise TypeError(f"{name}: lengths of a PackedSequence are its own")
        if isinstance(resets, PackedSequence):
            resets = padded_alike(resets, input)
        input, lengths = pad_packed_sequence(input, batch_first=module.batch_first)
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}: input is {an(type(input).__name__)}: give a torch tensor")
    if input.dim() not in (2, 3):
        raise ValueError(f"{name}: input is 2-D or 3-D, not {input.dim()}-D")
    alone, axis = input.dim() == 2, 0 if module.batch_first else 1
    x = input.unsqueeze(axis) if alone else input
    module.check_input(x, None)
    states = module._states(hx, x.size(axis), alone)
    if alone:
        lengths, resets = row_of(lengths, 0), row_of(resets, 1)
    ways = 2 if module.bidirectional else 1
    named: dict[str, Tensor] = {}
    for layer, recurrence in enumerate(module._recurrences):
        ends: list[Tensor] = []
        for way in range(ways):
            row = layer * ways + way
            found, outputs = traced_direction(
                recurrence.recipe,
                way,
                module._weights(row, 1),
                x,
                training=module.training,
                initial_state=None if states is None else tuple(s[row] for s in states),
                lengths=lengths,
                resets=resets,
            )
            ends += outputs.values()
            prefix = f"l{layer}{'_reverse' * way}." if len(module._recurrences) * ways > 1 else ""
            named |= {prefix + n: t.squeeze(axis) if alone else t for n, t in found.items()}
        x = torch.cat(ends, -1)
        if module.dropout and module.training and layer < module.num_layers - 1:
            x = module._dropped(x)
    return CellTrace(name, named)


def weights_and(inputs: Any, weights: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of a call: its inputs first."""
    if isinstance(inputs, Mapping):
        inputs = [*inputs.values()]
    own = [inputs] if isinstance(inputs, Tensor) else [*inputs]
    return [*own, *weights]


def as_numpy(given: Any) -> Any:
    """Tensors as arrays, in whatever they are held. Numbers of two bytes are widened."""
    if isinstance(given, Mapping):
        return {n: as_numpy(v) for n, v in given.items()}
    if isinstance(given, tuple | list):
        return type(given)(as_numpy(v) for v in given)
    if isinstance(given, Tensor):
        t = given.detach().cpu()
        return t.float().numpy() if t.dtype in (torch.bfloat16, torch.float16) else t.numpy()
    return given


def seed_for(draws: bool) -> int | None:
    """What a call in training would draw from now, of torch's generator."""
    return int(torch.randint(2**63 - 1, ())) if draws else None
