"""A chain of parts as it is made: each reads what the last one put out, and how many features.

Non-Goals: graphs; what a file says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rnncc.compiler import compile_text
from rnncc.files import FileError
from rnncc.models.component import Component, Port, Wired
from rnncc.models.model import Model
from rnncc.models.recurrent import Recurrent
from rnncc.runtime.api.layer import Layer

TORCH_CELLS = Path(__file__).parents[2] / "torch"


class LoadWarning(UserWarning):
    """What a model that was read does otherwise than one might think: a guess, states."""


class Chain:
    """where: the file, for messages. features: of the input."""

    def __init__(self, where: str, features: int, dtype: str, of_words: bool = False) -> None:
        self.where, self.features, self.dtype = where, features, dtype
        self.nodes: list[Wired] = []
        shape = ("batch", "time") if of_words else ("batch", "time", features)
        self.input = Port("x", shape, "int32" if of_words else dtype)
        self.value, self.has_steps = "x", True
        # Tensor of the file -> [part, weight, "" or "transposed"].
        self.sources: dict[str, list[str]] = {}

    def add(self, part: Component, features: int | None = None, *others: str) -> None:
        """Behind what is there; others: values it reads beside."""
        made = f"{part.name}.y"
        self.nodes.append(Wired(part, (self.value, *others), (made,)))
        self.value = made
        self.features = self.features if features is None else features

    def model(self, metadata: Mapping[str, Any]) -> Model:
        """The whole: x -> y."""
        *before, last = self.nodes
        nodes = [*before, Wired(last.part, last.inputs, ("y",))]
        shape = ("batch", "time", self.features) if self.has_steps else ("batch", self.features)
        output = Port("y", shape, self.dtype)
        return Model([self.input], [output], nodes, origin=Path(self.where).name, metadata=metadata)


@cache
def torch_cell(name: str) -> Any:
    """The class of layers with torch's weights: "lstm", "gru", "rnn" or "projected_lstm"."""
    file = TORCH_CELLS / f"{name}.rnn"
    return compile_text(file.read_text(encoding="utf-8"), filename=file.name)


def recurrent(
    where: str,
    name: str,
    layer: Layer,
    sizes: Mapping[str, int],
    arrays: Mapping[str, np.ndarray],
    initial_state: Sequence[np.ndarray] | None = None,
) -> Recurrent:
    """A layer with these weights. FileError for others than it has."""
    try:
        layer.build_with(sizes, arrays)
    except ValueError as error:
        raise FileError(f"{where}: {name}", str(error)) from None
    return Recurrent(name, layer, initial_state)


def whole_size(where: str, what: str, value: object, most: int = 2**20) -> int:
    """A size that a file says. FileError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        raise FileError(where, f"{what} is a whole number from 1 to {most:,}, not {value!r:.80}")
    return value


def fitting(where: str, name: str, features: int, reads: int) -> None:
    """FileError where a layer can't read what the one before puts out."""
    if features != reads:
        raise FileError(where, f"{name} reads {reads} features, what is before it has {features}")
