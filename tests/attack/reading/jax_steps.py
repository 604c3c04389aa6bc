"""Random steps of JAX, as text, read and proven, on ties and zeros besides the proof's own numbers.

Lines are drawn as those of torch are (`torch_steps`): tried on 5 rows, dropped where JAX refuses.

Non-Goals: rnncc.jax.scan's calls.
"""

from __future__ import annotations

import random
import re
from typing import Any
from unittest.mock import patch

import numpy as np

from tests.attack.reading.torch_lines import lines_of

ROWS = 5


LINES = lines_of(
    r"""
jnp.tanh({a})
nn.sigmoid({a})
nn.relu({a})
nn.softplus({a})
nn.silu({a})
nn.gelu({a})
nn.gelu({a}, approximate=False)
nn.elu({a})
nn.selu({a})
nn.celu({a}, 0.7)
nn.leaky_relu({a}, 0.2)
nn.hard_tanh({a})
nn.hard_sigmoid({a})
nn.relu6({a})
nn.log_sigmoid({a})
nn.soft_sign({a})
nn.glu({a}, {d})
nn.normalize({a}, {d})
nn.softmax({a}, {d})
nn.log_softmax({a}, {d})
nn.logsumexp({a}, {d})
nn.standardize({a})
jnp.abs({a})
-{a}
jnp.exp(-jnp.abs({a}))
jnp.sqrt({a} * {a} + 0.1)
jnp.sign({a}) * {b}
jnp.clip({a}, -0.5, 0.7)
jnp.floor({a}) + {a}
jnp.round({a} * 3)
{a} % 0.7
{a} // 0.4
jnp.fmod({a}, 0.6)
{a} ** 3
jnp.square({a})
jnp.log1p({a} * {a})
jnp.arctan2({a}, {b})
jnp.cumsum({a}, {d})
{a}[:, ::-1]
jnp.roll({a}, {n}, {d})
{a}.sum({d})
{a}.mean({d}, keepdims=True)
{a}.max({d})
{a}.min({d}, keepdims=True)
{a}.prod({d})
{a}.var({d}, keepdims=True)
{a}.std({d})
jnp.linalg.norm({a}, axis={d})
jnp.median({a}, {d})
{a}.argmax({d}) * 1.0
{a}[:, {i}]
{a}[:, {i}:]
{a}[..., {i}:{j}]
{a}[..., ::2]
{a}[:, None]
{a}[..., None]
jnp.take({a}, {i}, axis={d})
jnp.split({a}, {n}, {d})[{i}]
jnp.expand_dims({a}, {d})
{a}.reshape({B}, -1)
{a}.reshape(-1)
{a}.reshape(-1, {n})
{a}.reshape({B}, {n}, -1)
{a}.reshape({B} * {n}, -1)
{a}.swapaxes({d}, 1)
{a}.transpose({p})
{a}.T
jnp.squeeze({a})
jnp.moveaxis({a}, 1, {d})
jnp.broadcast_to({a}, ({n}, *{a}.shape))
jnp.tile({a}, {n})
jnp.repeat({a}, {n}, {d})
jnp.pad({a}, ((0, 0), ({i}, {n})))
jnp.diff({a}, axis={d})
lax.stop_gradient({a}) * {b}
{a} + lax.stop_gradient(jnp.round({a}) - {a})
jnp.zeros_like({a}) + {b}
jnp.ones(({B}, {n}))
{a} * jnp.arange({a}.shape[-1])
{a} * jnp.linspace(0, 1, {a}.shape[-1])
({a} > 0).astype({a}.dtype)
({a} > {b}) * {a}
{a}.astype(int) * 0.5
({a} > 0).sum({d}) * 0.5
({a} > 0).any({d}, keepdims=True) * 1.0
jnp.where({a} > {b}, {a}, 0.3 * {b})
jnp.where({a} > 0, {b}, 0.0)
jnp.where(({a} > 0) & ~({b} > 0), {a}, {b})
jnp.where(({a} > 0) ^ ({b} < 0.2), {a}, {b})
jnp.maximum({a}, {b})
jnp.minimum({a}, 0.2)
jnp.maximum({a}, 0)
jnp.logaddexp({a}, {b})
{a} + {b}
{a} - {b}
{a} * {b}
{a} / ({b} * {b} + 0.5)
2 ** {a}
jnp.power(jnp.abs({a}) + 0.5, {b})
jnp.concatenate([{a}, {b}], {d})
jnp.stack([{a}, {b}], {d})
jnp.hstack([{a}, {b}])
jnp.einsum('bi,bj->bij', {a}, {b})
jnp.einsum('bi,bi->b', {a}, {b})
jnp.einsum('bij,bj->bi', {a}, {b})
jnp.einsum('bij,bjk->bik', {a}, {b})
jnp.matmul({a}, {b})
{a} @ {w}
{a} @ {w} + {b}
jnp.dot({a}, {w})
lax.dot_general({a}, {b}, (((1,), (1,)), ((0,), (0,))))
jnp.vdot({a}, {b})
({a} * {b}).sum(-1, keepdims=True) * {a}
{a}[:, :, None] * {b}[:, None, :]
{a} * {v}
{v} / (1 + {a} * {a})
jax.vmap(lambda u, v: u * v.sum())({a}, {b})
jax.vmap(jnp.outer)({a}, {b})
jax.vmap(lambda u: u @ u.T)({a})
{a}.at[:, {i}].set(0.5)
{a}.at[:, {i}:].add({b}[:, {i}:])
{a}.at[:, :{n}].multiply(2.0)
lax.fori_loop(0, {n}, lambda i, u: jnp.tanh(u + 0.1 * i * {b}), {a})
jax.jit(lambda u: jnp.sin(u) * u)({a})
lax.cond(True, lambda u: u * 2, lambda u: u, {a})
jax.checkpoint(lambda u: jnp.tanh(u) * {b})({a})
lax.scan(lambda c, u: (c + u, c * u), jnp.zeros_like({a}[:, 0]), jnp.moveaxis({a}, 1, 0))[0]
step_slope({a})
lax.select({a} > 0, {a}, {b} * jnp.ones_like({a}))
lax.rsqrt({a} * {a} + 1)
jnp.tril({a})
jnp.triu({a}, 1)
jnp.cumprod({a}, {d})
jnp.sort({a}, {d})
jnp.nan_to_num({a})
"""
)
HOSTILE = lines_of(
    r"""
{a} / {B}
{a} - {a}.mean(0)
{a}[::-1]
jnp.cumsum({a}, 0)
{a}[0]
jnp.roll({a}, 1)
{a} @ {a}.T
{a} * {a}.sum()
jnp.concatenate([{a}, {b}], 0)[:{B}]
{a} + jnp.arange({B})[:, None]
nn.softmax({a}, 0)
{a}.reshape({n}, {B}, -1)[0]
{a}.T.reshape({a}.shape)
lax.cond({a}.sum() > 0, lambda u: u, lambda u: 2 * u, {a})
{a} * jax.random.normal(jax.random.key(0), {a}.shape)
{a}.astype('float32') * 1.0
lax.while_loop(lambda u: u.sum() < 3, lambda u: u + 1, {a})
"""
)


