"""The functions equations may call -> primitive ops. Definitions are Keras's and NumPy's.

To add one: a function here (its first argument is the evaluator), and its signature in
`frontend.library`; a test compares the two.

Non-Goals: drop and zoneout (`randomness`); broadcasting, which is the evaluator's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from rnncc.ir.ops import OPS
from rnncc.ir.program import Value
from rnncc.ir.sizes import Size
from rnncc.lowering.expressions import Evaluator
from rnncc.lowering.operands import Operand, Refusal, show

Function = Callable[..., Operand]
FUNCTIONS: dict[str, Function] = {}


def function(fn: Function) -> Function:
    FUNCTIONS[fn.__name__.rstrip("_")] = fn
    return fn


def _pointwise(opcode: str) -> Function:
    assert opcode in OPS
    return lambda ev, v: ev.b.pointwise(opcode, ev.value(v))


_PRIMITIVE = (
    "sigmoid tanh log_sigmoid exp log log1p expm1 sqrt rsqrt abs sign sin cos erf stop_gradient "
    "floor ceil round trunc exp2 log2 log10 erfc tan sinh cosh arcsin arccos arctan "
    "arcsinh arccosh arctanh"
)
for _name in _PRIMITIVE.split():
    FUNCTIONS[_name] = _pointwise(_name)
FUNCTIONS["exponential"] = FUNCTIONS["exp"]


def known(operand: Operand, what: str) -> float:
    """A number known before anything runs."""
    if isinstance(operand, bool) or not isinstance(operand, int | float):
        raise Refusal("E510", what=what)
    return float(operand)


# ---- activations ---------------------------------------------------------------------------


@function
def linear(ev: Evaluator, v: Operand) -> Operand:
    return v


@function
def square(ev: Evaluator, v: Operand) -> Operand:
    x = ev.value(v)
    return ev.b.mul(x, x)


@function
def relu(
    ev: Evaluator,
    v: Operand,
    negative_slope: Operand = 0,
    max_value: Operand = None,
    threshold: Operand = 0,
) -> Operand:
    """A choice, not a maximum: at the corner Keras's gradient is 0, and NaN stays NaN."""
    b, x = ev.b, ev.value(v)
    slope, corner = known(negative_slope, "negative_slope"), known(threshold, "threshold")
    below: Value | float = 0.0
    if slope:
        below = b.mul(slope, b.sub(x, corner) if corner else x)
    y = b.where(b.le(x, corner), below, x)
    if max_value is not None:
        top = known(max_value, "max_value")
        y = b.where(b.ge(x, top), top, y)
    return y


@function
def relu6(ev: Evaluator, v: Operand) -> Operand:
    return relu(ev, v, max_value=6)


@function
def leaky_relu(ev: Evaluator, v: Operand, negative_slope: Operand = 0.2) -> Operand:
    return relu(ev, v, negative_slope)


@function
def elu(ev: Evaluator, v: Operand, alpha: Operand = 1.0) -> Operand:
    """The exponential sees only negative values: it can't overflow where it isn't chosen."""
    b, x = ev.b, ev.value(v)
    positive = b.gt(x, 0.0)
    return b.where(positive, x, b.mul(known(alpha, "alpha"), b.expm1(b.where(positive, 0.0, x))))


@function
def celu(ev: Evaluator, v: Operand, alpha: Operand = 1.0) -> Operand:
    b, x, a = ev.b, ev.value(v), known(alpha, "alpha")
    positive = b.gt(x, 0.0)
    return b.where(positive, x, b.mul(a, b.expm1(b.div(b.where(positive, 0.0, x), a))))


@function
def selu(ev: Evaluator, v: Operand) -> Operand:
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return ev.b.mul(scale, elu(ev, v, alpha))


FLAT = -1000.0  # far below where exp is 0 in either dtype


def _above(ev: Evaluator, x: Value) -> Value:
    """x, or 0 where it is so negative that what it is multiplied by is 0: -inf * 0 is NaN, and a
    sigmoid in a kernel is a little more than 0 there. Gradients are 0 below, too."""
    kept: Value = ev.b.where(ev.b.lt(x, FLAT), 0.0, x)
    return kept


@function
def gelu(ev: Evaluator, v: Operand, approximate: Operand = False) -> Operand:
    b, x = ev.b, _above(ev, ev.value(v))
    if not isinstance(approximate, bool):
        raise Refusal("E510", what="approximate")
    if approximate:
        cubed = b.add(x, b.mul(0.044715, b.mul(x, b.mul(x, x))))
        bell = b.tanh(b.mul(math.sqrt(2 / math.pi), cubed))
    else:
        bell = b.erf(b.mul(x, math.sqrt(0.5)))
    return b.mul(b.mul(0.5, x), b.add(1.0, bell))


