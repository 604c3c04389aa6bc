"""Rows that start anew in torch's modules: each episode alone, graphs, derivatives, the door."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

import rnncc
from rnncc.torch import GRU, LSTM, RNN, Recurrent
from tests.support.calls.episodes import episodes

B, T, F, U = 4, 6, 3, 5
F64 = torch.float64
RESETS = torch.tensor(np.random.default_rng(2).random((B, T)) < 0.35)
RESETS[0, 3] = True
LENGTHS = torch.tensor([6, 2, 5, 3])
MASK = torch.arange(T) < LENGTHS[:, None]
MODULES = {
    "lstm": lambda **k: LSTM(F, U, dtype=F64, **k),
    "gru": lambda **k: GRU(F, U, dtype=F64, **k),
    "rnn": lambda **k: RNN(F, U, dtype=F64, **k),
    "projected": lambda **k: LSTM(F, U, proj_size=2, dtype=F64, **k),
}
KINDS: dict[str, dict[str, Any]] = {
    "one": {},
    "deep, both": {"num_layers": 2, "bidirectional": True},
    "time first": {"batch_first": False},
}


def given() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(B, T, F, dtype=F64, requires_grad=True)


def first_states(module: Any) -> Any:
    rows = module.num_layers * (2 if module.bidirectional else 1)
    h = torch.randn(rows, B, module.proj_size or U, dtype=F64, requires_grad=True)
    if module.mode != "LSTM":
        return h
    return h, torch.randn(rows, B, U, dtype=F64, requires_grad=True)


def row(states: Any, at: int) -> Any:
    if isinstance(states, tuple):
        return tuple(row(s, at) for s in states)
    return None if states is None else states[:, at : at + 1]


def flat(states: Any) -> list[Tensor]:
    return [*states] if isinstance(states, tuple) else [] if states is None else [states]


def near(found: Any, right: Any, limit: float = 1e-12) -> None:
    for a, b in zip(found, right, strict=True):
        if b is not None:
            assert (a - b).abs().max() <= limit * max(1, b.abs().max())


def one_by_one(module: Any, x: Tensor, states: Any, mask: np.ndarray | None = None) -> Tensor:
    """Outputs [batch, time, ...], zeros where a step is masked (at rows' ends)."""
    rows: list[list[Tensor]] = [[] for _ in range(B)]
    for e in episodes(RESETS.numpy(), mask):
        steps = e.steps
        if mask is not None:
            steps = slice(steps.start, steps.start + int(mask[e.row, steps].sum()))
        part = x[e.row : e.row + 1, steps]
        own = part if module.batch_first else part.transpose(0, 1)
        y = module(own, row(states, e.row))[0]
        rows[e.row].append(y[0] if module.batch_first else y[:, 0])
    joined = [torch.cat(parts) for parts in rows]
    return torch.nn.utils.rnn.pad_sequence(joined, batch_first=True)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", MODULES)
def test_episodes_are_calls_of_their_own(what: str, kind: str, begun: bool) -> None:
    torch.manual_seed(0)
    module = MODULES[what](**{"batch_first": True, **KINDS[kind]})
    x = given()
    states = first_states(module) if begun else None
    own = x if module.batch_first else x.transpose(0, 1)
    y = module(own, states, resets=RESETS)[0]
    y = y if module.batch_first else y.transpose(0, 1)
    right = one_by_one(module, x, states)
    assert torch.equal(y, right)
    of = [x, *module.parameters(), *flat(states)]
    near(torch.autograd.grad(y.square().sum(), of), torch.autograd.grad(right.square().sum(), of))
    with torch.no_grad():
        again = module(own, states, resets=RESETS.float())[0]
    assert torch.equal(again if module.batch_first else again.transpose(0, 1), y)
    none = module(own, states, resets=torch.zeros_like(RESETS))[0]
    assert torch.equal(none, module(own, states)[0])


@pytest.mark.parametrize("kind", ["one", "deep, both"])
def test_packed_sequences(kind: str) -> None:
    """Resets packed alike, or padded in the order of the user's rows."""
    torch.manual_seed(0)
    module = LSTM(F, U, dtype=F64, batch_first=True, **KINDS[kind])
    x, states = given(), first_states(module)
    mask = MASK.numpy()
    right = one_by_one(module, x, states, mask)
    of = [x, *module.parameters(), *states]
    grads = torch.autograd.grad(right.square().sum(), of)
    ahead = [RESETS[b, :n] for b, n in enumerate(LENGTHS)]
    for resets in (RESETS, RESETS.numpy(), pack_sequence(ahead, enforce_sorted=False)):
        packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
        y, last = module(packed, states, resets=resets)
        padded, _ = pad_packed_sequence(y, batch_first=True)
        assert torch.equal(padded, right)
        near(torch.autograd.grad(padded.square().sum(), of), grads)
        assert last[0].shape == states[0].shape
    other = pack_padded_sequence(RESETS, LENGTHS.flip(0), batch_first=True, enforce_sorted=False)
    with pytest.raises(ValueError, match="of other lengths than the input: pack alike"):
        module(packed, resets=other)
    with pytest.raises(TypeError, match="resets is a PackedSequence, the input is none"):
        module(x, resets=other)
    with pytest.raises(ValueError, match=r"resets has shape \[4, 5\], expected \[batch=4, time=6"):
        module(packed, resets=RESETS[:, :5])


def test_one_sequence() -> None:
    module = GRU(F, U, batch_first=True, dtype=F64)
    x = given().detach()
    y, _ = module(x[0], resets=RESETS[0])
    assert torch.equal(y, module(x, resets=RESETS)[0][0])


@pytest.mark.parametrize("way", [False, True])
@pytest.mark.parametrize("time_major", [False, True])
def test_any_cell(way: bool, time_major: bool) -> None:
    """As the layer does it."""
    torch.manual_seed(0)
    options = {"return_sequences": True, "return_state": True, "go_backwards": way}
    options["time_major"] = time_major
    module = Recurrent("layer_norm_lstm", units=U, input_size=F, dtype=F64, **options)
    layer = rnncc.compile("layer_norm_lstm", dtype="float64")(units=U, **options)
    x = given()
    turned = x.transpose(0, 1) if time_major else x
    layer.build(tuple(turned.shape))
    layer.set_weights([t.detach().numpy() for t in module.parameters()])
    for call in ({}, {"mask": MASK}, {"lengths": LENGTHS}):
        found = module(turned, resets=RESETS, **call)
        numbers = {n: a.numpy() for n, a in call.items()}
        right, pullback = layer.vjp(turned.detach().numpy(), resets=RESETS.numpy(), **numbers)
        for a, b in zip(found, right, strict=True):
            np.testing.assert_array_equal(a.detach().numpy(), b)
        total = sum(a.sum() for a in found)
        grads = pullback(tuple(np.ones_like(a) for a in right))
        own = torch.autograd.grad(total, [turned, *module.parameters()])
        rights = [grads.inputs, *grads.weights.values()]
        for a, b in zip(own, rights, strict=True):
            assert np.abs(a.numpy() - b).max() <= 1e-11 * max(1, np.abs(b).max())


def test_gradients_of_gradients() -> None:
    torch.manual_seed(0)
    module = LSTM(2, 2, batch_first=True, dtype=F64)
    x = torch.randn(2, 4, 2, dtype=F64, requires_grad=True)
    h = tuple(torch.randn(1, 2, 2, dtype=F64, requires_grad=True) for _ in range(2))
    resets = torch.tensor([[0, 0, 1, 0], [1, 1, 0, 1]])

    def run(x: Tensor, *states: Tensor) -> Tensor:
        return module(x, states or None, resets=resets)[0]

    for arguments in ((x,), (x, *h)):
        assert torch.autograd.gradcheck(run, arguments)
        assert torch.autograd.gradgradcheck(run, arguments)


@pytest.mark.parametrize("packed", [False, True])
def test_graphs(packed: bool) -> None:
    """torch.compile and torch.export of modules with resets: other resets, other numbers."""
    torch.manual_seed(0)
    module = LSTM(F, U, batch_first=True, dtype=F64, bidirectional=packed)
    x, others = given().detach(), RESETS.flip(1)

    def run(x: Tensor, resets: Tensor) -> Tensor:
        return module(x, resets=resets)[0]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for resets in (RESETS, others, torch.zeros_like(RESETS)):
        own, right = (x.clone().requires_grad_() for _ in range(2))
        y, z = compiled(own, resets), run(right, resets)
        assert torch.equal(y, z)
        near(*(torch.autograd.grad(a.sin().sum(), b) for a, b in ((y, own), (z, right))))

    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor, resets: Tensor) -> Tensor:
            y: Tensor = self.inner(x, resets=resets)[0]
            return y

    exported = torch.export.export(Holder(), (x, RESETS)).module()
    for resets in (RESETS, others):
        assert torch.equal(exported(x, resets), run(x, resets))


