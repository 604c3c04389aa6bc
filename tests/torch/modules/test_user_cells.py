"""Ten cells as people write them (`torch_cells`), read without a change, against torch's loop."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from rnncc.torch import Recurrent
from tests.support.torch_cells import CELLS, UserCell

FEATURES, UNITS, BATCH, STEPS = 5, 8, 3, 7


def loop(own: UserCell, cell: Any, inputs: Any, state: Any, steps: int) -> tuple[Any, Any]:
    """torch's own: (outputs [batch, time, ...], the last state)."""
    ys = []
    for t in range(steps):
        x, *more = own.step(inputs, t)
        returned = cell(x, state, *more)
        if own.state_alone:
            state, y = returned, pytree.tree_leaves(returned)[0]
        else:
            y, state = returned
        ys.append(y)
    return torch.stack(ys, 1), state


def results(
    run: Any, cell: torch.nn.Module, inputs: Any, state: Any, cotangents: list[torch.Tensor] | None
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """(outputs and last states, gradients of inputs, states and parameters)."""
    leaves = [t.detach().requires_grad_() for t in pytree.tree_leaves((inputs, state))]
    inputs, state = pytree.tree_unflatten(leaves, pytree.tree_flatten((inputs, state))[1])
    found = pytree.tree_leaves(run(inputs, state))
    if cotangents is None:
        cotangents = [torch.ones_like(t) for t in found]
    total = sum((c * t).sum() for c, t in zip(cotangents, found, strict=True))
    asked = [*leaves, *cell.parameters()]
    grads = torch.autograd.grad(total, asked, allow_unused=True)
    zeros = [torch.zeros_like(t) if g is None else g for t, g in zip(asked, grads, strict=True)]
    return [t.detach() for t in found], zeros


def both(name: str, dtype: torch.dtype, features: int, units: int, batch: int, steps: int) -> Any:
    """(the cell's case, its module, its layer, inputs, a state)."""
    torch.manual_seed(len(name))
    own = CELLS[name]
    cell = own.make(features, units).to(dtype).eval()
    layer = Recurrent(
        cell, return_sequences=True, return_state=True, **own.keywords(features, units)
    ).eval()
    inputs = own.inputs(batch, steps, features, dtype)
    zeros = own.zeros(batch, units, features, dtype)
    return own, cell, layer, inputs, pytree.tree_map(lambda t: t + 0.1 * torch.randn_like(t), zeros)


def compare(name: str, dtype: torch.dtype) -> Any:
    """(outputs and last states, gradients) of ours, and of torch's own loop."""
    own, cell, layer, inputs, state = both(name, dtype, FEATURES, UNITS, BATCH, STEPS)
    ours = results(lambda x, s: layer(x, initial_state=s), cell, inputs, state, None)
    theirs = results(lambda x, s: loop(own, cell, x, s, STEPS), cell, inputs, state, None)
    return ours, theirs


@pytest.mark.parametrize("name", CELLS)
def test_float64_is_what_torch_computes(name: str) -> None:
    ours, theirs = compare(name, torch.float64)
    for mine, own in zip([*ours[0], *ours[1]], [*theirs[0], *theirs[1]], strict=True):
        assert (mine - own).abs().max() <= 1e-10 * max(1, float(own.abs().max()))


@pytest.mark.parametrize("name", CELLS)
def test_it_starts_as_the_cell_does(name: str) -> None:
    own, cell, layer, inputs, _ = both(name, torch.float64, FEATURES, UNITS, BATCH, STEPS)
    zeros = own.zeros(BATCH, UNITS, FEATURES, torch.float64)
    ours, theirs = layer(inputs), loop(own, cell, inputs, zeros, STEPS)
    for mine, other in zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


def relative(found: Any, true: Any) -> list[float]:
    """Root mean square errors, as parts of what is right; none of what is nothing but rounding."""
    errors = []
    pairs = list(zip([*found[0], *found[1]], [*true[0], *true[1]], strict=True))
    largest = max(float(t.abs().max()) for _, t in pairs)
    for got, want in pairs:
        scale = float(want.square().mean().sqrt())
        lost = float((got - want).square().mean().sqrt())
        errors.append(lost / scale if scale > 1e-9 * largest else 0.0)
    return errors


@pytest.mark.parametrize("name", CELLS)
def test_float32_is_as_true_as_torch(name: str) -> None:
    """Errors against float64 of outputs and gradients, the geometric mean of draws and arrays."""
    ratios = []
    own, cell, layer, _, _ = both(name, torch.float32, 28, 32, 8, 20)
    exact = copy.deepcopy(cell).double()
    for seed in range(4):
        torch.manual_seed(seed)
        inputs = own.inputs(8, 20, 28, torch.float32)
        state = own.zeros(8, 32, 28, torch.float32)
        wide = pytree.tree_map(lambda t: t.double(), (inputs, state))
        true = results(lambda x, s: loop(own, exact, x, s, 20), exact, *wide, None)
        mine = results(lambda x, s: layer(x, initial_state=s), cell, inputs, state, None)
        others = results(lambda x, s: loop(own, cell, x, s, 20), cell, inputs, state, None)
        for a, b in zip(relative(mine, true), relative(others, true), strict=True):
            # A spike that float64 has not is no matter of rounding.
            if 0 < a < 1e-3 and 0 < b < 1e-3:
                ratios.append(a / b)
    assert len(ratios) > 4
    assert math.exp(sum(map(math.log, ratios)) / len(ratios)) <= 1.5
