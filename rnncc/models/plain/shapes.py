"""Arrays in another shape: parts that compute nothing, and the last step alone.

Non-Goals: sums over time (`joins`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.models.component import Arrays, Component, Cotangents, Given, Pullback


def found_input(inputs: Sequence[Given]) -> np.ndarray:
    """The first one, which every part has."""
    x = inputs[0]
    assert x is not None
    return x


def moved(back: Callable[[np.ndarray], np.ndarray]) -> Pullback:
    """Of a part of one input, without weights. back: its cotangent, of the output's."""

    def pulled(dy: Cotangents) -> tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]:
        return (None if dy[0] is None else back(dy[0]),), {}

    return pulled


class Same(Component, kind="same"):
    """What does nothing once it is trained: dropout, noise. was: what it was called."""

    def __init__(self, name: str, was: str) -> None:
        super().__init__(name)
        self.was = was

    def __call__(self, *inputs: Given) -> Arrays:
        return (found_input(inputs),)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        return self(*inputs), lambda dy: (tuple(dy[:1]), {})

    def plan(self) -> str:
        return f"nothing: {self.was} is for training"

    def config(self) -> dict[str, Any]:
        return {"was": self.was}


class Reshaped(Component, kind="reshape"):
    """Every row in another shape. shape: without the batch, -1 for one that follows."""

    is_stepwise = False

    def __init__(self, name: str, shape: Sequence[int]) -> None:
        super().__init__(name)
        self.shape = tuple(int(n) for n in shape)
        if self.shape.count(-1) > 1 or min(self.shape, default=1) < -1:
            raise ValueError(f"{name}: {list(self.shape)} is no shape of a row")

    def __call__(self, *inputs: Given) -> Arrays:
        x = found_input(inputs)
        row = math.prod(x.shape[1:])
        known = math.prod(n for n in self.shape if n != -1)
        rest = row // known if known else 0
        shape = tuple(rest if n == -1 else n for n in self.shape)
        if math.prod(shape) != row:
            raise ValueError(f"{self.name}: rows of {list(x.shape[1:])} aren't {list(self.shape)}")
        return (x.reshape(len(x), *shape),)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        shape = found_input(inputs).shape

        return self(*inputs), moved(lambda d: d.reshape(shape))

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape)}


class Permuted(Component, kind="permute"):
    """Axes in another order. axes: of the whole array, the batch first."""

    is_stepwise = False

    def __init__(self, name: str, axes: Sequence[int]) -> None:
        super().__init__(name)
        self.axes = tuple(int(a) for a in axes)
        if sorted(self.axes) != list(range(len(self.axes))) or self.axes[:1] != (0,):
            raise ValueError(f"{name}: {list(self.axes)} is no order of axes behind the batch")

    def __call__(self, *inputs: Given) -> Arrays:
        x = found_input(inputs)
        if x.ndim != len(self.axes):
            raise ValueError(f"{self.name} reads {len(self.axes)} axes, not {list(x.shape)}")
        return (np.ascontiguousarray(x.transpose(self.axes)),)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        back = np.argsort(self.axes)

        return self(*inputs), moved(lambda d: d.transpose(back))

    def config(self) -> dict[str, Any]:
        return {"axes": list(self.axes)}


class RepeatedSteps(Component, kind="repeat"):
    """[batch, features] -> [batch, times, features]."""

    is_stepwise = False

    def __init__(self, name: str, times: int) -> None:
        super().__init__(name)
        self.times = times

    def __call__(self, *inputs: Given) -> Arrays:
        x = found_input(inputs)
        if x.ndim != 2:
            raise ValueError(f"{self.name} repeats [batch, features], not {list(x.shape)}")
        return (np.repeat(x[:, None], self.times, 1),)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        return self(*inputs), moved(lambda d: d.sum(1))

    def config(self) -> dict[str, Any]:
        return {"times": self.times}


class LastStep(Component, kind="last_step"):
    """[batch, time, features] -> [batch, features] of the last step."""

    def __call__(self, *inputs: Given) -> Arrays:
        x = found_input(inputs)
        if x.ndim < 3 or not x.shape[1]:
            raise ValueError(f"{self.name} takes the last step of none: {list(x.shape)}")
        return (np.ascontiguousarray(x[:, -1]),)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        x = found_input(inputs)

        def back(d: np.ndarray) -> np.ndarray:
            dx = np.zeros_like(x)
            dx[:, -1] = d
            return dx

        return self(*inputs), moved(back)


class FirstFeatures(Component, kind="first_features"):
    """The first so many of the last axis."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__(name)
        self.count = count

    def __call__(self, *inputs: Given) -> Arrays:
        x = found_input(inputs)
        if x.ndim < 2 or x.shape[-1] < self.count:
            raise ValueError(f"{self.name}: {list(x.shape)} has no {self.count} features")
        return (x[..., : self.count],)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        x = found_input(inputs)

        def back(d: np.ndarray) -> np.ndarray:
            dx = np.zeros_like(x)
            dx[..., : self.count] = d
            return dx

        return self(*inputs), moved(back)

    def config(self) -> dict[str, Any]:
        return {"count": self.count}


class EachStep(Component, kind="each_step"):
    """A part at each step by itself: [batch, time, ...] read as [batch * time, ...]."""

    def __init__(self, name: str, part: Component) -> None:
        super().__init__(name)
        self.part = part

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        return self.part.weights

    def __call__(self, *inputs: Given) -> Arrays:
        x = self._checked(inputs)
        (y,) = self.part(x.reshape(-1, *x.shape[2:]))[:1]
        return (y.reshape(*x.shape[:2], *y.shape[1:]),)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        x = self._checked(inputs)
        (y, *_), pullback = self.part.vjp(x.reshape(-1, *x.shape[2:]))

        def pulled(dy: Cotangents) -> tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]:
            if dy[0] is None:
                return (None,), {}
            (dx, *_), own = pullback((dy[0].reshape(y.shape),))
            return (None if dx is None else dx.reshape(x.shape),), own

        return (y.reshape(*x.shape[:2], *y.shape[1:]),), pulled

    def _checked(self, inputs: Sequence[Given]) -> np.ndarray:
        x = found_input(inputs)
        if x.ndim < 2:
            raise ValueError(f"{self.name} reads [batch, time, ...], not {list(x.shape)}")
        return x

    def plan(self) -> str:
        return self.part.plan()

    def config(self) -> dict[str, Any]:
        return {"kind": self.part.kind, "config": self.part.config()}

    @classmethod
    def made(
        cls, name: str, config: Mapping[str, Any], weights: Mapping[str, np.ndarray]
    ) -> Component:
        part = Component.kinds[config["kind"]].made(name, config["config"], weights)
        return cls(name, part)
