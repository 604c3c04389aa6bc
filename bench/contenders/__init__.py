"""Those who take part: a module each, with `unavailable`, `refuses` and `prepare`.

    unavailable(variant)            why this machine can't run it, or nothing
    refuses(case, variant)          why it has nothing to run the case with, or nothing
    prepare(case, data, variant)    a `Run`

A name is a module's, and a variant behind a dash where it has several: keras-jax. Modules import
their library when they need it, so that `refuses` can be asked without it.

Non-Goals: timing; choosing which to compare.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from bench.case import Case, Data

NAMES = (
    "rnncc",
    "rnncc_torch",
    "rnncc_torch-layer",
    "torch",
    "torch-compile",
    "jax",
    "onnxruntime",
    "openvino",
    "keras-tensorflow",
    "keras-jax",
    "keras-torch",
    "numpy",
    "rtneural-eigen",
    "rtneural-xsimd",
    "rtneural-stl",
    "c_export",
)


@dataclass(frozen=True, slots=True)
class Run:
    """path: which implementation runs; call: one measured call; outputs: its arrays, by name.

    undropped: outputs are without dropout, whose draws can't be given to the library.
    """

    path: str
    call: Callable[[], object]
    outputs: Callable[[], dict[str, np.ndarray]]
    undropped: bool = False


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    module: ModuleType
    variant: tuple[str, ...]

    def unavailable(self) -> str:
        reason: str = self.module.unavailable(*self.variant)
        return reason

    def refuses(self, case: Case) -> str:
        reason: str = self.module.refuses(case, *self.variant)
        return reason

    def prepare(self, case: Case, data: Data) -> Run:
        run: Run = self.module.prepare(case, data, *self.variant)
        return run


def contender(name: str) -> Contender:
    base, _, variant = name.partition("-")
    module = importlib.import_module(f"bench.contenders.{base}_contender")
    return Contender(name, module, (variant,) if variant else ())


def missing(*modules: str) -> str:
    """Which of them aren't installed, in words, or nothing."""
    absent = [m for m in modules if importlib.util.find_spec(m) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


def reorder(weight: np.ndarray, order: tuple[int, ...], axis: int = -1) -> np.ndarray:
    """The gates along `axis` in another order: order[i] is where the i-th one comes from."""
    parts = np.split(weight, len(order), axis=axis)
    return np.ascontiguousarray(np.concatenate([parts[i] for i in order], axis=axis))
