"""Initial weights, as Keras draws them: the same distributions, fans and defaults.

Every weight has a random stream of its own, made from the layer's seed and the weight's name, so
a weight added to a cell leaves the others as they were.

Non-Goals: the same numbers as Keras's generators give.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np

from rnncc.common.blas_threads import one_blas_thread

Shape = tuple[int, ...]
Draw = Callable[..., np.ndarray]
INITIALIZERS: dict[str, Draw] = {}
# The standard deviation of a unit normal cut off at 2.
_CUT = 0.87962566103423978


def initializer(draw: Draw) -> Draw:
    """Into the table under its own name; its first arguments are the generator and the shape."""
    INITIALIZERS[draw.__name__] = draw
    return draw


def stream(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one weight of a layer."""
    digest = hashlib.sha256(name.encode()).digest()
    words = np.frombuffer(digest, dtype="<u4")
    sequence = np.random.SeedSequence(seed, spawn_key=(1, *map(int, words)))
    return np.random.Generator(np.random.PCG64(sequence))


def arguments(
    name: str, positional: tuple[object, ...] = (), keywords: Mapping[str, object] | None = None
) -> tuple[object, ...]:
    """An initializer's arguments in order, those at their default at the end left out.

    ValueError: no such initializer, or it doesn't take such arguments; nothing is drawn.
    """
    parameters = _parameters(_find(name))
    takes = f"{name}({', '.join(f'{p.name}={p.default!r}' for p in parameters)})"
    try:
        bound = inspect.Signature(parameters).bind(*positional, **(keywords or {}))
    except TypeError as error:
        raise ValueError(f"{takes}: {error}") from None
    bound.apply_defaults()
    values, defaults = list(bound.args), [p.default for p in parameters]
    for parameter, value in zip(parameters, values, strict=True):
        if isinstance(value, str) != isinstance(parameter.default, str):
            raise ValueError(f"{takes}: {parameter.name} can't be {value!r}")
    while values and values[-1] == defaults[len(values) - 1]:
        values.pop()
    return tuple(values)


@cache
def _parameters(draw: Draw) -> list[inspect.Parameter]:
    """Those after the generator and the shape."""
    return list(inspect.signature(draw).parameters.values())[2:]


def draw(
    name: str, given: tuple[object, ...], shape: Shape, dtype: str, rng: np.random.Generator
) -> np.ndarray:
    """A new array [*shape] of `dtype`; ValueError when the initializer can't fill that shape."""
    values = np.asarray(_find(name)(rng, shape, *given))
    return np.array(np.broadcast_to(values, shape), dtype=dtype, order="C")


def _find(name: str) -> Draw:
    if name not in INITIALIZERS:
        raise ValueError(f"no initializer is called {name}: {', '.join(sorted(INITIALIZERS))}")
    return INITIALIZERS[name]


def fans(shape: Shape) -> tuple[int, int]:
    """Fan-in and fan-out by Keras's rule: all axes but the last two multiply both."""
    if len(shape) < 2:
        return (shape[0], shape[0]) if shape else (1, 1)
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


# ---- the table -------------------------------------------------------------------------------


@initializer
def zeros(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return np.zeros(shape)


@initializer
def ones(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return np.ones(shape)


@initializer
def constant(rng: np.random.Generator, shape: Shape, value: float = 0.0) -> np.ndarray:
    return np.full(shape, value, dtype=np.float64)


@initializer
def random_uniform(
    rng: np.random.Generator, shape: Shape, minval: float = -0.05, maxval: float = 0.05
) -> np.ndarray:
    return minval + (maxval - minval) * rng.random(shape)


@initializer
def random_normal(
    rng: np.random.Generator, shape: Shape, mean: float = 0.0, stddev: float = 0.05
) -> np.ndarray:
    return mean + stddev * rng.standard_normal(shape)


@initializer
def truncated_normal(
    rng: np.random.Generator, shape: Shape, mean: float = 0.0, stddev: float = 0.05
) -> np.ndarray:
    """Normal, drawn again where it is further than two deviations from the mean."""
    values = np.asarray(rng.standard_normal(shape))
    while (far := np.abs(values) > 2).any():
        values[far] = rng.standard_normal(int(far.sum()))
    return mean + stddev * values


@initializer
def variance_scaling(
    rng: np.random.Generator,
    shape: Shape,
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
) -> np.ndarray:
    fan_in, fan_out = fans(shape)
    modes = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    if mode not in modes:
        raise ValueError(f"mode is one of {', '.join(modes)}, not {mode!r}")
    variance = scale / max(1.0, modes[mode])
    if distribution == "truncated_normal":
        return truncated_normal(rng, shape, 0.0, math.sqrt(variance) / _CUT)
    if distribution in ("untruncated_normal", "normal"):
        return random_normal(rng, shape, 0.0, math.sqrt(variance))
    if distribution == "uniform":
        limit = math.sqrt(3.0 * variance)
        return random_uniform(rng, shape, -limit, limit)
    known = "truncated_normal, untruncated_normal, uniform"
    raise ValueError(f"distribution is one of {known}, not {distribution!r}")


INITIALIZERS |= {"uniform": random_uniform, "normal": random_normal}


def _scaled(name: str, scale: float, mode: str, distribution: str) -> None:
    def scaled(rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return variance_scaling(rng, shape, scale, mode, distribution)

    scaled.__name__ = name
    initializer(scaled)


for _name, _scale, _mode in (
    ("glorot", 1.0, "fan_avg"),
    ("he", 2.0, "fan_in"),
    ("lecun", 1.0, "fan_in"),
):
    _scaled(f"{_name}_uniform", _scale, _mode, "uniform")
    _scaled(f"{_name}_normal", _scale, _mode, "truncated_normal")


@initializer
def orthogonal(rng: np.random.Generator, shape: Shape, gain: float = 1.0) -> np.ndarray:
    """Orthonormal rows or columns, whichever are fewer; all axes but the last are rows."""
    if len(shape) < 2:
        raise ValueError(f"orthogonal fills a shape of rank 2 or more, not {list(shape)}")
    rows, columns = math.prod(shape[:-1]), shape[-1]
    normal = rng.standard_normal((max(rows, columns), min(rows, columns)))
    with one_blas_thread():
        q, r = np.linalg.qr(normal)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)  # else QR favours some rotations
    return gain * (q if rows >= columns else q.T).reshape(shape)


@initializer
def identity(rng: np.random.Generator, shape: Shape, gain: float = 1.0) -> np.ndarray:
    if len(shape) != 2:
        raise ValueError(f"identity fills a shape of rank 2, not {list(shape)}")
    return gain * np.eye(*shape)


@initializer
def unit_forget_bias(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Zeros, but ones in the second quarter of the last axis: the forget gate of i, f, g, o."""
    if not shape or shape[-1] % 4:
        raise ValueError(f"unit_forget_bias fills a last axis of four parts, not {list(shape)}")
    values = np.zeros(shape)
    quarter = shape[-1] // 4
    values[..., quarter : 2 * quarter] = 1.0
    return values