@function
def silu(ev: Evaluator, v: Operand) -> Operand:
    x = _above(ev, ev.value(v))
    return ev.b.mul(x, ev.b.sigmoid(x))


FUNCTIONS["swish"] = silu


@function
def softplus(ev: Evaluator, v: Operand) -> Operand:
    b = ev.b
    return b.neg(b.log_sigmoid(b.neg(ev.value(v))))


@function
def mish(ev: Evaluator, v: Operand) -> Operand:
    x = _above(ev, ev.value(v))
    return ev.b.mul(x, ev.b.tanh(softplus(ev, x)))


@function
def softsign(ev: Evaluator, v: Operand) -> Operand:
    b, x = ev.b, ev.value(v)
    return b.div(x, b.add(1.0, b.abs(x)))


@function
def hard_sigmoid(ev: Evaluator, v: Operand) -> Operand:
    """An op of its own: its gradient needs its value alone, which is saved anyway."""
    return ev.b.hard_sigmoid(ev.value(v))


@function
def hard_silu(ev: Evaluator, v: Operand) -> Operand:
    x = _above(ev, ev.value(v))
    return ev.b.mul(x, hard_sigmoid(ev, x))


FUNCTIONS["hard_swish"] = hard_silu


@function
def hard_tanh(ev: Evaluator, v: Operand) -> Operand:
    return clip(ev, v, -1.0, 1.0)


@function
def tanh_shrink(ev: Evaluator, v: Operand) -> Operand:
    x = ev.value(v)
    return ev.b.sub(x, ev.b.tanh(x))


@function
def hard_shrink(ev: Evaluator, v: Operand, threshold: Operand = 0.5) -> Operand:
    """Comparisons are such that NaN stays NaN, here and below."""
    b, x = ev.b, ev.value(v)
    return b.where(b.le(b.abs(x), known(threshold, "threshold")), 0.0, x)


@function
def soft_shrink(ev: Evaluator, v: Operand, threshold: Operand = 0.5) -> Operand:
    b, x, lam = ev.b, ev.value(v), known(threshold, "threshold")
    below = b.where(b.ge(x, -lam), 0.0, b.add(x, lam))
    return b.where(b.gt(x, lam), b.sub(x, lam), below)


@function
def squareplus(ev: Evaluator, v: Operand, b: Operand = 4) -> Operand:
    x = ev.value(v)
    root = ev.b.sqrt(ev.b.add(ev.b.mul(x, x), known(b, "b")))
    return ev.b.mul(0.5, ev.b.add(x, root))


@function
def threshold(ev: Evaluator, v: Operand, threshold: Operand, default: Operand) -> Operand:
    b, x = ev.b, ev.value(v)
    return b.where(b.le(x, known(threshold, "threshold")), known(default, "default"), x)


# ---- pointwise, of several values ----------------------------------------------------------


def _two(ev: Evaluator, opcode: str, a: Operand, c: Operand) -> Operand:
    return ev.b.pointwise(opcode, *ev.broadcast(ev.number(a), ev.number(c)))


@function
def maximum(ev: Evaluator, a: Operand, b: Operand) -> Operand:
    return _two(ev, "maximum", a, b)


@function
def minimum(ev: Evaluator, a: Operand, b: Operand) -> Operand:
    return _two(ev, "minimum", a, b)


@function
def arctan2(ev: Evaluator, y: Operand, x: Operand) -> Operand:
    return _two(ev, "arctan2", y, x)


@function
def clip(ev: Evaluator, v: Operand, low: Operand, high: Operand) -> Operand:
    return minimum(ev, maximum(ev, v, low), high)


@function
def where(ev: Evaluator, condition: Operand, a: Operand, b: Operand) -> Operand:
    chosen = ev.boolean(condition)
    if isinstance(chosen, bool):
        chosen = ev.b.full(chosen, (), "bool")
    yes, no = (x if isinstance(x, Value) else float(x) for x in (ev.number(a), ev.number(b)))
    return ev.b.where(*ev.broadcast(chosen, yes, no))


@function
def outer(ev: Evaluator, a: Operand, b: Operand) -> Operand:
    x, y = ev.value(a), ev.value(b)
    for v in (x, y):
        if len(v.type.shape) != 1:
            raise Refusal(
                "E405",
                left=show(x.type.shape),
                right=show(y.type.shape),
                help="outer takes two vectors",
            )
    shape = (*x.type.shape, *y.type.shape)
    return ev.b.mul(ev.b.broadcast(x, shape, (0,)), ev.b.broadcast(y, shape, (1,)))


# ---- reductions ----------------------------------------------------------------------------


