"""Derivatives of derivatives through rnncc.torch, of any order: those of torch's own modules and of
loops in torch, or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.autograd import functional  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402

import rnncc  # noqa: E402
import rnncc.torch as ours  # noqa: E402
from tests.support.begun import TEXT  # noqa: E402

DOUBLE = {"dtype": torch.float64}
T, B, FEATURES, UNITS = 4, 2, 2, 3
Call = Callable[..., Any]


def drawn(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


class Loop(torch.nn.Module):
    """What TEXT computes, by torch's own operations."""

    def __init__(self, cell: Any) -> None:
        super().__init__()
        for name, weight in cell.named_parameters():
            self.register_parameter(name, torch.nn.Parameter(weight.detach().clone()))

    def forward(self, x: Any) -> tuple[Any, Any]:
        h = self.h0.expand(x.shape[1], -1)
        steps = [h := torch.tanh(xt @ self.W + h @ self.U) for xt in x]
        return torch.stack(steps), h


def pair(name: str, **keywords: Any) -> tuple[Any, Any]:
    """Somebody's module and ours, with the same weights."""
    torch.manual_seed(3)
    if name == "Recurrent":
        cell = rnncc.compile_text(TEXT, dtype="float64")
        keywords = {"return_sequences": True, "return_state": True, "time_major": True}
        own: Any = ours.Recurrent(cell, units=UNITS, features=FEATURES, **keywords)
        return Loop(own), own
    theirs = getattr(torch.nn, name)(FEATURES, UNITS, **keywords, **DOUBLE)
    own = getattr(ours, name)(FEATURES, UNITS, **keywords, **DOUBLE)
    own.load_state_dict(theirs.state_dict())
    return theirs, own


def packed(module: Any, x: Any) -> Any:
    return module(pack_padded_sequence(x, [T, 1], enforce_sorted=False))[0].data


def whole(module: Any, x: Any) -> Any:
    return module(x)[0]


def of_weights(module: Any, call: Call) -> Call:
    """call(module, x), as a function of x and all weights."""
    names = [n for n, _ in module.named_parameters()]

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Any) -> Any:
            return call(self.inner, x)

    outer = Outer()

    def function(x: Any, *weights: Any) -> Any:
        given = {f"inner.{n}": w for n, w in zip(names, weights, strict=True)}
        return torch.func.functional_call(outer, given, (x,))

    return function


def leaves(module: Any) -> list[Any]:
    return [drawn(T, B, FEATURES), *(p.detach() for p in module.parameters())]


def same(found: Any, right: Any) -> None:
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-10)


# ---- products with vectors -----------------------------------------------------------------------


def _maml(function: Call, given: Sequence[Any], steps: int) -> Any:
    """How a loss after some steps depends on the weights before them."""
    x, *start = given
    weights = [w.clone().requires_grad_() for w in start]
    after = weights
    for _ in range(steps):
        loss = (function(x, *after) ** 3).sum()
        grads = torch.autograd.grad(loss, after, create_graph=True)
        after = [w - 0.1 * g for w, g in zip(after, grads, strict=True)]
    return torch.autograd.grad((function(x + 0.3, *after) ** 2).sum(), weights)


