"""What recurrences are made of: their recipes, what is known of a call, what it leaves behind.

Non-Goals: computing (`recurrence`).
"""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import torch

from rnncc.runtime.api.call import CellKernels
from rnncc.runtime.api.call_gradients import AskedGradients, DirectionSaved
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.layer_options import BoundCell
from rnncc.torch.weights import WeightSets

DTYPES = {"float32": torch.float32, "float64": torch.float64}
# What modules of other numbers are computed in: widened on the way in, rounded on the way out.
WIDER = {torch.bfloat16: "float32", torch.float16: "float32"}
COMPUTED_IN = {**{dtype: name for name, dtype in DTYPES.items()}, **WIDER}

KERNELS = (
    "rnncc has kernels for torch.float32 and torch.float64, and computes torch.bfloat16 and "
    "torch.float16 in float32"
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that tells one recurrence from another; hashable, and pickled in its stead.

    directions: of each, whether its last step runs first; outputs of several stand side by side.
    in_place: outputs of a direction that runs backwards stand at the steps of their inputs, where
    Keras leaves them in the order they ran. stacked: states are [directions, batch, ...].
    """

    layer_class: type[Layer]
    sizes: tuple[tuple[str, int], ...]
    options: tuple[tuple[str, Any], ...] = ()
    functions: tuple[tuple[str, Any], ...] = ()
    rates: tuple[tuple[str, float], ...] = ()
    dtype: str = "float32"
    directions: tuple[bool, ...] = (False,)
    in_place: bool = False
    stacked: bool = False
    time_major: bool = False
    return_sequences: bool = True
    zeros: bool = False
    checkpoint_every: int | None = None
    precision: str = "float32"
    storage: str = ""
    unroll: int = 1

    def binding(self) -> BoundCell:
        """The cell with its options bound, the same one for as long as the class lives."""
        maker = self.layer_class.maker
        return maker.bind(dict(self.options), dict(self.functions), self.dtype)

    def key(self) -> str:
        """What is computed, not by which class: the same in every process."""
        known, plain = _keys.setdefault(self.layer_class, {}), replace(self, layer_class=Layer)
        key = known.get(plain)
        if key is None:
            cell = self.binding().cell
            digest = hashlib.sha256(repr((cell, plain)).encode()).hexdigest()
            key = known[plain] = f"{cell.name}:{digest[:32]}"
        return key


# Recipes without their class, so that it isn't kept by them.
_keys: WeakKeyDictionary[type[Layer], dict[Recipe, str]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class ArgumentShapes:
    """What the shapes of arguments tell. results: shapes of outputs, then of states as they are
    given and returned. states: shapes of one direction's. zeros: those that start so; nobody
    writes them."""

    sizes: dict[str, int]
    batch: int
    time: int
    results: list[tuple[int, ...]]
    states: dict[str, tuple[int, ...]]
    zeros: dict[str, np.ndarray]


@dataclass(slots=True, weakref_slot=True)
class SavedTensors:
    """What a call leaves for its backward."""

    ways: list[DirectionSaved]
    known: ArgumentShapes
    given: bool
    masked: bool
    shapes: list[torch.Size]


@dataclass(frozen=True, slots=True)
class DirectionGradients:
    """The gradients one direction is asked for: where they belong among the tensors of a call."""

    arguments: dict[str, int]
    states: dict[str, int]
    trained: dict[str, int]
    asked: AskedGradients

    @property
    def tensors(self) -> dict[str, int]:
        """Those of all these parameters."""
        return {**self.arguments, **self.states, **self.trained}


@dataclass
class Kernels:
    """What all recurrences of a bound cell share."""

    binding: BoundCell
    weights: WeightSets = field(default_factory=WeightSets)
    engines: dict[tuple[bool, bool, str, Any], CellKernels] = field(default_factory=dict)

    def serve(self, user: object, layers: int) -> None:
        """So many layers more use them in turns, for as long as their user lives."""
        self._grow(layers)
        weakref.finalize(user, self._grow, -layers).atexit = False

    def _grow(self, layers: int) -> None:
        self.weights.grow(layers)
        for kernels in self.engines.values():
            kernels.engine.keep(self.weights.room)


_kernels: WeakValueDictionary[int, Kernels] = WeakValueDictionary()


def kernels_of(binding: BoundCell) -> Kernels:
    """Those of a bound cell; they keep it alive, so that its id stays its own while they live."""
    return _kernels.setdefault(id(binding), Kernels(binding))