def _scope() -> dict[str, Any]:
    import jax

    @jax.custom_jvp
    def step_slope(v: Any) -> Any:
        return (v > 0).astype(v.dtype)

    @step_slope.defjvp
    def _slope(primals: Any, tangents: Any) -> Any:
        (v,), (d,) = primals, tangents
        return step_slope(v), d / (1 + 3 * abs(v)) ** 2

    scope = {"jax": jax, "jnp": jax.numpy, "nn": jax.nn, "lax": jax.lax}
    return {**scope, "step_slope": step_slope}


class _Drawing:
    """Lines, weights by name, and what the names are on ROWS rows."""

    def __init__(self, seed: str) -> None:
        self.rng, self.numbers = random.Random(seed), np.random.default_rng(abs(hash_of(seed)))
        self.scope, self.known, self.lines = _scope(), {}, []
        self.weights: dict[str, Any] = {}

    def given(self, name: str, row: tuple[int, ...]) -> None:
        array = self.numbers.standard_normal((ROWS, *row))
        self.known[name] = self.scope[name] = self.scope["jnp"].asarray(array)

    def weight(self, shape: tuple[int, ...]) -> str:
        name = f"w{len(self.weights)}"
        array = self.scope["jnp"].asarray(self.numbers.standard_normal(shape))
        self.weights[name] = self.scope[name] = array
        return name

    def line(self, templates: tuple[str, ...]) -> None:
        rng, name, names = self.rng, f"v{len(self.lines)}", [*self.known]
        a = rng.choice(names)
        alike = [n for n in names if self.known[n].shape == self.known[a].shape]
        b = rng.choice(alike if rng.random() < 0.7 else names)
        axes, width = max(self.known[a].ndim, 1), (self.known[a].shape or (1,))[-1]
        order = [*range(axes)]
        rng.shuffle(order)
        values = {
            "a": a,
            "b": b,
            "B": rng.choice(("x.shape[0]", f"{a}.shape[0]", "len(x)")),
            "n": rng.choice((1, 2, 2, 3)),
            "i": rng.choice((0, 1, 2)),
            "j": rng.choice((1, 2, -1)),
            "d": rng.choice((-1, -1, axes - 1, 1)),
            "p": ", ".join(map(str, order)),
        }
        before, template = dict(self.weights), rng.choice(templates)
        for key, shape in (("w", (width, 3)), ("v", (width,))):
            if f"{{{key}}}" in template:
                values[key] = self.weight(shape)
        try:
            made = eval(template.format(**values), self.scope)
            fits = made.dtype == np.float64 and 0 < made.size <= 300 and made.ndim <= 4
            fits = bool(fits and np.isfinite(made).all() and abs(made).max() < 50)
        except Exception:
            fits = False
        if not fits:
            self.weights = before
            return
        self.known[name] = self.scope[name] = made
        self.lines.append(f"{name} = {template.format(**values)}")

    def after(self, row: tuple[int, ...]) -> str:
        ends = [n for n, t in self.known.items() if t.ndim and t.shape[0] == ROWS]
        last = ends[-1]
        count = int(np.prod(row))
        w = self.weight((self.known[last].size // ROWS, count))
        b = f"{last}.shape[0]"
        return f"jnp.tanh({last}.reshape({b}, -1) @ {w}).reshape({b}, {', '.join(map(str, row))})"


def hash_of(seed: str) -> int:
    """The same in every process."""
    return sum(ord(c) * 31**i for i, c in enumerate(seed)) % 2**31


def outcome(index: int, seed: int) -> tuple[str, str | None]:
    """(what came of it, a finding)."""
    import jax

    from rnncc.jax.reading import proven
    from rnncc.jax.reading.flat import flatten
    from rnncc.jax.reading.read import read
    from rnncc.jax.reading.steps import Step

    more = (
        lambda rng, shape: np.round(2 * rng.standard_normal(shape)) / 2 + 0.0,
        lambda rng, shape: 1.5 * rng.standard_normal(shape),
        lambda rng, shape: np.zeros(shape),
    )
    with jax.enable_x64(True):
        d = _Drawing(f"jax {seed} {index}")
        rows = {"h": d.rng.choice(((4,), (2, 3), (1,))), "x": (3,)}
        for name, row in rows.items():
            d.given(name, row)
        count, bad = d.rng.randrange(2, 7), d.rng.randrange(6) if index % 4 == 0 else -1
        for number in range(3 * count):
            if len(d.lines) < count:
                d.line(HOSTILE if number == bad else LINES)
        shown = [n for n in d.known if n.startswith("v")] or ["h"]
        body = [*d.lines, f"return {d.after(rows['h'])}, {d.rng.choice(shown)}"]
        source = "\n    ".join(["def step(h, x):", *body])
        exec(source, d.scope)
        tree = jax.tree.structure(0)
        carry, x = (jax.ShapeDtypeStruct((ROWS, *rows[n]), np.dtype("float64")) for n in ("h", "x"))
        step = Step(d.scope["step"], tree, tree, (carry,), (x,), ("h",), ("x",), "Step")
        try:
            with patch.object(proven, "_DRAWS", (*proven._DRAWS, *more)):
                flat = flatten(step.trace((carry,), (x,)).jaxpr)
                read(step, flat, {}, None, np.dtype("float64"), {})
        except Exception as error:
            message = str(error)
            known = isinstance(error, TypeError) and message.startswith("Step can't be")
            if not known and type(error).__name__ != "RefusedAt":
                return "failed", f"{type(error).__name__}: {message}\n{source}"
            if "is read wrongly" in message:
                return "wrong", f"{message}\n{source}"
            short = re.sub(r" \([^)]*?:\d+[^)]*\)", "", message.partition("can't be ")[2])
            return "jax " + re.sub(r"-?\d+(\.\d+)?", "#", short or message)[:100], None
    return "jax read", None
