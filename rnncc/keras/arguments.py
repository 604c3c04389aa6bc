"""Keras's arguments -> keywords of a compiled layer.

Non-Goals: initializers, regularizers, constraints: Keras's own, on Keras's own variables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from rnncc.layers.arguments import function_text
from rnncc.runtime.api.validation import nearest


def function_of(name: str, value: Any) -> str:
    """A function of the language, out of a name, a text, or one of keras.activations. TypeError for
    another function of Python's."""
    if isinstance(value, Mapping):  # as Keras serializes its own
        value = keras.activations.deserialize(value)
    known = getattr(value, "__name__", None)
    if callable(value) and known and getattr(keras.activations, known, None) is value:
        return str(known)
    return function_text(name, value)


def dtype_of(layer: keras.layers.Layer) -> str:
    """What a layer's kernels compute in. ValueError for weights they can't read."""
    dtype = str(layer.variable_dtype)
    if dtype not in ("float32", "float64"):
        raise ValueError(
            f"{type(layer).__name__} has weights of {dtype}: rnncc has kernels for float32 and "
            "float64; of mixed policies (mixed_bfloat16) it computes in float32"
        )
    if dtype == "float64" and keras.backend.backend() == "jax":
        import jax

        if not jax.config.read("jax_enable_x64"):
            raise ValueError(
                f"{type(layer).__name__} has weights of float64, which JAX makes float32 of: "
                "jax.config.update('jax_enable_x64', True) before anything else"
            )
    return dtype


def taken(keywords: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of the keywords with these names, which are taken out."""
    return {n: keywords.pop(n) for n in names if n in keywords}


_OF_SEQUENCES = ("return_sequences", "return_state", "go_backwards", "stateful")


def refuse_sequences(what: str, keywords: Mapping[str, Any]) -> None:
    """TypeError for what speaks of sequences, which a cell has none of."""
    for name in _OF_SEQUENCES:
        if keywords.get(name):
            raise TypeError(f"{what} computes one step: give {name} to RNN")
    refuse_time_major(what, keywords)


def refuse_time_major(what: str, keywords: Mapping[str, Any]) -> None:
    if keywords.get("time_major"):
        raise TypeError(
            f"{what} has no time_major: inputs are [batch, time, ...], keras.ops.swapaxes(x, 0, 1) "
            "makes them so"
        )


def by_weight(what: str, given: Any, names: Iterable[str], get: Any) -> dict[str, Any]:
    """Initializers, regularizers or constraints by the name of their weight. TypeError for no
    dict, ValueError for a weight that doesn't exist."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} is a dict by names of weights, not {given!r}")
    names = [*names]
    for name in given:
        if name not in names:
            raise ValueError(f"{what}: there is no weight {name!r}{nearest(str(name), names)}")
    return {name: get(value) for name, value in given.items()}
