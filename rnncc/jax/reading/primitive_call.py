"""What words of JAX's primitives read with, and the table they are in.

Non-Goals: the words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.jax.reading.batch import Shape
from rnncc.jax.reading.flat import FlatArray, FlatEquation
from rnncc.reading.graph import Kind, Unreadable
from rnncc.reading.recorder import Recorder
from rnncc.reading.traced import Traced


@dataclass(frozen=True, slots=True)
class PrimitiveCall:
    """One equation. shapes, arrays: of its results; read: dtypes and shapes of its operands, as
    arrays are with the batch that was traced; known: of those that are numbers, the numbers."""

    recorder: Recorder
    equation: FlatEquation
    shapes: Sequence[Shape]
    arrays: Sequence[FlatArray]
    read: Sequence[FlatArray]
    known: Sequence[np.ndarray | None]

    @property
    def shape(self) -> Shape:
        return self.shapes[0]

    @property
    def params(self) -> dict[str, Any]:
        return self.equation.params

    @property
    def kind(self) -> Kind:
        """Of its first result."""
        return kind_of(self.arrays[0].dtype)

    def number(self, at: int, what: str) -> np.ndarray:
        """An operand that has to be a number known now."""
        value = self.known[at]
        if value is None:
            raise Unreadable(f"{what} that depends on numbers of the step")
        return value


def kind_of(dtype: np.dtype[Any]) -> Kind:
    """Unreadable for what equations don't count in."""
    if dtype in (np.float32, np.float64):
        return "float"
    kinds: dict[str, Kind] = {"i": "int", "u": "int", "b": "bool"}
    if dtype.kind not in kinds:
        name = "keys of random numbers" if dtype.name.startswith("void") else dtype.name
        raise Unreadable(f"is of {name}: equations count in float32 and float64")
    return kinds[dtype.kind]


Word = Callable[..., Traced | list[Traced]]
WORDS: dict[str, Word] = {}


def word(*names: str) -> Callable[[Word], Word]:
    """What these primitives are: (stage, *operands) -> results."""

    def keep(function: Word) -> Word:
        WORDS.update(dict.fromkeys(names, function))
        return function

    return keep
