"""Those who take part: a module each, with `unavailable()` and `prepare(case, data)`.

`unavailable()` says why this machine can't run it, or nothing. `prepare` gives a `Run`.

Non-Goals: timing; choosing which to compare.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

NAMES = ("rnncc", "rnncc_torch", "torch", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Run:
    """path: which implementation runs; call: one measured call; outputs: its arrays, by name."""

    path: str
    call: Callable[[], object]
    outputs: Callable[[], dict[str, np.ndarray]]


def module(name: str) -> ModuleType:
    return importlib.import_module(f"bench.contenders.{name}_contender")


def reorder(weight: np.ndarray, order: tuple[int, ...], axis: int = -1) -> np.ndarray:
    """The gates along `axis` in another order: order[i] is where the i-th one comes from."""
    parts = np.split(weight, len(order), axis=axis)
    return np.ascontiguousarray(np.concatenate([parts[i] for i in order], axis=axis))