def test_a_learned_start_has_gradients() -> None:
    """Of every place where a row starts anew."""
    text = (
        "cell: Kept\nn: size\nunits: size\nx: input[n]\nh: state[units] = h0\n"
        "h0: weight[units] = ones\nW: weight[n, units] = glorot_uniform\n"
        "h[t] = tanh(x[t] @ W + 0.9 * h[t-1])\nreturn h[t]\n"
    )
    cls = rnncc.compile_text(text, dtype="float64")
    module = Recurrent(cls, units=U, input_size=F, return_sequences=True)
    x = given()
    y = module(x, resets=RESETS)
    parts = []
    for e in episodes(RESETS.numpy()):
        parts.append(module(x[e.row : e.row + 1, e.steps])[0])
    right = torch.cat(parts).reshape(y.shape)
    assert torch.equal(y, right)
    of = [x, *module.parameters()]
    near(torch.autograd.grad(y.square().sum(), of), torch.autograd.grad(right.square().sum(), of))


WRONG: list[tuple[Any, type[Exception], str]] = [
    (torch.ones(B, T + 1), ValueError, r"resets has shape \[4, 7\]|mask has shape \[4, 7\]"),
    (torch.ones(B), ValueError, r"resets has shape \[4\], expected \[batch, time\]"),
    (torch.full((B, T), 0.5), ValueError, "resets holds 0.5: give bools, or 0 and 1"),
    (torch.full((B, T), float("nan")), ValueError, "resets holds nan"),
    (torch.full((B, T), 2), ValueError, "resets holds 2: give bools, or 0 and 1"),
    (torch.ones(B, T, requires_grad=True), TypeError, "resets asks for a gradient, but has none"),
    (torch.ones(B, T, dtype=torch.complex64), TypeError, "resets holds complex64 values"),
    ("done", TypeError, "resets can't become a tensor"),
]


@pytest.mark.parametrize(("resets", "kind", "message"), WRONG, ids=[m for *_, m in WRONG])
def test_what_is_no_resets_is_refused(resets: Any, kind: type, message: str) -> None:
    x = given()
    for run in (LSTM(F, U, batch_first=True, dtype=F64), Recurrent("gru", U, dtype=F64)):
        with pytest.raises(kind, match=message):
            run(x, resets=resets)
