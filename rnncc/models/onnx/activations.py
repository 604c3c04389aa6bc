"""ONNX's activation functions -> functions of the language.

Non-Goals: which gate has which (`settings`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OnnxFunction:
    """text: with {a} and {b} where alpha and beta stand. Their defaults are those of the operator
    of that name; None: there is no such operator, so the file has to say."""

    text: str
    alpha: float | None = None
    beta: float | None = None

    @property
    def takes_alpha(self) -> bool:
        return "{a}" in self.text

    @property
    def takes_beta(self) -> bool:
        return "{b}" in self.text


ACTIVATIONS = {
    "Relu": OnnxFunction("relu"),
    "Tanh": OnnxFunction("tanh"),
    "Sigmoid": OnnxFunction("sigmoid"),
    "Softsign": OnnxFunction("softsign"),
    "Softplus": OnnxFunction("softplus"),
    "Affine": OnnxFunction("lambda v: {a} * v + {b}"),
    "ScaledTanh": OnnxFunction("lambda v: {a} * tanh({b} * v)"),
    "LeakyRelu": OnnxFunction("lambda v: where(v >= 0.0, v, {a} * v)", 0.01),
    "ThresholdedRelu": OnnxFunction("lambda v: where(v >= {a}, v, 0.0)", 1.0),
    "HardSigmoid": OnnxFunction("lambda v: clip({a} * v + {b}, 0.0, 1.0)", 0.2, 0.5),
    # What isn't chosen must not overflow.
    "Elu": OnnxFunction("lambda v: where(v >= 0.0, v, {a} * expm1(minimum(v, 0.0)))", 1.0),
}
_ANY_CASE = {name.lower(): activation for name, activation in ACTIVATIONS.items()}


def functions(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> tuple[str, ...]:
    """Of all gates in order. ValueError for an unknown name, and for numbers that don't fit.

    Numbers are handed out in order to the functions that take one. A list with a number for every
    function, whether it takes one or not, is taken if that makes no difference.
    """
    known = [_activation(n) for n in names]
    a = _handed("alpha", names, [k.takes_alpha for k in known], alphas)
    b = _handed("beta", names, [k.takes_beta for k in known], betas)
    made = []
    for name, activation, alpha, beta in zip(names, known, a, b, strict=True):
        numbers = {
            "a": _number(name, "alpha", activation.takes_alpha, alpha, activation.alpha),
            "b": _number(name, "beta", activation.takes_beta, beta, activation.beta),
        }
        made.append(activation.text.format(**numbers))
    return tuple(made)


def _activation(name: str) -> OnnxFunction:
    found = _ANY_CASE.get(name.lower())
    if found is None:
        raise ValueError(f"activation {name!r} is none of {', '.join(ACTIVATIONS)}")
    return found


def _handed(
    what: str, names: Sequence[str], takes: Sequence[bool], given: Sequence[float]
) -> list[float | None]:
    left = iter(given)
    handed = [next(left, None) if t else None for t in takes]
    if len(given) > sum(takes):
        by_place = [v if t else None for t, v in zip(takes, given, strict=False)]
        if len(given) != len(names) or by_place != handed:
            raise ValueError(
                f"activation_{what} has {len(given)} values, of {', '.join(names)} "
                f"{sum(takes)} take one: which belongs to which isn't said"
            )
    return handed


def _number(name: str, what: str, takes: bool, given: float | None, default: float | None) -> str:
    value = default if given is None else given
    if not takes:
        return ""
    if value is None:
        raise ValueError(f"activation {name} needs activation_{what}, which has no default")
    if not math.isfinite(value):
        raise ValueError(f"activation_{what} of {name} is {value}, expected a finite number")
    return f"({value!r})"
