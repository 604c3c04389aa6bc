"""Second derivatives of stacks and of both directions: slopes of their gradients, and torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.layers import GRU, RNN, Bidirectional, GRUCell, LSTMCell, SimpleRNN, SimpleRNNCell
from tests.support.arrays import uniform
from tests.support.calls.slopes import check_slopes, filled, leaves, like

F64 = {"dtype": "float64"}
KINDS = ("inputs", "weights", "initial_state")
MODES = ("concat", "sum", "mul", "ave", None)
# Holes, a row without a step, padding; and padding that no row's last steps need.
MASKS = {
    "plain": None,
    "holes": np.array([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]], bool),
    "right": np.arange(4) < np.array([[3], [0], [2], [1]]),
}


def stack(**keywords: Any) -> RNN:
    cells = [SimpleRNNCell(3, seed=1, **F64), GRUCell(2, seed=2, **F64)]
    return RNN(cells, return_state=True, **keywords)


def both(mode: str | None = "mul", **keywords: Any) -> Bidirectional:
    return Bidirectional(SimpleRNN(3, return_state=True, seed=1, **F64, **keywords), mode)


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("mask", MASKS)
def test_stacks_are_slopes(mask: str, sequences: bool) -> None:
    layer = stack(return_sequences=sequences)
    initial = (uniform(4, 3, seed=8), uniform(4, 2, seed=9))
    check_slopes(layer, uniform(4, 4, 2), initial, MASKS[mask])


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("mode", MODES)
def test_directions_are_slopes(mode: str | None, mask: str, sequences: bool) -> None:
    layer = both(mode, return_sequences=sequences)
    initial = (uniform(4, 3, seed=8), uniform(4, 3, seed=9))
    check_slopes(layer, uniform(4, 4, 2), initial, MASKS[mask])


def wide() -> Any:
    """A cell with a context and an input of rank 0 on top."""
    text = (
        "cell: Wide\nunits: size\nfeatures: size\nx: input[features]\nm: context[units]\n"
        "h: state[units] = h0\nh0: weight[units] = ones\nW: weight[features, units]\n"
        "h[t] = tanh(x[t] @ W * m + h[t-1])\nreturn h[t]\n"
    )
    return rnncc.compile_text(text, dtype="float64")(units=2)


ARRANGED: dict[str, Callable[[], Any]] = {
    "backwards": lambda: stack(go_backwards=True, return_sequences=True),
    "time first": lambda: both(time_major=True, return_sequences=True),
    "checkpoints": lambda: stack(checkpoint_every=2, return_sequences=True),
    "dropout": lambda: RNN(
        [SimpleRNNCell(3, dropout=0.3, **F64), SimpleRNNCell(2, recurrent_dropout=0.3, **F64)],
        return_state=True,
    ),
    "three": lambda: RNN([SimpleRNNCell(n, **F64) for n in (3, 2, 2)], return_state=True),
    "states of two": lambda: RNN([LSTMCell(2, **F64), SimpleRNNCell(2, **F64)], return_state=True),
    "other way": lambda: Bidirectional(
        SimpleRNN(3, **F64), backward_layer=GRU(2, go_backwards=True, **F64)
    ),
    "stacks both ways": lambda: Bidirectional(stack(return_sequences=True), "mul"),
    "ways of ways": lambda: Bidirectional(both("mul"), "mul"),
    "contexts": lambda: RNN([SimpleRNNCell(3, **F64), wide()], return_sequences=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", ARRANGED)
def test_arrangements_are_slopes(what: str) -> None:
    layer, x = ARRANGED[what](), uniform(3, 4, 2)
    x = x.swapaxes(0, 1) if layer.time_major else x
    inputs = (x, uniform(3, 2, seed=1)) if what == "contexts" else x
    count = len(layer.cell.outputs)
    groups = layer(inputs)[count:] if layer.return_state else None
    initial = None if groups is None else like(groups, 30)
    check_slopes(layer, inputs, initial)


def test_a_gradient_penalty_is_torchs() -> None:
    """|d loss / d x|² of two layers: torch's double backward of the equations."""
    torch = pytest.importorskip("torch")
    layer = RNN([LSTMCell(3, seed=1, **F64), LSTMCell(2, seed=2, **F64)], return_sequences=True)
    x, dy = uniform(3, 5, 4), uniform(3, 5, 2, seed=1)
    _, pullback = layer.vjp(x)
    grads, pullback2 = pullback.vjp(dy, wrt="inputs")
    second = pullback2(grads)  # of |dx|² / 2

    weights = [torch.tensor(a, requires_grad=True) for a in layer.get_weights()]
    tx, tdy = (torch.tensor(a, requires_grad=True) for a in (x, dy))
    y = tx
    for kernel, recurrent, bias in (weights[:3], weights[3:]):
        h = c = torch.zeros(3, len(recurrent), dtype=torch.float64)
        ys = []
        for t in range(5):
            i, f, g, o = (y[:, t] @ kernel + h @ recurrent + bias).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            ys.append(h)
        y = torch.stack(ys, 1)
    (dx,) = torch.autograd.grad((y * tdy).sum(), tx, create_graph=True)
    right = torch.autograd.grad((dx**2).sum() / 2, [tx, tdy, *weights])
    found = [second.inputs, second.dy, *second.weights.values()]
    np.testing.assert_allclose(grads.inputs, dx.detach().numpy(), atol=1e-13)
    for a, b in zip(found, right, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-12)


