"""Dense layers, tables of embeddings, and functions of each number.

Non-Goals: what normalises (`normalization`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnncc.common.blas_threads import one_blas_thread
from rnncc.models.component import Arrays, Component, Cotangents, Given, Pullback
from rnncc.models.plain.functions import checked_function
from rnncc.models.plain.shapes import found_input

# Multiplications that a BLAS may share among threads, and that one does within a few ms: where
# another process has a core, waiting for the other thread takes longer.
_FEW, _SHARED = 2**15, 2**27


def product(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """x @ kernel, on one thread unless it is long."""
    if not _FEW < x.size * kernel.shape[1] < _SHARED:
        return np.asarray(x @ kernel)
    with one_blas_thread():
        return np.asarray(x @ kernel)


class Dense(Component, kind="dense"):
    """y = x @ kernel + bias, on the last axis, and a function of it.

    kernel: [features, units]. bias: [units], or None. activation: one of `functions`, with its
    parameters. ValueError for shapes that don't fit.
    """

    def __init__(
        self,
        name: str,
        kernel: np.ndarray,
        bias: np.ndarray | None = None,
        activation: str = "linear",
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(name)
        if kernel.ndim != 2 or (bias is not None and bias.shape != kernel.shape[1:]):
            shapes = [list(a.shape) for a in (kernel, bias) if a is not None]
            raise ValueError(f"{name}: a kernel [features, units] and bias [units], not {shapes}")
        self.kernel, self.bias = kernel, bias
        self._function = checked_function(activation, parameters or {})
        self.activation, self._is_linear = activation, activation == "linear"
        self.parameters = {**self._function.defaults, **(parameters or {})}

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        return {"kernel": self.kernel} | ({} if self.bias is None else {"bias": self.bias})

    def __call__(self, *inputs: Given) -> Arrays:
        z = self._sums(inputs)
        if self._is_linear:
            return (z,)
        return (self._function.value(z, **self.parameters),)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        x, z = found_input(inputs), self._sums(inputs)
        y = self._function.value(z, **self.parameters)

        def pulled(dy: Cotangents) -> tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]:
            dz = self._function.pullback(z, y, dy[0], **self.parameters)
            flat = dz.reshape(-1, dz.shape[-1])
            own = {"kernel": product(x.reshape(-1, x.shape[-1]).T, flat)}
            if self.bias is not None:
                own["bias"] = flat.sum(0)
            return (product(dz, self.kernel.T),), own

        return (y,), pulled

    def _sums(self, inputs: tuple[Given, ...]) -> np.ndarray:
        x = found_input(inputs)
        if x.ndim < 2 or x.shape[-1] != len(self.kernel):
            raise ValueError(
                f"{self.name} reads {len(self.kernel)} features on the last axis, not an array of "
                f"shape {list(x.shape)}"
            )
        z = product(x, self.kernel)
        return z if self.bias is None else z + self.bias

    def config(self) -> dict[str, Any]:
        return {"activation": self.activation, "parameters": self.parameters}


class Activation(Component, kind="activation"):
    """A function of `functions`, with its parameters."""

    def __init__(
        self, name: str, function: str, parameters: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(name)
        self._function = checked_function(function, parameters or {})
        self.function = function
        self.parameters = {**self._function.defaults, **(parameters or {})}

    def __call__(self, *inputs: Given) -> Arrays:
        return (self._function.value(found_input(inputs), **self.parameters),)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        x = found_input(inputs)
        y = self._function.value(x, **self.parameters)
        back = self._function.pullback
        return (y,), lambda dy: ((back(x, y, dy[0], **self.parameters),), {})

    def config(self) -> dict[str, Any]:
        return {"function": self.function, "parameters": self.parameters}


class PRelu(Component, kind="prelu"):
    """A line below zero whose slope was trained. alpha: of what the features' shape ends in, ones
    where it is shared."""

    def __init__(self, name: str, alpha: np.ndarray) -> None:
        super().__init__(name)
        self.alpha = alpha
        # A slope for each step would need to know which step it is.
        self.is_stepwise = alpha.ndim <= 1 or max(alpha.shape[:-1], default=1) == 1

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        return {"alpha": self.alpha}

    def __call__(self, *inputs: Given) -> Arrays:
        x = found_input(inputs)
        shape = x.shape[x.ndim - self.alpha.ndim :]
        fits = x.ndim > self.alpha.ndim and all(
            a in (1, n) for a, n in zip(self.alpha.shape, shape, strict=True)
        )
        if not fits:
            wanted = list(self.alpha.shape)
            raise ValueError(f"{self.name} has slopes {wanted}, for no array of {list(x.shape)}")
        return (np.where(x > 0, x, self.alpha * x),)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        y, x = self(*inputs), found_input(inputs)

        def pulled(dy: Cotangents) -> tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]:
            d = dy[0]
            assert d is not None
            own = np.where(x > 0, 0, d * x)
            lead = x.ndim - self.alpha.ndim
            own = own.sum(tuple(range(lead)))
            shared = tuple(i for i, n in enumerate(self.alpha.shape) if n == 1)
            own = own.sum(shared, keepdims=True)
            return (d * np.where(x > 0, 1, self.alpha),), {"alpha": own.astype(self.alpha.dtype)}

        return y, pulled


class Embedding(Component, kind="embedding"):
    """Rows of a table. table: [words, features]. with_mask: a second output, False where the
    number is 0."""

    def __init__(self, name: str, table: np.ndarray, with_mask: bool = False) -> None:
        super().__init__(name)
        if table.ndim != 2:
            raise ValueError(f"{name}: a table [words, features], not {list(table.shape)}")
        self.table, self.with_mask = table, with_mask

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        return {"table": self.table}

    def __call__(self, *inputs: Given) -> Arrays:
        """ValueError for numbers that are no rows of the table."""
        numbers = self._numbers(inputs)
        y = self.table[numbers]
        return (y, numbers != 0) if self.with_mask else (y,)

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        numbers = self._numbers(inputs)

        def pulled(dy: Cotangents) -> tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]:
            own = np.zeros_like(self.table)
            if dy[0] is not None:
                np.add.at(own, numbers, dy[0])
            return (None,), {"table": own}

        return self(*inputs), pulled

    def _numbers(self, inputs: tuple[Given, ...]) -> np.ndarray:
        x = found_input(inputs)
        words = len(self.table)
        # A float that is no whole number, or NaN, is no row either.
        if x.size and not ((x >= 0) & (x < words) & (x == np.floor(x))).all():
            wrong = x[~((x >= 0) & (x < words) & (x == np.floor(x)))].flat[0]
            raise ValueError(f"{self.name} has rows 0 to {words - 1}: {wrong} is none of them")
        return x.astype(np.intp)

    def config(self) -> dict[str, Any]:
        return {"with_mask": self.with_mask}
