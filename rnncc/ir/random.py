"""Counter-based random bits: f(seed, site, row, step, lane), the same in every backend.

A chain of Wellons's `lowbias32` finalisers (https://nullprogram.com/blog/2018/07/31/), one link a
coordinate, so a dropout mask needs no storage: the backward draws it again.

Non-Goals: cryptography, statistical quality beyond what dropout needs.
"""

from __future__ import annotations

import numpy as np


def _mix(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = x ^ (x >> np.uint32(16))
        x = x * np.uint32(0x7FEB352D)
        x = x ^ (x >> np.uint32(15))
        x = x * np.uint32(0x846CA68B)
        return x ^ (x >> np.uint32(16))


def uniform(
    seed: int, site: int, row: np.ndarray, step: np.ndarray, lane: np.ndarray
) -> np.ndarray:
    """Float64 in [0, 1) with 24 random bits; row, step and lane broadcast against each other."""
    low, high = np.uint32(seed & 0xFFFFFFFF), np.uint32((seed >> 32) & 0xFFFFFFFF)
    key = _mix(_mix(np.asarray(low)) ^ high)
    with np.errstate(over="ignore"):
        for coordinate in (np.asarray(site), row, step, lane):
            key = _mix(key + coordinate.astype(np.uint32))
    return (key >> np.uint32(8)).astype(np.float64) * 2.0**-24
