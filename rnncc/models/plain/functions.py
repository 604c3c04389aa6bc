"""Functions of one array, and how they hand gradients back: NumPy written out.

    FUNCTIONS["elu"].value(x, alpha=1.0)
    FUNCTIONS["elu"].pullback(x, y, dy, alpha=1.0)

Names and parameters are those of the language where it has the function, so Keras's and torch's.
Softmax and log_softmax go along the last axis.

Non-Goals: functions inside of cells, which are compiled (`rnncc.lowering`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


@dataclass(frozen=True, slots=True)
class PlainFunction:
    """value: of x and the parameters. pullback: of x, y, dy and the parameters.
    defaults: the parameters, all of them numbers or bools; None is "no such bound".
    along_features: whether a number depends on others of its row, on the last axis alone."""

    value: Callable[..., Array]
    pullback: Callable[..., Array]
    defaults: Mapping[str, float | None] = field(default_factory=dict)
    along_features: bool = False


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    above: Array = np.where(x >= 0, 1, e) / (1 + e)
    return above


def softplus(x: Array) -> Array:
    found: Array = np.logaddexp(x, np.zeros((), x.dtype))
    return found


def relu(
    x: Array,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
) -> Array:
    below = negative_slope * (x - threshold) if negative_slope else np.zeros((), x.dtype)
    y: Array = np.where(x >= threshold, x, below) if threshold else np.where(x > 0, x, below)
    return y if max_value is None else np.minimum(y, x.dtype.type(max_value))


def _relu_back(
    x: Array,
    y: Array,
    dy: Array,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
) -> Array:
    slope = np.where(x > threshold, 1, x.dtype.type(negative_slope))
    if max_value is not None:
        slope = np.where(y >= max_value, 0, slope)
    return dy * slope


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    found: Array = e / e.sum(-1, keepdims=True)
    return found


def log_softmax(x: Array) -> Array:
    low = x - x.max(-1, keepdims=True)
    found: Array = low - np.log(np.exp(low).sum(-1, keepdims=True))
    return found


def _softmax_back(x: Array, y: Array, dy: Array) -> Array:
    found: Array = y * (dy - (y * dy).sum(-1, keepdims=True))
    return found


def _log_softmax_back(x: Array, y: Array, dy: Array) -> Array:
    found: Array = dy - np.exp(y) * dy.sum(-1, keepdims=True)
    return found


_erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x: Array, approximate: bool = False) -> Array:
    if approximate:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + np.tanh(inner))
    half = 0.5 * (1 + _erf(x / math.sqrt(2))) if x.size else np.zeros(x.shape)
    return x * half.astype(x.dtype)


def _gelu_back(x: Array, y: Array, dy: Array, approximate: bool = False) -> Array:
    if approximate:
        root = math.sqrt(2 / math.pi)
        t = np.tanh(root * (x + 0.044715 * x**3))
        return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x))
    half = (0.5 * (1 + _erf(x / math.sqrt(2))) if x.size else np.zeros(x.shape)).astype(x.dtype)
    return dy * (half + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi))


def elu(x: Array, alpha: float = 1.0) -> Array:
    found: Array = np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
    return found


def _elu_back(x: Array, y: Array, dy: Array, alpha: float = 1.0) -> Array:
    found: Array = dy * np.where(x > 0, 1, y + alpha)
    return found


def celu(x: Array, alpha: float = 1.0) -> Array:
    found: Array = np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0) / alpha)
    return found


def _celu_back(x: Array, y: Array, dy: Array, alpha: float = 1.0) -> Array:
    found: Array = dy * np.exp(np.minimum(x, 0) / alpha)
    return found


def _selu_back(x: Array, y: Array, dy: Array) -> Array:
    found: Array = dy * np.where(x > 0, SELU_SCALE, y + SELU_SCALE * SELU_ALPHA)
    return found.astype(x.dtype)


def _clipped_line(slope: float, offset: float, low: float, high: float) -> PlainFunction:
    """min(max(slope * x + offset, low), high)"""

    def value(x: Array) -> Array:
        found: Array = np.clip(x.dtype.type(slope) * x + x.dtype.type(offset), low, high)
        return found

    def pullback(x: Array, y: Array, dy: Array) -> Array:
        line = slope * x + offset
        found: Array = np.where((line > low) & (line < high), dy * x.dtype.type(slope), 0)
        return found.astype(x.dtype)

    return PlainFunction(value, pullback)


def _simple(value: Callable[[Array], Array], slope: Callable[[Array, Array], Any]) -> PlainFunction:
    """slope: of x and y."""
    return PlainFunction(value, lambda x, y, dy: (dy * slope(x, y)).astype(x.dtype, copy=False))


def _mish_slope(x: Array, y: Array) -> Array:
    t = np.tanh(softplus(x))
    return t + x * (1 - t * t) * sigmoid(x)


def _silu_slope(x: Array, y: Array) -> Array:
    s = sigmoid(x)
    return s * (1 + x * (1 - s))


_HARD = _clipped_line(1 / 6, 0.5, 0.0, 1.0)
_hard_silu = _simple(
    lambda x: x * _HARD.value(x),
    lambda x, y: np.where(x < -3, 0, np.where(x > 3, 1, x / 3 + 0.5)),
)
_silu = _simple(lambda x: x * sigmoid(x), _silu_slope)

FUNCTIONS: dict[str, PlainFunction] = {
    "linear": _simple(lambda x: x, lambda x, y: 1),
    "relu": PlainFunction(
        relu, _relu_back, {"negative_slope": 0.0, "max_value": None, "threshold": 0.0}
    ),
    "relu6": _clipped_line(1.0, 0.0, 0.0, 6.0),
    "leaky_relu": PlainFunction(relu, _relu_back, {"negative_slope": 0.2}),
    "elu": PlainFunction(elu, _elu_back, {"alpha": 1.0}),
    "celu": PlainFunction(celu, _celu_back, {"alpha": 1.0}),
    "selu": PlainFunction(lambda x: SELU_SCALE * elu(x, SELU_ALPHA), _selu_back),
    "gelu": PlainFunction(gelu, _gelu_back, {"approximate": False}),
    "sigmoid": _simple(sigmoid, lambda x, y: y * (1 - y)),
    "hard_sigmoid": _HARD,
    # Keras 2's: another line.
    "steep_hard_sigmoid": _clipped_line(0.2, 0.5, 0.0, 1.0),
    "tanh": _simple(np.tanh, lambda x, y: 1 - y * y),
    "hard_tanh": _clipped_line(1.0, 0.0, -1.0, 1.0),
    "softplus": _simple(softplus, lambda x, y: sigmoid(x)),
    "softsign": _simple(lambda x: x / (1 + np.abs(x)), lambda x, y: 1 / (1 + np.abs(x)) ** 2),
    "exponential": _simple(np.exp, lambda x, y: y),
    "log_sigmoid": _simple(lambda x: -softplus(-x), lambda x, y: sigmoid(-x)),
    "silu": _silu,
    "swish": _silu,
    "hard_silu": _hard_silu,
    "hard_swish": _hard_silu,
    "mish": _simple(lambda x: x * np.tanh(softplus(x)), _mish_slope),
    "softmax": PlainFunction(softmax, _softmax_back, along_features=True),
    "log_softmax": PlainFunction(log_softmax, _log_softmax_back, along_features=True),
}


def checked_function(name: object, parameters: Mapping[str, Any]) -> PlainFunction:
    """ValueError for a function that isn't there, or other parameters than its own."""
    if not isinstance(name, str) or name not in FUNCTIONS:
        raise ValueError(f"no function is called {name!r:.80}; there are {', '.join(FUNCTIONS)}")
    function = FUNCTIONS[name]
    for parameter, value in parameters.items():
        if parameter not in function.defaults:
            known = ", ".join(function.defaults) or "none"
            raise ValueError(f"{name} has no parameter {parameter!r:.80}; it has {known}")
        number = isinstance(value, int | float) and math.isfinite(value)
        if not (number or (value is None and function.defaults[parameter] is None)):
            raise ValueError(f"{parameter} of {name} is a finite number, not {value!r:.80}")
    return function
