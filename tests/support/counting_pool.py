"""A pool of memory that knows how much of it is out."""

from __future__ import annotations

import numpy as np

from rnncc.runtime.common.memory_pool import Pool


class Counting(Pool):
    """How much is out at the same time, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.out = self.most = 0

    def take(self, size: int) -> np.ndarray:
        found = super().take(size)
        self.out += found.nbytes
        self.most = max(self.most, self.out)
        return found

    def give(self, workspace: np.ndarray) -> None:
        self.out -= workspace.nbytes
        super().give(workspace)

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.empty(shape, dtype)  # the caller's, not counted
