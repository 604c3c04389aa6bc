"""Keras's constructor arguments -> keywords of a compiled layer, and initial weights.

Non-Goals: sizes, options and rates, which `layer_options` checks.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnncc.artifact.cell import CellDescription
from rnncc.common import initializers
from rnncc.runtime.api.validation import as_array, check_shape, flag

FUNCTIONS = ("activation", "recurrent_activation")
INITIALIZERS = ("kernel_initializer", "recurrent_initializer", "bias_initializer")
# Of no weight's meaning, and of no use where nothing is trained but by the caller.
ABSENT = tuple(
    f"{what}_{kind}"
    for kind in ("regularizer", "constraint")
    for what in ("kernel", "recurrent", "bias", "activity")
)

Initializer = tuple[Any, ...] | Callable[..., Any]


def given(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor, out of its `locals()`."""
    arguments = {k: v for k, v in scope.items() if k not in ("self", "keywords", "__class__")}
    return {**arguments, **scope.get("keywords", {})}


def keywords_of(arguments: Mapping[str, Any], cell: CellDescription) -> dict[str, Any]:
    """What a compiled layer of the cell takes of them.

    TypeError: a function that is Python, a regularizer or constraint. ValueError: an
    implementation that Keras never had.
    """
    keywords = {**_drawing(arguments, cell), **arguments}
    keywords.pop("implementation", None)
    for name in ABSENT:
        value = keywords.pop(name, None)
        if value is not None:
            raise TypeError(
                f"{name} is None, not {value!r}: add a penalty to the loss, a constraint to the "
                "step that changes the weights"
            )
    for name in FUNCTIONS:
        if name in keywords:
            keywords[name] = function_text(name, keywords[name])
    cudnn = keywords.pop("use_cudnn", "auto")  # there is one kernel: nothing to choose
    if cudnn not in (True, False, "auto"):
        raise TypeError(f"use_cudnn is 'auto', True or False, not {cudnn!r}")
    if "unit_forget_bias" in keywords:
        flag("unit_forget_bias", keywords.pop("unit_forget_bias"))
    for name in INITIALIZERS:
        if name in keywords:
            initializer(name, keywords.pop(name))
    return keywords


def _drawing(arguments: Mapping[str, Any], cell: CellDescription) -> dict[str, bool]:
    """How dropout is drawn: Keras's implementation 1 has a mask for each gate; without states'
    dropout, 2 has one for all. There is one computation, whatever it says."""
    implementation = arguments.get("implementation", 2)
    if isinstance(implementation, bool) or implementation not in (0, 1, 2):
        raise ValueError(f"implementation is 1 or 2, not {implementation!r}")
    return {option: True for option, _ in cell.rated_options if implementation == 1}


def function_text(name: str, value: Any) -> str:
    """A function of the language. TypeError for one of Python's."""
    if value is None:
        return "linear"
    if isinstance(value, str):
        return value
    hint = ""
    if callable(value):
        known = getattr(value, "__name__", "")
        plain = known.isidentifier() and not known.startswith("_")
        example = f'"{known}"' if plain else '"lambda v: v / (1 + abs(v))"'
        hint = f": it is compiled, so give its name or its text, {name}={example}"
    raise TypeError(f"{name} is a name or a text, not {value!r}{hint}")


# ---- initial weights -------------------------------------------------------------------------


def initializer(name: str, value: Any) -> Initializer:
    """A name, with arguments if need be, as (name, *arguments); a function as it is.

    >>> initializer("kernel_initializer", "random_normal(stddev=0.1)")
    ('random_normal', 0.0, 0.1)
    """
    if callable(value):
        return value  # type: ignore[no-any-return]
    if not isinstance(value, str):
        raise TypeError(
            f"{name} is a name such as 'glorot_uniform', with arguments if need be "
            f"('random_normal(stddev=0.1)'), or a function of shape and dtype, not {value!r}"
        )
    try:
        node = ast.parse(value.strip(), mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        if not isinstance(call.func, ast.Name):
            raise SyntaxError
        positional = tuple(ast.literal_eval(a) for a in call.args)
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(f"{name} can't be read: {value!r}") from None
    try:
        return (call.func.id, *initializers.arguments(call.func.id, positional, named))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def drawn(
    label: str, chosen: Initializer, shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> np.ndarray:
    """A new array. ValueError when the initializer can't fill that shape."""
    if callable(chosen):
        array = as_array(label, chosen(shape, dtype=dtype), np.dtype(dtype), own=True)
        check_shape(label, array, shape)
        return array
    try:
        return initializers.draw(chosen[0], chosen[1:], shape, dtype, rng)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None


def with_forget_bias(draw: Callable[[tuple[int, ...]], np.ndarray], units: int) -> np.ndarray:
    """The bias of the gates i, f, g, o: ones for f, three parts of units by `draw`."""
    first, rest = draw((units,)), draw((2 * units,))
    return np.concatenate([first, np.ones_like(first), rest])
