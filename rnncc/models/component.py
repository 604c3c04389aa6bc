"""What a model is made of: a part turns arrays into arrays, a node says which.

    class Gain(Component, kind="gain"):
        def __init__(self, name, factor):
            super().__init__(name)
            self.factor = factor

        def __call__(self, x):
            return (x * self.factor,)

        def config(self):
            return {"factor": self.factor}

Non-Goals: the order they run in (`model`); folders they are saved to (`folder`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

Arrays = tuple[np.ndarray, ...]
Given = np.ndarray | None  # an input that a node may leave out
Cotangents = Sequence[np.ndarray | None]
# Cotangents of outputs -> those of inputs, and gradients of weights by their names.
Pullback = Callable[[Cotangents], tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]]


class NoGradient(TypeError):
    """A part that has no vector-Jacobian product, and which."""


class NoStream(ValueError):
    """A part that needs the whole sequence, and which."""


class Component:
    """One step of a model. Subclasses say their kind, by which a saved one is made again.

    name: unlike any other part's of its model. weights: arrays by name; none by default.
    """

    kinds: ClassVar[dict[str, type[Component]]] = {}
    kind: ClassVar[str] = ""
    # Whether a step of a sequence may be computed without those before and behind it.
    is_stepwise: bool = True

    def __init_subclass__(cls, kind: str = "", **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if kind:
            cls.kind = kind
            Component.kinds[kind] = cls

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        return {}

    def __call__(self, *inputs: Given) -> Arrays:
        """Outputs, in order. Raises ValueError for shapes that don't fit."""
        raise NotImplementedError

    def stream(self, *examples: Given) -> Stepper:
        """Calls that go on where the last one stopped, on inputs like the examples.

        Raises NoStream where the whole sequence is needed.
        """
        if not self.is_stepwise:
            raise NoStream(f"{self.name} ({self.kind}) needs the whole sequence: call the model")
        return Stepper(self)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        """Outputs, and the pullback. Raises NoGradient."""
        raise NoGradient(f"{self.name} ({self.kind}) has no gradient")

    def plan(self) -> str:
        """What runs it, in a line or more."""
        return "NumPy"

    def config(self) -> dict[str, Any]:
        """What makes it again beside its weights, as JSON has it."""
        return {}

    @classmethod
    def made(
        cls, name: str, config: Mapping[str, Any], weights: Mapping[str, np.ndarray]
    ) -> Component:
        """The counterpart of `config` and `weights`."""
        return cls(name, **config, **weights)  # type: ignore[call-arg]


class Stepper:
    """What a part without states does at each call of a stream."""

    def __init__(self, part: Component) -> None:
        self.part = part

    def __call__(self, *inputs: Given) -> Arrays:
        return self.part(*inputs)

    @property
    def states(self) -> Arrays:
        return ()

    def reset(self) -> None:
        """As it began."""


@dataclass(frozen=True, slots=True)
class Wired:
    """A part and the values it reads and makes, by name; "": not given, or read by nobody."""

    part: Component
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model. shape: numbers, or names of what a call decides."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.name} [{', '.join(map(str, self.shape))}] {self.dtype}"
