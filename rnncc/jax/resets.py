"""resets= of a scan: before which steps a row starts anew, from its `init`.

A boundary is where it is, whichever way it is crossed: [time, batch], True before the step of that
place; a scan in reverse starts anew behind it.

Non-Goals: what kernels do with them (`rnncc.runtime.api.masking`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnncc.runtime.api.masking import WANTED


def checked(resets: Any, time: int, rows: int | None) -> Any:
    """An array [time, batch], or [time] where rows is None. TypeError, ValueError for others."""
    try:
        array = jax.lax.stop_gradient(jnp.asarray(resets))
    except (TypeError, ValueError) as error:
        raise TypeError(f"resets can't become an array ({error}): give {WANTED}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"resets holds {array.dtype} values: give {WANTED}")
    shape = (time,) if rows is None else (time, rows)
    if array.shape != shape:
        axes = f"[{time=}]" if rows is None else f"[{time=}, batch={rows}]"
        raise ValueError(f"resets has shape {[*array.shape]}, expected {axes}")
    return array


def as_run(resets: Any, reverse: bool) -> Any:
    """In the order that steps run: before which of them a row starts anew."""
    if not reverse:
        return resets
    return jnp.concatenate([jnp.zeros_like(resets[:1]), resets[:0:-1]])


def as_steps(resets: Any, reverse: bool) -> Any:
    """As kernels take them, [2, batch, time]: all steps count, and before which rows start anew.
    Numbers are looked at when they run."""
    dtype = "bool" if resets.dtype == np.dtype(bool) else "float32"
    run = as_run(resets, reverse).astype(dtype)
    run = (run[:, None] if run.ndim == 1 else run).T
    return jnp.stack([jnp.ones_like(run), run])


def refuse_shared(carried: Sequence[bool], name: str) -> None:
    """TypeError for a carry of which rows share a part: it can't start anew for one of them."""
    if any(carried) and not all(carried):
        raise TypeError(
            f"{name} has a carry without a batch, which all rows share: with resets= each part "
            "has one, [batch, ...]"
        )


def by_jax(
    f: Callable[[Any, Any], Any], init: Any, xs: Any, resets: Any, more: tuple[Any, bool, Any]
) -> tuple[Any, Any]:
    """jax.lax.scan of the same, where no kernel runs: of no rows, or no numbers. more: its length,
    reverse and unroll."""
    begins = as_run(jnp.asarray(resets), more[1]) != 0
    begins = begins[::-1] if more[1] else begins

    def step(carry: Any, given: Any) -> Any:
        x, anew = given
        own = jax.tree.map(lambda i, c: jnp.where(_beside(anew, c), i, c), init, carry)
        return f(own, x)

    found: tuple[Any, Any] = jax.lax.scan(step, init, (xs, begins), *more)
    return found


def _beside(anew: Any, c: Any) -> Any:
    return anew.reshape(*anew.shape, *[1] * (jnp.ndim(c) - anew.ndim))
