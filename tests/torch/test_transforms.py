"""rnncc.torch under torch.func's transforms and in forward mode: as a loop of torch's operations,
which has all of them (torch's own layers haven't)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import func  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.nn.utils.rnn import PackedSequence  # noqa: E402

import rnncc.torch as ours  # noqa: E402

DOUBLE = {"dtype": torch.float64}
T, B, FEATURES, UNITS, N = 3, 2, 2, 3, 4
Call = Callable[..., Any]
Weights = dict[str, Any]


def drawn(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def step(x: Any, h: Any, weights: Weights, at: str) -> Any:
    """torch.nn.GRU's, written out."""
    zr_x = x @ weights[f"weight_ih_{at}"].T + weights[f"bias_ih_{at}"]
    zr_h = h @ weights[f"weight_hh_{at}"].T + weights[f"bias_hh_{at}"]
    (r_x, z_x, n_x), (r_h, z_h, n_h) = zr_x.chunk(3, -1), zr_h.chunk(3, -1)
    z = torch.sigmoid(z_x + z_h)
    return (1 - z) * torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h) + z * h


def loop(weights: Weights, x: Any, h: Any, mask: Any = None) -> Any:
    """One layer, [time, batch, ...]: outputs and the last state; all directions there are."""
    outputs, finals = [], []
    for number, at in enumerate(a for a in ("l0", "l0_reverse") if f"weight_ih_{a}" in weights):
        state, ys = h[number], [None] * len(x)
        for t in range(len(x))[:: -1 if number else 1]:
            new = step(x[t], state, weights, at)
            state = new if mask is None else torch.where(mask[:, t, None], new, state)
            ys[t] = state
        outputs.append(torch.stack(ys))
        finals.append(state)
    return torch.cat(outputs, -1), torch.stack(finals)


class Pair:
    """Ours and the loop, as functions of (weights, x, h)."""

    def __init__(self, directions: int = 1) -> None:
        torch.manual_seed(0)
        self.own = ours.GRU(FEATURES, UNITS, bidirectional=directions == 2, **DOUBLE)
        self.weights = {n: p.detach() for n, p in self.own.named_parameters()}
        self.h = drawn(directions, B, UNITS, seed=1)
        self.functions: tuple[Call, Call] = (self.call, loop)

    def call(self, weights: Weights, x: Any, h: Any) -> Any:
        return func.functional_call(self.own, weights, (x, h))


def along(tree: Any, seed: int = 5) -> Any:
    """Directions for it."""
    leaves, spec = torch.utils._pytree.tree_flatten(tree)
    made = [drawn(*t.shape, seed=seed + n) for n, t in enumerate(leaves)]
    return torch.utils._pytree.tree_unflatten(made, spec)


def total(results: Any) -> Any:
    """A number, of which nothing is linear."""
    y, h = results
    return (y * y * y).sum() + (y.sin() * 0.3).sum() + (h * h).sum()


def stacked(tree: Any, axis: int = 0) -> Any:
    return torch.utils._pytree.tree_map(
        lambda t: torch.stack([t * (1 + n / 7) for n in range(N)], axis), tree
    )


def per_row(f: Call, w: Weights, x: Any, h: Any) -> Any:
    """Gradients of each row of the batch."""

    def of_one(w: Weights, x: Any, h: Any) -> Any:
        return total(f(w, x[:, None], h[:, None]))

    return func.vmap(func.grad(of_one, argnums=(0, 1, 2)), in_dims=(None, 1, 1))(w, x, h)


def in_both_ways(f: Call, w: Weights, x: Any, h: Any) -> Any:
    """Forwards through what goes back: a gradient's tangent."""
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x.clone().requires_grad_(), drawn(*x.shape, seed=3))
        (grad,) = torch.autograd.grad(total(f(w, dual, h)), dual, create_graph=True)
        return forward_ad.unpack_dual(grad).tangent


def dual_cotangents(f: Call, w: Weights, x: Any, h: Any) -> Any:
    x = x.clone().requires_grad_()
    y, _ = f(w, x, h)
    with forward_ad.dual_level():
        d = forward_ad.make_dual(drawn(*y.shape, seed=3), drawn(*y.shape, seed=4))
        (grad,) = torch.autograd.grad(y, x, d)
        return [*forward_ad.unpack_dual(grad)]


