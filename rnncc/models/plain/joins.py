"""Several arrays into one, gains, and what pools over time.

Non-Goals: broadcasting, and arithmetic of graphs in general.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from rnncc.models.component import Arrays, Component, Cotangents, Given, Pullback
from rnncc.models.plain.shapes import found_input, moved

JOINS: dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]] = {
    "add": lambda xs: reduce(np.add, xs),
    "multiply": lambda xs: reduce(np.multiply, xs),
    "subtract": lambda xs: np.subtract(*xs),
    "average": lambda xs: reduce(np.add, xs) / len(xs),
    "maximum": lambda xs: reduce(np.maximum, xs),
    "minimum": lambda xs: reduce(np.minimum, xs),
}


class JoinedBy(Component, kind="join"):
    """Arrays of one shape, number by number. by: a key of JOINS."""

    def __init__(self, name: str, by: str) -> None:
        super().__init__(name)
        if by not in JOINS:
            raise ValueError(f"{name}: arrays are joined by {', '.join(JOINS)}, not {by!r:.80}")
        self.by = by

    def __call__(self, *inputs: Given) -> Arrays:
        return (JOINS[self.by](self._checked(inputs)),)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        xs = self._checked(inputs)
        if self.by in ("maximum", "minimum"):
            return super().vjp(*inputs)  # refuses: where two are equal, frameworks differ

        def pulled(dy: Cotangents) -> tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]:
            d = dy[0]
            assert d is not None
            if self.by == "multiply":
                others = [[x for j, x in enumerate(xs) if j != i] for i in range(len(xs))]
                return tuple(reduce(np.multiply, rest, d) for rest in others), {}
            if self.by == "subtract":
                return (d, -d), {}
            each = d / len(xs) if self.by == "average" else d
            return (each,) * len(xs), {}

        return (JOINS[self.by](xs),), pulled

    def _checked(self, inputs: Sequence[Given]) -> list[np.ndarray]:
        xs = [x for x in inputs if x is not None]
        shapes = [list(x.shape) for x in xs]
        if len(xs) < 2 or (self.by == "subtract" and len(xs) != 2):
            raise ValueError(f"{self.name}: {len(xs)} arrays are given to {self.by}")
        # No broadcasting: a [batch, units] beside a sequence is more often a mistake.
        if any(s != shapes[0] for s in shapes):
            raise ValueError(f"{self.name}: arrays of one shape are joined, not {shapes}")
        return xs

    def config(self) -> dict[str, Any]:
        return {"by": self.by}


class Concatenated(Component, kind="concatenate"):
    """Arrays one behind the other on an axis."""

    def __init__(self, name: str, axis: int = -1) -> None:
        super().__init__(name)
        if axis == 0:
            raise ValueError(f"{name}: batches aren't joined, axis 0")
        self.axis = axis
        self.is_stepwise = axis == -1

    def __call__(self, *inputs: Given) -> Arrays:
        xs = [x for x in inputs if x is not None]
        try:
            return (np.concatenate(xs, self.axis),)
        except ValueError as error:  # AxisError is one
            shapes = [list(x.shape) for x in xs]
            raise ValueError(f"{self.name}: {shapes} on axis {self.axis}: {error}") from None

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        sizes = [x.shape[self.axis] for x in inputs if x is not None]
        cuts = np.cumsum(sizes)[:-1]

        def pulled(dy: Cotangents) -> tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]:
            assert dy[0] is not None
            return tuple(np.split(dy[0], cuts, self.axis)), {}

        return self(*inputs), pulled

    def config(self) -> dict[str, Any]:
        return {"axis": self.axis}


class Gain(Component, kind="gain"):
    """x * factor + offset, the same for all numbers."""

    def __init__(self, name: str, factor: float, offset: float = 0.0) -> None:
        super().__init__(name)
        self.factor, self.offset = factor, offset

    def __call__(self, *inputs: Given) -> Arrays:
        y = found_input(inputs) * self.factor
        return (y + self.offset if self.offset else y,)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        return self(*inputs), moved(lambda d: d * self.factor)

    def config(self) -> dict[str, Any]:
        return {"factor": self.factor, "offset": self.offset}


class PooledSteps(Component, kind="pool"):
    """[batch, time, features] -> [batch, features]. by: "mean" or "max". A second input, or None,
    says which steps a mean is of."""

    is_stepwise = False

    def __init__(self, name: str, by: str) -> None:
        super().__init__(name)
        if by not in ("mean", "max"):
            raise ValueError(f"{name}: steps are pooled by mean or max, not {by!r:.80}")
        self.by = by

    def __call__(self, *inputs: Given) -> Arrays:
        x = self._checked(inputs)
        if self.by == "max":
            return (x.max(1),)
        return ((x * self._shares(inputs)).sum(1),)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        if self.by == "max":
            return super().vjp(*inputs)
        shares, x = self._shares(inputs), self._checked(inputs)

        def pulled(dy: Cotangents) -> tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]:
            dx = None if dy[0] is None else np.broadcast_to(dy[0][:, None] * shares, x.shape)
            return (dx, *(None for _ in inputs[1:])), {}

        return self(*inputs), pulled

    def _shares(self, inputs: Sequence[Given]) -> np.ndarray:
        """Of each step in the mean, [batch, time, 1]."""
        x = self._checked(inputs)
        if len(inputs) < 2 or inputs[1] is None:
            return np.full((len(x), x.shape[1], 1), 1 / x.shape[1], x.dtype)
        mask = inputs[1].astype(x.dtype)[..., None]
        if not mask.any(1).all():
            raise ValueError(f"{self.name}: a row has no step that counts")
        found: np.ndarray = mask / mask.sum(1, keepdims=True)
        return found

    def _checked(self, inputs: Sequence[Given]) -> np.ndarray:
        x = found_input(inputs)
        if x.ndim != 3 or not x.shape[1]:
            raise ValueError(f"{self.name} pools [batch, time, features], not {list(x.shape)}")
        return x

    def config(self) -> dict[str, Any]:
        return {"by": self.by}
