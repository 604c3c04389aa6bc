"""Users' arrays <-> the steps in the order they run: views, never copies.

Kernels run over [batch, time, ...] from the first step to the last, with any strides.

Non-Goals: masks; states, which have no steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Order:
    """time_major: users' arrays are [time, batch, ...]. backwards: the last step runs first, as in
    Keras: outputs are in the order they were computed.

    >>> order = Order(time_major=True, backwards=True)
    >>> x = np.arange(6).reshape(3, 2)
    >>> order.run(x).tolist(), order.given(order.run(x)).tolist() == x.tolist()
    ([[4, 2, 0], [5, 3, 1]], True)
    """

    time_major: bool = False
    backwards: bool = False

    @property
    def is_plain(self) -> bool:
        return not (self.time_major or self.backwards)

    @property
    def axes(self) -> tuple[str, str]:
        """What users' first two axes are called."""
        return ("time", "batch") if self.time_major else ("batch", "time")

    def run(self, array: np.ndarray) -> np.ndarray:
        """A user's input, mask or place for a gradient, [batch, time, ...] as its steps run."""
        array = self.turn(array)
        return array[:, ::-1] if self.backwards else array

    def given(self, array: np.ndarray) -> np.ndarray:
        """The way back from `run`."""
        return self.turn(array[:, ::-1] if self.backwards else array)

    def turn(self, array: np.ndarray) -> np.ndarray:
        """Outputs and their cotangents, in both directions."""
        return array.swapaxes(0, 1) if self.time_major else array
