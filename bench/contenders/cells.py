"""Cells as a user of an array library writes them: torch, jax and numpy share one text.

    before(ops, w, x)               all steps at once: what doesn't need the state; [..., gates]
    step(ops, w, z, kept, *states)  one step of it: the next states, the output first

`ops` is a library's names for the same functions (`ops_of`), `w` its arrays by weight, `kept` what
recurrent dropout multiplies h by, or None. Each follows its file of rnncc/cells.

Non-Goals: loops over steps, which are the libraries' own; speed beyond what good style gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.case import Case, bound


@dataclass(frozen=True, slots=True)
class CellCode:
    """states: how many of [units]; or `shaped`, each one's shape by the units.

    Where the output isn't a state it is the first one all the same, and no step reads it.
    """

    before: Callable[..., Any]
    step: Callable[..., tuple[Any, ...]]
    states: int = 1
    shaped: Callable[[int], list[tuple[int, ...]]] | None = None

    def shapes(self, batch: int, units: int) -> list[tuple[int, ...]]:
        shapes = self.shaped(units) if self.shaped else [(units,)] * self.states
        return [(batch, *shape) for shape in shapes]


HEADS = 4


def _dropped(h: Any, kept: Any) -> Any:
    return h if kept is None else h * kept


def _dense(ops: Any, w: Any, x: Any) -> Any:
    return x @ w["kernel"] + w["bias"]


# ---- LSTM and its kin ------------------------------------------------------------------------


def _lstm(ops: Any, w: Any, z: Any, kept: Any, h: Any, c: Any) -> tuple[Any, ...]:
    i, f, g, o = ops.split(z + _dropped(h, kept) @ w["recurrent_kernel"], 4)
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    return ops.sigmoid(o) * ops.tanh(c), c


def _peephole(ops: Any, w: Any, z: Any, kept: Any, h: Any, c: Any) -> tuple[Any, ...]:
    i, f, g, o = ops.split(z + h @ w["recurrent_kernel"], 4)
    i = ops.sigmoid(i + w["peephole_i"] * c)
    f = ops.sigmoid(f + w["peephole_f"] * c)
    c = f * c + i * ops.tanh(g)
    return ops.sigmoid(o + w["peephole_o"] * c) * ops.tanh(c), c


def _norm_before(ops: Any, w: Any, x: Any) -> Any:
    return w["input_gain"] * ops.layer_norm(x @ w["kernel"]) + w["bias"]


def _norm_lstm(ops: Any, w: Any, z: Any, kept: Any, h: Any, c: Any) -> tuple[Any, ...]:
    z = z + w["recurrent_gain"] * ops.layer_norm(h @ w["recurrent_kernel"])
    i, f, g, o = ops.split(z, 4)
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    shown = w["cell_gain"] * ops.layer_norm(c) + w["cell_bias"]
    return ops.sigmoid(o) * ops.tanh(shown), c


def _slstm_before(ops: Any, w: Any, x: Any) -> Any:
    z = x @ w["kernel"] + w["bias"]
    return z.reshape(*z.shape[:-1], HEADS, z.shape[-1] // HEADS)


def _slstm(ops: Any, w: Any, z: Any, kept: Any, *states: Any) -> tuple[Any, ...]:
    h, c, n, m = states
    a = z + ops.einsum("bhk,hkl->bhl", h, w["recurrent_kernel"])
    i, f, g, o = ops.split(a, 4)
    log_f = -ops.softplus(-f)
    new_m = ops.maximum(log_f + m, i)
    i, f = ops.exp(i - new_m), ops.exp(log_f + m - new_m)
    c = f * c + i * ops.tanh(g)
    n = f * n + i
    return ops.sigmoid(o) * c / n, c, n, new_m


# ---- GRU and its kin -------------------------------------------------------------------------


def _gru_before(ops: Any, w: Any, x: Any) -> Any:
    return x @ w["kernel"] + w["bias"][0]


def _gru(ops: Any, w: Any, z: Any, kept: Any, h: Any) -> tuple[Any, ...]:
    x_z, x_r, x_h = ops.split(z, 3)
    h_z, h_r, h_h = ops.split(_dropped(h, kept) @ w["recurrent_kernel"] + w["bias"][1], 3)
    z, r = ops.sigmoid(x_z + h_z), ops.sigmoid(x_r + h_r)
    return (z * h + (1 - z) * ops.tanh(x_h + r * h_h),)


def _gru_reset_before(ops: Any, w: Any, z: Any, kept: Any, h: Any) -> tuple[Any, ...]:
    units, h_in = h.shape[-1], _dropped(h, kept)
    x_z, x_r, x_h = ops.split(z, 3)
    h_z, h_r = ops.split(h_in @ w["recurrent_kernel"][:, : 2 * units], 2)
    z, r = ops.sigmoid(x_z + h_z), ops.sigmoid(x_r + h_r)
    g = ops.tanh(x_h + (r * h_in) @ w["recurrent_kernel"][:, 2 * units :])
    return (z * h + (1 - z) * g,)


def _light_before(ops: Any, w: Any, x: Any) -> Any:
    x_z, x_h = ops.split(x @ w["kernel"], 2)
    gain, bias = w["gain"], w["bias"]
    x_z = gain[0] * ops.layer_norm(x_z) + bias[0]
    x_h = gain[1] * ops.layer_norm(x_h) + bias[1]
    return ops.join(x_z, x_h)


def _light(ops: Any, w: Any, z: Any, kept: Any, h: Any) -> tuple[Any, ...]:
    x_z, x_h = ops.split(z, 2)
    h_z, h_h = ops.split(h @ w["recurrent_kernel"], 2)
    z, g = ops.sigmoid(x_z + h_z), ops.relu(x_h + h_h)
    return (z * h + (1 - z) * g,)


def _simple(ops: Any, w: Any, z: Any, kept: Any, h: Any) -> tuple[Any, ...]:
    return (ops.tanh(z + _dropped(h, kept) @ w["recurrent_kernel"]),)


def _relu_rnn(ops: Any, w: Any, z: Any, kept: Any, h: Any) -> tuple[Any, ...]:
    return (ops.relu(z + _dropped(h, kept) @ w["recurrent_kernel"]),)


# ---- others ----------------------------------------------------------------------------------


def _coupled(ops: Any, w: Any, z: Any, kept: Any, h: Any, c: Any) -> tuple[Any, ...]:
    i, g, o = ops.split(z + h @ w["recurrent_kernel"], 3)
    i = ops.sigmoid(i)
    c = (1 - i) * c + i * ops.tanh(g)
    return ops.sigmoid(o) * ops.tanh(c), c


def _projected(ops: Any, w: Any, z: Any, kept: Any, r: Any, c: Any) -> tuple[Any, ...]:
    h, c = _peephole(ops, w, z, kept, r, c)
    return h @ w["projection_kernel"], c


def _minimal(ops: Any, w: Any, z: Any, kept: Any, h: Any) -> tuple[Any, ...]:
    x_f, x_h = ops.split(z, 2)
    f = ops.sigmoid(x_f + h @ w["recurrent_kernel_f"])
    g = ops.tanh(x_h + (f * h) @ w["recurrent_kernel_h"])
    return ((1 - f) * h + f * g,)


def _independent(ops: Any, w: Any, z: Any, kept: Any, h: Any) -> tuple[Any, ...]:
    return (ops.relu(z + w["recurrent_kernel"] * h),)


def _sru_before(ops: Any, w: Any, x: Any) -> Any:
    return x @ w["kernel"]


def _sru(ops: Any, w: Any, z: Any, kept: Any, h: Any, c: Any) -> tuple[Any, ...]:
    u, z_f, z_r, x_highway = ops.split(z, 4)
    f = ops.sigmoid(z_f + w["recurrent_f"] * c + w["bias_f"])
    r = ops.sigmoid(z_r + w["recurrent_r"] * c + w["bias_r"])
    c = f * c + (1 - f) * u
    return r * c + (1 - r) * x_highway, c


def _highway(ops: Any, w: Any, z: Any, kept: Any, s: Any) -> tuple[Any, ...]:
    for layer in (1, 2, 3):
        a, g = ops.split(s @ w[f"recurrent_kernel_{layer}"] + w[f"bias_{layer}"] + z, 2)
        g = ops.sigmoid(g - 2.0)
        s, z = g * ops.tanh(a) + (1 - g) * s, 0
    return (s,)


def _fast_before(ops: Any, w: Any, x: Any) -> Any:
    def mapped(v: Any) -> Any:
        v = ops.relu(v) + ops.exp(-ops.relu(-v))  # elu(v) + 1
        return v / v.sum(-1)[..., None]

    beta = ops.sigmoid(x @ w["rate_kernel"] + w["rate_bias"])[..., None]
    k, q, v = mapped(x @ w["key_kernel"]), mapped(x @ w["query_kernel"]), x @ w["value_kernel"]
    return ops.join(k, q, v, beta)


def _fast(ops: Any, w: Any, z: Any, kept: Any, h: Any, memory: Any) -> tuple[Any, ...]:
    n = h.shape[-1]
    k, q, v, beta = z[:, :n], z[:, n : 2 * n], z[:, 2 * n : 3 * n], z[:, 3 * n :]
    old = ops.einsum("bij,bj->bi", memory, k)
    memory = memory + (beta * (v - old))[:, :, None] * k[:, None, :]
    return ops.einsum("bij,bj->bi", memory, q), memory


# By the cell's name and the options that make another cell of it.
CELLS = {
    ("lstm",): CellCode(_dense, _lstm, 2),
    ("peephole_lstm",): CellCode(_dense, _peephole, 2),
    ("layer_norm_lstm",): CellCode(_norm_before, _norm_lstm, 2),
    ("slstm",): CellCode(_slstm_before, _slstm, shaped=lambda units: [(HEADS, units // HEADS)] * 4),
    ("gru",): CellCode(_gru_before, _gru),
    ("gru", ("reset_after", False)): CellCode(_dense, _gru_reset_before),
    ("light_gru",): CellCode(_light_before, _light),
    ("simple_rnn",): CellCode(_dense, _simple),
    ("simple_rnn", ("activation", "relu")): CellCode(_dense, _relu_rnn),
    ("coupled_lstm",): CellCode(_dense, _coupled, 2),
    ("projected_lstm",): CellCode(
        _dense, _projected, shaped=lambda units: [(units // 2,), (units,)]
    ),
    ("minimal_gated_unit",): CellCode(_dense, _minimal),
    ("indrnn",): CellCode(_dense, _independent),
    ("sru",): CellCode(_sru_before, _sru, 2),
    ("recurrent_highway",): CellCode(_sru_before, _highway),
    ("fast_weights",): CellCode(
        _fast_before, _fast, shaped=lambda units: [(units,), (units, units)]
    ),
}
DROPPED = ("lstm", "gru", "simple_rnn")  # whose steps read `kept`, one mask for all gates


def code_of(case: Case) -> CellCode | None:
    """The case's cell, or None where nobody has written it yet."""
    rest = [(n, v) for n, v in case.options if n not in ("recurrent_dropout", "dropout_per_gate")]
    per_gate = bound(case)[0].get("dropout_per_gate", False)
    if case.option("recurrent_dropout") and (case.cell not in DROPPED or per_gate):
        return None
    return CELLS.get((case.cell, *rest))


