"""What the functions of the language mean: Keras's and NumPy's definitions, on torch tensors.

A tensor is [rows or 1, *axes]: what doesn't depend on the batch has one row.

Non-Goals: drop and zoneout, which draw (`reference`). Anything of rnncc's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Number = bool | int | float
Value = Any  # Tensor | Number | str | tuple[Value, ...]


def tensor(value: Value) -> Tensor:
    """A value as numbers."""
    if isinstance(value, Tensor):
        return value.to(torch.float64) if value.dtype == torch.bool else value
    return torch.full((1,), float(value), dtype=torch.float64)


def truth(value: Value) -> Tensor:
    if isinstance(value, Tensor):
        assert value.dtype == torch.bool
        return value
    return torch.full((1,), bool(value))


def aligned(*values: Tensor) -> list[Tensor]:
    """Of one rank: axes are aligned at the end, rows at the front."""
    rank = max(v.ndim for v in values)
    return [v.reshape(v.shape[:1] + (1,) * (rank - v.ndim) + v.shape[1:]) for v in values]


def axis_of(x: Tensor, axis: Value) -> int:
    """Counted without rows -> counted with them; the last one unless said."""
    return x.ndim - 1 if axis is None else int(axis) % (x.ndim - 1) + 1


# ---- element by element ----------------------------------------------------------------------


def maximum(a: Value, b: Value) -> Tensor:
    return torch.maximum(*aligned(tensor(a), tensor(b)))


def minimum(a: Value, b: Value) -> Tensor:
    return torch.minimum(*aligned(tensor(a), tensor(b)))


def arctan2(y: Value, x: Value) -> Tensor:
    return torch.arctan2(*aligned(tensor(y), tensor(x)))


def where(condition: Value, a: Value, b: Value) -> Tensor:
    c, yes, no = aligned(truth(condition), tensor(a), tensor(b))
    return torch.where(c, yes, no)


def absolute(x: Tensor) -> Tensor:
    """torch.abs, whose second derivative takes seconds to load."""
    return x * torch.sign(x.detach())


def relu(
    x: Tensor, negative_slope: float = 0, max_value: float | None = None, threshold: float = 0
) -> Tensor:
    y = torch.where(x > threshold, x, negative_slope * (x - threshold))
    return y if max_value is None else torch.where(y >= max_value, tensor(max_value), y)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    return torch.where(x > 0, x, alpha * torch.expm1(x))


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    return torch.where(x > 0, x, alpha * torch.expm1(x / alpha))


def selu(x: Tensor) -> Tensor:
    return 1.0507009873554805 * elu(x, 1.6732632423543772)


def gelu(x: Tensor, approximate: bool = False) -> Tensor:
    if approximate:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def log_sigmoid(x: Tensor) -> Tensor:
    return -torch.logaddexp(torch.zeros_like(x), -x)


def softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(torch.zeros_like(x), x)


def hard_sigmoid(x: Tensor) -> Tensor:
    inside = (x > -3) & (x < 3)
    return torch.where(inside, x / 6 + 0.5, (x >= 3).to(torch.float64))


def clip(x: Value, low: Value, high: Value) -> Tensor:
    return minimum(maximum(x, low), high)


def soft_shrink(x: Tensor, threshold: float = 0.5) -> Tensor:
    return torch.where(absolute(x) > threshold, x - threshold * torch.sign(x), torch.zeros_like(x))


def heaviside(x: Tensor, at_zero: float = 0) -> Tensor:
    return torch.heaviside(x.detach(), tensor(at_zero)) + 0 * x.detach()


POINTWISE: dict[str, Callable[..., Tensor]] = {
    "linear": lambda x: x,
    "relu6": lambda x: relu(x, max_value=6),
    "selu": selu,
    "silu": lambda x: x * torch.sigmoid(x),
    "swish": lambda x: x / (1 + torch.exp(-x)),
    "mish": lambda x: x * torch.tanh(softplus(x)),
    "softplus": softplus,
    "softsign": lambda x: x / (1 + absolute(x)),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": lambda x: x * hard_sigmoid(x),
    "hard_swish": lambda x: x * hard_sigmoid(x),
    "hard_tanh": lambda x: clip(x, -1, 1),
    "exponential": torch.exp,
    "log_sigmoid": log_sigmoid,
    "tanh_shrink": lambda x: x - torch.tanh(x),
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "abs": absolute,
    "sign": torch.sign,
    "sin": torch.sin,
    "cos": torch.cos,
    "erf": torch.erf,
    "square": torch.square,
    "stop_gradient": lambda x: x.detach(),
    "relu": relu,
    "leaky_relu": lambda x, negative_slope=0.2: relu(x, negative_slope),
    "elu": elu,
    "celu": celu,
    "gelu": gelu,
    "hard_shrink": lambda x, threshold=0.5: torch.where(absolute(x) > threshold, x, 0 * x.detach()),
    "soft_shrink": soft_shrink,
    "squareplus": lambda x, b=4: (x + torch.sqrt(x * x + b)) / 2,
    "threshold": lambda x, threshold, default: torch.where(x > threshold, x, tensor(default)),
    "exp2": torch.exp2,
    "log2": torch.log2,
    "log10": torch.log10,
    "erfc": torch.erfc,
    "tan": torch.tan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "arcsin": torch.arcsin,
    "arccos": torch.arccos,
    "arctan": torch.arctan,
    "arcsinh": torch.arcsinh,
    "arccosh": torch.arccosh,
    "arctanh": torch.arctanh,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "trunc": torch.trunc,
    "int": torch.trunc,
    "float": lambda x: x,
    "heaviside": heaviside,
}


def mod(a: Value, b: Value) -> Tensor:
    x, y = aligned(tensor(a), tensor(b))
    return x - y * torch.floor(x / y).detach()


def floor_divide(a: Value, b: Value) -> Tensor:
    x, y = aligned(tensor(a), tensor(b))
    return torch.floor(x / y).detach()


def bool_(v: Value) -> Value:
    return v if isinstance(v, Tensor) and v.dtype == torch.bool else tensor(v) != 0


class Surrogate(torch.autograd.Function):
    """The first, whose slope with respect to the second is the third."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[None, Tensor, None]:
        (slope,) = ctx.saved_tensors
        return None, dy * slope, None


