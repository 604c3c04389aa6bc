"""state_dicts of torch: modules and their own outputs decide, and the way back to them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import rnncc
from rnncc.files import FileError
from rnncc.models.readers.building import LoadWarning
from rnncc.models.readers.torch_state import torch_state_dict

X = np.random.default_rng(2).standard_normal((3, 20, 5)).astype("f")


class Net(torch.nn.Module):
    """Modules one after another; of recurrent ones the outputs."""

    def __init__(self, **parts: torch.nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.children():
            x = part(x)
            x = x[0] if isinstance(x, tuple) else x
        return x


class Last(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, -1]


def random_statistics(net: torch.nn.Module) -> None:
    for name, buffer in net.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape) + 0.5)


class Swapped(torch.nn.BatchNorm1d):
    """On the features of [batch, time, features]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.swapaxes(1, 2)).swapaxes(1, 2)


N = torch.nn
B = {"batch_first": True}
CASES: dict[str, tuple[Any, str]] = {
    "lstm": (lambda: Net(a=N.LSTM(5, 4, 3, **B), head=N.Linear(4, 2)), "lstm(5, 4, 3) linear"),
    "both ways": (
        lambda: Net(a=N.GRU(5, 3, 2, bidirectional=True, **B), b=N.Linear(6, 2)),
        "gru(5, 3, 2, bidirectional=True)@a linear(6, 2)@b",
    ),
    "projected": (lambda: Net(a=N.LSTM(5, 4, 2, proj_size=3, **B)), "lstm(proj_size=3)"),
    "no biases": (
        lambda: Net(a=N.LSTM(5, 4, bias=False, **B), b=N.Linear(4, 2, bias=False)),
        "lstm(bias=False) linear",
    ),
    "relu": (
        lambda: Net(a=N.RNN(5, 4, nonlinearity="relu", **B), c=N.Linear(4, 3), b=N.LeakyReLU()),
        'rnn(nonlinearity="relu") linear leaky_relu',
    ),
    "around": (
        lambda: Net(
            n=Swapped(5),
            a=N.RNN(5, 4, **B),
            m=N.LayerNorm(4),
            p=N.PReLU(),
            d=N.Linear(4, 6),
            g=N.GELU(approximate="tanh"),
            e=Last(),
            f=N.Linear(6, 3),
            s=N.Softmax(-1),
        ),
        "batch_norm rnn layer_norm@m prelu@p linear gelu(approximate='tanh') last linear softmax",
    ),
}


def read(path: Path, **keywords: Any) -> rnncc.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return rnncc.load_model(path, **keywords)


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    make, words = CASES[case]
    net = make().eval()
    random_statistics(net)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    model = read(tmp_path / "net.safetensors", layers=words)
    expected = net(torch.tensor(X)).detach().numpy()
    np.testing.assert_allclose(model(X), expected, atol=1e-6)
    # What was found out reads the same.
    again = read(tmp_path / "net.safetensors", layers=model.metadata["layers"])
    assert np.array_equal(again(X), model(X))
    model.save(tmp_path / "folder")
    saved = rnncc.load_model(tmp_path / "folder")
    assert np.array_equal(saved(X), model(X))
    back = {n: torch.tensor(a) for n, a in torch_state_dict(saved).items()}
    fresh = make().eval()
    missing = fresh.load_state_dict(back, strict=False)
    assert not missing.unexpected_keys
    assert all(n.endswith("num_batches_tracked") for n in missing.missing_keys)
    own = net.state_dict()
    assert all(torch.equal(back[n], own[n]) for n in back) and len(back) >= len(own) - 1