def refuses_cell(case: Case) -> str:
    """Why no loop over steps runs the case, or nothing."""
    return "" if code_of(case) else f"no code for {case.name}"


# ---- the libraries' names --------------------------------------------------------------------


def ops_of(library: str) -> Any:
    """torch's, jax's or numpy's functions under one set of names."""
    made: Any = {"torch": _torch_ops, "jax": _jax_ops, "numpy": _numpy_ops}[library]()
    return made


def _torch_ops() -> Any:
    import torch
    from torch.nn import functional

    return SimpleNamespace(
        sigmoid=torch.sigmoid,
        tanh=torch.tanh,
        exp=torch.exp,
        relu=torch.relu,
        softplus=functional.softplus,
        maximum=torch.maximum,
        einsum=torch.einsum,
        split=lambda v, n: torch.chunk(v, n, -1),
        join=lambda *parts: torch.cat(parts, -1),
        layer_norm=lambda v, eps=1e-5: functional.layer_norm(v, v.shape[-1:], eps=eps),
    )


def _jax_ops() -> Any:
    import jax
    import jax.numpy as jnp

    return SimpleNamespace(
        sigmoid=jax.nn.sigmoid,
        relu=jax.nn.relu,
        softplus=jax.nn.softplus,
        **_like_numpy(jnp, jax.lax.rsqrt),
    )


def _numpy_ops() -> Any:
    def sigmoid(v: np.ndarray) -> np.ndarray:
        return 0.5 + 0.5 * np.tanh(0.5 * v)

    return SimpleNamespace(
        sigmoid=sigmoid,
        relu=lambda v: np.maximum(v, 0),
        softplus=lambda v: np.logaddexp(v, v.dtype.type(0)),
        **_like_numpy(np, lambda v: 1 / np.sqrt(v)),
    )


def _like_numpy(np_: Any, rsqrt: Callable[[Any], Any]) -> dict[str, Any]:
    def layer_norm(v: Any, eps: float = 1e-5) -> Any:
        v = v - v.mean(-1, keepdims=True)
        return v * rsqrt((v * v).mean(-1, keepdims=True) + eps)

    return {
        "tanh": np_.tanh,
        "exp": np_.exp,
        "maximum": np_.maximum,
        "einsum": np_.einsum,
        "split": lambda v, n: np_.split(v, n, -1),
        "join": lambda *parts: np_.concatenate(parts, -1),
        "layer_norm": layer_norm,
    }
