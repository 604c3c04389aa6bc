"""Ten recurrent cells as people write them for jax.lax.scan, from their papers: a function that is
given parameters, and closes over them.

    CELLS[name](sizes) -> Problem          parameters, step, carry and xs

Non-Goals: tests; speed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, nn


class Sizes(NamedTuple):
    batch: int = 5
    time: int = 6
    features: int = 3
    units: int = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """step(params) is a scan's function; params: arrays of float64 by name."""

    step: Callable[[Any], Callable[[Any, Any], Any]]
    params: dict[str, np.ndarray]
    carry: Any
    xs: Any


CELLS: dict[str, Callable[[Sizes], Problem]] = {}


def cell(make: Callable[[Sizes, Any], Problem]) -> Callable[[Sizes, Any], Problem]:
    """Every cell draws from numbers of its own."""
    CELLS[make.__name__] = lambda sizes: make(sizes, np.random.default_rng(7))
    return make


def _matrix(rng: Any, *shape: int) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape) / np.sqrt(shape[0]))


@cell
def ltc(s: Sizes, rng: Any) -> Problem:
    """Liquid time-constant network, six unfoldings of a fused solver (Hasani et al. 2021)."""

    def step(p: Any) -> Any:
        def f(v: Any, x: Any) -> Any:
            own = p["sensory_w"] * nn.sigmoid(
                p["sensory_sigma"] * (x[:, :, None] - p["sensory_mu"])
            )
            sensed, weighed = (own * p["sensory_erev"]).sum(1), own.sum(1)

            def unfold(_: Any, v: Any) -> Any:
                gates = p["w"] * nn.sigmoid(p["sigma"] * (v[:, :, None] - p["mu"]))
                above = (
                    6 * p["cm"] * v + p["gleak"] * p["vleak"] + (gates * p["erev"]).sum(1) + sensed
                )
                return above / (6 * p["cm"] + p["gleak"] + gates.sum(1) + weighed + 1e-8)

            v = lax.fori_loop(0, 6, unfold, v)
            return v, v * p["output_w"] + p["output_b"]

        return f

    def synapses(n: int, name: str = "") -> dict[str, np.ndarray]:
        return {
            f"{name}w": rng.uniform(0.01, 1, (n, s.units)),
            f"{name}sigma": rng.uniform(3, 8, (n, s.units)),
            f"{name}mu": rng.uniform(0.3, 0.8, (n, s.units)),
            f"{name}erev": rng.choice([-1.0, 1.0], (n, s.units)),
        }

    params = {
        **synapses(s.units),
        **synapses(s.features, "sensory_"),
        "cm": rng.uniform(0.4, 0.6, s.units),
        "gleak": rng.uniform(0.1, 1, s.units),
        "vleak": rng.uniform(-0.2, 0.2, s.units),
        "output_w": np.ones(s.units),
        "output_b": np.zeros(s.units),
    }
    return Problem(step, params, np.zeros((s.batch, s.units)), _xs(s, rng))


@cell
def cfc(s: Sizes, rng: Any) -> Problem:
    """Closed-form continuous-time network, with the time since the step before (Hasani 2022)."""

    def step(p: Any) -> Any:
        def f(h: Any, inputs: Any) -> Any:
            x, gap = inputs
            z = 1.7159 * jnp.tanh(0.666 * (jnp.concatenate([x, h], -1) @ p["backbone"] + p["b"]))
            one, two = jnp.tanh(z @ p["w1"] + p["b1"]), jnp.tanh(z @ p["w2"] + p["b2"])
            t = nn.sigmoid((z @ p["wa"] + p["ba"]) * gap[:, None] + z @ p["wb"] + p["bb"])
            h = one * (1 - t) + t * two
            return h, h

        return f

    params = {"backbone": _matrix(rng, s.features + s.units, s.units), "b": np.zeros(s.units)}
    for name in ("1", "2", "a", "b"):
        params[f"w{name}"] = _matrix(rng, s.units, s.units)
        params[f"b{name}"] = 0.1 * rng.standard_normal(s.units)
    xs = _xs(s, rng), rng.uniform(0.1, 2, (s.time, s.batch))
    return Problem(step, params, np.zeros((s.batch, s.units)), xs)


