"""Cells that can't be read: each is refused with what it does, and its line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnncc.torch import Recurrent
from rnncc.torch.reading.words import WORDS

Step = Callable[[Any, Tensor, Tensor], Any]


class Cell(nn.Module):
    """A step around one line."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step, self.count, self.kept = step, 0, torch.zeros(1)
        self.w = nn.Parameter(torch.randn(3, 4) * 0.3)
        self.wide = nn.Parameter(torch.randn(4).double(), requires_grad=False)
        self.register_buffer("seen", torch.zeros(4))
        self.norm = nn.BatchNorm1d(4)
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor) -> Any:
        return self.step(self, x @ self.w, h)


class Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        return v.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.cumsum(-1)


class OfTwo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        return a * b

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad


def branch(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    if h.sum() > 0:
        return h
    return z


def many(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    return h if z.shape[0] > 100 else torch.tanh(z + h)


def even(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    return h if z.size(0) % 2 == 0 else torch.tanh(z + h)


def large(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    return h if z.numel() > 5000 else torch.tanh(z + h)


def counts(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    return h if len(z) == 64 else torch.tanh(z + h)


def rows(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    return z - h.mean(0)


def size(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    return z / h.shape[0] + h


def chosen(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    return z + h[:, h.argmax(1)].diagonal().unsqueeze(1)


def drawn(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    return h + z * torch.randn_like(z)


def counted(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    cell.count += 1
    return h + z * cell.count


def remembered(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    cell.kept = h
    return h + z


def buffered(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    cell.seen.mul_(0.9)
    return h + z + cell.seen


def written(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    h.add_(z)
    return h * 1


def mixed(cell: Any, z: Tensor, h: Tensor) -> Any:
    return Mixed.apply(z + h)


def of_two(cell: Any, z: Tensor, h: Tensor) -> Any:
    return OfTwo.apply(z, h)


def normed(cell: Any, z: Tensor, h: Tensor) -> Any:
    return cell.norm(z + h)


def convolved(cell: Any, z: Tensor, h: Tensor) -> Any:
    return cell.conv((z + h).unsqueeze(1)).squeeze(1)


def cast(cell: Any, z: Tensor, h: Tensor) -> Any:
    return (z.double() + h).float()


def sorted_(cell: Any, z: Tensor, h: Tensor) -> Any:
    return torch.sort(z + h, -1)[0]


def flipped(cell: Any, z: Tensor, h: Tensor) -> Any:
    return z + h.flip(0)


def transposed(cell: Any, z: Tensor, h: Tensor) -> Any:
    return (z + h).reshape(2, -1, 2)[0].repeat(1, 2)


def complex_(cell: Any, z: Tensor, h: Tensor) -> Any:
    return torch.fft.fft(z + h).real


def evaluated(cell: Any, z: Tensor, h: Tensor) -> Any:
    return z + (2 * h if cell.training else h)


def shaped(cell: Any, z: Tensor, h: Tensor) -> Any:
    return z, torch.cat([h, z], -1)


def other_tree(cell: Any, z: Tensor, h: Tensor) -> Any:
    return {"h": z + h, "c": h}


def other_dtype(cell: Any, z: Tensor, h: Tensor) -> Any:
    return z + h, (z + h).double()


def nothing(cell: Any, z: Tensor, h: Tensor) -> Any:
    return "done", z + h


def wide(cell: Any, z: Tensor, h: Tensor) -> Any:
    return torch.where(z > 0, z + h, h * cell.wide.sum())


def fails(cell: Any, z: Tensor, h: Tensor) -> Any:
    return z.view(-1, 5) + h


def behind_lerp(cell: Any, z: Tensor, h: Tensor) -> Any:
    """torch can't tell the shape of a lerp by a tensor for rows without a number."""
    h = torch.lerp(z, h, torch.sigmoid(cell.w[0]))
    return torch.tanh(h) if z.shape[0] > 100 else h


# The step, what the message says, a part of its line.
CASES: list[tuple[Step, str, str]] = [
    (many, "how many rows there are (rows > 100)", "return h if z.shape[0] > 100"),
    (even, "how many rows there are", "return h if z.size(0) % 2 == 0"),
    (counts, "something else with 64 rows than with 2", ""),
    (behind_lerp, "something else with 128 rows than with 2", ""),
    (large, "how many rows there are", "return h if z.numel() > 5000"),
    (branch, "_local_scalar_dense", "if h.sum() > 0"),
    (rows, "aten.mean", "z - h.mean(0)"),
    (size, "computes with the batch size", "z / h.shape[0]"),
    (chosen, "aten.argmax", "h.argmax(1)"),
    (drawn, "draws random numbers", "torch.randn_like(z)"),
    (counted, "Cell.count", ""),
    (remembered, "Cell.kept", ""),
    (buffered, "in place", "cell.seen.mul_(0.9)"),
    (written, "in place", "h.add_(z)"),
    (mixed, "Mixed.apply", "element by element"),
    (of_two, "OfTwo.apply", "gradients of several"),
    (normed, "in place", "cell.norm(z + h)"),
    (convolved, "aten.convolution", "cell.conv("),
    (cast, "torch.float64", "z.double()"),
    (sorted_, "aten.sort", "torch.sort(z + h, -1)"),
    (flipped, "aten.flip", "h.flip(0)"),
    (transposed, "batch", "reshape(2, -1, 2)"),
    (complex_, "aten._", "torch.fft.fft"),
    (evaluated, "in training", "dropout alone"),
    (shaped, "goes in as [7, 4]", "comes out as [7, 8]"),
    (other_tree, "returns {'h': [7, 4], 'c': [7, 4]}", "expected (output, state)"),
    (other_dtype, "goes in as [7, 4] of torch.float32", "of torch.float64"),
    (nothing, "its output is str", ""),
    (wide, "torch.float64", "cell.wide.sum()"),
    (fails, "fails with RuntimeError", "z.view(-1, 5)"),
]


@pytest.mark.parametrize(("step", "what", "line"), CASES, ids=[c[0].__name__ for c in CASES])
def test_refused(step: Step, what: str, line: str) -> None:
    cell = Cell(step)
    before = {n: v for n, v in vars(cell).items() if n not in ("count", "kept")}
    training = cell.training
    with pytest.raises(TypeError) as caught:
        Recurrent(cell, state=(4,))(torch.randn(2, 5, 3))
    message = str(caught.value)
    assert what in message and line in message, message
    assert message.startswith("Cell can't be")
    assert {n: vars(cell)[n] for n in before} == before and cell.training == training


def plain(cell: Any, z: Tensor, h: Tensor) -> Tensor:
    return torch.tanh(z + h)


def test_what_is_no_sequence_is_said() -> None:
    layer = Recurrent(Cell(plain), state=(4,))
    with pytest.raises(TypeError, match=r"reads \[batch, time, ...\]"):
        layer(torch.randn(2, 3))
    with pytest.raises(ValueError, match=r"expected \[batch, time, ...\]"):
        layer(torch.randn(3))
    layer(torch.randn(2, 5, 3))
    with pytest.raises(ValueError, match=r"expected \[batch, time, features=3\]"):
        layer(torch.randn(2, 3))


def test_what_is_no_cell_is_said() -> None:
    with pytest.raises(TypeError, match="isn't a step"):
        Recurrent(nn.Linear(3, 4))
    with pytest.raises(TypeError, match="what is its state"):
        Recurrent(Cell(plain))(torch.randn(2, 5, 3))
    with pytest.raises(TypeError, match="initial_state of Cell"):
        h = torch.zeros(2, 4)
        Recurrent(Cell(plain), state=(4,))(torch.randn(2, 5, 3), initial_state=(h, h))
    with pytest.raises(ValueError, match="contexts of Cell"):
        Recurrent(Cell(plain), state=(4,), contexts=["memory"])(torch.randn(2, 5, 3))
    with pytest.raises(TypeError, match="units"):
        Recurrent(Cell(plain), state=(4,), units=7)


def test_what_is_read_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof sees one wrong word, in outputs or in gradients alone."""
    x = torch.randn(2, 5, 3)
    for wrong in (
        lambda reads, v: reads.r.pointwise("sin", v),
        lambda reads, v: reads.r.stop_gradient(reads.r.pointwise("tanh", v)),
    ):
        monkeypatch.setitem(WORDS, "tanh", wrong)
        with pytest.raises(TypeError, match=r"is read wrongly.*by its own code"):
            Recurrent(Cell(plain), state=(4,))(x)


def test_another_device_is_said() -> None:
    cell = Cell(plain)
    cell.w = nn.Parameter(torch.empty(3, 4, device="meta"))
    with pytest.raises(TypeError, match="meta"):
        Recurrent(cell, state=(4,))(torch.randn(2, 5, 3))


def test_a_state_that_could_be_two_things_is_refused() -> None:
    class Either(nn.Module):
        def forward(self, x: Tensor, state: Any = None) -> Any:
            if isinstance(state, tuple):
                state = state[0] + state[1]
            h = x if state is None else x + state
            return h, h

    with pytest.raises(TypeError, match="what is its state"):
        Recurrent(Either())(torch.randn(2, 5, 3))
    assert Recurrent(Either(), state=(3,))(torch.randn(2, 5, 3)).shape == (2, 3)


def test_parameters_that_are_views_are_read_where_they_are() -> None:
    whole = torch.randn(4, 9)
    cell = Cell(plain)
    cell.w = nn.Parameter(whole[:, 2:5].t())
    x = torch.randn(2, 5, 3)
    y = Recurrent(cell, state=(4,), return_sequences=True)(x)
    h = torch.zeros(2, 4)
    for t in range(5):
        h = cell(x[:, t], h)
    torch.testing.assert_close(y[:, -1], h)


def test_writes_in_place_are_followed() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 8) * 0.4)

        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            z = x @ self.w
            z[:, :4].add_(h)
            z[:, 2:6] *= 0.5
            out = torch.zeros(x.shape[0], 4)
            out[:, 1] = z[:, 2]
            out[:, 2:] = z[:, 4:6]
            z.view(-1, 2, 4)[:, 1].mul_(3)
            return out + z[:, 4:] * z[:, :4]

    torch.manual_seed(0)
    cell = InPlace()
    x = torch.randn(2, 5, 3, requires_grad=True)
    y = Recurrent(cell, state=(4,), return_sequences=True)(x)
    h, own = torch.zeros(2, 4), []
    for t in range(5):
        h = cell(x[:, t], h)
        own.append(h)
    theirs = torch.stack(own, 1)
    torch.testing.assert_close(y, theirs)
    ours = torch.autograd.grad(y.square().sum(), [x, cell.w])
    torch.testing.assert_close(ours, torch.autograd.grad(theirs.square().sum(), [x, cell.w]))