def _along(function: Call, given: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(drawn(*t.shape, seed=7) for t in given)


def _penalty(function: Call, given: Sequence[Any]) -> Any:
    """A gradient's norm, by all."""
    inputs = [t.clone().requires_grad_() for t in given]
    (grad,) = torch.autograd.grad((function(*inputs) ** 2).sum(), inputs[:1], create_graph=True)
    return torch.autograd.grad(grad.square().sum(), inputs)


def _trained_jvp(function: Call, given: Sequence[Any]) -> Any:
    """Gradients of a directional derivative."""
    inputs = tuple(t.clone().requires_grad_() for t in given)
    _, tangent = functional.jvp(function, inputs, _along(function, given), create_graph=True)
    return torch.autograd.grad((tangent**2).sum(), inputs)


def _cubed(function: Call) -> Call:
    return lambda *given: (function(*given) ** 3).sum()


RIGHT: dict[str, Callable[[Call, Sequence[Any]], Any]] = {
    "hvp": lambda f, g: functional.hvp(_cubed(f), tuple(g), _along(f, g))[1],
    "vhp": lambda f, g: functional.vhp(_cubed(f), tuple(g), _along(f, g))[1],
    "jvp": lambda f, g: functional.jvp(f, tuple(g), _along(f, g))[1],
    "jacobian": lambda f, g: functional.jacobian(f, tuple(g)),
    "jacobian at once": lambda f, g: functional.jacobian(f, tuple(g), vectorize=True),
    "hessian": lambda f, g: functional.hessian(lambda x: _cubed(f)(x, *g[1:]), g[0]),
    "hessian at once": lambda f, g: functional.hessian(
        lambda x: _cubed(f)(x, *g[1:]), g[0], vectorize=True
    ),
    "maml": lambda f, g: _maml(f, g, 1),
    "maml, two steps": lambda f, g: _maml(f, g, 2),
    "penalty": _penalty,
    "jvp, trained": _trained_jvp,
}


@pytest.mark.parametrize("what", RIGHT)
@pytest.mark.parametrize("name", ["GRU", "RNN", "Recurrent"])
def test_as_torchs(name: str, what: str) -> None:
    theirs, own = pair(name)
    right = RIGHT[what](of_weights(theirs, whole), leaves(theirs))
    same(RIGHT[what](of_weights(own, whole), leaves(own)), right)


@pytest.mark.parametrize("what", ["hvp", "jvp, trained", "maml, two steps", "hessian at once"])
@pytest.mark.parametrize("kind", ["packed", "layers", "states"])
def test_as_torchs_otherwise(kind: str, what: str) -> None:
    """Rows of several lengths; layers of both directions; last states."""
    keywords = {"num_layers": 2, "bidirectional": True} if kind == "layers" else {}
    theirs, own = pair("GRU", **keywords)
    call = {"packed": packed, "layers": whole, "states": lambda m, x: m(x)[1]}[kind]
    right = RIGHT[what](of_weights(theirs, call), leaves(theirs))
    same(RIGHT[what](of_weights(own, call), leaves(own)), right)


def test_products_of_hessians_are_differentiated_by_vectors_again_and_again() -> None:
    """What is linear stays right to any order."""
    found = []
    for module in pair("GRU"):
        x = drawn(T, B, FEATURES).requires_grad_()
        (g,) = torch.autograd.grad((module(x)[0] ** 2).sum(), x, create_graph=True)
        by = x
        for seed in range(4):
            v = drawn(T, B, FEATURES, seed=seed).requires_grad_()
            (g,) = torch.autograd.grad((g * v).sum(), by, create_graph=True)
            by = v
        found.append([g.detach(), *torch.autograd.grad(g.sum(), by)])
    same(*found[::-1])


@pytest.mark.slow
def test_drawn_and_masked_derivatives_are_those_of_what_was_drawn() -> None:
    """Against differences: the same seed, the same masks."""
    cell = rnncc.compile_text(TEXT, dtype="float64")
    layer = ours.Recurrent(cell, units=UNITS, features=FEATURES, dropout=0.4)
    x, v = drawn(B, T, FEATURES), drawn(B, T, FEATURES, seed=1)

    def loss(x: Any) -> Any:
        torch.manual_seed(5)
        return (layer(x, lengths=[4, 2]) ** 3).sum()

    def gradient(at: Any) -> Any:
        at = at.clone().requires_grad_()
        return torch.autograd.grad(loss(at), at)[0]

    found = functional.hvp(loss, x, v)[1]
    step = 1e-5
    right = (gradient(x + step * v) - gradient(x - step * v)) / (2 * step)
    torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-8)
    assert torch.count_nonzero(found[1, 2:]) == 0


def test_frozen_weights_and_some_inputs() -> None:
    found = []
    for module in pair("GRU"):
        module.weight_ih_l0.requires_grad_(False)
        x = drawn(T, B, FEATURES).requires_grad_()
        loss = (module(x)[0] ** 3).sum()
        asked = [x, module.weight_hh_l0, module.bias_hh_l0]
        grads = torch.autograd.grad(loss, asked, create_graph=True, retain_graph=True)
        total = sum((g**2).sum() for g in grads)
        again = torch.autograd.grad(total, asked[:2], retain_graph=True)
        total.backward(inputs=asked[1:])
        assert x.grad is None and module.bias_ih_l0.grad is None
        found.append([*grads, *again, *(t.grad for t in asked[1:])])
    same(*found[::-1])


# ---- third derivatives ---------------------------------------------------------------------------


def _third_by_inputs(layer: Any, x: Any) -> Any:
    (g,) = torch.autograd.grad((layer(x)[0] ** 4).sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x, create_graph=True)
    return torch.autograd.grad(h.sum(), x)