def test_gradients_against_autograd(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = CASES["lstm"][0]().double()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    model = read(tmp_path / "net.safetensors", layers="lstm linear", dtype="float64")
    x = torch.tensor(X.astype("d"), requires_grad=True)
    y = net(x)
    y.backward(torch.cos(y.detach()))
    mine, pullback = model.vjp(X)
    np.testing.assert_allclose(mine, y.detach().numpy(), atol=1e-12)
    found = pullback(np.cos(mine))
    assert x.grad is not None
    np.testing.assert_allclose(found.inputs["x"], x.grad.numpy(), atol=1e-12)
    back = torch_state_dict(model, found.weights)
    for name, parameter in net.named_parameters():
        np.testing.assert_allclose(back[name], parameter.grad.numpy(), atol=1e-11)


def test_words_before_a_sequence(tmp_path: Path) -> None:
    numbers = np.random.default_rng(1).integers(0, 9, (2, 6))
    net = Net(emb=N.Embedding(9, 5), rnn=N.GRU(5, 4, **B), out=N.Linear(4, 3))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    expected = net(torch.tensor(numbers)).detach().numpy()
    with pytest.warns(LoadWarning, match=r'layers="embedding\(9, 5\)@emb gru\(5, 4\)@rnn linear'):
        guess = rnncc.load_model(tmp_path / "net.pt")
    np.testing.assert_allclose(guess(numbers), expected, atol=1e-6)
    with pytest.raises(TypeError, match="int32"):
        guess(numbers + 0.5)


def test_cells_and_names(tmp_path: Path) -> None:
    """A module of one step has the same weights; other names are renamed."""
    cell = N.LSTMCell(5, 4)
    arrays = {f"step.{n}": p.detach() for n, p in cell.named_parameters()}
    arrays |= {"w": torch.rand(3, 4), "conv.weight": torch.rand(2, 2, 2)}
    save_file(arrays, tmp_path / "a.safetensors")
    model = read(
        tmp_path / "a.safetensors",
        layers="lstm(5, 4) linear@head",
        names={"w": "head.weight"},
        ignore=["conv*"],
    )
    h = c = torch.zeros(3, 4)
    for t in range(20):
        h, c = cell(torch.tensor(X[:, t]), (h, c))
    expected = h @ arrays["w"].T
    np.testing.assert_allclose(model(X)[:, -1], expected.detach().numpy(), atol=1e-6)


def test_guesses(tmp_path: Path) -> None:
    def file(**arrays: Mapping[str, Any]) -> Path:
        np.savez(tmp_path / "g.npz", **{n.replace("__", "."): a for n, a in arrays.items()})
        return tmp_path / "g.npz"

    def lin(name: str, o: int, i: int) -> dict[str, Any]:
        return {f"{name}__weight": np.ones((o, i), "f"), f"{name}__bias": np.ones(o)}

    with pytest.warns(LoadWarning, match=r'linear\(3, 4\)@b linear\(4, 2\)@a"'):
        rnncc.load_model(file(**lin("a", 2, 4), **lin("b", 4, 3)))
    with pytest.warns(LoadWarning, match=r"linear\(4, 4\)@b linear\(4, 4\)@a"):  # the file's order
        rnncc.load_model(file(**lin("b", 4, 4), **lin("a", 4, 4)))
    with pytest.raises(FileError, match="no chain fits"):
        rnncc.load_model(file(**lin("a", 2, 4), **lin("b", 3, 5)))
    with pytest.raises(FileError, match="a: no layer is guessed"):
        rnncc.load_model(file(a__weight=np.ones((2, 3, 4))))
    save_file(
        {"b.weight": torch.ones(4, 4), "b.bias": torch.ones(4)}
        | {"a.weight": torch.ones(4, 4), "a.bias": torch.ones(4)},
        tmp_path / "s.safetensors",
    )
    with pytest.raises(FileError, match="2 chains fit"):  # names are sorted there
        rnncc.load_model(tmp_path / "s.safetensors")


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ("lstm", FileError, "no layer takes head"),
        ("lstm linear linear", FileError, "no tensors for linear"),
        ("lstm linear@neck", FileError, "no tensors for linear@neck"),
        ("gru linear", FileError, "no tensors for gru"),
        ("linear@a linear", FileError, "a: it is no linear"),
        ("lstm(5, 7) linear", FileError, "hidden_size is 4, layers says 7"),
        ("lstm(bidirectional=True) linear", FileError, "bidirectional is False"),
        ("linear lstm", FileError, "a l0 reads 5 features, what is before it has 2"),
        ("lstm last last linear", ValueError, "twice"),
        ("lstm linear last@x", ValueError, "no name"),
        ("lstm linear wave", ValueError, "wave isn't known"),
        ("lstm(units=4) linear", ValueError, "has no units"),
        ("lstm(4 linear", ValueError, "is no layer"),
        ("lstm(__import__) linear", ValueError, "isn't numbers"),
        ("lstm linear elu(2, 3)", ValueError, "elu"),
        ("", ValueError, "names none"),
        ("relu", FileError, "no layer takes"),
    ],
)
def test_what_is_refused(words: str, error: type[Exception], said: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    save_file(CASES["lstm"][0]().state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(error, match=said):
        rnncc.load_model(tmp_path / "net.safetensors", layers=words)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"a.weight_hh_l1": None}, "other parameters"),
        ({"a.weight_hh_l2": (16, 5)}, "a l2: its shapes don't fit"),
        ({"a.bias_ih_l0": (15,)}, "a l0: its shapes don't fit"),
        ({"a.weight_ih_l1": (16, 5)}, "a l1 reads 5"),
        ({"a.weight_ih_l7": (16, 4), "a.weight_hh_l7": (16, 4)}, "aren't whole"),
        ({"a.weight_xx_l0": (3,)}, "weight_xx_l0 is no parameter"),
        ({"head.bias": (3,)}, "head"),
        ({"head.weight": None, "head.bias": None}, "no tensors for linear"),
        ({"a.bias_hh_l0": "nan"}, "a.bias_hh_l0: 1 of its 16"),
    ],
)
def test_tensors_that_dont_fit(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    state = {n: p.detach().clone() for n, p in CASES["lstm"][0]().state_dict().items()}
    for name, shape in change.items():
        if shape == "nan":
            state[name][3] = float("nan")
        elif shape is None:
            del state[name]
        else:
            state[name] = torch.zeros(shape)
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(FileError, match=said):
        rnncc.load_model(tmp_path / "net.safetensors", layers="lstm linear")
