"""LSTMCell, GRUCell, RNNCell: against torch.nn's."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import rnncc.torch as ours  # noqa: E402

CELLS = ["LSTMCell", "GRUCell", "RNNCell"]


def pair(name: str, *sizes: Any, **keywords: Any) -> tuple[Any, Any]:
    """torch's module and ours, made from the same seed."""
    made = []
    for module in (torch.nn, ours):
        torch.manual_seed(3)
        made.append(getattr(module, name)(*sizes, **keywords))
    return made[0], made[1]


def flat(state: Any) -> list[Any]:
    return [*state] if isinstance(state, tuple) else [state]


def begun(name: str, *shape: int) -> Any:
    states = [torch.randn(*shape, dtype=torch.float64) for _ in range(2)]
    return tuple(states) if name == "LSTMCell" else states[0]


def steps(cell: Any, x: Any, hx: Any) -> list[Any]:
    """States after three steps, and gradients of everything."""
    leaves = [t.clone().requires_grad_() for t in (x, *(flat(hx) if hx is not None else []))]
    first, *rest = leaves
    state = None if hx is None else tuple(rest) if len(rest) == 2 else rest[0]
    for t in range(3):
        state = cell(first[t], state)
    found = flat(state)
    loss = sum(
        (t * torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t)).sum() for t in found
    )
    return [*found, *torch.autograd.grad(loss, [*leaves, *cell.parameters()])]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("bias", [True, False])
def test_as_torch(name: str, bias: bool) -> None:
    theirs, own = pair(name, 5, 9, bias, dtype=torch.float64)
    assert isinstance(own, type(theirs)) and repr(own) == repr(theirs)
    for key, value in theirs.state_dict().items():
        assert torch.equal(value, own.state_dict()[key])
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    for hx in (None, begun(name, 4, 9)):
        torch.testing.assert_close(steps(own, x, hx), steps(theirs, x, hx), rtol=1e-10, atol=1e-12)
    for hx in (None, begun(name, 9)):  # one row, without a batch
        found, right = steps(own, x[:, 0], hx), steps(theirs, x[:, 0], hx)
        torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-12)
    assert flat(own(x[0, :0]))[0].shape == (0, 9)


def test_relu_as_torch() -> None:
    theirs, own = pair("RNNCell", 5, 9, nonlinearity="relu", dtype=torch.float64)
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(steps(own, x, None), steps(theirs, x, None))
    own.nonlinearity = theirs.nonlinearity = "tanh"
    torch.testing.assert_close(steps(own, x, None), steps(theirs, x, None))


def test_gradients_of_gradients() -> None:
    cell = ours.GRUCell(2, 3, dtype=torch.float64)
    x, h = torch.randn(2, 2, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    given = x.requires_grad_(), h.requires_grad_(), *cell.parameters()
    assert torch.autograd.gradcheck(lambda x, h, *_: cell(x, h), given)
    assert torch.autograd.gradgradcheck(lambda x, h, *_: cell(x, h), given)


@pytest.mark.parametrize("name", CELLS)
def test_signatures_are_torchs(name: str) -> None:
    theirs, own = (inspect.signature(getattr(m, name).__init__) for m in (torch.nn, ours))
    assert [*own.parameters][: len(theirs.parameters)] == [*theirs.parameters]
    with pytest.raises(TypeError, match="hiden_size"):
        getattr(ours, name)(3, hiden_size=4)


def test_wrong_calls_say_what_is_wrong() -> None:
    own = ours.LSTMCell(3, 5)
    x, h = torch.randn(2, 3), torch.randn(2, 5)
    for call, message in [
        (lambda: own(x.numpy()), "input is a ndarray: give a torch tensor"),
        (lambda: own(x, h[0, 0]), "pair of tensors"),
        (lambda: own(x, (h,)), "pair of tensors"),
        (lambda: own(x, (h, None)), r"hx\[1\] is a NoneType"),
        (lambda: own(x[0], (h, h)), "hidden isn't"),
        (lambda: own(x.double()), "x of LSTM is torch.float64"),
        (lambda: own(x, (h, h.double())), "c of LSTM is torch.float64"),
        (lambda: ours.LSTMCell(3, 0), "hidden_size must be greater than zero"),
        (lambda: ours.LSTMCell(3.0, 4), "input_size should be of type int, got: float"),
        (lambda: ours.LSTMCell(3, 4, bias=1), "bias should be of type bool"),
        (lambda: ours.RNNCell(3, 4, nonlinearity="gelu"), "nonlinearity is 'tanh' or 'relu'"),
        (lambda: torch.jit.script(own), "can't be scripted"),
    ]:
        with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
            call()


def test_a_layer_reads_a_cell_of_ours() -> None:
    theirs, own = pair("GRUCell", 5, 9)
    x = torch.randn(3, 4, 5)
    found = ours.Recurrent(own, return_sequences=True)(x)
    torch.testing.assert_close(found, ours.Recurrent(theirs, return_sequences=True)(x))
    _last, ys = ours.scan(lambda h, v: (own(v, h),) * 2, torch.zeros(3, 9), x.transpose(0, 1))
    torch.testing.assert_close(ys.transpose(0, 1), found)


def test_narrow_weights() -> None:
    theirs, own = pair("LSTMCell", 5, 9)
    own.weights = "int8"
    x = torch.randn(4, 5)
    with torch.no_grad():
        apart = (own(x)[0] - theirs(x)[0]).abs().max()
    assert 0 < apart < 0.05
    with pytest.raises(ValueError, match="narrows weights of float32"):
        ours.LSTMCell(5, 9, dtype=torch.float64, weights="int8")


def test_compiled_and_on_meta() -> None:
    own = ours.GRUCell(3, 5)
    x = torch.randn(2, 3)
    compiled = torch.compile(own, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), own(x))
    shape = ours.LSTMCell(3, 5, device="meta")(torch.empty(2, 3, device="meta"))[1]
    assert shape.shape == (2, 5) and shape.is_meta
