"""Keras's operations, by the names of their classes -> calls of a Recorder.

A reader takes (step, its operands) and gives what the operation gives. Axes and shapes are Keras's.

Non-Goals: shapes and axes (`arrangements`); which arguments are known (`reader`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from rnncc.keras.python.graph import Applied
from rnncc.reading.graph import Unreadable
from rnncc.reading.recorder import Recorder
from rnncc.reading.traced import Traced


@dataclass(slots=True)
class Reading:
    """One operation while it is read. shape, kind: what Keras says of what it gives first.
    read: a value of its other arguments. drops: whether Dropout does something here."""

    r: Recorder
    step: Applied
    shape: tuple[int | None, ...]
    kind: Any
    read: Callable[[Any], Traced]
    drops: bool

    @property
    def own(self) -> Any:
        return self.step.operation

    def axis(self) -> int:
        """The one axis it goes along."""
        axis = self.own.axis
        if isinstance(axis, list | tuple) and len(axis) == 1:
            (axis,) = axis
        if not isinstance(axis, int):
            raise Unreadable(f"takes axis={axis}: one axis at a time")
        return axis


Reader = Callable[..., Any]
READERS: dict[str, Reader] = {}
READS: dict[str, frozenset[str]] = {}


def operation(*names: str, reads: Collection[str] = ()) -> Callable[[Reader], Reader]:
    """reads: the arguments of the operation's constructor that the reader knows, or that the shape
    of what is given tells; the others have to be what they are by default."""

    def keep(function: Reader) -> Reader:
        READERS.update(dict.fromkeys(names, function))
        READS.update(dict.fromkeys(names, frozenset(reads)))
        return function

    return keep


# ---- element by element --------------------------------------------------------------------------

_ALIKE = (
    "relu6 sigmoid softplus softsign silu log_sigmoid hard_sigmoid hard_silu hard_tanh selu "
    "tanh_shrink mish exp expm1 log log1p sqrt rsqrt sign sin cos erf square tanh "
    "floor ceil trunc mod log2 log10 exp2 arctan2 tan arcsin arccos arctan sinh cosh "
    "arcsinh arccosh arctanh erfc maximum minimum heaviside"
)
_FUNCTIONS = {  # LogSigmoid -> log_sigmoid
    **{"".join(p.capitalize() for p in n.split("_")): n for n in _ALIKE.split()},
    "Absolute": "abs",
    "Abs": "abs",
    "Negative": "neg",
    "Add": "+",
    "Subtract": "-",
    "Multiply": "*",
    "Divide": "/",
    "TrueDivide": "/",
    "Power": "**",
    "Greater": ">",
    "GreaterEqual": ">=",
    "Less": "<",
    "LessEqual": "<=",
    "Equal": "==",
    "NotEqual": "!=",
    "LogicalAnd": "and",
    "LogicalOr": "or",
    "LogicalNot": "not",
}
# Operation -> function, whose keywords are attributes of that name.
_WITH = {
    "Relu": ("relu", ()),
    "ReLU": ("relu", ("negative_slope", "max_value", "threshold")),
    "LeakyRelu": ("leaky_relu", ("negative_slope",)),
    "Elu": ("elu", ("alpha",)),
    "Celu": ("celu", ("alpha",)),
    "Gelu": ("gelu", ("approximate",)),
    "HardShrink": ("hard_shrink", ("threshold",)),
    "SoftShrink": ("soft_shrink", ("threshold",)),
    "Squareplus": ("squareplus", ("b",)),
    "Round": ("round", ()),
}


@operation(*_FUNCTIONS)
def _function(reading: Reading, *xs: Traced) -> Traced:
    return reading.r.pointwise(_FUNCTIONS[type(reading.own).__name__], *xs)


def _with(reading: Reading, *xs: Traced) -> Traced:
    name, attributes = _WITH[type(reading.own).__name__]
    given = {a: getattr(reading.own, a) for a in attributes}
    return reading.r.pointwise(name, *xs, **{a: v for a, v in given.items() if v is not None})


for _name, (_, _attributes) in _WITH.items():
    operation(_name, reads=_attributes)(_with)


@operation("Where")
def _where(reading: Reading, *xs: Traced) -> Traced:
    if len(xs) != 3:
        raise Unreadable("chooses no numbers: give where a condition and two of them")
    return reading.r.pointwise("where", *xs)


@operation("LogicalXor")
def _xor(reading: Reading, a: Traced, b: Traced) -> Traced:
    r = reading.r
    return r.pointwise("!=", r.convert(a, "bool"), r.convert(b, "bool"))


@operation("FloorDivide")
def _floor_divide(reading: Reading, a: Traced, b: Traced) -> Traced:
    return reading.r.pointwise("floor", reading.r.pointwise("/", a, b))


@operation("Reciprocal")
def _reciprocal(reading: Reading, x: Traced) -> Traced:
    return reading.r.pointwise("/", reading.r.constant(1.0), x)


@operation("Clip", reads=("x_min", "x_max"))
def _clip(reading: Reading, x: Traced) -> Traced:
    return reading.r.pointwise("clip", x, low=reading.own.x_min, high=reading.own.x_max)


@operation("Threshold", reads=("threshold", "default_value"))
def _threshold(reading: Reading, x: Traced) -> Traced:
    own = reading.own
    return reading.r.pointwise("threshold", x, threshold=own.threshold, default=own.default_value)


@operation("OnesLike", "ZerosLike", reads=("dtype",))
def _filled(reading: Reading, x: Traced) -> Traced:
    number = float(type(reading.own).__name__ == "OnesLike")
    return reading.r.broadcast(reading.r.constant(number), x.plain().shape)


@operation("Cast", "ConvertToTensor", "Identity", reads=("dtype",))
def _same(reading: Reading, x: Traced) -> Traced:
    return reading.r.convert(x, reading.kind)


@operation("StopGradient")
def _stop_gradient(reading: Reading, x: Traced) -> Traced:
    return reading.r.stop_gradient(x)


@operation("Dropout", reads=("rate", "noise_shape", "seed", "kwargs"))
def _dropout(reading: Reading, x: Traced) -> Traced:
    layer, rates = reading.own, reading.r.graph.rates
    if getattr(layer, "noise_shape", None) is not None:
        raise Unreadable("takes a noise_shape")
    if not (reading.drops and layer.rate):
        return x
    name = f"dropout_{len(rates) + 1}" if rates else "dropout"
    return reading.r.drop(x, name, float(layer.rate))


# ---- sums and products ---------------------------------------------------------------------------


@operation("Matmul", "Dot")
def _matmul(reading: Reading, a: Traced, b: Traced) -> Traced:
    if not (a.rank and b.rank):
        return reading.r.pointwise("*", a, b)
    if type(reading.own).__name__ == "Dot" and b.rank > 2:
        raise Unreadable("multiplies stacks of matrices: write an einsum")
    return reading.r.matmul(a, b)


@operation("Tensordot", reads=("axes",))
def _tensordot(reading: Reading, a: Traced, b: Traced) -> Traced:
    axes = reading.own.axes
    if axes not in (1, [1, 0], (1, 0), [[1], [0]]) or b.rank > 2:
        raise Unreadable(f"takes axes={axes}: write an einsum")
    return reading.r.matmul(a, b)


@operation("Einsum", reads=("subscripts",))
def _einsum(reading: Reading, *xs: Traced) -> Traced:
    return reading.r.einsum(reading.own.subscripts, *xs)


@operation("Softmax", "LogSoftmax", "Cumsum", "Flip", reads=("axis",))
def _along(reading: Reading, x: Traced) -> Traced:
    names = {"LogSoftmax": "log_softmax"}
    name = type(reading.own).__name__
    return reading.r.along(names.get(name, name.lower()), x, reading.axis())


@operation("Roll", reads=("shift", "axis"))
def _roll(reading: Reading, x: Traced) -> Traced:
    if not isinstance(reading.own.shift, int):
        raise Unreadable(f"takes shift={reading.own.shift!r}: one axis at a time")
    return reading.r.along("roll", x, reading.axis(), shift=reading.own.shift)


def _reduced(reading: Reading, name: str, x: Traced, keep: bool | None = None) -> Traced:
    """Without the axes of the operation, or with ones in their place."""
    axes = reading.own.axis
    axes = [axes] if isinstance(axes, int) else axes
    return reading.r.reduce(name, x, axes, reading.own.keepdims if keep is None else keep)


_SUMS = ("Sum", "Mean", "Max", "Min", "Amax", "Amin", "Prod", "Any", "All")


@operation(*_SUMS, reads=("axis", "keepdims", "initial"))
def _reduction(reading: Reading, x: Traced) -> Traced:
    name = type(reading.own).__name__
    if getattr(reading.own, "initial", None) is not None:
        raise Unreadable("takes an initial value")
    return _reduced(reading, name.lower().removeprefix("a") if name[1] == "m" else name.lower(), x)


@operation("Logsumexp", reads=("axis", "keepdims"))
def _logsumexp(reading: Reading, x: Traced) -> Traced:
    r = reading.r
    highest = _reduced(reading, "max", x, True)
    total = _reduced(reading, "sum", r.pointwise("exp", r.pointwise("-", x, highest)))
    return r.pointwise("+", r.pointwise("log", total), r.reshape(highest, total.shape))


@operation("Glu", reads=("axis",))
def _glu(reading: Reading, x: Traced) -> Traced:
    r, axis = reading.r, reading.axis()
    half = _length(x, axis) // 2
    a, b = (r.slice(x, axis, slice(i * half, (i + 1) * half)) for i in range(2))
    return r.pointwise("*", a, r.pointwise("sigmoid", b))


def _length(x: Traced, axis: int) -> int:
    return x.row[x.own_axis(axis)]


@operation("Var", "Std", reads=("axis", "keepdims"))
def _variance(reading: Reading, x: Traced) -> Traced:
    r = reading.r
    centred = r.pointwise("-", x, _reduced(reading, "mean", x, True))
    variance = _reduced(reading, "mean", r.pointwise("square", centred))
    return variance if type(reading.own).__name__ == "Var" else r.pointwise("sqrt", variance)


@operation("LayerNorm", "RMSNorm", reads=("axis", "epsilon", "rms_scaling"))
def _norm(reading: Reading, x: Traced, *others: Traced) -> Traced:
    own, r, step = reading.own, reading.r, reading.step
    if getattr(own, "rms_scaling", False):
        raise Unreadable("takes rms_scaling: use RMSNormalization")
    name = "rms_norm" if type(own).__name__ == "RMSNorm" else "layer_norm"
    epsilon = keras.backend.epsilon() if own.epsilon is None else own.epsilon
    normal = r.along(name, x, reading.axis(), eps=float(epsilon))
    named = dict(zip(("gamma", "beta"), step.args[1:], strict=False)) | step.keywords
    for sign, key in (("*", "gamma"), ("*", "scale"), ("+", "beta")):
        if named.get(key) is not None:
            normal = r.pointwise(sign, normal, reading.read(named[key]))
    return normal


def given(reading: Reading, xs: Sequence[Traced]) -> list[Traced]:
    """What the operation gives. Unreadable for one that isn't known."""
    reader = READERS.get(type(reading.own).__name__)
    if reader is None:
        raise Unreadable("is an operation that equations have no word for (docs/language.md)")
    results = reader(reading, *xs)
    return [results] if isinstance(results, Traced) else [*results]
