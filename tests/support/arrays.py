"""Random arrays, the same for the same seed."""

from __future__ import annotations

import numpy as np


def uniform(*shape: int, seed: int = 0) -> np.ndarray:
    """Between -0.9 and 0.9."""
    return np.random.default_rng(seed).uniform(-0.9, 0.9, shape)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")
