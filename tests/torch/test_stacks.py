"""RecurrentStack of any cells, against torch's own layers of the same cells."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnncc.torch import RecurrentStack, convert


def stacked(bidirectional: bool, batch_first: bool) -> tuple[nn.GRU, RecurrentStack]:
    """torch's GRU of two layers, and cells with its parameters."""
    torch.manual_seed(0)
    ways = 2 if bidirectional else 1
    whole = nn.GRU(3, 4, 2, batch_first=batch_first, bidirectional=bidirectional).double()
    cells = [nn.GRUCell(3 if n < ways else 4 * ways, 4).double() for n in range(2 * ways)]
    for cell, names in zip(cells, whole._all_weights, strict=True):
        for own, name in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), names, strict=True):
            getattr(cell, own).data.copy_(getattr(whole, name))
    return whole, RecurrentStack(cells, bidirectional=bidirectional, batch_first=batch_first)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_as_torchs(bidirectional: bool, batch_first: bool) -> None:
    whole, stack = stacked(bidirectional, batch_first)
    x = torch.randn(5, 6, 3, dtype=torch.float64)
    y, states = stack(x)
    theirs, last = whole(x)
    torch.testing.assert_close(y, theirs)
    torch.testing.assert_close(torch.stack(states), last)
    torch.testing.assert_close(stack(x, states)[0], whole(x, last)[0])
    y.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(stack.layers[0].cell.weight_ih.grad, whole.weight_ih_l0.grad)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed(bidirectional: bool) -> None:
    whole, stack = stacked(bidirectional, True)
    x = torch.randn(3, 6, 3, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor([4, 6, 1]), True, enforce_sorted=False)
    y, states = stack(packed)
    theirs, last = whole(packed)
    torch.testing.assert_close(pad_packed_sequence(y, True), pad_packed_sequence(theirs, True))
    torch.testing.assert_close(torch.stack(states), last)


def test_masks_and_resets_reach_all_cells() -> None:
    """A row of two episodes is those alone; steps that don't count aren't there."""
    _, stack = stacked(True, True)
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    resets = torch.zeros(2, 6, dtype=torch.bool)
    resets[0, 4] = True
    y, _ = stack(x, resets=resets)
    apart = torch.cat([stack(x[:1, :4])[0], stack(x[:1, 4:])[0]], 1)
    torch.testing.assert_close(y, torch.cat([apart, stack(x[1:])[0]]))
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 2] = False
    kept = torch.tensor([0, 1, 3, 4, 5])
    torch.testing.assert_close(stack(x, mask=mask)[0][1:, kept], stack(x[1:, kept])[0])
    packed = pack_padded_sequence(x, torch.tensor([3, 6]), True, enforce_sorted=False)
    resets[1, 1] = True
    alike = pack_padded_sequence(resets, torch.tensor([3, 6]), True, enforce_sorted=False)
    padded = stack(x, lengths=torch.tensor([3, 6]), resets=resets)[0]
    for given in (resets, alike):
        torch.testing.assert_close(
            pad_packed_sequence(stack(packed, resets=given)[0], True)[0][1], padded[1]
        )
    with pytest.raises(ValueError, match="pack alike"):
        stack(packed, resets=pack_padded_sequence(resets, torch.tensor([6, 6]), True))
    with pytest.raises(TypeError, match="are its own"):
        stack(packed, mask=mask)


def test_cells_of_equations_and_dropout() -> None:
    stack = RecurrentStack(["lstm", "gru"], units=4, dropout=0.5)
    x = torch.randn(2, 5, 3)
    first, second = stack(x)[0], stack(x)[0]
    assert first.shape == (2, 5, 4) and not torch.equal(first, second)
    stack.eval()
    y, ((h, c), last) = stack(x)
    torch.testing.assert_close(y, stack(x)[0])
    assert h.shape == c.shape == last.shape == (2, 4)


def test_refused() -> None:
    cell = nn.GRUCell(3, 4)
    with pytest.raises(ValueError, match="runs back"):
        RecurrentStack([cell], bidirectional=True)
    with pytest.raises(ValueError, match="given twice"):
        RecurrentStack([cell, cell])
    with pytest.raises(TypeError, match="has no go_backwards"):
        RecurrentStack([cell], go_backwards=True)
    with pytest.raises(ValueError, match="the stack 1 cells"):
        RecurrentStack([cell])(torch.randn(2, 5, 3), [None, None])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_traces(bidirectional: bool, batch_first: bool) -> None:
    """Of all cells, in time's order, named as the layers of torch.nn name their weights."""
    whole, stack = stacked(bidirectional, batch_first)
    x = torch.randn((3, 6, 3) if batch_first else (6, 3, 3), dtype=torch.float64)
    start = [torch.randn(3, 4, dtype=torch.float64) for _ in stack.layers]
    expected = convert(whole).trace(x, torch.stack(start))
    traced = stack.trace(x, start)
    ends = ["", "_reverse"] if bidirectional else [""]
    names = [f"l{layer}{end}.h" for layer in range(2) for end in ends]
    assert [n for n in traced if n.endswith(".h")] == names
    for name in names:
        torch.testing.assert_close(traced[name], expected[name])
    for given in ({"lengths": torch.tensor([4, 6, 1])}, {"mask": torch.rand(3, 6) < 0.6}):
        y, _ = stack(x, start, **given)
        traced = stack.trace(x, start, **given)
        assert torch.equal(torch.cat([traced[f"l1{end}.h"] for end in ends], -1), y)


def test_traces_of_packed_rows_draws_and_names() -> None:
    _, stack = stacked(True, True)
    x, lengths = torch.randn(3, 6, 3, dtype=torch.float64), torch.tensor([4, 6, 1])
    packed = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
    traced, padded = stack.trace(packed), stack.trace(x, lengths=lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(traced["l0.h"][row, :length], padded["l0.h"][row, :length])
    with pytest.raises(TypeError, match="its own"):
        stack.trace(packed, lengths=lengths)
    with pytest.raises(ValueError, match="the stack 4 cells"):
        stack.trace(x, [None])
    draws = RecurrentStack(["lstm", "gru"], units=4, dropout=0.5)
    inputs = torch.randn(2, 5, 3)
    draws(inputs)
    torch.manual_seed(3)
    y, _ = draws(inputs)
    torch.manual_seed(3)
    traced = draws.trace(inputs)
    assert torch.equal(traced["l1.h"], y) and {"l0.f", "l1.r"} <= {*traced}
    assert {"f", "h"} <= {*RecurrentStack(["lstm"], units=4).trace(inputs)}