def surrogate(forward: Value, backward: Value, of: Value) -> Tensor:
    value, slope, x = aligned(tensor(forward), tensor(backward), tensor(of))
    return Surrogate.apply(*torch.broadcast_tensors(value, x, slope))


# ---- along an axis ---------------------------------------------------------------------------


def layer_norm(x: Tensor, at: int, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(at, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(at, keepdim=True) + eps)


def rms_norm(x: Tensor, at: int, eps: float = 1e-5) -> Tensor:
    return x / torch.sqrt((x**2).mean(at, keepdim=True) + eps)


def norm(x: Tensor, at: int) -> Tensor:
    """Without a slope where it is 0."""
    total = (x * x).sum(at)
    nothing = total == 0
    return torch.where(nothing, 0.0, torch.sqrt(torch.where(nothing, 1.0, total)))


ALONG: dict[str, Callable[..., Tensor]] = {
    "sum": lambda x, at: x.sum(at),
    "mean": lambda x, at: x.mean(at),
    "max": lambda x, at: x.amax(at),
    "min": lambda x, at: x.amin(at),
    "prod": lambda x, at: x.prod(at),
    "norm": norm,
    "any": lambda x, at: (x != 0).any(at),
    "all": lambda x, at: (x != 0).all(at),
    "flip": lambda x, at: x.flip(at),
    "softmax": lambda x, at: torch.softmax(x, at),
    "log_softmax": lambda x, at: torch.log_softmax(x, at),
    "cumsum": lambda x, at: torch.cumsum(x, at),
    "cumax": lambda x, at: torch.cumsum(torch.softmax(x, at), at),
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
}


# ---- moves -----------------------------------------------------------------------------------


def split(x: Value, n: int, axis: Value = None) -> tuple[Tensor, ...]:
    x = tensor(x)
    at = axis_of(x, axis)
    return tuple(torch.chunk(x, n, at))


def concat(*xs: Value, axis: Value = None) -> Tensor:
    if len(xs) == 1 and isinstance(xs[0], tuple):
        xs = xs[0]
    values = list(map(tensor, xs))
    rows = max(v.shape[0] for v in values)
    return torch.cat([spread(v, rows) for v in values], axis_of(values[0], axis))


def spread(x: Tensor, rows: int) -> Tensor:
    return x.expand(rows, *x.shape[1:])


def reshape(x: Value, shape: Value) -> Tensor:
    x = tensor(x)
    return x.reshape(x.shape[0], *(shape if isinstance(shape, tuple) else (shape,)))


def broadcast(x: Value, shape: Value) -> Tensor:
    x, wanted = tensor(x), shape if isinstance(shape, tuple) else (shape,)
    lead = (1,) * (len(wanted) - x.ndim + 1)
    return x.reshape(x.shape[0], *lead, *x.shape[1:]).expand(-1, *wanted)


def transpose(x: Value, axes: Value = None) -> Tensor:
    x = tensor(x)
    rank = x.ndim - 1
    if axes is None:
        axes = tuple(reversed(range(rank)))
    order = axes if isinstance(axes, tuple) else (axes,)
    return x.permute(0, *(a % rank + 1 for a in order))


# ---- sums of products ------------------------------------------------------------------------


def outer(a: Value, b: Value) -> Tensor:
    return tensor(a)[:, :, None] * tensor(b)[:, None, :]


def einsum(subscripts: str, *xs: Value) -> Tensor:
    inputs, _, out = subscripts.replace(" ", "").partition("->")
    rows = "".join(f"Z{letters}," for letters in inputs.split(","))[:-1]
    return torch.einsum(f"{rows}->Z{out}", *map(tensor, xs))


def matmul(a: Value, b: Value) -> Tensor:
    x, y = tensor(a), tensor(b)
    left, right = "ik"[3 - x.ndim :], "kl"[: y.ndim - 1]
    return torch.einsum(f"Z{left},Z{right}->Z{(left + right).replace('k', '')}", x, y)


def stack(*xs: Value, axis: int = 0) -> Tensor:
    if len(xs) == 1 and isinstance(xs[0], tuple):
        xs = xs[0]
    values = list(map(tensor, xs))
    rows = max(v.shape[0] for v in values)
    return torch.stack([spread(v, rows) for v in values], axis % values[0].ndim + 1)


def roll(x: Value, shift: int, axis: Value = None) -> Tensor:
    x = tensor(x)
    return x.roll(shift, axis_of(x, axis))


MOVES: dict[str, Callable[..., Value]] = {
    "split": split,
    "concat": concat,
    "reshape": reshape,
    "broadcast": broadcast,
    "transpose": transpose,
    "outer": outer,
    "einsum": einsum,
    "maximum": maximum,
    "minimum": minimum,
    "clip": clip,
    "where": where,
    "arctan2": arctan2,
    "stack": stack,
    "roll": roll,
    "mod": mod,
    "floor_divide": floor_divide,
    "bool": bool_,
    "logical_not": lambda v: ~bool_(v),
    "surrogate": surrogate,
}


def call(name: str, args: Sequence[Value], keywords: dict[str, Value]) -> Value:
    if name in POINTWISE:
        return POINTWISE[name](tensor(args[0]), *args[1:], **keywords)
    if name in ALONG:
        x = tensor(args[0])
        given = dict(keywords)
        names = ["eps", "axis"] if name in ("layer_norm", "rms_norm") else ["axis"]
        given.update(zip(names, args[1:]))
        return ALONG[name](x, axis_of(x, given.pop("axis", None)), **given)
    return MOVES[name](*args, **keywords)


# ---- operators -------------------------------------------------------------------------------

_NUMBERS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a**b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def operate(sign: str, operands: Sequence[Value]) -> Value:
    known = not any(isinstance(o, Tensor) for o in operands)
    if sign == "neg":
        return -operands[0] if known else -tensor(operands[0])
    if sign == "not":
        return not operands[0] if known else ~truth(operands[0])
    a, b = operands
    if sign in ("and", "or"):
        if known:
            return (a and b) if sign == "and" else (a or b)
        x, y = aligned(truth(a), truth(b))
        return x & y if sign == "and" else x | y
    if known:
        return _NUMBERS[sign](a, b)
    if sign == "@":
        return matmul(a, b)
    if sign == "%":
        return mod(a, b)
    if sign == "//":
        return floor_divide(a, b)
    if sign == "**":
        return torch.pow(*aligned(tensor(a), tensor(b)))
    return _NUMBERS[sign](*aligned(tensor(a), tensor(b)))
