"""rnncc.jax.scan in place of jax.lax.scan: the same results, trees, dtypes and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp = jax.numpy

from rnncc.jax import scan, scanning  # noqa: E402

draw = np.random.default_rng(0).standard_normal


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def numbers(*shape: int) -> Any:
    return jnp.asarray(0.5 * draw(shape))


with jax.enable_x64(True):
    WEIGHTS = {"W": numbers(3, 16), "U": numbers(4, 16), "b": numbers(16)}
    H, C, X = numbers(5, 4), numbers(5, 4), numbers(7, 5, 3)


class State(NamedTuple):
    h: Any
    c: Any


def lstm(p: Any) -> Callable[..., Any]:
    def step(state: Any, x: Any) -> Any:
        h, c = state
        i, g, f, o = jnp.split(x @ p["W"] + h @ p["U"] + p["b"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return type(state)((h, c)) if type(state) is tuple else State(h, c), h

    return step


def simple(p: Any) -> Callable[..., Any]:
    def step(h: Any, x: Any) -> Any:
        h = jnp.tanh(x @ p["W"][:, :4] + h @ p["U"][:, :4])
        return h, h

    return step


def close(found: Any, expected: Any) -> None:
    """Trees, dtypes and weak types, too."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        if a.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def check(make: Callable[[Any], Any], p: Any, init: Any, xs: Any, **keywords: Any) -> Any:
    """What was read."""

    def run(scan: Any) -> Callable[..., Any]:
        return lambda p, init, xs: scan(make(p), init, xs, **keywords)

    def loss(scan: Any) -> Callable[..., Any]:
        def total(p: Any, init: Any, xs: Any) -> Any:
            results = jax.tree.leaves(run(scan)(p, init, xs))
            return sum(jnp.sin(r).sum() for r in results if r.dtype.kind == "f")

        return jax.grad(total, (0, 1, 2), allow_int=True)

    plain = {k: v for k, v in keywords.items() if k != "batched"}
    theirs = lambda *a, batched=None, **k: jax.lax.scan(*a, **k)  # noqa: E731
    assert plain is not None
    read, kernels_of = [], scanning._kernels_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scanning, "_kernels_of", lambda *a: read.append(kernels_of(*a)) or read[-1])
        for wrap in (lambda f: f, jax.jit):
            close(wrap(run(scan))(p, init, xs), run(theirs)(p, init, xs))
    given = jax.tree.map(jnp.asarray, (p, init, xs))
    found = jax.tree.leaves(jax.jit(loss(scan))(*given))
    expected = jax.tree.leaves(jax.jit(loss(theirs))(*given))
    for a, b in zip(found, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if a.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
    return read[-1].reading


def test_trees() -> None:
    assert check(lstm, WEIGHTS, (H, C), X).has_batch
    check(lstm, WEIGHTS, State(H, C), X)
    check(lstm, WEIGHTS, (H, C), X, reverse=True)
    check(lstm, WEIGHTS, (H, C), X, unroll=2)


def test_the_equations() -> None:
    reading = check(simple, WEIGHTS, H, X)
    assert "state[t] = tanh(" in reading.text.text
    assert len(reading.text.weights) == 2


def test_without_a_batch() -> None:
    reading = check(lstm, WEIGHTS, (H[0], C[0]), X[:, 0])
    assert not reading.has_batch
    one = lambda h, c, x: scan(lstm(WEIGHTS), (h, c), x)  # noqa: E731
    found = jax.vmap(one, (0, 0, 1), (0, 1))(H, C, X)
    close(found, jax.lax.scan(lstm(WEIGHTS), (H, C), X))


def test_vectors_that_mix_are_one_row() -> None:
    def make(p: Any) -> Any:
        return lambda h, x: (jax.nn.softmax(h) * p["U"][:, 0] + x, h.sum())

    assert not check(make, WEIGHTS, H[0], numbers(7)).has_batch
    assert not check(make, WEIGHTS, H[0], numbers(7, 4)).has_batch
    plain = lambda p: lambda h, x: (jnp.tanh(h) + x, h)  # noqa: E731
    check(plain, WEIGHTS, H[0], numbers(7, 4))


def test_counters_masks_and_numbers() -> None:
    def make(p: Any) -> Any:
        def step(s: Any, x: Any) -> Any:
            h, t = s["h"], s["t"]
            new = jnp.tanh(x["x"] @ p["W"][:, :4] + h @ p["U"][:, :4] + jnp.where(t > 2, 1.0, 0.0))
            h = jnp.where(x["mask"][:, None], new, h)
            return {"h": h, "t": t + 1}, (h, t, h[:, 0], x["time"] * 2)

        return step

    xs = {"x": X, "mask": jnp.asarray(draw((7, 5)) > 0), "time": jnp.arange(7.0)}
    check(make, WEIGHTS, {"h": H, "t": 0}, xs)
    check(make, WEIGHTS, {"h": H, "t": jnp.zeros((), jnp.int32)}, xs)


def test_without_xs_and_without_ys() -> None:
    own = lambda p: lambda h, _: (jnp.tanh(h @ p["U"][:, :4]), h)  # noqa: E731
    check(own, WEIGHTS, H, None, length=6)
    check(lambda p: lambda h, x: (simple(p)(h, x)[0], None), WEIGHTS, H, X)


def test_whole_numbers_among_xs() -> None:
    def make(p: Any) -> Any:
        return lambda h, k: simple(p)(h, jax.nn.one_hot(k, 3, dtype=h.dtype))

    check(make, WEIGHTS, H, jnp.asarray(np.arange(35).reshape(7, 5) % 3))


def test_rows_that_are_closed_over() -> None:
    def make(p: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            share = jax.nn.softmax(jnp.einsum("bpf,bf->bp", p["context"], h))
            seen = jnp.einsum("bpf,bp->bf", p["context"], share)
            h = jnp.tanh(x @ p["W"][:, :4] + seen)
            return h, h

        return step

    reading = check(make, {**WEIGHTS, "context": numbers(5, 6, 4)}, H, X)
    assert reading.text.contexts


@jax.tree_util.register_dataclass
@dataclass
class RowCell:
    """In the style of Equinox: a module is a pytree, and takes one row."""

    kernel: Any
    recurrent: Any
    bias: Any

    def __call__(self, x: Any, h: Any) -> Any:
        r, z, n = jnp.split(x @ self.kernel + self.bias, 3)
        hr, hz, hn = jnp.split(h @ self.recurrent, 3)
        z = jax.nn.sigmoid(z + hz)
        return (1 - z) * jnp.tanh(n + jax.nn.sigmoid(r + hr) * hn) + z * h


class ModuleCell:
    """In the style of Flax: (carry, inputs) -> (carry, output), of a whole batch."""

    def __init__(self, params: Any) -> None:
        self.dense_i, self.dense_h = params["W"][:, :4], params["U"][:, :4]

    def __call__(self, carry: Any, inputs: Any) -> Any:
        h, c = carry
        c = jax.nn.silu(c + inputs @ self.dense_i)
        h = jnp.tanh(h @ self.dense_h + c)
        return (h, c), h


def test_modules_of_rows_and_of_batches() -> None:
    cell = RowCell(numbers(3, 12), numbers(4, 12), numbers(12))

    def rows(cell: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = jax.vmap(cell)(x, h)
            return h, h

        return step

    assert check(rows, cell, H, X).has_batch
    assert not check(lambda cell: lambda h, x: (cell(x, h), h), cell, H[0], X[:, 0]).has_batch
    check(ModuleCell, WEIGHTS, (H, C), X)


def test_a_module_is_carried() -> None:
    """Weights that change from step to step, of one row: fast weights."""

    def make(p: Any) -> Any:
        def step(cell: Any, x: Any) -> Any:
            h = cell(x, jnp.tanh(x @ p["W"][:, :4]))
            return RowCell(cell.kernel, cell.recurrent * 0.9, cell.bias + h.sum() * p["b"][:12]), h

        return step

    cell = RowCell(numbers(3, 12), numbers(4, 12), numbers(12))
    check(make, WEIGHTS, cell, X[:, 0])


def test_code_that_names_the_batch() -> None:
    def make(p: Any) -> Any:
        return lambda s, x: (s * 0.9 + x.reshape(5, 3, 1), (s.sum(-1).reshape(5, 3), 1.0, p["W"]))

    assert check(make, WEIGHTS, numbers(5, 3, 2), X).has_batch


def test_loops_are_written_out() -> None:
    def make(p: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = jax.lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h @ p["U"][:, :4] + i), h)
            return h, h[:, ::-1]

        return step

    check(make, WEIGHTS, H, X)


def test_a_second_call_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = scan(simple(WEIGHTS), H, X)
    monkeypatch.setattr(scanning, "read", None)
    close(scan(simple(WEIGHTS), H, X), first)
    monkeypatch.undo()
    monkeypatch.setattr("rnncc.jax.reading.read._read", None)  # of another batch: traced anew
    close(scan(simple(WEIGHTS), H[:2], X[:, :2]), jax.lax.scan(simple(WEIGHTS), H[:2], X[:, :2]))


def test_numbers_take_the_steps_dtype() -> None:
    step = lambda total, x: (total + x, total * 2)  # noqa: E731
    xs = numbers(6)
    close(scan(step, 0.0, xs), jax.lax.scan(step, 0.0, xs))


def test_no_step_and_no_row_are_jaxs_own() -> None:
    for h, x in ((H, X[:0]), (H[:0], X[:, :0])):
        close(scan(simple(WEIGHTS), h, x), jax.lax.scan(simple(WEIGHTS), h, x))


def test_what_isnt_a_scan_is_refused_as_jax_does() -> None:
    with pytest.raises(TypeError, match="carry"):
        scan(lambda h, x: ((h, h), x), H, X)
    with pytest.raises(ValueError, match="length"):
        scan(simple(WEIGHTS), H, X, length=3)
