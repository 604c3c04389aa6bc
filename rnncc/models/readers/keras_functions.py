"""Keras's activations -> functions of ours, inside of cells and around them.

Non-Goals: layers that are functions (`keras_layers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rnncc.files import FileError
from rnncc.models.plain.functions import FUNCTIONS, checked_function

# Layers that may stand where a function does: their parameters by the names they have here.
_LAYERS: dict[str, tuple[str, dict[str, str]]] = {
    "ReLU": (
        "relu",
        {"max_value": "max_value", "negative_slope": "negative_slope", "threshold": "threshold"},
    ),
    "LeakyReLU": ("leaky_relu", {"negative_slope": "negative_slope", "alpha": "negative_slope"}),
    "ELU": ("elu", {"alpha": "alpha"}),
    "Softmax": ("softmax", {}),
}
Function = tuple[str, dict[str, Any]]


def function_of(where: str, value: Any, version: str) -> Function:
    """A name of `FUNCTIONS` and its parameters. version: of Keras, which wrote it.

    FileError for one that isn't known, and for hard_sigmoid of who knows which Keras.
    """
    if value is None:
        return "linear", {}
    if isinstance(value, Mapping):
        kind, config = value.get("class_name"), value.get("config")
        if kind in _LAYERS and isinstance(config, Mapping):
            return layer_function(where, str(kind), config)
        value = config if isinstance(config, str) else kind
    if not isinstance(value, str) or value not in FUNCTIONS:
        raise FileError(where, f"activation {value!r:.80} isn't known; there are {_known()}")
    if value == "hard_sigmoid":
        return _hard_sigmoid(where, version), {}
    return value, {}


def layer_function(where: str, kind: str, config: Mapping[str, Any]) -> Function:
    """That of a layer of `_LAYERS`."""
    name, parameters = _LAYERS[kind]
    found = {own: config[key] for key, own in parameters.items() if config.get(key) is not None}
    if name == "softmax" and config.get("axis", -1) not in (-1, [-1]):
        raise FileError(where, f"softmax is read of the last axis, not of {config['axis']!r:.40}")
    if kind == "LeakyReLU" and not found:
        raise FileError(where, "a LeakyReLU without a slope")
    found = {n: float(v) if isinstance(v, int | float) else v for n, v in found.items()}
    try:
        checked_function(name, found)
    except ValueError as error:
        raise FileError(where, str(error)) from None
    return name, found


def is_function_layer(kind: str) -> bool:
    """Whether it is a layer that computes a function and has no weights."""
    return kind in _LAYERS


def as_text(function: Function) -> str:
    """As equations of a cell have it."""
    name, parameters = function
    if name == "steep_hard_sigmoid":
        return "lambda v: clip(0.2 * v + 0.5, 0.0, 1.0)"
    given = ", ".join(f"{n}={v!r}" for n, v in parameters.items() if v is not None)
    return f"lambda v: {name}(v, {given})" if given else name


def _hard_sigmoid(where: str, version: str) -> str:
    """Keras 3 made it another line."""
    if not version[:1].isdigit():
        raise FileError(where, "hard_sigmoid is another in Keras 2 than in 3; it says neither")
    return "hard_sigmoid" if int(version[0]) >= 3 else "steep_hard_sigmoid"


def _known() -> str:
    return ", ".join(n for n in FUNCTIONS if not n.startswith("steep"))