def hessian_product(f: Call, w: Weights, x: Any, h: Any) -> Any:
    gradient = func.grad(lambda x: total(f(w, x, h)))
    return func.vmap(lambda v: func.jvp(gradient, (x,), (v,))[1])(drawn(N, *x.shape, seed=3))


def back_twice(f: Call, w: Weights, x: Any, h: Any) -> Any:
    gradient = func.grad(lambda w: total(f(w, x, h)))
    return func.grad(lambda w: sum(g.square().sum() for g in gradient(w).values()))(w)


def eager_twice(f: Call, w: Weights, x: Any, h: Any) -> Any:
    x = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(total(f(w, x, h)), x, create_graph=True)
    return func.vmap(lambda v: torch.autograd.grad(g, x, v, retain_graph=True)[0])(
        drawn(N, *x.shape, seed=3)
    )


TRANSFORMED: dict[str, Call] = {
    "grad": lambda f, *a: func.grad(lambda *b: total(f(*b)), argnums=(0, 1, 2))(*a),
    "grad of some": lambda f, w, x, h: func.grad(lambda h: total(f(w, x, h)))(h),
    "vjp": lambda f, *a: func.vjp(f, *a)[1](along(f(*a))),
    "jvp": lambda f, *a: func.jvp(f, a, along(a)),
    "jvp by some": lambda f, w, x, h: func.jvp(lambda h: f(w, x, h), (h,), (along(h),)),
    "jacrev": lambda f, w, x, h: func.jacrev(lambda x: f(w, x, h))(x),
    "jacfwd": lambda f, w, x, h: func.jacfwd(lambda w: f(w, x, h)[1])(w),
    "hessian": lambda f, w, x, h: func.hessian(lambda x: total(f(w, x, h)))(x),
    "jacrev twice": lambda f, w, x, h: func.jacrev(func.jacrev(lambda h: total(f(w, x, h))))(h),
    "grad of a jvp": lambda f, w, x, h: func.grad(
        lambda x: total(func.jvp(lambda v: f(w, v, h), (x,), (along(x),))[1])
    )(x),
    "grad of a gradient": back_twice,
    "products with a Hessian": hessian_product,
    "eager, mapped": eager_twice,
    "per row": per_row,
    "rows": lambda f, w, x, h: func.vmap(lambda x: f(w, x, h))(stacked(x)),
    "rows and states": lambda f, w, x, h: func.vmap(
        lambda x, h: f(w, x, h), in_dims=(2, 3), out_dims=(1, 2)
    )(stacked(x, 2), stacked(h, 3)),
    "gradients of rows": lambda f, w, x, h: func.vmap(
        func.grad(lambda x: total(f(w, x, h))), in_dims=1
    )(stacked(x, 1)),
    "grad of rows": lambda f, w, x, h: func.grad(
        lambda w: total(func.vmap(lambda x: f(w, x, h))(stacked(x)))
    )(w),
    "rows of rows": lambda f, w, x, h: func.vmap(
        lambda x: func.vmap(lambda h: f(w, x, h))(stacked(h, 1).movedim(1, 0))
    )(stacked(x)),
    "models": lambda f, w, x, h: func.vmap(lambda w: f(w, x, h))(stacked(w)),
    "gradients of models": lambda f, w, x, h: func.vmap(
        func.grad(lambda w, x: total(f(w, x, h)), argnums=(0, 1)), in_dims=(0, None)
    )(stacked(w), x),
    "jvp of rows": lambda f, w, x, h: func.vmap(
        lambda x, d: func.jvp(lambda x: f(w, x, h), (x,), (d,))
    )(stacked(x), drawn(N, *x.shape, seed=3)),
    "dual numbers": in_both_ways,
    "dual cotangents": dual_cotangents,
}


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("how", TRANSFORMED)
def test_as_a_loop(how: str, directions: int) -> None:
    pair = Pair(directions)
    x = drawn(T, B, FEATURES)
    for _ in range(2):  # the first call of a kind, and one that takes its path
        found, wanted = (TRANSFORMED[how](f, pair.weights, x, pair.h) for f in pair.functions)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_masks_and_lengths_of_rows() -> None:
    """A batch first, as Recurrent has it: mapped, alike in all calls, and not."""
    layer = ours.Recurrent(
        "gru", units=UNITS, input_size=FEATURES, return_sequences=True, return_state=True, **DOUBLE
    )
    x, masks = drawn(N, B, T, FEATURES), drawn(N, B, T, seed=1) > -0.5
    lengths = torch.tensor([[3, 1], [2, 2], [0, 3], [1, 1]])
    resets = drawn(N, B, T, seed=2) > 0.3
    h = drawn(N, B, UNITS, seed=3)
    cases: list[tuple[Any, Call, tuple[Any, ...]]] = [
        ((0, 0), lambda x, m: layer(x, mask=m), (x, masks)),
        ((0, None), lambda x, m: layer(x, mask=m), (x, masks[1])),
        ((None, 0), lambda x, m: layer(x, mask=m), (x[0], masks)),
        ((0, 0), lambda x, n: layer(x, lengths=n), (x, lengths)),
        ((0, 0), lambda x, r: layer(x, resets=r), (x, resets)),
        ((0, 0), lambda x, h: layer(x, initial_state=h), (x, h)),
        ((0, 0, 0), lambda x, m, r: layer(x, mask=m, resets=r), (x, masks, resets)),
    ]
    for dims, call, given in cases:
        found = func.vmap(call, in_dims=dims)(*given)
        for n in range(N):
            own = [t if d is None else t[n] for t, d in zip(given, dims, strict=True)]
            torch.testing.assert_close([f[n] for f in found], [*call(*own)], rtol=1e-12, atol=1e-12)


