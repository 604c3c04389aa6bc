"""Words for what is done element by element.

Non-Goals: sums, axes (`sums`); shapes (`layouts`).
"""

from __future__ import annotations

from collections.abc import Sequence

from rnncc.keras.python.graph import Applied
from rnncc.keras.python.values import (
    ATOM,
    COMPARED,
    POWER,
    PRODUCT,
    SIGN,
    SUM,
    TracedValue,
    Unreadable,
    Writes,
    beside,
    number,
    result,
    word,
)

_ALIKE = (
    "relu6 sigmoid softplus softsign silu log_sigmoid hard_sigmoid hard_silu hard_tanh selu "
    "tanh_shrink mish exp expm1 log log1p sqrt rsqrt sign sin cos erf square stop_gradient tanh"
)
_FUNCTIONS = {  # LogSigmoid -> log_sigmoid
    **{"".join(p.capitalize() for p in n.split("_")): n for n in _ALIKE.split()},
    "Absolute": "abs",
    "Abs": "abs",
}
# Operation -> function, and its keywords by the operation's attributes.
_WITH = {
    "Relu": ("relu", {}),
    "ReLU": (
        "relu",
        {"negative_slope": "negative_slope", "max_value": "max_value", "threshold": "threshold"},
    ),
    "LeakyRelu": ("leaky_relu", {"negative_slope": "negative_slope"}),
    "Elu": ("elu", {"alpha": "alpha"}),
    "Celu": ("celu", {"alpha": "alpha"}),
    "Gelu": ("gelu", {"approximate": "approximate"}),
    "HardShrink": ("hard_shrink", {"threshold": "threshold"}),
    "SoftShrink": ("soft_shrink", {"threshold": "threshold"}),
    "Squareplus": ("squareplus", {"b": "b"}),
}


def _function(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    name, attributes = _WITH.get(type(applied.operation).__name__) or (
        _FUNCTIONS[type(applied.operation).__name__],
        {},
    )
    keywords = [(k, getattr(applied.operation, a)) for k, a in attributes.items()]
    more = [f"{k}={number(v)}" for k, v in keywords if v is not None]
    return [result(applied, f"{name}({', '.join([values[0].text, *more])})")]


word(*_FUNCTIONS)(_function)
for _name, (_, _attributes) in _WITH.items():
    word(_name, reads=_attributes.values())(_function)


_BINARY = {
    "Add": ("+", SUM, SUM),
    "Subtract": ("-", SUM, PRODUCT),
    "Multiply": ("*", PRODUCT, PRODUCT),
    "Divide": ("/", PRODUCT, SIGN),
    "TrueDivide": ("/", PRODUCT, SIGN),
    "Greater": (">", SUM, SUM),
    "GreaterEqual": (">=", SUM, SUM),
    "Less": ("<", SUM, SUM),
    "LessEqual": ("<=", SUM, SUM),
    "Equal": ("==", SUM, SUM),
    "NotEqual": ("!=", SUM, SUM),
}


@word(*_BINARY)
def _binary(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    sign, left, right = _BINARY[type(applied.operation).__name__]
    a, b = (beside(v, values, writer) for v in values)
    binds = COMPARED if sign[0] in "<>=!" else left
    return [result(applied, f"{a.within(left)} {sign} {b.within(right)}", binds)]


@word("Power")
def _power(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    a, b = (beside(v, values, writer) for v in values)
    return [result(applied, f"{a.within(ATOM)} ** {b.within(ATOM)}", POWER)]


@word("Maximum", "Minimum", "Where")
def _called(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    name = type(applied.operation).__name__.lower()
    texts = [beside(v, values, writer).text for v in values]
    return [result(applied, f"{name}({', '.join(texts)})")]


@word("Negative")
def _negative(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    return [result(applied, f"-{values[0].within(POWER)}", SIGN)]


@word("Reciprocal")
def _reciprocal(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    return [result(applied, f"1 / {values[0].within(SIGN)}", PRODUCT)]


@word("Clip", reads=("x_min", "x_max"))
def _clip(writer: Writes, applied: Applied, values: Sequence[TracedValue]) -> Sequence[TracedValue]:
    low, high = (number(n) for n in (applied.operation.x_min, applied.operation.x_max))
    return [result(applied, f"clip({values[0].text}, {low}, {high})")]


@word("Threshold", reads=("threshold", "default_value"))
def _threshold(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    own = applied.operation
    parameters = f"{number(own.threshold)}, {number(own.default_value)}"
    return [result(applied, f"threshold({values[0].text}, {parameters})")]


@word("OnesLike", "ZerosLike", reads=("dtype",))
def _constant(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    return [TracedValue("1" if type(applied.operation).__name__ == "OnesLike" else "0")]


@word("Cast", "ConvertToTensor", "Identity", reads=("dtype",))
def _same(writer: Writes, applied: Applied, values: Sequence[TracedValue]) -> Sequence[TracedValue]:
    """Of another kind of numbers already (`kinds`), where it gives another."""
    return [values[0]]


@word("LogicalAnd", "LogicalOr")
def _both(writer: Writes, applied: Applied, values: Sequence[TracedValue]) -> Sequence[TracedValue]:
    sign = "and" if type(applied.operation).__name__ == "LogicalAnd" else "or"
    a, b = (f"({beside(v, values, writer).text})" for v in values)
    return [result(applied, f"({a} {sign} {b})")]


@word("Dropout", reads=("rate", "noise_shape", "seed", "kwargs"))
def _dropout(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    layer = applied.operation
    if getattr(layer, "noise_shape", None) is not None:
        raise Unreadable("takes a noise_shape")
    if not (writer.drops and applied.keywords.get("training") and layer.rate):
        return [values[0]]
    rate = writer.rate(layer)
    return [result(applied, f'drop({values[0].text}, {rate}, per="step")')]
