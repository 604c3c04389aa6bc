"""What stands around recurrent layers -> cells without states, of the same language: a dense layer
is one equation.

    Dense(kernel, bias, "tanh")   ->   y = tanh(x[t] @ kernel + bias)

Non-Goals: tables of embeddings, which no equation reads (`chain`); what needs several steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.compiler import compile_text
from rnncc.frontend.diagnostics import SpecError
from rnncc.models import plain
from rnncc.models.component import Component
from rnncc.runtime.api.layer import Layer

# The right side of an equation, and arrays by the names of weights in it.
Equation = tuple[str, dict[str, np.ndarray]]
# Lines of clipping that the language has no name for.
SPELLED = {"steep_hard_sigmoid": "minimum(maximum({0} * 0.2 + 0.5, 0), 1)"}
JOINED = {
    "add": "{0} + {1}",
    "multiply": "{0} * {1}",
    "subtract": "{0} - {1}",
    "average": "{0} + {1}",
    "maximum": "maximum({0}, {1})",
    "minimum": "minimum({0}, {1})",
}


def called(function: str, parameters: Mapping[str, Any], argument: str) -> str:
    """A function of `models.plain.functions` as the language calls it."""
    if function == "linear":
        return argument
    if function in SPELLED:
        return SPELLED[function].format(f"({argument})")
    given = "".join(f", {n}={v!r}" for n, v in parameters.items() if v is not None)
    return f"{function}({argument}{given})"


def _dense(part: plain.Dense, xs: Sequence[str]) -> Equation:
    own = {"kernel": part.kernel} | ({} if part.bias is None else {"bias": part.bias})
    sums = f"{xs[0]} @ kernel" + ("" if part.bias is None else " + bias")
    return called(part.activation, part.parameters, sums), own


def _activation(part: plain.Activation, xs: Sequence[str]) -> Equation:
    return called(part.function, part.parameters, xs[0]), {}


def _prelu(part: plain.PRelu, xs: Sequence[str]) -> Equation:
    if not part.is_stepwise:
        raise TypeError(f"{part.name} has slopes for each step, so it has no C form")
    slopes = part.alpha.reshape(part.alpha.shape[-1:])
    return f"where({xs[0]} > 0, {xs[0]}, slope * {xs[0]})", {"slope": slopes}


def _batch_norm(part: plain.BatchNorm, xs: Sequence[str]) -> Equation:
    if not part.is_stepwise:
        raise TypeError(f"{part.name} normalises over steps, so it has no C form")
    return f"{xs[0]} * scale + shift", {"scale": part._scale, "shift": part._shift}


def _layer_norm(part: plain.LayerNorm, xs: Sequence[str]) -> Equation:
    if not part.is_stepwise:
        raise TypeError(f"{part.name} normalises over steps, so it has no C form")
    given = dict(part.weights)
    text = f"layer_norm({xs[0]}, eps={part.epsilon!r})"
    text += " * gamma" if "gamma" in given else ""
    return text + (" + beta" if "beta" in given else ""), given


def _gain(part: plain.Gain, xs: Sequence[str]) -> Equation:
    text = f"{xs[0]} * {float(part.factor)!r}"
    return text + (f" + {float(part.offset)!r}" if part.offset else ""), {}


def _joined(part: plain.JoinedBy, xs: Sequence[str]) -> Equation:
    text = xs[0]
    for x in xs[1:]:
        text = f"({JOINED[part.by].format(text, x)})"
    return (f"{text} / {len(xs)}" if part.by == "average" else text), {}


def _concatenated(part: plain.Concatenated, xs: Sequence[str]) -> Equation:
    if not part.is_stepwise:
        raise TypeError(f"{part.name} joins steps, so it has no C form")
    return f"concat({', '.join(xs)})", {}


def _first(part: plain.FirstFeatures, xs: Sequence[str]) -> Equation:
    return f"{xs[0]}[:{part.count}]", {}


EQUATIONS: dict[type[Component], Callable[[Any, Sequence[str]], Equation]] = {
    plain.Activation: _activation,
    plain.BatchNorm: _batch_norm,
    plain.Concatenated: _concatenated,
    plain.Dense: _dense,
    plain.FirstFeatures: _first,
    plain.Gain: _gain,
    plain.JoinedBy: _joined,
    plain.LayerNorm: _layer_norm,
    plain.PRelu: _prelu,
}


def cell_of(part: Component, sizes: Sequence[int], dtype: str, storage: str) -> Layer:
    """A layer of the part's equation, which reads arrays of so many features. TypeError for a kind
    that has none, ValueError for other features than it has weights for."""
    equation = EQUATIONS.get(type(part))
    if equation is None:
        raise TypeError(f"{part.name} ({part.kind}) has no C form: take it out of the model")
    names = [f"x{n}" for n in range(len(sizes))]
    text, own = equation(part, [f"{n}[t]" for n in names])
    lines = [f"{n}: input[{size}]" for n, size in zip(names, sizes, strict=True)]
    lines += [f"{n}: weight[{', '.join(map(str, a.shape))}] = zeros" for n, a in own.items()]
    cell = "\n".join(["cell: Plain", *lines, f"y = {text}", "return y"])
    try:
        made = compile_text(cell)
    except SpecError:
        shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in own.items())
        given = " and ".join(map(str, sizes))
        what = f"{part.name} ({part.kind}) reads {given} features"
        raise ValueError(f"{what}, which don't fit {shapes or 'it'}") from None
    stored: dict[str, Any] = {"weights": storage or None}
    layer: Layer = made(return_sequences=True, dtype=dtype, **stored)
    rows = tuple((None, None, size) for size in sizes)
    layer.build(rows if len(rows) > 1 else rows[0])
    for name, array in own.items():
        layer.weights[name] = array
    return layer
