"""Words for contractions, and for what goes along an axis.

Non-Goals: shapes (`layouts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from rnncc.keras.python.graph import Applied
from rnncc.keras.python.values import (
    ATOM,
    PRODUCT,
    SIGN,
    SUM,
    TracedValue,
    Unreadable,
    Writes,
    along_of,
    axis_of,
    number,
    result,
    word,
)


@word("Matmul", "Dot")
def _matmul(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    a, b = values
    if not a.shape or not b.shape:
        return [result(applied, f"{a.within(PRODUCT)} * {b.within(PRODUCT)}", PRODUCT)]
    if b.rows and not a.rows:
        raise Unreadable("contracts over the rows of a batch")
    if a.rows and b.rows and (len(a.shape) < 2 or len(b.shape) < 2):
        raise Unreadable("contracts rows of a batch with others")
    if len(a.shape) > 2 or len(b.shape) > 2:
        raise Unreadable("multiplies stacks of matrices: write an einsum")
    return [result(applied, f"{a.within(PRODUCT)} @ {b.within(SIGN)}", PRODUCT)]


@word("Tensordot", reads=("axes",))
def _tensordot(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    axes = applied.operation.axes
    if axes not in (1, [1, 0], (1, 0), [[1], [0]]):
        raise Unreadable(f"takes axes={axes}: write an einsum")
    return _matmul(writer, applied, values)


@word("Einsum", reads=("subscripts",))
def _einsum(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    text = applied.operation.subscripts.replace(" ", "")
    if "..." in text or "->" not in text:
        raise Unreadable("has subscripts without -> or with an ellipsis: write them out")
    terms, out = text.split("->")
    letters = {t[:1] for t, v in zip(terms.split(","), values, strict=True) if v.rows}
    if len(letters) > 1:
        raise Unreadable(f"calls the batch {' and '.join(sorted(letters))} in {text}")
    batch = next(iter(letters), "")
    own = [t[1:] if v.rows else t for t, v in zip(terms.split(","), values, strict=True)]
    if batch and (any(batch in t for t in own) or out[:1] != batch or batch in out[1:]):
        raise Unreadable(f"doesn't keep the rows of a batch apart in {text}")
    inner = f'"{",".join(own)}->{out[len(batch) :]}"'
    return [result(applied, f"einsum({', '.join([inner, *(v.text for v in values)])})")]


@word("Softmax", "LogSoftmax", reads=("axis",))
def _softmax(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    name = "softmax" if type(applied.operation).__name__ == "Softmax" else "log_softmax"
    along = along_of(axis_of(applied.operation.axis, values[0]), values[0].shape)
    return [result(applied, f"{name}({values[0].text}{along})")]


@word("Cumsum", reads=("axis",))
def _cumsum(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    along = along_of(axis_of(applied.operation.axis, values[0]), values[0].shape)
    return [result(applied, f"cumsum({values[0].text}{along})")]


def _reduced(name: str, value: TracedValue, axes: Any, keep: bool, writer: Writes) -> TracedValue:
    """A value without these axes of Keras's, or with ones in their place."""
    if axes is None:
        axes = range(len(value.shape) + value.rows)
    own = sorted({axis_of(a, value) for a in axes}, reverse=True)
    shape, text = list(value.shape), value.text
    for axis in own:
        text = f"{name}({text}{along_of(axis, shape)})"
        del shape[axis]
    reduced = TracedValue(text, tuple(shape), value.rows)
    if keep:
        kept = tuple(1 if a in own else n for a, n in enumerate(value.shape))
        return writer.reshaped(reduced, kept)
    return reduced


def _axes(operation: Any) -> Any:
    axis = operation.axis
    return [axis] if isinstance(axis, int) else axis


@word("Sum", "Mean", "Max", "Min", "Amax", "Amin", reads=("axis", "keepdims", "initial"))
def _reduction(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    own = applied.operation
    name = type(own).__name__.lower().removeprefix("a")
    if getattr(own, "initial", None) is not None:
        raise Unreadable("takes an initial value")
    return [_reduced(name, values[0], _axes(own), own.keepdims, writer)]


@word("Logsumexp", reads=("axis", "keepdims"))
def _logsumexp(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    own, value = applied.operation, writer.named(values[0])
    highest = writer.named(_reduced("max", value, _axes(own), True, writer))
    powers = TracedValue(f"exp({value.text} - {highest.text})", value.shape, value.rows)
    total = _reduced("sum", powers, _axes(own), own.keepdims, writer)
    highest = writer.reshaped(highest, total.shape)
    return [TracedValue(f"log({total.text}) + {highest.text}", total.shape, value.rows, SUM)]


@word("Glu", reads=("axis",))
def _glu(writer: Writes, applied: Applied, values: Sequence[TracedValue]) -> Sequence[TracedValue]:
    a, b = writer.parts(values[0], 2, axis_of(applied.operation.axis, values[0]))
    return [result(applied, f"{a.text} * sigmoid({b.text})", PRODUCT)]


@word("Var", "Std", reads=("axis", "keepdims"))
def _variance(
    writer: Writes, applied: Applied, values: Sequence[TracedValue]
) -> Sequence[TracedValue]:
    own, value = applied.operation, writer.named(values[0])
    mean = _reduced("mean", value, _axes(own), True, writer)
    square = TracedValue(f"square({value.text} - {mean.text})", value.shape, value.rows)
    variance = _reduced("mean", square, _axes(own), own.keepdims, writer)
    if type(own).__name__ == "Var":
        return [variance]
    return [TracedValue(f"sqrt({variance.text})", variance.shape, variance.rows)]


@word("LayerNorm", "RMSNorm", reads=("axis", "epsilon", "rms_scaling"))
def _norm(writer: Writes, applied: Applied, values: Sequence[TracedValue]) -> Sequence[TracedValue]:
    own, value = applied.operation, values[0]
    axes = [own.axis] if isinstance(own.axis, int) else [*own.axis]
    if len(axes) != 1:
        raise Unreadable("normalizes over several axes at once")
    if getattr(own, "rms_scaling", False):
        raise Unreadable("takes rms_scaling: use RMSNormalization")
    name = "rms_norm" if type(own).__name__ == "RMSNorm" else "layer_norm"
    along = along_of(axis_of(axes[0], value), value.shape)
    epsilon = number(keras.backend.epsilon() if own.epsilon is None else own.epsilon)
    text, binds = f"{name}({value.text}, eps={epsilon}{along})", ATOM
    named = dict(zip(("gamma", "beta"), applied.args[1:], strict=False)) | applied.keywords
    for mark, key, level in (("*", "gamma", PRODUCT), ("*", "scale", PRODUCT), ("+", "beta", SUM)):
        if named.get(key) is not None:
            text, binds = f"{text} {mark} {writer.value(named[key]).within(level)}", level
    return [result(applied, text, binds)]