def test_packed_rows() -> None:
    own = Pair().own
    sizes = torch.tensor([2, 2, 1])
    x = drawn(N, 5, FEATURES)

    def call(x: Any) -> Any:
        y, h = own(PackedSequence(x, sizes))
        return total((y.data, h))

    found = func.vmap(func.grad(call))(x)
    tangents = func.vmap(lambda x, d: func.jvp(call, (x,), (d,))[1])(x, x.cos())
    for n in range(N):
        v = x[n].clone().requires_grad_()
        (g,) = torch.autograd.grad(call(v), v)
        torch.testing.assert_close(found[n], g, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(tangents[n], (g * x[n].cos()).sum(), rtol=1e-10, atol=1e-10)


def test_dropout_of_rows() -> None:
    """One draw for all, or one each, as vmap is told; gradients are of those masks."""
    layer = ours.Recurrent("gru", units=UNITS, input_size=FEATURES, dropout=0.5, **DOUBLE)
    x = drawn(1, B, T, FEATURES).expand(N, B, T, FEATURES)
    same = func.vmap(layer, randomness="same")(x)
    assert all(torch.equal(y, same[0]) for y in same)
    different = func.vmap(layer, randomness="different")(x)
    assert not any(torch.equal(y, different[0]) for y in different[1:])
    with pytest.raises(RuntimeError, match="randomness"):
        func.vmap(layer)(x)

    def value(x: Any) -> Any:
        torch.manual_seed(3)
        return layer(x).sum()

    gradient = func.grad(value)(x[0])
    step = 1e-6 * drawn(*x[0].shape, seed=9)
    slope = (value(x[0] + step) - value(x[0] - step)) / 2
    torch.testing.assert_close((gradient * step).sum(), slope, rtol=1e-5, atol=1e-12)
    layer.eval()
    torch.testing.assert_close(func.vmap(layer)(x)[2], layer(x[2]))


def test_a_call_that_is_run_again() -> None:
    """Where what it saved is gone, here since a cotangent's vmap is around another's call."""
    pair = Pair()
    x = drawn(N, T, B, FEATURES)

    def loss(f: Call, w: Weights) -> Any:
        return func.vmap(lambda x: f(w, x, pair.h))(x)[0]

    jacobians = [func.jacrev(lambda w, f=f: loss(f, w))(pair.weights) for f in pair.functions]
    torch.testing.assert_close(*jacobians, rtol=1e-9, atol=1e-9)


class Leaky(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(FEATURES + UNITS, UNITS, **DOUBLE)

    def forward(self, x: Any, h: Any) -> Any:
        h = torch.tanh(self.inner(torch.cat([x, h], -1))) + h / 2
        return h, h


def test_a_cell_that_is_read() -> None:
    layer = ours.Recurrent(Leaky(), state=(UNITS,), return_sequences=True)
    x = drawn(B, T, FEATURES)
    with pytest.raises(RuntimeError, match=r"call the layer once.* before torch\.func"):
        func.vmap(layer)(x[:, None])
    wanted = layer(x)
    weights = {n: p.detach() for n, p in layer.named_parameters()}

    def value(weights: Weights) -> Any:
        return func.functional_call(layer, weights, (x,)).square().sum()

    wanted.square().sum().backward()
    found = func.grad(value)(weights)
    for name, p in layer.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(func.vmap(layer)(x[:, None])[:, 0], wanted.detach())


@pytest.mark.parametrize("how", ["jvp", "rows", "grad", "per row"])
def test_under_a_compiler(how: str) -> None:
    """Beside the graph, as what they are: kernels aren't looked into. torch's compiler fails in
    what follows such a break in a function of grad's, whoever has broken the graph: so it has to
    be told to leave that function."""
    pair = Pair()
    x, call = drawn(T, B, FEATURES), TRANSFORMED[how]
    if "grad" in how or "per" in how:
        call = torch.compiler.disable(call)
    compiled = torch.compile(
        lambda x: [call(pair.call, pair.weights, x + 1, pair.h), x.sin()], backend="eager"
    )
    wanted = TRANSFORMED[how](loop, pair.weights, x + 1, pair.h)
    torch.testing.assert_close(compiled(x), [wanted, x.sin()], rtol=1e-9, atol=1e-9)


def test_what_is_refused() -> None:
    pair = Pair()
    x = drawn(T, B, FEATURES)

    def value(x: Any) -> Any:
        return total(pair.call(pair.weights, x, pair.h))

    with pytest.raises(NotImplementedError, match="forward mode over what is second order of GRU"):
        func.jacfwd(func.jacfwd(value))(x)
    with pytest.raises(NotImplementedError, match="third derivatives of GRU"):
        func.grad(lambda x: func.grad(lambda x: func.grad(value)(x).sum())(x).sum())(x)
    with pytest.raises(NotImplementedError, match="forward mode over what is second order"):
        func.jvp(func.grad(lambda x: func.grad(value)(x).square().sum()), (x,), (x,))
    with pytest.raises(NotImplementedError, match=r"scan under torch\.func"):
        func.vmap(lambda x: ours.scan(lambda h, v: (h + v, h), x[0], x)[0])(drawn(N, T, B, UNITS))


def test_graphs_of_operations() -> None:
    """make_fx writes down what runs: calls and gradients as nodes, or nothing."""
    pair = Pair()
    x, other = drawn(T, B, FEATURES), drawn(T, B, FEATURES, seed=7)

    def value(x: Any) -> Any:
        return total(pair.call(pair.weights, x, pair.h))

    for f in (value, func.grad(value)):
        graph = make_fx(f)(x)
        torch.testing.assert_close(graph(other), f(other), rtol=1e-12, atol=1e-12)
    with pytest.raises(NotImplementedError, match="forward mode of GRU can't be written into"):
        func.linearize(value, x)


def test_a_graph_of_a_backward() -> None:
    own = ours.GRU(FEATURES, UNITS, **DOUBLE)
    x = drawn(T, B, FEATURES).requires_grad_()
    y, _ = own(x)

    def back(d: Any) -> Any:
        return torch.autograd.grad(y, x, d, retain_graph=True)[0]

    graph = make_fx(back)(torch.ones_like(y))
    d = drawn(*y.shape, seed=3)
    torch.testing.assert_close(graph(d), back(d))
    packed = PackedSequence(drawn(3, FEATURES).requires_grad_(), torch.tensor([2, 1]))
    y, x = own(packed)[0].data, packed.data
    with pytest.raises(NotImplementedError, match="packed rows of GRU can't be written into"):
        make_fx(back)(torch.ones_like(y))


def test_a_narrow_call() -> None:
    own = ours.GRU(FEATURES, UNITS)
    x = drawn(N, T, B, FEATURES).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = func.vmap(lambda x: own(x)[0])(x)
        assert found.dtype is torch.bfloat16
        torch.testing.assert_close(found[1], own(x[1])[0])
