"""One thing to time, and the same numbers for every contender to time it on.

Arrays are drawn from a seed, so that nothing but a description crosses between processes.
Weights are in the layout of the cell's spec: gates in its order, bias last.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

FORWARD, TRAINING = "forward", "training"


@dataclass(frozen=True, slots=True)
class Case:
    """A built-in cell at one size. mode: forward, or training = forward and all gradients.

    options: keywords of the layer. masked: a random third of the steps doesn't count.
    """

    cell: str
    mode: str
    batch: int
    time: int
    features: int
    units: int
    dtype: str = "float32"
    options: tuple[tuple[str, Any], ...] = ()
    masked: bool = False

    @property
    def label(self) -> str:
        sizes = f"{self.batch}, {self.time}, {self.features}, {self.units}"
        return f"{self.name} {self.mode} ({sizes})"

    @property
    def name(self) -> str:
        """The cell and what its layer is asked for."""
        words = [*(f"{k}={v}" for k, v in self.options), *(["random mask"] if self.masked else [])]
        return " ".join([self.cell, *words])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Data:
    """x: [batch, time, features]; dy: like the output; weights by name; mask: [batch, time]."""

    x: np.ndarray
    dy: np.ndarray
    weights: dict[str, np.ndarray]
    mask: np.ndarray


def draw(case: Case) -> Data:
    """The case's arrays: the same in every process."""
    from rnncc.cli.settings import builtin_cells
    from rnncc.frontend.parse import parse_file
    from rnncc.passes.interface import weight_shapes

    rng = np.random.default_rng(20240607)
    spec = parse_file(builtin_cells()[case.cell])
    sizes = {"features": case.features, "units": case.units}
    bound = 1 / np.sqrt(case.units)

    def array(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(case.dtype)

    x = array(case.batch, case.time, case.features)
    dy = array(case.batch, case.time, case.units)
    weights = {
        name: rng.uniform(-bound, bound, [s.evaluate(sizes) for s in shape]).astype(case.dtype)
        for name, (shape, _) in weight_shapes(spec).items()
    }
    return Data(x, dy, weights, rng.random((case.batch, case.time)) >= 1 / 3)
