"""`@kernel`: a function over 64-bit integers, as text for a target to compile.

    @kernel
    def scan(step_lo, step_hi, level_lo, level_hi, T, B, ...):
        ...

One launch runs some steps, and some levels of each: all of them, or, where launches take the place
of barriers, one level of one step. The other words are addresses, strides and sizes. They are
parameters, because a GPU reads those as constants: in registers they would take more than the sums.

Non-Goals: compiling (`device`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from rnncc.artifact.stationary_weights import GroupShape
from rnncc.runtime.jit.kernel import settled

RANGES = 4  # words in front: steps and levels
__all__ = ["CudaKernel", "GroupShape", "kernel", "stationary", "summed"]

Numbers = tuple[tuple[str, int], ...]


class CudaKernel:
    """A generated function, its name, and numbers that its machine code has built in."""

    __slots__ = ("__weakref__", "_built", "constants", "function", "shapes", "summed", "twin")

    def __init__(self, function: Callable[..., Any], constants: Numbers = ()) -> None:
        self.function, self.constants = function, constants
        self.twin: CudaKernel | None = None  # the same, with weights in registers
        self.summed: CudaKernel | None = None  # the same, with sums that are made between launches
        self.shapes: tuple[Any, ...] = ()  # what decides the numbers of a twin
        self._built: dict[Numbers, CudaKernel] = {}

    def built(self, constants: Mapping[str, int]) -> CudaKernel:
        """The kernel with these numbers for its names in capitals."""
        key = tuple(sorted(constants.items()))
        return self._built.setdefault(key, CudaKernel(self.function, key))

    @property
    def words(self) -> int:
        """How many integers it takes."""
        return len(inspect.signature(self.function).parameters)

    @property
    def name(self) -> str:
        return str(self.function.__name__)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def __call__(self, *arguments: object) -> None:
        raise TypeError(f"{self.name} runs on a GPU: a layer launches it")


def kernel(function: Callable[..., Any]) -> CudaKernel:
    """Over the names that its module has so far."""
    return CudaKernel(settled(function))


def stationary(
    plain: CudaKernel, shapes: tuple[Any, ...]
) -> Callable[[Callable[..., Any]], CudaKernel]:
    """The twin of a kernel over the same words; `shapes`: see `artifact.stationary_weights`."""

    def twin(function: Callable[..., Any]) -> CudaKernel:
        plain.twin = stationary_kernel = CudaKernel(settled(function))
        stationary_kernel.shapes = shapes
        return stationary_kernel

    return twin


def summed(plain: CudaKernel) -> Callable[[Callable[..., Any]], CudaKernel]:
    """The twin of a kernel over the same words that reads its sums."""

    def twin(function: Callable[..., Any]) -> CudaKernel:
        plain.summed = summed_kernel = CudaKernel(settled(function))
        return summed_kernel

    return twin