def axis_of(v: Value, axis: Operand, name: str) -> int:
    """The axis a call means: the only one unless said. Normalisations default to the last."""
    rank = len(v.type.shape)
    if axis is None:
        if rank != 1:
            hint = "" if rank else "it has no axis at all"
            raise Refusal("E410", function=name, shape=show(v.type.shape), help=hint)
        return 0
    if type(axis) is not int:
        raise Refusal("E510", what="axis")
    if not -rank <= axis < rank:
        raise Refusal("E411", shape=show(v.type.shape), axis=axis)
    return axis % rank


def _along(ev: Evaluator, y: Value, model: Value, axis: int) -> Value:
    shape = model.type.shape
    return ev.b.broadcast(y, shape, tuple(i for i in range(len(shape)) if i != axis))


def _mean(ev: Evaluator, x: Value, axis: int) -> Value:
    total = ev.b.reduce("sum", x, axis)
    count = ev.b.extent(x.type.shape[axis])
    mean: Value = ev.b.div(total, ev.stretch(count, total.type.shape))
    return mean


def _reduction(kind: str) -> Function:
    def reduce(ev: Evaluator, v: Operand, axis: Operand = None) -> Operand:
        x = ev.value(v)
        at = axis_of(x, axis, kind)
        return _mean(ev, x, at) if kind == "mean" else ev.b.reduce(kind, x, at)

    return reduce


for _name in ("sum", "mean", "max", "min", "prod"):
    FUNCTIONS[_name] = _reduction(_name)


@function
def norm(ev: Evaluator, v: Operand, axis: Operand = None) -> Operand:
    """The root of the sum of squares; its gradient is 0 where that is 0, as torch's."""
    b, x = ev.b, ev.value(v)
    total = b.reduce("sum", b.mul(x, x), axis_of(x, axis, "norm"))
    nothing = b.eq(total, 0.0)
    return b.where(nothing, 0.0, b.sqrt(b.where(nothing, 1.0, total)))


@function
def cumsum(ev: Evaluator, v: Operand, axis: Operand = None) -> Operand:
    x = ev.value(v)
    return ev.b.cumsum(x, axis_of(x, axis, "cumsum"))


def _shifted(ev: Evaluator, x: Value, axis: int) -> Value:
    """x less its largest, so that exp can't overflow; the shift cancels, gradient included."""
    top = ev.b.stop_gradient(ev.b.reduce("max", x, axis))
    shifted: Value = ev.b.sub(x, _along(ev, top, x, axis))
    return shifted


@function
def softmax(ev: Evaluator, v: Operand, axis: Operand = None) -> Operand:
    x = ev.value(v)
    at = axis_of(x, -1 if axis is None else axis, "softmax")
    e = ev.b.exp(_shifted(ev, x, at))
    return ev.b.div(e, _along(ev, ev.b.reduce("sum", e, at), e, at))


@function
def log_softmax(ev: Evaluator, v: Operand, axis: Operand = None) -> Operand:
    x = ev.value(v)
    at = axis_of(x, -1 if axis is None else axis, "log_softmax")
    shifted = _shifted(ev, x, at)
    total = ev.b.log(ev.b.reduce("sum", ev.b.exp(shifted), at))
    return ev.b.sub(shifted, _along(ev, total, x, at))


@function
def cumax(ev: Evaluator, v: Operand, axis: Operand = None) -> Operand:
    """The cumulative softmax of ordered neurons (Shen et al. 2019)."""
    x = ev.value(v)
    at = axis_of(x, -1 if axis is None else axis, "cumax")
    return ev.b.cumsum(softmax(ev, x, at), at)


@function
def layer_norm(ev: Evaluator, v: Operand, eps: Operand = 1e-5, axis: Operand = None) -> Operand:
    b, x = ev.b, ev.value(v)
    at = axis_of(x, -1 if axis is None else axis, "layer_norm")
    centred = b.sub(x, _along(ev, _mean(ev, x, at), x, at))
    variance = _mean(ev, b.mul(centred, centred), at)
    return b.mul(centred, _along(ev, b.rsqrt(b.add(variance, known(eps, "eps"))), x, at))


@function
def rms_norm(ev: Evaluator, v: Operand, eps: Operand = 1e-5, axis: Operand = None) -> Operand:
    b, x = ev.b, ev.value(v)
    at = axis_of(x, -1 if axis is None else axis, "rms_norm")
    scale = b.rsqrt(b.add(_mean(ev, b.mul(x, x), at), known(eps, "eps")))
    return b.mul(x, _along(ev, scale, x, at))


def size(operand: Operand, what: str = "a shape") -> Size:
    if type(operand) is int or isinstance(operand, Size):
        return Size.of(operand)
    raise Refusal("E402", help="whole numbers, sizes and + - * //")
