"""Normalisation with what was learnt, and what marks steps that don't count.

Non-Goals: statistics of a batch, which belong to training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.models.component import Arrays, Component, Cotangents, Given, Pullback
from rnncc.models.plain.shapes import found_input, moved


class BatchNorm(Component, kind="batch_norm"):
    """y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, with the statistics of training.

    mean, variance, and gamma and beta or None: [features], of that axis. ValueError for others.
    """

    def __init__(
        self,
        name: str,
        mean: np.ndarray,
        variance: np.ndarray,
        gamma: np.ndarray | None = None,
        beta: np.ndarray | None = None,
        epsilon: float = 1e-3,
        axis: int = -1,
    ) -> None:
        super().__init__(name)
        given = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
        self._given = {n: a for n, a in given.items() if a is not None}
        if any(a.shape != mean.shape or a.ndim != 1 for a in self._given.values()):
            shapes = {n: list(a.shape) for n, a in self._given.items()}
            raise ValueError(f"{name}: all are of one length [features], not {shapes}")
        if not (variance + epsilon > 0).all():
            raise ValueError(f"{name}: its variance with epsilon {epsilon} isn't above zero")
        self.axis, self.epsilon = axis, epsilon
        self.is_stepwise = axis != 1
        root = 1 / np.sqrt(variance.astype("f8") + epsilon)
        scale = root if gamma is None else gamma * root
        shift = -mean * scale if beta is None else beta - mean * scale
        self._root, self._scale, self._shift = (a.astype(mean.dtype) for a in (root, scale, shift))

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        return self._given

    def __call__(self, *inputs: Given) -> Arrays:
        scale, shift = self._spread(found_input(inputs), self._scale, self._shift)
        return (found_input(inputs) * scale + shift,)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        x = found_input(inputs)
        scale, mean, root = self._spread(x, self._scale, self._given["mean"], self._root)

        def pulled(dy: Cotangents) -> tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]:
            d = dy[0]
            assert d is not None
            others = tuple(i for i in range(x.ndim) if i != self.axis % x.ndim)
            sums = {"gamma": d * (x - mean) * root, "beta": d}
            own = {n: a.sum(others) for n, a in sums.items() if n in self._given}
            return (d * scale,), own

        return self(*inputs), pulled

    def _spread(self, x: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
        features = len(self._scale)
        inside = -x.ndim <= self.axis < x.ndim and self.axis % x.ndim
        if not inside or x.shape[self.axis] != features:
            raise ValueError(
                f"{self.name} reads {features} features on axis {self.axis}, not an array of "
                f"shape {list(x.shape)}"
            )
        shape = [1] * x.ndim
        shape[self.axis] = features
        return [a.reshape(shape) for a in arrays]

    def config(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon, "axis": self.axis}


class LayerNorm(Component, kind="layer_norm"):
    """Each row's own statistics over its last axes.

    gamma, beta: of the shape of these axes, or None. axes: how many.
    """

    def __init__(
        self,
        name: str,
        gamma: np.ndarray | None = None,
        beta: np.ndarray | None = None,
        epsilon: float = 1e-3,
        axes: int = 1,
    ) -> None:
        super().__init__(name)
        given = {"gamma": gamma, "beta": beta}
        self._given = {n: a for n, a in given.items() if a is not None}
        if any(a.ndim != axes for a in self._given.values()):
            shapes = {n: list(a.shape) for n, a in self._given.items()}
            raise ValueError(f"{name}: weights of {axes} axes, not {shapes}")
        self.epsilon, self.axes = epsilon, axes
        self.is_stepwise = axes == 1

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        return self._given

    def __call__(self, *inputs: Given) -> Arrays:
        return (self._affine(self._normal(inputs)[0]),)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        normal, root = self._normal(inputs)
        over = tuple(range(-self.axes, 0))

        def pulled(dy: Cotangents) -> tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]:
            d = dy[0]
            assert d is not None
            lead = tuple(range(d.ndim - self.axes))
            sums = {"gamma": d * normal, "beta": d}
            own = {n: a.sum(lead) for n, a in sums.items() if n in self._given}
            if "gamma" in self._given:
                d = d * self._given["gamma"]
            mean = d.mean(over, keepdims=True)
            along = (d * normal).mean(over, keepdims=True)
            return ((d - mean - normal * along) * root,), own

        return (self._affine(normal),), pulled

    def _affine(self, y: np.ndarray) -> np.ndarray:
        y = y * self._given["gamma"] if "gamma" in self._given else y
        return y + self._given["beta"] if "beta" in self._given else y

    def _normal(self, inputs: Sequence[Given]) -> tuple[np.ndarray, np.ndarray]:
        x = found_input(inputs)
        shape = x.shape[x.ndim - self.axes :]
        if x.ndim <= self.axes or any(a.shape != shape for a in self._given.values()):
            wanted = [list(a.shape) for a in self._given.values()][:1] or f"{self.axes} axes"
            raise ValueError(f"{self.name} normalises {wanted}, not an array of {list(x.shape)}")
        over = tuple(range(-self.axes, 0))
        centred = x - x.mean(over, keepdims=True)
        root = 1 / np.sqrt((centred * centred).mean(over, keepdims=True) + self.epsilon)
        return centred * root, root

    def config(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon, "axes": self.axes}


MASK_STEPS: dict[str, Callable[..., np.ndarray]] = {
    "not_equal": lambda x, value: np.asarray(x != value),
    "any": lambda x, value: x.any(-1),
    "or": lambda x, y, value: np.logical_or(x, y),
    "and": lambda x, y, value: np.logical_and(x, y),
}


class MaskStep(Component, kind="mask_step"):
    """One step from numbers to bools that say which steps count. by: a key of MASK_STEPS; "any" is
    of the last axis. value: what "not_equal" compares with."""

    def __init__(self, name: str, by: str, value: float = 0.0) -> None:
        super().__init__(name)
        if by not in MASK_STEPS:
            raise ValueError(f"{name}: masks are made by {', '.join(MASK_STEPS)}, not {by!r:.80}")
        self.by, self.value = by, value

    def __call__(self, *inputs: Given) -> Arrays:
        try:
            return (MASK_STEPS[self.by](*inputs, value=self.value),)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.name} ({self.by}): {error}") from None

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        return self(*inputs), lambda dy: ((None,) * len(inputs), {})

    def config(self) -> dict[str, Any]:
        return {"by": self.by, "value": self.value}


class MaskedSteps(Component, kind="masking"):
    """Steps that are nothing but the value don't count: zeros, and False in the second output."""

    def __init__(self, name: str, value: float = 0.0) -> None:
        super().__init__(name)
        self.value = value

    def __call__(self, *inputs: Given) -> Arrays:
        x = found_input(inputs)
        if x.ndim < 3:
            raise ValueError(f"{self.name} reads [batch, time, features], not {list(x.shape)}")
        mask = (x != self.value).any(-1)
        return x * mask[..., None], mask

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        y, mask = self(*inputs)

        return (y, mask), moved(lambda d: d * mask[..., None])

    def config(self) -> dict[str, Any]:
        return {"value": self.value}
