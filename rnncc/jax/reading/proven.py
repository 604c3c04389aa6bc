"""Numbers that JAX computes of a step, in float64, for the proof that its equations are right.

Non-Goals: comparing (`rnncc.reading.proof`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from rnncc.jax.reading.float64 import in_float64
from rnncc.jax.reading.steps import Step
from rnncc.reading.proof import Draw
from rnncc.reading.text import CellText

_ROWS, _STEPS = 3, 3
_DRAWS: tuple[Callable[[Any, tuple[int, ...]], np.ndarray], ...] = (
    lambda rng, shape: rng.standard_normal(shape),
    lambda rng, shape: 0.3 * rng.standard_normal(shape),
    lambda rng, shape: rng.uniform(0.1, 0.9, shape),
)
_WHOLE = 4  # what whole numbers are drawn below


@dataclass(frozen=True, slots=True)
class Places:
    """By names of a text, which leaf or closed-over array it is."""

    xs: Mapping[str, int]
    contexts: Mapping[str, int]
    states: Mapping[str, int]
    weights: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Trial:
    """A step, and how it was read. carried, timed, shown: which leaves of the carry, of xs and of
    ys have a batch. fixed: closed-over whole numbers. rows: of the batch where it isn't ours to
    choose."""

    step: Step
    carried: Sequence[bool]
    timed: Sequence[bool]
    shown: Sequence[bool]
    fixed: Mapping[int, np.ndarray]
    rows: int | None = None


def draws_of(trial: Trial, text: CellText, places: Places) -> list[Draw]:
    """Each of other numbers."""
    rows = trial.rows or (_ROWS if any((*trial.carried, *trial.timed)) else 1)
    with jax.enable_x64(True):
        traces = trial.step.with_batch(rows, trial.carried, trial.timed, float64=True)
    with jax.enable_x64(True), jax.ensure_compile_time_eval():  # within other traces, too
        pull = jax.jit(_gradients(trial.step, traces.jaxpr))
        rngs = [np.random.default_rng(seed) for seed in range(len(_DRAWS))]
        return [
            _draw(trial, traces.jaxpr, pull, text, places, rng, draw, rows)
            for rng, draw in zip(rngs, _DRAWS, strict=True)
        ]


def _gradients(step: Step, closed: ClosedJaxpr) -> Callable[..., Any]:
    """(leaves, cotangents of floats) -> (results, gradients of floats), over some steps."""
    carries = len(step.carry)

    def run(carry: list[Any], xs: list[Any], constants: list[Any]) -> Any:
        def computed(*given: Any) -> list[Any]:
            return in_float64(closed.jaxpr, [*constants, *given])

        wanted = [a.dtype for a in closed.in_avals[:carries]]
        ys = []
        for t in range(_STEPS):
            found = computed(*carry, *[x[t] for x in xs])
            carry = [c.astype(d) for c, d in zip(found[:carries], wanted, strict=True)]
            ys.append(found[carries:] or carry[:1])
        return carry, [jax.numpy.stack([*column]) for column in zip(*ys, strict=True)]

    def pull(given: Any, cotangents: Any) -> Any:
        floats, tree = jax.tree.flatten(given)
        at = [i for i, a in enumerate(floats) if a.dtype.kind == "f"]

        def of_floats(own: list[Any]) -> Any:
            whole = [*floats]
            for i, a in zip(at, own, strict=True):
                whole[i] = a
            results = run(*jax.tree.unflatten(tree, whole))
            seen = [
                (r * d).sum()
                for r, d in zip(jax.tree.leaves(results), cotangents, strict=True)
                if r.dtype.kind == "f"
            ]
            return sum(seen, jax.numpy.zeros(())), results

        grads, results = jax.grad(of_floats, has_aux=True)([floats[i] for i in at])
        found: list[Any] = [None] * len(floats)
        for i, g in zip(at, grads, strict=True):
            found[i] = g
        return results, jax.tree.unflatten(tree, found)

    return pull


def _draw(
    trial: Trial,
    closed: ClosedJaxpr,
    pull: Callable[..., Any],
    text: CellText,
    places: Places,
    rng: Any,
    draw: Callable[[Any, tuple[int, ...]], np.ndarray],
    rows: int,
) -> Draw:
    carries = len(trial.step.carry)

    def number(aval: Any, lead: tuple[int, ...] = ()) -> np.ndarray:
        shape, dtype = (*lead, *aval.shape), np.dtype(aval.dtype)
        if dtype.kind == "f":
            return draw(rng, shape).astype(dtype)
        if dtype.kind == "b":
            return np.asarray(rng.random(shape) < 0.5)
        return np.asarray(rng.integers(0, _WHOLE, shape)).astype(dtype)

    avals = closed.in_avals
    carry = [number(a) for a in avals[:carries]]
    xs = [number(a, (_STEPS,)) for a in avals[carries:]]
    constants = []
    for at, c in enumerate(closed.consts):
        aval = jax.typeof(c)
        constant = trial.fixed.get(at)
        if constant is None:
            constant = number(aval)
        constants.append(constant.astype(np.float64) if constant.dtype.kind == "f" else constant)
    outs = [*closed.out_avals]
    shapes = [a.shape for a in (outs if len(outs) > carries else [*outs, outs[0]])]
    lead = [() if i < carries else (_STEPS,) for i in range(len(shapes))]
    cotangents = [rng.standard_normal((*b, *s)) for b, s in zip(lead, shapes, strict=True)]
    (finals, ys), grads = jax.tree.map(
        np.asarray, pull((carry, xs, constants), cotangents), is_leaf=lambda g: g is None
    )
    return _as_rows(
        trial, text, places, rows, (carry, xs, constants), (finals, ys), cotangents, grads
    )


def _as_rows(
    trial: Trial,
    text: CellText,
    places: Places,
    rows: int,
    given: Any,
    results: Any,
    cotangents: list[np.ndarray],
    grads: Any,
) -> Draw:
    """Arrays as layers have them: [batch, time, ...], whatever has a batch in JAX."""
    (carry, xs, constants), (finals, ys) = given, results
    (d_carry, d_xs, d_constants), carries = grads, len(carry)

    arguments = {n: _timed(xs[i], trial.timed[i], rows) for n, i in places.xs.items() if i >= 0}
    dummies = [n for n, i in places.xs.items() if i < 0]
    arguments |= {n: np.zeros((rows, _STEPS)) for n in dummies}
    arguments |= {n: np.asarray(constants[i], np.float64) for n, i in places.contexts.items()}
    gradients = {
        n: d_xs[i].swapaxes(0, 1)
        for n, i in places.xs.items()
        if i >= 0 and trial.timed[i] and xs[i].dtype.kind == "f"
    }
    gradients |= {
        n: d_carry[i]
        for n, i in places.states.items()
        if trial.carried[i] and carry[i].dtype.kind == "f"
    }
    for names in (places.contexts, places.weights):
        gradients |= {
            n: d_constants[i]
            for n, i in names.items()
            if constants[i].dtype.kind == "f" and n not in text.constants
        }
    rowed = [trial.carried[i] for i in range(carries)]
    shown = trial.shown
    floats = [a.dtype.kind == "f" for a in (*finals, *ys)]
    own = [d if f else np.zeros_like(d) for d, f in zip(cotangents, floats, strict=True)]
    return Draw(
        arguments,
        {n: _each(carry[i], trial.carried[i], rows) for n, i in places.states.items()},
        {n: np.asarray(constants[i], np.float64) for n, i in places.weights.items()},
        [_timed(y, r, rows) for y, r in zip(ys, shown, strict=True)],
        [_each(c, r, rows) for c, r in zip(finals, rowed, strict=True)],
        [_once_timed(d, r, rows) for d, r in zip(own[carries:], shown, strict=True)],
        [_once(d, r, rows) for d, r in zip(own[:carries], rowed, strict=True)],
        gradients,
    )


def _each(array: Any, has_rows: bool, rows: int) -> np.ndarray:
    array = np.asarray(array, np.float64)
    return array if has_rows else np.broadcast_to(array, (rows, *array.shape))


def _timed(array: Any, has_rows: bool, rows: int) -> np.ndarray:
    array = np.asarray(array, np.float64)
    if not has_rows:
        array = np.broadcast_to(array[:, None], (len(array), rows, *array.shape[1:]))
    return array.swapaxes(0, 1)


def _once(d: Any, has_rows: bool, rows: int) -> np.ndarray:
    """A cotangent of what all rows share, handed to the first of them."""
    whole = np.zeros((rows, *d.shape))
    whole[0] = d
    return d if has_rows else whole


def _once_timed(d: Any, has_rows: bool, rows: int) -> np.ndarray:
    return d.swapaxes(0, 1) if has_rows else _once(d, False, rows)