@jax.custom_vjp
def spike(v: Any) -> Any:
    return (v > 0).astype(v.dtype)


def _spike_forward(v: Any) -> Any:
    return spike(v), v


def _spike_backward(v: Any, d: Any) -> Any:
    return (d / (1 + 10 * jnp.abs(v)) ** 2,)


spike.defvjp(_spike_forward, _spike_backward)


@cell
def lif(s: Sizes, rng: Any) -> Problem:
    """Leaky integrate and fire, recurrent, with a surrogate gradient and a reset (Neftci 2019)."""

    def step(p: Any) -> Any:
        def f(state: Any, x: Any) -> Any:
            v, current, out = state["v"], state["i"], state["s"]
            current = p["beta"] * current + x @ p["w"] + out @ p["u"]
            v = p["alpha"] * v * (1 - lax.stop_gradient(out)) + current
            out = spike(v - 1.0)
            return {"v": v, "i": current, "s": out}, out

        return f

    params = {
        "w": 2 * _matrix(rng, s.features, s.units),
        "u": _matrix(rng, s.units, s.units),
        "alpha": np.asarray(0.9),
        "beta": np.asarray(0.8),
    }
    zeros = np.zeros((s.batch, s.units))
    return Problem(step, params, {"v": zeros, "i": zeros, "s": zeros}, _xs(s, rng))


@cell
def lmu(s: Sizes, rng: Any) -> Problem:
    """Legendre memory unit (Voelker et al. 2019)."""
    order, theta = s.units, 12.0
    q = np.arange(order)
    r = (2 * q + 1)[:, None] / theta
    i, j = np.meshgrid(q, q, indexing="ij")
    a = np.where(i < j, -1.0, (-1.0) ** (i - j + 1)) * r
    b = ((-1.0) ** q)[:, None] * r
    whole = np.zeros((order + 1, order + 1))
    whole[:order, :order], whole[:order, order:] = a, b
    held = _expm(whole)  # the matrices of one step, an input held
    ad, bd = held[:order, :order], held[:order, order]

    def step(p: Any) -> Any:
        def f(state: Any, x: Any) -> Any:
            h, m = state
            u = x @ p["ex"] + h @ p["eh"] + m @ p["em"]
            m = m @ jnp.asarray(ad.T, h.dtype) + u[:, None] * jnp.asarray(bd, h.dtype)
            h = jnp.tanh(x @ p["wx"] + h @ p["wh"] + m @ p["wm"])
            return (h, m), h

        return f

    n = s.units
    params = {
        "ex": _matrix(rng, s.features),
        "eh": _matrix(rng, n),
        "em": np.zeros(order),
        "wx": _matrix(rng, s.features, n),
        "wh": _matrix(rng, n, n),
        "wm": _matrix(rng, order, n),
    }
    return Problem(step, params, (np.zeros((s.batch, n)), np.zeros((s.batch, order))), _xs(s, rng))


def _expm(matrix: np.ndarray) -> np.ndarray:
    """By squaring."""
    total = term = np.eye(len(matrix))
    small = matrix / 2**10
    for k in range(1, 12):
        term = term @ small / k
        total = total + term
    for _ in range(10):
        total = total @ total
    return total


@cell
def min_gru(s: Sizes, rng: Any) -> Problem:
    """minGRU (Feng et al. 2024)."""

    def step(p: Any) -> Any:
        def f(h: Any, x: Any) -> Any:
            z = nn.sigmoid(x @ p["wz"] + p["bz"])
            h = (1 - z) * h + z * (x @ p["wh"] + p["bh"])
            return h, h

        return f

    params = {f"w{n}": _matrix(rng, s.features, s.units) for n in "zh"}
    params |= {f"b{n}": 0.1 * rng.standard_normal(s.units) for n in "zh"}
    return Problem(step, params, np.zeros((s.batch, s.units)), _xs(s, rng))


