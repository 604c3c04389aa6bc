"""What is known of an operation before it has words: its arguments, and its kinds of numbers.

Equations count in one kind of floats, and have conditions. What Keras counts in other kinds is
either the same number there (a condition as 0 or 1, small whole numbers) or refused: floats made
whole or narrow, conditions that are added, wide floats among others.

Non-Goals: what operations mean (`words`).
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import keras

from rnncc.keras.python.graph import Applied, is_symbolic
from rnncc.keras.python.values import ATOM, COMPARED, READS, SUM, TracedValue, Unreadable

_WHOLE = ("int32", "int64")
_OF_CONDITIONS = ("LogicalAnd", "LogicalOr", "Where")  # operations that read conditions as such
_COMPARE = ("Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual")
_MADE = ("OnesLike", "ZerosLike")  # operations that give the same whatever the numbers are
_AS_IT_IS = ("Cast", "ConvertToTensor", "Identity", "StopGradient")
_POINTWISE = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Power", "Maximum", "Minimum")
_CALLED_WITH = {"GetItem": ("key",), "Dropout": ("training",)}


def refuse_unknown(step: Applied) -> None:
    """Unreadable for an argument that changes what is computed and that its word doesn't know."""
    own, name = step.operation, type(step.operation).__name__
    for argument, declared in inspect.signature(type(own).__init__).parameters.items():
        if argument in ("self", "name") or argument in READS[name]:
            continue
        value = getattr(own, argument, declared.default)
        if value is not declared.default and value != declared.default:
            raise Unreadable(f"takes {argument}={value!r}")
    for argument, value in step.keywords.items():
        is_known = value is None or is_symbolic(value) or isinstance(value, keras.Variable)
        if not is_known and argument not in _CALLED_WITH.get(name, ("x", "x1", "x2")):
            raise Unreadable(f"is called with {argument}={value!r}")


def kind_of(given: Any) -> str:
    """bool, or a name of Keras's for numbers; of a number of Python's nothing."""
    if isinstance(given, bool):
        return "bool"
    if isinstance(given, int | float):
        return ""
    return str(keras.backend.standardize_dtype(given.dtype)) if hasattr(given, "dtype") else ""


def in_kind(
    step: Applied, read: Sequence[Any], values: Sequence[TracedValue], floats: Collection[str]
) -> list[TracedValue]:
    """The operands as equations count them. Unreadable where they would count otherwise."""
    name = type(step.operation).__name__
    kinds, result_kinds = [kind_of(a) for a in read], [kind_of(t) for t in step.outputs]
    for kind in (*kinds, *result_kinds):
        if kind and kind not in (*floats, *_WHOLE, "bool"):
            raise Unreadable(f"counts in {kind}, the cell in {' and '.join(sorted(floats))}")
    makes_whole = any(k in _WHOLE for k in result_kinds)
    if makes_whole and name not in _MADE and any(k in floats for k in kinds):
        raise Unreadable(f"makes floats whole ({result_kinds[0]}), which equations can't")
    if name == "Power" and makes_whole:
        raise Unreadable("takes whole numbers to a power")
    gives_condition = "bool" in result_kinds
    if gives_condition and name not in (*_OF_CONDITIONS, *_COMPARE, *_AS_IT_IS):
        raise Unreadable("counts with conditions: cast them to floats")
    if name == "Where" and (len(values) != 3 or gives_condition):
        raise Unreadable("chooses no numbers: give where a condition and two of them")
    operands = []
    for at, (kind, value) in enumerate(zip(kinds, values, strict=True)):
        as_condition = name in ("LogicalAnd", "LogicalOr") or (name == "Where" and at == 0)
        as_condition = as_condition or (name in _AS_IT_IS and gives_condition)
        if kind == "bool" and not as_condition:
            value = replace(value, text=f"where({value.text}, 1, 0)", binds=ATOM)
        elif kind != "bool" and as_condition:
            value = replace(value, text=f"{value.within(SUM)} != 0", binds=COMPARED)
        operands.append(value)
    return operands


def refuse_shapes(step: Applied, read: Sequence[Any]) -> None:
    """Unreadable where arrays of one number, which equations write as that number, give a shape."""
    if type(step.operation).__name__ not in (*_POINTWISE, *_COMPARE, "Where"):
        return
    shapes = [tuple(a.shape) for a in read if is_symbolic(a) or isinstance(a, keras.Variable)]
    result_shape = tuple(step.outputs[0].shape)
    rank = len(result_shape)
    wide = [(1,) * (rank - len(s)) + s for s in shapes]
    for axis, n in enumerate(result_shape):
        if n != 1 and all(s[axis] == 1 for s in wide):
            raise Unreadable("takes its shape from an array of one number")
