"""Derivatives of calls, in any order of modes, and what vmap makes of them: as of jax.lax.scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.operations.calls import Request
from rnncc.operations.graph_calls import calls_of
from rnncc.operations.operation import Operation
from rnncc.runtime.api.time_axis import Order

jax = pytest.importorskip("jax")
jnp = jax.numpy

ORDERS = (Order(), Order(time_major=True), Order(time_major=True, backwards=True))
ALL = tuple(range(6))
EAGERLY_OR_JITTED = (lambda f: f, jax.jit)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


class Pair:
    """An LSTM of ours and one of jax.lax.scan, and numbers for both."""

    def __init__(self, order: Order) -> None:
        from rnncc.jax.callee import Callee
        from rnncc.jax.primitives import run_p

        layer = rnncc.compile("lstm", dtype="float64")(units=4, return_sequences=True)
        self.operation = Operation(layer, {"features": 3, "units": 4})
        callee = Callee(calls_of(self.operation, Request(given=True), order), merges=True)
        self.ours: Callable[..., Any] = lambda *a: run_p.bind(*a, call=callee)
        self.order = order
        self.draw = np.random.default_rng(0).standard_normal
        x = (7, 5, 3) if order.time_major else (5, 7, 3)
        shapes = (x, (5, 4), (5, 4), (3, 16), (4, 16), (16,))
        self.given = tuple(map(self.numbers, shapes))
        self.tangents = tuple(map(self.numbers, shapes))
        self.weights = [self.numbers(y.shape) for y in self.theirs(*self.given)]

    def numbers(self, shape: tuple[int, ...]) -> Any:
        return jnp.asarray(self.draw(shape))

    def theirs(self, x: Any, h: Any, c: Any, kernel: Any, recurrent: Any, bias: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            h, c = state
            z = x @ kernel + h @ recurrent + bias
            i, f, g, o = jnp.split(z, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        x = x if self.order.time_major else x.swapaxes(0, 1)
        (h, c), y = jax.lax.scan(step, (h, c), x, reverse=self.order.backwards)
        return (y if self.order.time_major else y.swapaxes(0, 1)), h, c

    def loss(self, f: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *a: sum(
            (w * jnp.sin(y)).sum() for w, y in zip(self.weights, f(*a), strict=True)
        )

    def slopes(self, f: Callable[..., Any]) -> Callable[..., Any]:
        gradient = jax.grad(self.loss(f), ALL)
        return lambda *a: sum((g**2).sum() for g in gradient(*a))

    def same(self, make: Callable[[Any], Any], *given: Any) -> None:
        """What `make` makes of both functions gives the same, eagerly and jitted."""
        expected = make(self.theirs)(*given)
        for wrap in EAGERLY_OR_JITTED:
            close(wrap(make(self.ours))(*given), expected)


def close(found: Any, expected: Any) -> None:
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.fixture(scope="module", params=ORDERS, ids=lambda o: f"{o.axes[0]} {o.backwards}")
def pair(request: pytest.FixtureRequest) -> Pair:
    with jax.enable_x64(True):
        return Pair(request.param)


def test_values_and_gradients(pair: Pair) -> None:
    pair.same(lambda f: f, *pair.given)
    for _ in range(3):  # the first goes the long way
        pair.same(lambda f: jax.grad(pair.loss(f), ALL), *pair.given)
    pair.same(lambda f: jax.grad(pair.loss(f), 3), *pair.given)
    pair.same(lambda f: jax.grad(jax.checkpoint(pair.loss(f)), ALL), *pair.given)


def test_forward_mode(pair: Pair) -> None:
    pair.same(lambda f: lambda *a: jax.jvp(f, a, pair.tangents), *pair.given)
    bias = pair.given[5]
    pair.same(lambda f: jax.jacfwd(lambda b: f(*pair.given[:5], b)), bias)
    pair.same(lambda f: jax.jacrev(lambda b: f(*pair.given[:5], b)), bias)
    pair.same(lambda f: jax.jacrev(lambda h: f(pair.given[0], h, *pair.given[2:])), pair.given[1])


def test_second_derivatives(pair: Pair) -> None:
    given, tangents = pair.given, pair.tangents
    pair.same(lambda f: jax.grad(pair.slopes(f), ALL), *given)
    gradient = lambda f: jax.grad(pair.loss(f), ALL)  # noqa: E731
    pair.same(lambda f: lambda *a: jax.jvp(gradient(f), a, tangents), *given)
    pushed = lambda f: lambda *a: jax.jvp(pair.loss(f), a, tangents)[1]  # noqa: E731
    pair.same(lambda f: jax.grad(pushed(f), ALL), *given)
    pair.same(lambda f: jax.hessian(lambda h: pair.loss(f)(given[0], h, *given[2:])), given[1])
    pair.same(lambda f: jax.jacrev(jax.jacrev(lambda b: pair.loss(f)(*given[:5], b))), given[5])


@pytest.mark.slow
def test_products_with_hessians_may_be_differentiated_by_their_vectors(pair: Pair) -> None:
    def product(f: Any) -> Any:
        gradient = jax.grad(pair.loss(f), ALL)

        def squares(*v: Any) -> Any:
            return sum((p**2).sum() for p in jax.jvp(gradient, pair.given, v)[1])

        return jax.grad(squares, ALL)

    pair.same(product, *pair.tangents)

    def transposed(f: Any) -> Any:
        gradient = jax.grad(pair.loss(f), ALL)

        def squares(*v: Any) -> Any:
            of = jax.grad(lambda *a: sum((g * w).sum() for g, w in zip(gradient(*a), v)), ALL)
            return sum((p**2).sum() for p in of(*pair.given))

        return jax.grad(squares, ALL)

    pair.same(transposed, *pair.tangents)


@pytest.mark.slow
@pytest.mark.parametrize(
    "axes",
    [
        (0, 0, 0, 0, 0, 0),
        (0, None, None, None, None, None),
        (2, 1, 0, None, None, None),
        (None, None, None, 0, None, None),
    ],
    ids=str,
)
def test_vmap(pair: Pair, axes: tuple[Any, ...]) -> None:
    given = [
        a if axis is None else jnp.moveaxis(pair.numbers((3, *a.shape)), 0, axis)
        for a, axis in zip(pair.given, axes, strict=True)
    ]
    pair.same(lambda f: jax.vmap(f, axes), *given)
    pair.same(lambda f: jax.vmap(jax.grad(pair.loss(f), ALL), axes), *given)
    pair.same(lambda f: jax.vmap(jax.grad(pair.loss(f), 0), axes), *given)
    total = lambda f: lambda *a: jax.vmap(pair.loss(f), axes)(*a).sum()  # noqa: E731
    pair.same(lambda f: jax.grad(total(f), ALL), *given)
    pair.same(lambda f: jax.vmap(jax.grad(pair.slopes(f), ALL), axes), *given)


def test_what_is_refused(pair: Pair) -> None:
    given, tangents = pair.given, pair.tangents
    pushed = lambda *a: jax.jvp(pair.ours, a, tangents)[1]  # noqa: E731
    with pytest.raises(NotImplementedError, match=r"forward mode of forward mode.*LSTM"):
        jax.jvp(pushed, given, tangents)
    slopes = jax.grad(pair.slopes(pair.ours), ALL)
    with pytest.raises(NotImplementedError, match="third derivatives of LSTM"):
        jax.grad(lambda *a: sum((g**2).sum() for g in slopes(*a)))(*given)