class Memory(NamedTuple):
    c: Any
    n: Any
    m: Any


@cell
def mlstm(s: Sizes, rng: Any) -> Problem:
    """mLSTM, a matrix memory with a stabiliser, four heads (Beck et al. 2024)."""
    heads, width = 4, s.units // 4

    def step(p: Any) -> Any:
        def f(state: Any, x: Any) -> Any:
            c, n, m = state
            q, k, v = (
                (x @ p[f"w{name}"]).reshape(x.shape[0], heads, width) for name in ("q", "k", "v")
            )
            k = k / jnp.sqrt(width)
            i = x @ p["wi"] + p["bi"]
            forget = nn.log_sigmoid(x @ p["wf"] + p["bf"])
            new = jnp.maximum(forget + m, i)
            i, keep = jnp.exp(i - new), jnp.exp(forget + m - new)
            c = keep[..., None, None] * c + i[..., None, None] * (v[..., :, None] * k[..., None, :])
            n = keep[..., None] * n + i[..., None] * k
            below = jnp.maximum(jnp.abs(jnp.einsum("bhk,bhk->bh", n, q)), jnp.exp(-new))
            h = jnp.einsum("bhvk,bhk->bhv", c, q) / below[..., None]
            out = nn.sigmoid(x @ p["wo"] + p["bo"]) * h.reshape(x.shape[0], s.units)
            return Memory(c, n, new), out

        return f

    params = {f"w{n}": _matrix(rng, s.features, s.units) for n in "qkvo"}
    params |= {f"w{n}": _matrix(rng, s.features, heads) for n in "if"}
    params |= {"bi": np.zeros(heads), "bf": np.full(heads, 2.0), "bo": np.zeros(s.units)}
    carry = Memory(
        np.zeros((s.batch, heads, width, width)),
        np.zeros((s.batch, heads, width)),
        np.zeros((s.batch, heads)),
    )
    return Problem(step, params, carry, _xs(s, rng))


@cell
def mogrifier(s: Sizes, rng: Any) -> Problem:
    """Mogrifier LSTM, five rounds (Melis et al. 2020)."""

    def step(p: Any) -> Any:
        def f(state: Any, x: Any) -> Any:
            h, c = state
            for i in range(5):
                if i % 2 == 0:
                    x = 2 * nn.sigmoid(h @ p[f"q{i}"]) * x
                else:
                    h = 2 * nn.sigmoid(x @ p[f"r{i}"]) * h
            i, g, o, u = jnp.split(x @ p["w"] + h @ p["u"] + p["b"], 4, axis=-1)
            c = nn.sigmoid(g) * c + nn.sigmoid(i) * jnp.tanh(u)
            h = nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        return f

    params = _lstm(s, rng)
    for i in range(5):
        name, shape = ("r", (s.features, s.units)) if i % 2 else ("q", (s.units, s.features))
        params[f"{name}{i}"] = _matrix(rng, *shape)
    zeros = np.zeros((s.batch, s.units))
    return Problem(step, params, (zeros, zeros), _xs(s, rng))


def _lstm(s: Sizes, rng: Any) -> dict[str, np.ndarray]:
    return {
        "w": _matrix(rng, s.features, 4 * s.units),
        "u": _matrix(rng, s.units, 4 * s.units),
        "b": 0.1 * rng.standard_normal(4 * s.units),
    }


@cell
def layer_norm_lstm(s: Sizes, rng: Any) -> Problem:
    """LSTM with layer normalization (Ba et al. 2016)."""

    def norm(z: Any, scale: Any) -> Any:
        mean = z.mean(-1, keepdims=True)
        return (z - mean) * lax.rsqrt(z.var(-1, keepdims=True) + 1e-5) * scale

    def step(p: Any) -> Any:
        def f(state: Any, x: Any) -> Any:
            h, c = state
            z = norm(x @ p["w"], p["scale_x"]) + norm(h @ p["u"], p["scale_h"]) + p["b"]
            i, g, o, u = jnp.split(z, 4, axis=-1)
            c = nn.sigmoid(g + 1.0) * c + nn.sigmoid(i) * jnp.tanh(u)
            h = nn.sigmoid(o) * jnp.tanh(norm(c, p["scale_c"]))
            return (h, c), h

        return f

    params = _lstm(s, rng)
    params |= {f"scale_{n}": rng.uniform(0.5, 1.5, 4 * s.units) for n in "xh"}
    params["scale_c"] = rng.uniform(0.5, 1.5, s.units)
    carry = rng.standard_normal((2, s.batch, s.units))
    return Problem(step, params, (carry[0], carry[1]), _xs(s, rng))


