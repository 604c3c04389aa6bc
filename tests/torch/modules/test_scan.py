"""rnncc.torch.scan: a function over all steps, against the loop that it stands for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rnncc.torch import scan


def loop(f: Any, state: Any, xs: Any, reverse: bool = False) -> tuple[Any, Any]:
    steps = pytree.tree_leaves(xs)[0].shape[0]
    ys: list[Any] = [None] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        state, ys[t] = f(state, pytree.tree_map(lambda a, t=t: a[t], xs))
    return state, pytree.tree_map(lambda *a: torch.stack(a), *ys)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("reverse", [False, True])
def test_closed_over_tensors_have_gradients(reverse: bool) -> None:
    torch.manual_seed(0)
    w, u, base, h, xs = drawn(3, 4), drawn(4, 4), drawn(4), drawn(2, 4), drawn(6, 2, 3)
    bias = base * 2  # computed: its gradient goes on
    inner = nn.Linear(4, 4).double()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = torch.tanh(x @ w + state @ u + bias)
        return inner(z), {"z": z, "double": 2 * z}

    own = [w, u, base, h, xs, *inner.parameters()]
    for _ in range(2):  # the second is read already
        ours, theirs = scan(step, h, xs, reverse=reverse), loop(step, h, xs, reverse)
        torch.testing.assert_close(ours, theirs)
        grads = [
            torch.autograd.grad(
                last.sum() + y["z"].square().sum() + y["double"][1].sum(), own, retain_graph=True
            )
            for last, y in (ours, theirs)
        ]
        torch.testing.assert_close(*grads)


def test_other_numbers_of_the_surroundings_are_read_again() -> None:
    h, xs = drawn(2, 3), drawn(5, 2, 3)
    for scale in (0.5, 2.0):
        w = drawn(3, 3)

        def step(state: Tensor, x: Tensor, w: Tensor = w, scale: float = scale) -> Any:
            new = scale * torch.tanh(x + state @ w)
            return new, new

        torch.testing.assert_close(scan(step, h, xs), loop(step, h, xs))


def test_trees_and_a_leading_batch() -> None:
    state = {"a": drawn(2, 3), "b": (drawn(2, 3), drawn(2, 1))}
    xs = drawn(5, 2, 3), drawn(5, 2, 1)

    def step(s: Any, x: Any) -> Any:
        a = torch.tanh(s["a"] + x[0])
        b = s["b"][0] * torch.sigmoid(a), s["b"][1] + x[1]
        return {"a": a, "b": b}, a * b[1]

    torch.testing.assert_close(scan(step, state, xs), loop(step, state, xs))
    turned = pytree.tree_map(lambda t: t.transpose(0, 1), xs)
    last, ys = scan(step, state, turned, dim=1)
    own, theirs = loop(step, state, xs)
    torch.testing.assert_close((last, ys), (own, theirs.transpose(0, 1)))
    last, none = scan(lambda s, x: (step(s, x)[0], None), state, xs)
    assert none is None
    torch.testing.assert_close(last, own)


def test_refused() -> None:
    h, xs = drawn(2, 3), drawn(5, 2, 3)
    with pytest.raises(TypeError, match="not \\(state, y\\)"):
        scan(lambda s, x: s + x, h, xs)
    with pytest.raises(TypeError, match=r"aten.mean.*rows of a batch stay apart"):
        scan(lambda s, x: (s + x.mean(0), s), h, xs)
    with pytest.raises(TypeError, match="xs of scan"):
        scan(lambda s, x: (s, s), h, [])
    with pytest.raises(ValueError, match="dim is the axis"):
        scan(lambda s, x: (s, s), h, xs, dim=2)
    with pytest.raises(TypeError, match="fails with RuntimeError"):
        scan(lambda s, x: (s + x, s), h, drawn(5, 2, 4))


def test_under_compile_it_stands_between_graphs() -> None:
    w, h, xs = drawn(3, 3), drawn(2, 3), drawn(5, 2, 3)

    def step(s: Tensor, x: Tensor) -> Any:
        s = torch.tanh(s + x @ w)
        return s, s

    def whole(run: Any) -> Tensor:
        return run(step, h * 2, xs)[1].square().sum()  # type: ignore[no-any-return]

    ours, theirs = torch.compile(whole, backend="eager")(scan), whole(loop)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(y, [w, h, xs]) for y in (ours, theirs)))
    with pytest.raises(Exception, match="reads its function on numbers"):
        torch.compile(lambda: scan(step, h, xs), backend="eager", fullgraph=True)()
    with pytest.raises(NotImplementedError, match="func's transforms"):
        torch.vmap(lambda a: scan(step, h, a)[1])(torch.stack([xs, xs]))


def test_nothing_of_it() -> None:
    w = drawn(3, 4)
    h = drawn(2, 4)

    def step(s: Tensor, x: Tensor) -> Any:
        s = torch.tanh(s + x @ w)
        return s, s

    last, ys = scan(step, h, drawn(0, 2, 3))
    assert ys.shape == (0, 2, 4) and torch.equal(last, h)
    none, ys = scan(step, h[:0], drawn(5, 0, 3))
    assert ys.shape == (5, 0, 4) and none.shape == (0, 4)
    (last.sum() + ys.sum()).backward()
    assert w.grad is not None and not w.grad.any()
