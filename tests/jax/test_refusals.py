"""Functions that can't be compiled: each is refused with the primitive and the user's line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp = jax.numpy

from rnncc.jax import scan  # noqa: E402

H, X = jnp.ones((5, 4)), jnp.ones((7, 5, 4))
TABLE = jnp.ones((9, 4))


def mean_of_rows(h: Any, x: Any) -> Any:
    h = h - x.mean(0)  # refused
    return h, h


def sums_rows(h: Any, x: Any) -> Any:
    h = h - x.sum(0)  # refused
    return h, h


def products_of_rows(h: Any, x: Any) -> Any:
    h = (x @ h.T) @ h  # refused
    return h, h


def decides(h: Any, x: Any) -> Any:
    h = jax.lax.cond(x.sum() > 0, jnp.tanh, jnp.sin, h)  # refused
    return h, h


def loops(h: Any, x: Any) -> Any:
    h = jax.lax.while_loop(lambda h: (h < x).all(), lambda h: h + 1, h)  # refused
    return h, h


def sorts(h: Any, x: Any) -> Any:
    h = h + jnp.sort(x, axis=-1)  # refused
    return h, h


def looks_up(h: Any, x: Any) -> Any:
    h = h + TABLE[x[:, 0].astype(int)]  # refused
    return h, h


def draws(h: Any, x: Any) -> Any:
    h = h + jax.random.normal(jax.random.key(0), (4,))  # refused
    return h, h


def finds(h: Any, x: Any) -> Any:
    h = h + jnp.argmax(x, axis=-1)[:, None]  # refused
    return h, h


def writes_where_numbers_say(h: Any, x: Any) -> Any:
    h = h.at[:, x[0, 0].astype(int)].set(1.0)  # refused
    return h, h


def writes_rows(h: Any, x: Any) -> Any:
    h = h.at[0].set(1.0) + x  # refused
    return h, h


def numbers_rows(h: Any, x: Any) -> Any:
    h = h + jnp.arange(x.shape[0])[:, None]  # refused
    return h, h


def counts_rows(h: Any, x: Any) -> Any:
    h = h / x.shape[0]  # refused
    return h, h


def rounds(h: Any, x: Any) -> Any:
    h = (h + x).astype(jnp.bfloat16).astype(h.dtype)  # refused
    return h, h


def prints(h: Any, x: Any) -> Any:
    jax.debug.callback(print, h)
    h = h + jax.pure_callback(np.sin, x, x)  # refused
    return h, h


@jax.custom_vjp
def clipped(x: Any) -> Any:
    return x * 2


clipped.defvjp(lambda x: (x * 2, None), lambda _, d: (jnp.clip(d, -1, 1),))


def clips_gradients(h: Any, x: Any) -> Any:
    h = clipped(h) + x  # refused
    return h, h


def turns_rows(h: Any, x: Any) -> Any:
    h = jnp.roll(h, 1, axis=0) + x  # refused
    return h, h


CASES: dict[Callable[..., Any], str] = {
    mean_of_rows: "div.*size of the batch",
    sums_rows: "reduce_sum.*axis of the batch",
    products_of_rows: "dot_general.*batch",
    decides: "cond.*jnp.where|reduce_sum.*axis of the batch",
    loops: "while.*constant length",
    sorts: "sort.*orders numbers",
    looks_up: "gather.*one_hot",
    draws: "random.*hand them over as xs",
    finds: "argmax.*place",
    writes_where_numbers_say: "slice.*rows of the batch|scatter.*place",
    writes_rows: "scatter.*rows of a batch",
    numbers_rows: "iota.*numbers the rows|iota.*size of the batch",
    counts_rows: "div.*size of the batch",
    rounds: "convert_element_type.*float32",
    prints: "callback.*calls Python",
    clips_gradients: "custom_vjp_call.*cotangent times",
    turns_rows: "slice.*batch",
}


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_the_primitive_and_the_line(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=f"(?s){function.__name__} can't be compiled.*") as error:
        scan(function, H, X)
    said = str(error.value)
    assert re.search(CASES[function], said), said
    assert "test_refusals.py:" in said and "# refused" in said, said


def test_dtypes() -> None:
    with pytest.raises(TypeError, match="bfloat16"):
        scan(lambda h, x: (h + x, h), H.astype("bfloat16"), X.astype("bfloat16"))
    with pytest.raises(TypeError, match="complex64"):
        scan(lambda h, x: (h + x, h), H.astype("complex64"), X.astype("complex64"))
    with jax.enable_x64(True), pytest.raises(TypeError, match="float32 and float64"):
        scan(lambda h, x: (h, x + h), H, X.astype("float64"))


def test_the_way_out_is_named() -> None:
    with pytest.raises(TypeError, match="batched=False"):
        scan(sums_rows, H, X)


def test_what_mixes_rows_may_be_said_to_have_none() -> None:
    found = scan(mean_of_rows, H, X, batched=False)
    expected = jax.lax.scan(mean_of_rows, H, X)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_both_reasons() -> None:
    with pytest.raises(TypeError, match=r"batched=True.*no leading length"):
        scan(lambda h, x: (h + x.sum(), h), H, jnp.ones((7, 3, 4)), batched=True)


def test_keys_that_are_closed_over() -> None:
    key = jax.random.key(0)
    with pytest.raises(TypeError, match="keys of random numbers"):
        scan(lambda h, x: (h + jax.random.normal(key, h.shape), x), H, X)


def test_maps_over_devices() -> None:
    from jax.sharding import Mesh, PartitionSpec

    mesh = Mesh(np.array(jax.devices()[:1]), ("i",))
    rows, steps = PartitionSpec("i"), PartitionSpec(None, "i")
    own = jax.shard_map(
        lambda h, x: scan(lambda h, x: (h + x, h), h, x)[0],
        mesh=mesh,
        in_specs=(rows, steps),
        out_specs=rows,
    )
    with pytest.raises(NotImplementedError, match="shard_map"):
        own(H, X)


def test_a_step_that_asks_how_many_rows_there_are() -> None:
    """As it is called it is another one than with the few rows that it is read with."""

    def step(h: Any, x: Any) -> Any:
        h = h * 2 if x.shape[0] > 100 else jnp.tanh(x + h)
        return h, h

    scan(step, jnp.zeros((5, 3)), jnp.ones((2, 5, 3)))
    with pytest.raises(TypeError, match="another one at 7 and 200 rows"):
        scan(step, jnp.zeros((200, 3)), jnp.ones((2, 200, 3)))