@cell
def attention(s: Sizes, rng: Any) -> Problem:
    """A decoder with additive attention over places that it closes over (Bahdanau et al. 2015)."""

    def step(p: Any) -> Any:
        keys = p["context"] @ p["wk"]

        def f(h: Any, x: Any) -> Any:
            scores = jnp.tanh(keys + (h @ p["wq"])[:, None, :]) @ p["score"]
            seen = jnp.einsum("bp,bpf->bf", nn.softmax(scores, axis=-1), p["context"])
            z = nn.sigmoid(x @ p["wz"] + h @ p["uz"] + seen @ p["cz"])
            new = jnp.tanh(x @ p["wh"] + h @ p["uh"] + seen @ p["ch"])
            h = (1 - z) * h + z * new
            return h, (h, scores)

        return f

    n = s.units
    params = {
        "context": rng.standard_normal((s.batch, 9, n)),
        "score": _matrix(rng, n),
        **{f"w{g}": _matrix(rng, s.features, n) for g in "zh"},
        **{f"{k}{g}": _matrix(rng, n, n) for k in "uc" for g in "zh"},
        **{f"w{g}": _matrix(rng, n, n) for g in "kq"},
    }
    return Problem(step, params, np.zeros((s.batch, n)), _xs(s, rng))


@cell
def gru_d(s: Sizes, rng: Any) -> Problem:
    """GRU-D, for values that are missing (Che et al. 2018)."""

    def step(p: Any) -> Any:
        def f(state: Any, inputs: Any) -> Any:
            h, last = state
            x, there, gap = inputs["x"], inputs["there"], inputs["gap"]
            fade = jnp.exp(-nn.relu(gap * p["fade_x"] + p["fade_x_b"]))
            last = jnp.where(there, x, last)
            x = jnp.where(there, x, fade * last + (1 - fade) * p["mean"])
            h = jnp.exp(-nn.relu(gap @ p["fade_h"] + p["fade_h_b"])) * h
            m = there.astype(x.dtype)
            z = nn.sigmoid(x @ p["wz"] + h @ p["uz"] + m @ p["vz"] + p["bz"])
            r = nn.sigmoid(x @ p["wr"] + h @ p["ur"] + m @ p["vr"] + p["br"])
            new = jnp.tanh(x @ p["wh"] + (r * h) @ p["uh"] + m @ p["vh"] + p["bh"])
            h = (1 - z) * h + z * new
            return (h, last), h

        return f

    n, k = s.units, s.features
    params = {
        "fade_x": rng.uniform(0, 1, k),
        "fade_x_b": 0.1 * rng.standard_normal(k),
        "fade_h": _matrix(rng, k, n),
        "fade_h_b": 0.1 * rng.standard_normal(n),
        "mean": rng.standard_normal(k),
    }
    for g in "zrh":
        params |= {f"w{g}": _matrix(rng, k, n), f"u{g}": _matrix(rng, n, n)}
        params |= {f"v{g}": _matrix(rng, k, n), f"b{g}": 0.1 * rng.standard_normal(n)}
    shape = (s.time, s.batch, k)
    xs = {
        "x": rng.standard_normal(shape),
        "there": rng.random(shape) < 0.6,
        "gap": rng.uniform(0, 3, shape),
    }
    return Problem(step, params, (np.zeros((s.batch, n)), np.zeros((s.batch, k))), xs)


def _xs(s: Sizes, rng: Any) -> np.ndarray:
    return np.asarray(rng.standard_normal((s.time, s.batch, s.features)))
