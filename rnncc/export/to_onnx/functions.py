"""Functions of a model's plain layers -> operators of ONNX: `models.plain.functions` in nodes.

Non-Goals: functions inside of cells (`emit.onnx.pointwise`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from rnncc.emit.onnx.graph import GraphWriter
from rnncc.emit.onnx.pointwise import POINTWISE
from rnncc.models.plain.functions import SELU_ALPHA, SELU_SCALE

Spelled = Callable[..., str]  # (writer, x, **parameters) -> y


def _times(w: GraphWriter, x: str, number: float) -> str:
    return x if number == 1 else w.node("Mul", x, w.number(number))


def _clip(w: GraphWriter, x: str, low: float, high: float) -> str:
    return w.node("Min", w.node("Max", x, w.number(low)), w.number(high))


def _line(slope: float, offset: float, low: float, high: float) -> Spelled:
    def spell(w: GraphWriter, x: str) -> str:
        y = _times(w, x, slope)
        return _clip(w, w.node("Add", y, w.number(offset)) if offset else y, low, high)

    return spell


def _relu(
    w: GraphWriter,
    x: str,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
) -> str:
    moved = w.node("Sub", x, w.number(threshold)) if threshold else x
    below = _times(w, moved, negative_slope) if negative_slope else w.number(0.0)
    y = w.node("Where", w.node("GreaterOrEqual", x, w.number(threshold)), x, below)
    return y if max_value is None else w.node("Min", y, w.number(max_value))


def _elu(w: GraphWriter, x: str, alpha: float = 1.0) -> str:
    zero = w.number(0.0)
    below = _times(w, POINTWISE["expm1"](w, w.node("Min", x, zero)), alpha)
    return w.node("Where", w.node("Greater", x, zero), x, below)


def _celu(w: GraphWriter, x: str, alpha: float = 1.0) -> str:
    zero = w.number(0.0)
    scaled = w.node("Div", w.node("Min", x, zero), w.number(alpha))
    below = _times(w, POINTWISE["expm1"](w, scaled), alpha)
    return w.node("Add", w.node("Max", x, zero), below)


def _selu(w: GraphWriter, x: str) -> str:
    return _times(w, _elu(w, x, SELU_ALPHA), SELU_SCALE)


def _gelu(w: GraphWriter, x: str, approximate: bool = False) -> str:
    one = w.number(1.0)
    if approximate:
        cube = w.node("Mul", x, w.node("Mul", x, x))
        inner = w.node("Add", x, _times(w, cube, 0.044715))
        bent = w.node("Tanh", _times(w, inner, math.sqrt(2 / math.pi)))
    else:
        bent = w.node("Erf", _times(w, x, 1 / math.sqrt(2)))
    return w.node("Mul", _times(w, x, 0.5), w.node("Add", one, bent))


def _softplus(w: GraphWriter, x: str) -> str:
    rest = POINTWISE["log1p"](w, w.node("Exp", w.node("Neg", w.node("Abs", x))))
    return w.node("Add", w.node("Max", x, w.number(0.0)), rest)


def _softsign(w: GraphWriter, x: str) -> str:
    return w.node("Div", x, w.node("Add", w.node("Abs", x), w.number(1.0)))


def _silu(w: GraphWriter, x: str) -> str:
    return w.node("Mul", x, w.node("Sigmoid", x))


_HARD = _line(1 / 6, 0.5, 0.0, 1.0)


def _hard_silu(w: GraphWriter, x: str) -> str:
    return w.node("Mul", x, _HARD(w, x))


def _mish(w: GraphWriter, x: str) -> str:
    return w.node("Mul", x, w.node("Tanh", _softplus(w, x)))


SPELLED: dict[str, Spelled] = {
    "linear": lambda w, x: x,
    "relu": _relu,
    "relu6": _line(1.0, 0.0, 0.0, 6.0),
    "leaky_relu": _relu,
    "elu": _elu,
    "celu": _celu,
    "selu": _selu,
    "gelu": _gelu,
    "sigmoid": lambda w, x: w.node("Sigmoid", x),
    "hard_sigmoid": _HARD,
    "steep_hard_sigmoid": _line(0.2, 0.5, 0.0, 1.0),
    "tanh": lambda w, x: w.node("Tanh", x),
    "hard_tanh": _line(1.0, 0.0, -1.0, 1.0),
    "softplus": _softplus,
    "softsign": _softsign,
    "exponential": lambda w, x: w.node("Exp", x),
    "log_sigmoid": lambda w, x: w.node("Neg", _softplus(w, w.node("Neg", x))),
    "silu": _silu,
    "swish": _silu,
    "hard_silu": _hard_silu,
    "hard_swish": _hard_silu,
    "mish": _mish,
    "softmax": lambda w, x: w.node("Softmax", x, axis=-1),
    "log_softmax": lambda w, x: w.node("LogSoftmax", x, axis=-1),
}
