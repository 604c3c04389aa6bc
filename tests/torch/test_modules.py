"""Layers of modules (`rnncc.torch.modules`): what is done with them, as with any layer."""

from __future__ import annotations

import copy
import io
import os
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from rnncc.torch import Recurrent


class Residual(nn.Module):
    """A cell with everything plain: a module inside, a buffer, dropout."""

    def __init__(self, width: int, units: int, rate: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.Linear(width + units, units)
        self.scale = nn.Parameter(torch.ones(units))
        self.drop = nn.Dropout(rate)
        self.register_buffer("mean", torch.randn(units))
        self.units, self.slope = units, 0.5

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        z = self.drop(torch.tanh(self.inner(torch.cat([x, h], -1))))
        h = self.slope * h + self.scale * (z - self.mean)
        return 2 * h, h


def loop(cell: Any, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    ys = []
    for t in range(x.shape[1]):
        y, h = cell(x[:, t], h)
        ys.append(y)
    return torch.stack(ys, 1), h


@pytest.fixture
def cell() -> Residual:
    torch.manual_seed(0)
    return Residual(3, 4).double()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


ZEROS = torch.zeros(2, 4, dtype=torch.float64)


def test_parameters_are_the_cells_own(cell: Residual, x: Tensor) -> None:
    layer = Recurrent(cell, return_sequences=True)
    assert isinstance(layer, Recurrent) and layer.cell is cell
    assert {id(p) for p in layer.parameters()} == {id(p) for p in cell.parameters()}
    assert [*layer.state_dict()] == [f"cell.{n}" for n in cell.state_dict()]
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        optimizer.step()
        torch.testing.assert_close(layer(x), loop(cell, x, ZEROS)[0])
    other = Recurrent(Residual(3, 4).double(), return_sequences=True)
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(x), layer(x))


def test_what_is_frozen_has_no_gradient(cell: Residual, x: Tensor) -> None:
    layer = Recurrent(cell)
    cell.inner.requires_grad_(False)
    layer(x).sum().backward()
    assert cell.inner.weight.grad is None and cell.scale.grad is not None


def test_another_parameter_in_its_place_counts(cell: Residual, x: Tensor) -> None:
    layer = Recurrent(cell, return_sequences=True)
    layer(x)
    cell.scale = nn.Parameter(torch.full((4,), 3.0, dtype=torch.float64))
    cell.mean.add_(1)
    torch.testing.assert_close(layer(x), loop(cell, x, ZEROS)[0])
    cell.slope = -0.25  # a number that the forward has read: it is read again
    torch.testing.assert_close(layer(x), loop(cell, x, ZEROS)[0])


@pytest.mark.parametrize("when", ["before", "behind"])
def test_parametrizations_are_torchs(cell: Residual, x: Tensor, when: str) -> None:
    class Positive(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return nn.functional.softplus(w)

    layer = Recurrent(cell, return_sequences=True)
    if when == "behind":
        layer(x)
    parametrize.register_parametrization(cell, "scale", Positive())
    parametrizations.weight_norm(cell.inner, "weight")
    y, (z, _) = layer(x), loop(cell, x, ZEROS)
    torch.testing.assert_close(y, z)
    parameters = [*cell.parameters()]
    ours = torch.autograd.grad(y.square().sum(), parameters)
    theirs = torch.autograd.grad(z.square().sum(), parameters)
    torch.testing.assert_close(ours, theirs)


def test_copies_and_pickles(cell: Residual, x: Tensor) -> None:
    layer = Recurrent(cell, return_sequences=True)
    fresh = copy.deepcopy(layer)
    y = layer(x)
    for same in (fresh, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert same.cell is not cell
        torch.testing.assert_close(same(x), y)
        same(x).sum().backward()
        assert same.cell.scale.grad is not None and cell.scale.grad is None
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(x), y)


def test_other_dtypes_need_no_other_reading(cell: Residual, x: Tensor) -> None:
    layer = Recurrent(cell, return_sequences=True)
    y = layer(x)
    equations = layer.equations
    torch.testing.assert_close(layer.float()(x.float()), y.float())
    assert layer.equations == equations


def test_gradients_are_right_twice(cell: Residual, x: Tensor) -> None:
    layer = Recurrent(cell)
    layer(x)
    given = x[:, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(layer, (given,))
    assert torch.autograd.gradgradcheck(layer, (given,))


def test_compiled_and_exported(cell: Residual, x: Tensor) -> None:
    layer = Recurrent(cell, return_sequences=True, return_state=True)
    with pytest.raises(RuntimeError, match="call the layer once"):
        torch.compile(copy.deepcopy(layer), backend="eager", fullgraph=True)(x)
    y, h = layer(x)
    for backend in ("eager", "aot_eager"):
        compiled = torch.compile(layer, backend=backend, fullgraph=True)
        torch.testing.assert_close(compiled(x), (y, h))
        compiled(x)[0].sum().backward()
        assert cell.scale.grad is not None
    exported = torch.export.export(layer, (x,))
    torch.testing.assert_close(exported.module()(x), (y, h))


class Named(NamedTuple):
    h: Tensor
    c: Tensor


class Twice(nn.Module):
    """A state of names, two outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 4))

    def initial_state(self, batch_size: int) -> Named:
        return Named(torch.zeros(batch_size, 4), torch.ones(batch_size, 4))

    def forward(self, x: Tensor, state: Named) -> tuple[dict[str, Tensor], Named]:
        c = 0.5 * state.c + x @ self.w
        h = torch.tanh(c) + 0.1 * state.h
        return {"h": h, "double": 2 * c}, Named(h, c)


def test_trees_go_in_and_out_as_the_cell_has_them() -> None:
    layer = Recurrent(Twice(), return_sequences=True, return_state=True)
    x = torch.randn(2, 5, 3)
    y, state = layer(x)
    assert y["h"].shape == y["double"].shape == (2, 5, 4) and isinstance(state, Named)
    torch.testing.assert_close(state.c, y["double"][:, -1] / 2)
    later = layer(x, initial_state=state)[1]
    longer = layer(torch.cat([x, x], 1))[1]
    torch.testing.assert_close(later, longer)


def test_masks_lengths_and_directions(cell: Residual, x: Tensor) -> None:
    layer = Recurrent(cell, return_sequences=True, return_state=True)
    lengths = torch.tensor([5, 2])
    y, h = layer(x, lengths=lengths)
    for row, n in enumerate(lengths.tolist()):
        own, last = loop(cell, x[row : row + 1, :n], ZEROS[:1])
        torch.testing.assert_close(y[row : row + 1, :n], own)
        torch.testing.assert_close(h[row : row + 1], last)
    back = Recurrent(cell, go_backwards=True, time_major=True, return_sequences=True)
    own, _ = loop(cell, x.flip(1), ZEROS)
    torch.testing.assert_close(back(x.transpose(0, 1)), own.transpose(0, 1))


def test_a_state_of_tensors_is_what_sequences_start_from(cell: Residual, x: Tensor) -> None:
    start = torch.randn(4, dtype=torch.float64)
    layer = Recurrent(cell, state=start, return_sequences=True)
    torch.testing.assert_close(layer(x), loop(cell, x, start.expand(2, 4))[0])


def test_dropout_draws_in_training_alone(x: Tensor) -> None:
    layer = Recurrent(Residual(3, 4, rate=0.5).double(), return_sequences=True)
    first, second = layer(x), layer(x)
    assert "drop(" in layer.equations
    assert not torch.equal(first, second)
    torch.testing.assert_close(layer.eval()(x), loop(layer.cell, x, ZEROS)[0])


def test_torchs_own_cells_are_read_where_they_are_made() -> None:
    for cell in (nn.LSTMCell(3, 4), nn.GRUCell(3, 4, bias=False), nn.RNNCell(3, 4)):
        assert "cell:" in Recurrent(cell).equations
    with pytest.raises(RuntimeError, match="call the layer once"):
        _ = Recurrent(Residual(3, 4)).equations
    assert "cell: Residual" in Recurrent(Residual(3, 4), input_size=3).equations


def test_the_cells_own_mode_says_whether_it_drops(x: Tensor) -> None:
    cell = Residual(3, 4, rate=0.5).double()
    layer = Recurrent(cell, return_sequences=True)
    drawn = layer(x)
    cell.eval()  # the layer still says that it trains
    torch.testing.assert_close(layer(x), loop(cell, x, ZEROS)[0])
    cell.drop.train()
    assert not torch.equal(layer(x), drawn)


class ByName(nn.Module):
    """A step that gives its states in another order than it was given them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3 + 4, 4)
        self.parts = nn.ModuleList([nn.Dropout(0.5), nn.Dropout(0.5)])

    def forward(self, x: Tensor, s: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        h = torch.tanh(self.inner(torch.cat([self.parts[0](x), self.parts[1](s["h"])], -1)))
        return h, {"c": 0.5 * s["c"] + h, "h": h}


def test_dicts_say_nothing_by_their_order(x: Tensor) -> None:
    cell = ByName().double().eval()
    layer = Recurrent(cell, state={"h": 4, "c": 4}, return_sequences=True, return_state=True)
    s = {"h": ZEROS, "c": ZEROS + 1}
    y, last = layer(x, initial_state={"c": s["c"], "h": s["h"]})
    for t in range(5):
        expected, s = cell(x[:, t], s)
    torch.testing.assert_close(y[:, -1], expected)
    torch.testing.assert_close((last["h"], last["c"]), (s["h"], s["c"]))
    cell.parts[0].train()
    with pytest.raises(RuntimeError, match="dropout in train mode and in eval mode"):
        layer(x)


def test_narrow_floats_around_it(cell: Residual, x: Tensor) -> None:
    """Autocast casts nothing inside of a cell that is read, results alone; weights may be stored
    narrow, for calls."""
    cell, x = cell.float(), x.float()
    layer = Recurrent(cell, return_sequences=True)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x)
        assert torch.equal(layer(x.bfloat16().float()), layer(x.bfloat16()))
    y = layer(x)
    assert rounded.dtype is torch.bfloat16 and torch.equal(rounded, y.bfloat16())
    with pytest.raises(TypeError, match="bfloat16, the module"):
        layer(x.bfloat16())
    with pytest.raises(TypeError, match="rnncc has kernels for"):
        Recurrent(copy.deepcopy(cell).bfloat16())(x.bfloat16())
    narrow = Recurrent(cell, return_sequences=True, weights="int8")
    assert torch.equal(narrow(x), y)  # where gradients are asked for
    with torch.no_grad():
        small = narrow(x)
        assert 0 < (small - y).abs().max() < 0.05 and "weights of int8" in narrow.plan()
        cell.inner.weight.add_(1)
        assert (narrow(x) - loop(cell, x, ZEROS.float())[0]).abs().max() < 0.05


def test_nothing_of_it(cell: Residual, x: Tensor) -> None:
    layer = Recurrent(cell, return_sequences=True, return_state=True)
    y, h = layer(x[:0])
    assert y.shape == (0, 5, 4) and h.shape == (0, 4)
    start = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    none, last = layer(x[:, :0], initial_state=start)
    assert none.shape == (2, 0, 4) and torch.equal(last, start)
    (y.sum() + last.sum()).backward()
    assert torch.equal(start.grad, torch.ones_like(start))  # type: ignore[arg-type]
    assert not cell.scale.grad.any()  # type: ignore[union-attr]


def test_tensors_without_numbers_are_said(x: Tensor) -> None:
    with torch.device("meta"):
        layer = Recurrent(nn.GRUCell(3, 4), dtype=torch.float64)
    with pytest.raises(TypeError, match="weight_ih is on meta"):
        layer(x)
    layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert layer(x).shape == (2, 4)
    lazy = Residual(3, 4).double()
    lazy.inner = nn.LazyLinear(4, dtype=torch.float64)
    with pytest.raises(TypeError, match="weight is not initialized"):
        Recurrent(lazy, input_size=3)(x)


@pytest.mark.parametrize("name", ["num_layers", "bidirectional", "dropout", "batch_first"])
def test_keywords_of_torchs_layers_are_told_where_they_are(name: str) -> None:
    with pytest.raises(TypeError, match=f"has no {name}: .*(RecurrentStack|time_major)"):
        Recurrent(Residual(3, 4), **{name: 1})


class Attends(nn.Module):
    """Both ways in which torch lays out its heads: with weights, of [batch * heads, ...]; without,
    as one operation. Inside, the batch is an axis behind that of the places."""

    def __init__(self, weights: bool, first: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 6)
        self.heads = nn.MultiheadAttention(6, 2, batch_first=first)
        self.memory = nn.Parameter(torch.randn(5, 6))
        self.weights, self.first = weights, first

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        q = torch.stack([self.inner(x), h], 1)
        memory = torch.cat([q, self.memory.expand(x.shape[0], 5, 6)], 1)
        if not self.first:
            q, memory = q.transpose(0, 1), memory.transpose(0, 1)
        y, _ = self.heads(q, memory, memory, need_weights=self.weights)
        return torch.tanh((y if self.first else y.transpose(0, 1)).sum(1))


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_attention_of_torchs(weights: bool, first: bool) -> None:
    cell = Attends(weights, first).double()
    layer = Recurrent(cell, state=6, input_size=3)  # outputs and gradients are proven here
    assert "softmax(" in layer.equations


def _worker(rank: int, world: int, file: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=world)
    x = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    cell = Residual(3, 4)
    train(nn.parallel.DistributedDataParallel(Recurrent(cell, return_sequences=True)), x[rank::2])
    if not rank:
        torch.save(cell.state_dict(), f"{file}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads, where they outlive the interpreter, abort the process


class Looped(nn.Module):
    """torch's own loop of a cell."""

    def __init__(self, cell: Residual) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        return loop(self.cell, x, torch.zeros(x.shape[0], 4))[0]


def train(layer: nn.Module, x: Tensor) -> None:
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        optimizer.step()


def test_trained_by_two_processes(tmp_path: Path) -> None:
    file = str(tmp_path / "store")
    torch.multiprocessing.spawn(_worker, (2, file), nprocs=2)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    cell = Residual(3, 4)
    x = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(1))
    train(Looped(cell), x)
    torch.testing.assert_close(torch.load(f"{file}.pt"), cell.state_dict())