def _third_by_weights(layer: Any, x: Any) -> Any:
    (g,) = torch.autograd.grad(layer(x)[0].sum(), layer.weight_hh_l0, create_graph=True)
    (h,) = torch.autograd.grad((g**2).sum(), layer.weight_hh_l0, create_graph=True)
    return torch.autograd.grad(h.sum(), layer.bias_hh_l0)


def _third_backward(layer: Any, x: Any) -> Any:
    (g,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x, create_graph=True)
    h.sum().backward()


def _third_by_cotangents(layer: Any, x: Any) -> Any:
    y, _ = layer(x)
    c = torch.ones_like(y).requires_grad_()
    (g,) = torch.autograd.grad(y, x, c, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x, create_graph=True)
    return torch.autograd.grad(h.sum(), c)


def _hessian_trained(layer: Any, x: Any) -> Any:
    hessian = functional.hessian(_cubed(lambda x: layer(x)[0]), x, create_graph=True)
    return torch.autograd.grad(hessian.sum(), x)


def _hvp_trained(layer: Any, x: Any) -> Any:
    function = _cubed(lambda x: layer(x)[0])
    product = functional.hvp(function, x, torch.ones_like(x), create_graph=True)[1]
    return torch.autograd.grad(product.sum(), x)


@pytest.mark.parametrize(
    "call",
    [
        _third_by_inputs,
        _third_by_weights,
        _third_backward,
        _third_by_cotangents,
        _hessian_trained,
        _hvp_trained,
    ],
)
@pytest.mark.parametrize("kind", ["alone", "packed", "layers"])
def test_third_derivatives_are_refused(call: Callable[[Any, Any], Any], kind: str) -> None:
    layer = ours.GRU(FEATURES, UNITS, num_layers=1 + (kind == "layers"), **DOUBLE)
    x = drawn(T, B, FEATURES).requires_grad_()
    if kind == "packed":
        plain = layer.forward
        layer.forward = lambda x: (plain(pack_padded_sequence(x, [T, 2]))[0].data, None)
    with pytest.raises(NotImplementedError, match="third derivatives of GRU are not available"):
        call(layer, x)


def test_a_weight_changed_before_a_gradient_of_a_gradient_is_refused() -> None:
    layer = ours.GRU(FEATURES, UNITS, **DOUBLE)
    x = drawn(T, B, FEATURES).requires_grad_()
    (g,) = torch.autograd.grad((layer(x)[0] ** 2).sum(), x, create_graph=True)
    v = torch.ones_like(x, requires_grad=True)
    (h,) = torch.autograd.grad((g * v).sum(), x, create_graph=True)
    with torch.no_grad():
        layer.weight_hh_l0.add_(1)
    for what, by in ((h, v), (g, x)):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(what.sum(), by, retain_graph=True)


# ---- graphs and forward mode ---------------------------------------------------------------------


def _traced(layer: Any, x: Any) -> Any:
    return torch.jit.trace(layer, x)


def _exported(layer: Any, x: Any) -> Any:
    return torch.export.export(layer, (x,)).module()


def _compiled(backend: str) -> Callable[[Any, Any], Any]:
    def make(layer: Any, x: Any) -> Any:
        torch._dynamo.reset()
        return torch.compile(layer, backend=backend, fullgraph=True)

    return make


def _by_inputs(graph: Any, x: Any) -> Any:
    (g,) = torch.autograd.grad((graph(x)[0] ** 2).sum(), x, create_graph=True)
    return torch.autograd.grad(g.sum(), x)


@pytest.mark.parametrize(
    "make",
    [_traced, _exported, _compiled("eager"), _compiled("aot_eager")],
    ids=["traced", "exported", "eager", "aot_eager"],
)
def test_graphs_refuse_second_derivatives(make: Callable[[Any, Any], Any]) -> None:
    layer = ours.GRU(FEATURES, UNITS, **DOUBLE).eval()
    x = drawn(T, B, FEATURES).requires_grad_()
    graph = make(layer, x)
    for call in (
        lambda: _by_inputs(graph, x),
        lambda: functional.hvp(lambda x: (graph(x)[0] ** 3).sum(), x, x),
        lambda: functional.jvp(lambda x: graph(x)[0], x, x),  # by a cotangent alone
    ):
        with pytest.raises(RuntimeError, match=r"second derivatives of GRU|double backward"):
            call()
