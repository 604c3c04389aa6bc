"""A drawn step is read by Recurrent, and runs on the interpreter beside torch's own loop.

Non-Goals: drawing (`torch_steps`); kernels, which other attacks hold against the interpreter.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rnncc.lowering.cell_interface import check_text
from rnncc.oracle import layer_class
from rnncc.torch import Recurrent
from tests.attack.reading.torch_steps import DTYPE, StepText, draw, quiet

DRAWS = (("plain", 3, 3), ("zeros", 1, 3), ("ties", 4, 2), ("large", 2, 4))
# What a rounding tells apart, or one row: numbers then say nothing.
_STEEP = (
    "trunc",
    "floor",
    "ceil",
    "round",
    "sign",
    "frac",
    "//",
    "%",
    "fmod",
    "> ",
    ">= ",
    "int()",
)
NOT = {
    "zeros": ("squeeze()",),
    "ties": ("var", "std", "mean", "norm"),
    "large": _STEEP,
}


def outcome(index: int, seed: int) -> tuple[str, str | None]:
    """(what came of it, a finding)."""
    text = draw(f"torch {seed} {index}", hostile=index % 4 == 0)
    step = text.module()
    layer: Any = Recurrent(step, state=_states(text), return_sequences=True, return_state=True)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(index)
        try:
            layer._read(_given(text, 2, 3, "plain")[0])
        except TypeError as error:
            return _refusal(text, str(error))
        for kind, batch, steps in DRAWS:
            if any(word in text.source for word in NOT.get(kind, ())):
                continue
            inputs, states = _given(text, batch, steps, kind)
            wrong = _compare(text, step, layer, inputs, states)
            if wrong is not None:
                return "wrong", f"{kind}: {wrong}\n{text.source}\n{layer.equations}"
    return "read", None


def _refusal(text: StepText, message: str) -> tuple[str, str | None]:
    if (
        "is read wrongly" in message
        or "error[E" in message
        or not message.startswith("Step can't be")
    ):
        return "wrong", f"{message}\n{text.source}"
    short = re.sub(r" \(<step>:[^)]*?\)+", "", message.partition("can't be ")[2])
    short = re.sub(r"\(/?[\w<][^:()]*:\d+: .*?\) (?=[a-z])", "", short)
    return re.sub(r"-?\d+(\.\d+)?", "#", short)[:110], None


def _states(text: StepText) -> Any:
    return text.rows[0] if text.state == "h" else tuple(text.rows)


def _given(text: StepText, batch: int, steps: int, kind: str) -> tuple[Any, Any]:
    """(inputs [batch, time, ...], states)."""

    def numbers(*shape: int) -> Tensor:
        t = torch.randn(*shape, dtype=DTYPE)
        return t.round() / 2 + 0.0 if kind == "ties" else 8 * t if kind == "large" else t

    inputs = [numbers(batch, steps, *row) for row in text.inputs]
    states = [numbers(batch, *row) for row in text.rows]
    if kind == "zeros":
        states = [torch.zeros_like(t) for t in states]
    return inputs[0] if len(inputs) == 1 else tuple(inputs), (
        states[0] if text.state == "h" else tuple(states)
    )


def _compare(text: StepText, step: nn.Module, layer: Any, inputs: Any, states: Any) -> str | None:
    reading = layer._reading
    found = reading.text
    leaves = [t.requires_grad_() for t in pytree.tree_leaves((inputs, states))]
    try:
        outs = _loop(text, step, inputs, states)
    except Exception:  # of one row: what squeeze() leaves out
        return None
    if not all(bool(t.isfinite().all()) for t in outs):
        return None
    cotangents = [torch.randn_like(t) for t in outs]
    total = sum((c * t).sum() for c, t in zip(cotangents, outs, strict=True))
    keyed = {n: leaf.key[1] for n, leaf in found.weights.items() if leaf.key[1].requires_grad}
    asked = [*leaves, *keyed.values()]
    theirs = _grads(total, asked)
    if not all(bool(t.isfinite().all()) for t in theirs):
        return None
    ours, grads = _interpreted(layer, inputs, states, [c.numpy() for c in cotangents])
    names = [*found.inputs, *found.states, *keyed]
    shown = [f"result {i + 1}" for i in range(len(outs))]
    pairs = zip(shown, ours, [t.detach().numpy() for t in outs], strict=True)
    more = [
        (f"the gradient of {n}", grads[n], t.numpy()) for n, t in zip(names, theirs, strict=True)
    ]
    largest = max(float(np.abs(b).max(initial=0)) for _, _, b in more)
    for what, a, b in (*pairs, *more):
        scale = float(np.abs(b).max(initial=0))
        off = 1e-7 * scale + 1e-9 + (1e-12 * largest if "gradient" in what else 0)
        if a.shape != b.shape or not np.allclose(a, b, rtol=1e-7, atol=off):
            return f"{what} is\n{a}\nand torch has\n{b}"
    return None


def _grads(total: Any, asked: list[Tensor]) -> list[Tensor]:
    if not isinstance(total, Tensor) or not total.requires_grad:
        return [torch.zeros_like(t) for t in asked]
    found = iter(
        torch.autograd.grad(total, [t for t in asked if t.requires_grad], allow_unused=True)
    )
    grads = [next(found) if t.requires_grad else None for t in asked]
    return [torch.zeros_like(t) if g is None else g for t, g in zip(asked, grads, strict=True)]


def _loop(text: StepText, step: nn.Module, inputs: Any, state: Any) -> list[Tensor]:
    """Outputs [batch, time, ...], then last states."""
    ys: list[list[Tensor]] = []
    for t in range(pytree.tree_leaves(inputs)[0].shape[1]):
        returned = step(pytree.tree_map(lambda a, t=t: a[:, t], inputs), state)
        if text.alone:
            state = returned
            y: Any = pytree.tree_leaves(state)[0]
        else:
            y, state = returned
        ys.append(pytree.tree_leaves(y))
    return [*(torch.stack(each, 1) for each in zip(*ys, strict=True)), *pytree.tree_leaves(state)]


def _interpreted(layer: Any, inputs: Any, states: Any, cotangents: list[Any]) -> Any:
    found = layer._reading.text
    own = layer_class(check_text(found.text, "<step>"))(
        **found.sizes, return_sequences=True, return_state=True
    )
    arrays = {
        n: t.detach().numpy() for n, t in zip(found.inputs, pytree.tree_leaves(inputs), strict=True)
    }
    own.build({n: (*a.shape,) for n, a in arrays.items()})
    for place, leaves in ((own.weights, found.weights), (own.constants, found.constants)):
        for name, leaf in leaves.items():
            t = leaf.array if leaf.array is not None else leaf.key[1].detach().double().numpy()
            place[name] = t
    begin = {
        n: t.detach().numpy() for n, t in zip(found.states, pytree.tree_leaves(states), strict=True)
    }
    results, pullback = own.vjp(arrays, initial_state=begin, training=False)
    count = len(cotangents) - len(begin)
    if count > 1:
        results = (*results[0], *results[1:])
    handed = [tuple(cotangents[:count])] if count > 1 else cotangents[:count]
    grads = pullback((*handed, *cotangents[count:]))
    return results, {**grads.inputs, **grads.weights, **grads.initial_state}