@pytest.mark.parametrize("make", [stack, both], ids=["stack", "both"])
def test_what_is_asked_and_what_is_owned(make: Callable[..., Any]) -> None:
    """wrt leaves out, None is zero, and nothing a caller does later changes a thing."""
    layer = make(return_sequences=True)
    x = uniform(2, 4, 2)
    initial = like(layer(x)[1:], 5)
    y, pullback = layer.vjp(x, initial_state=initial)
    dy = like(y, 1)
    grads, pullback2 = pullback.vjp(dy)
    v = {kind: like(getattr(grads, kind), 3) for kind in KINDS}
    whole = pullback2(v)
    kept = {k: [a.copy() for a in leaves(getattr(whole, k))] for k in ("dy", *KINDS)}
    for kind, arrays in kept.items():
        alone = pullback2(v, wrt=kind)
        for a, b in zip(leaves(getattr(alone, kind)), arrays, strict=True):
            np.testing.assert_array_equal(a, b)
        others = [k for k in kept if k != kind]
        assert not any(leaves(getattr(alone, k)) for k in others)
    zeros = {k: filled(a, (0 * b for b in leaves(a))) for k, a in v.items() if k != "inputs"}
    some, same = pullback2({"inputs": v["inputs"]}), pullback2({**v, **zeros})
    for a, b in zip(
        leaves([getattr(some, k) for k in kept]), leaves([getattr(same, k) for k in kept])
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-15)
    assert not any(a.any() for k in kept for a in leaves(getattr(pullback2(None), k)))
    for array in leaves([x, initial, y, dy, whole.dy, *(getattr(whole, k) for k in KINDS)]):
        array[...] = np.nan
    layer.set_weights([w * 3 + 1 for w in layer.get_weights()])
    for again in (pullback2(v), pullback.vjp(like(y, 1))[1](v)):
        for kind, arrays in kept.items():
            for a, b in zip(leaves(getattr(again, kind)), arrays, strict=True):
                np.testing.assert_array_equal(a, b)
    pullback(like(y, 1), consume=True)
    with pytest.raises(RuntimeError, match="was consumed"):
        pullback.vjp(like(y, 1))
    np.testing.assert_array_equal(pullback2(v).inputs, kept["inputs"][0])
    assert "backward_pullback_scan" in pullback2.plan()


def test_wrong_cotangents_of_groups() -> None:
    cells = [LSTMCell(2, **F64), SimpleRNNCell(2, **F64)]
    layer = RNN(cells, return_state=True)
    y, pullback = layer.vjp(uniform(3, 4, 2))
    grads, pullback2 = pullback.vjp(like(y, 1))
    (h, c), other = grads.initial_state
    assert h.shape == c.shape == other.shape == (3, 2)
    with pytest.raises(ValueError, match="cell 0 of rnn has 2 states"):
        pullback2({"initial_state": ((h,), other)})
    with pytest.raises(TypeError, match="a dict of inputs, weights, initial_state"):
        pullback2([grads])
    flat = pullback2({"initial_state": (h, c, other)})
    np.testing.assert_array_equal(flat.dy[0], pullback2({"initial_state": ((h, c), other)}).dy[0])


@pytest.mark.parametrize(("batch", "time"), [(0, 4), (2, 0)])
@pytest.mark.parametrize("make", [stack, both], ids=["stack", "both"])
def test_no_row_or_no_step(make: Callable[..., Any], batch: int, time: int) -> None:
    layer = make(return_sequences=True)
    y, pullback = layer.vjp(np.zeros((batch, time, 2)))
    grads, pullback2 = pullback.vjp(like(y, 1))
    second = pullback2({k: like(getattr(grads, k), 3) for k in KINDS})
    for a, b in zip(leaves(second.dy), leaves(y), strict=True):
        assert a.shape == b.shape
