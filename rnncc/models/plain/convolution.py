"""Convolutions over time.

Non-Goals: other axes; groups of features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.models.component import (
    Arrays,
    Component,
    Cotangents,
    Given,
    NoStream,
    Pullback,
    Stepper,
)
from rnncc.models.plain.affine import product
from rnncc.models.plain.functions import checked_function
from rnncc.models.plain.shapes import found_input

PADDINGS = ("valid", "same", "causal")


class Convolution(Component, kind="convolution"):
    """y[t] = sum of x[t * stride + k * dilation - what is padded] @ kernel[k], bias, a function.

    kernel: [steps, features, units]. bias: [units], or None. padding: "valid": no step is outside;
    "same": zeros on both sides, one more behind, for a step out of each stride; "causal": zeros
    before, no step sees those behind it. activation: one of `functions`, with its parameters.
    ValueError for what doesn't fit.
    """

    is_stepwise = False

    def __init__(
        self,
        name: str,
        kernel: np.ndarray,
        bias: np.ndarray | None = None,
        stride: int = 1,
        dilation: int = 1,
        padding: str = "valid",
        activation: str = "linear",
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(name)
        if kernel.ndim != 3 or (bias is not None and bias.shape != kernel.shape[2:]):
            shapes = [list(a.shape) for a in (kernel, bias) if a is not None]
            raise ValueError(f"{name}: a kernel [steps, features, units] and bias, not {shapes}")
        if padding not in PADDINGS or not len(kernel) or min(stride, dilation) < 1:
            given = f"{len(kernel)} steps, stride {stride}, dilation {dilation}, {padding!r:.80}"
            raise ValueError(f"{name}: {given}; padding is one of {', '.join(PADDINGS)}")
        self.kernel, self.bias = kernel, bias
        self.stride, self.dilation, self.padding = int(stride), int(dilation), padding
        self._function = checked_function(activation, parameters or {})
        self.activation = activation
        self.parameters = {**self._function.defaults, **(parameters or {})}

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        return {"kernel": self.kernel} | ({} if self.bias is None else {"bias": self.bias})

    @property
    def reach(self) -> int:
        """Steps that one of the output spans, less one."""
        return (len(self.kernel) - 1) * self.dilation

    def __call__(self, *inputs: Given) -> Arrays:
        x = self._checked(inputs)
        return (self.of_padded(self._padded(x)),)

    def of_padded(self, x: np.ndarray) -> np.ndarray:
        """Of steps that begin with those that were padded."""
        z = self._sums(self._patches(x))
        y: np.ndarray = self._function.value(z, **self.parameters)
        return y

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        x = self._checked(inputs)
        padded = self._padded(x)
        patches = self._patches(padded)
        z = self._sums(patches)
        y = self._function.value(z, **self.parameters)

        def pulled(dy: Cotangents) -> tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]:
            dz = self._function.pullback(z, y, dy[0], **self.parameters)
            flat, rows = dz.reshape(-1, dz.shape[-1]), patches.reshape(-1, patches.shape[-1])
            own = {"kernel": product(rows.T, flat).reshape(self.kernel.shape)}
            if self.bias is not None:
                own["bias"] = flat.sum(0)
            d = product(dz, self._matrix().T)
            dx = np.zeros_like(padded)
            for steps, part in zip(
                self._slices(padded), np.split(d, len(self.kernel), -1), strict=True
            ):
                dx[:, steps] += part
            before = self._paddings(x.shape[1])[0]
            return (dx[:, before : before + x.shape[1]],), own

        return (y,), pulled

    def stream(self, *examples: Given) -> Stepper:
        """NoStream where steps are left out, or those behind are seen."""
        if self.padding != "causal" or self.stride > 1:
            raise NoStream(f"{self.name} needs the whole sequence: it isn't causal, step by step")
        return ConvolutionStepper(self, self._checked(examples))

    def _sums(self, patches: np.ndarray) -> np.ndarray:
        z = product(patches, self._matrix())
        return z if self.bias is None else z + self.bias

    def _matrix(self) -> np.ndarray:
        return self.kernel.reshape(-1, self.kernel.shape[2])

    def _patches(self, padded: np.ndarray) -> np.ndarray:
        """[batch, time, steps * features]: what each step of the output reads."""
        return np.concatenate([padded[:, steps] for steps in self._slices(padded)], -1)

    def _slices(self, padded: np.ndarray) -> list[slice]:
        """The steps that each one of the kernel reads."""
        last = padded.shape[1] - self.reach
        starts = range(0, self.reach + 1, self.dilation)
        return [slice(start, start + last, self.stride) for start in starts]

    def _padded(self, x: np.ndarray) -> np.ndarray:
        before, behind = self._paddings(x.shape[1])
        return np.pad(x, ((0, 0), (before, behind), (0, 0))) if before or behind else x

    def _paddings(self, time: int) -> tuple[int, int]:
        if self.padding == "causal":
            return self.reach, 0
        if self.padding == "valid":
            return 0, 0
        steps = -(-time // self.stride)
        missing = max((steps - 1) * self.stride + self.reach + 1 - time, 0)
        return missing // 2, missing - missing // 2

    def _checked(self, inputs: Sequence[Given]) -> np.ndarray:
        x = found_input(inputs)
        features = self.kernel.shape[1]
        if x.ndim != 3 or x.shape[2] != features:
            raise ValueError(f"{self.name} reads [batch, time, {features}], not {list(x.shape)}")
        if self.padding == "valid" and x.shape[1] <= self.reach:
            raise ValueError(f"{self.name} needs {self.reach + 1} steps, not {x.shape[1]}")
        return x

    def config(self) -> dict[str, Any]:
        names = ("stride", "dilation", "padding", "activation", "parameters")
        return {n: getattr(self, n) for n in names}


class ConvolutionStepper(Stepper):
    """Steps that are still to be seen go on from call to call."""

    def __init__(self, part: Convolution, example: np.ndarray) -> None:
        super().__init__(part)
        self._part, batch, features = part, example.shape[0], example.shape[2]
        self._seen = np.zeros((batch, part.reach, features), example.dtype)

    def __call__(self, *inputs: Given) -> Arrays:
        x = np.concatenate([self._seen, found_input(inputs)], 1)
        self._seen = x[:, x.shape[1] - self._part.reach :]
        return (self._part.of_padded(x),)

    @property
    def states(self) -> Arrays:
        return (self._seen.copy(),)

    def reset(self) -> None:
        self._seen = np.zeros_like(self._seen)
