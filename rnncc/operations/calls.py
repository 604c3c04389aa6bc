"""What is known of a call before, during and after it: its kind, its shapes, what it leaves behind.

Non-Goals: computing (`operation`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rnncc.artifact.cell import Array, names_of
from rnncc.common.size_expressions import evaluate
from rnncc.runtime.api.call_gradients import DirectionSaved
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.validation import Dims, SizeBinder

_OPTIONS = ("return_sequences", "go_backwards", "checkpoint_every", "zero_output_for_mask", "dtype")


@dataclass(frozen=True, slots=True)
class Request:
    """What is known of a call before there are numbers. given: initial states are among its
    tensors; masked: a mask is; again: nothing is to be saved, its backward runs it again."""

    training: bool = False
    given: bool = False
    masked: bool = False
    again: bool = False

    @property
    def saves(self) -> bool:
        """Whether it leaves something for its backward, which comes where a layer is trained."""
        return self.training and not self.again


@dataclass(frozen=True, slots=True)
class SymbolicShapes:
    """What shapes tell, None where they don't. results: shapes of outputs, then of states."""

    sizes: dict[str, int]
    batch: int | None
    time: int | None
    results: list[Dims]
    states: dict[str, Dims]


@dataclass(slots=True, weakref_slot=True)
class SavedCall:
    """What a call leaves for its backward."""

    request: Request
    known: SymbolicShapes
    direction: DirectionSaved


def known_of(native: Layer, sizes: Mapping[str, int], shapes: Sequence[Dims]) -> SymbolicShapes:
    """Of a call with arguments of these shapes, None for what isn't known yet. ValueError where
    they don't fit the cell."""
    cell = native.cell
    bound = SizeBinder(cell, sizes, "the layer's").bind(
        dict(zip(cell.arguments, shapes, strict=True))
    )
    lead: Dims = (bound.batch, bound.time) if native.return_sequences else (bound.batch,)
    states = {s.name: (bound.batch, *_dims(s, bound.sizes)) for s in cell.states}
    outputs = [(*lead, *_dims(o, bound.sizes)) for o in cell.outputs]
    return SymbolicShapes(
        bound.sizes, bound.batch, bound.time, [*outputs, *states.values()], states
    )


def _dims(array: Array, sizes: Mapping[str, int]) -> Dims:
    return tuple(evaluate(t, sizes) if names_of(t) <= sizes.keys() else None for t in array.shape)


def seed_of(state: np.ndarray | None) -> int | None:
    """What dropout draws from, of a SeedGenerator's state: (seed, how many were drawn)."""
    if state is None:
        return None
    seed, count = (int(n) for n in np.asarray(state).reshape(-1)[:2])
    return ((seed & 0xFFFFFFFF) << 32 | count & 0xFFFFFFFF) & (2**63 - 1)


_alike: Counter[str] = Counter()


def content_key(native: Layer, sizes: Mapping[str, int]) -> str:
    """A key that means the same in every process: what is computed."""
    options = {n: getattr(native, n) for n in _OPTIONS}
    text = repr((native.cell, native, options, sorted(sizes.items())))
    return f"{native.cell.name}:keras:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def stable_key(key: str) -> str:
    """Such a key, and which of those that compute the same it is."""
    _alike[key] += 1
    return f"{key}:{_alike[key]}"
