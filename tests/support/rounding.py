"""What narrow storage makes of weights, in NumPy.

Non-Goals: layouts; asserting anything.
"""

from __future__ import annotations

import numpy as np

GROUP = 64


def bfloat16(w: np.ndarray) -> np.ndarray:
    """To the nearest float32 whose lower half is zero, to even between two; NaN stays NaN."""
    words = np.asarray(w, np.float32).view(np.uint32)
    nearest = words + (0x7FFF + ((words >> np.uint32(16)) & np.uint32(1)))
    nearest = np.where(np.isnan(w), words | np.uint32(0x00400000), nearest)
    return (nearest & np.uint32(0xFFFF0000)).astype(np.uint32).view(np.float32)


def quantized(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(integers, scales) of a group: k's on the first axis; the largest of a lane becomes 127."""
    w = np.asarray(w, np.float32)
    scales = np.abs(w).max(axis=0) / np.float32(127)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(scales > 0, np.rint(w / scales), 0)
    return q.astype(np.int8), scales


def int8(w: np.ndarray, axis: int = -2) -> np.ndarray:
    """Groups of 64 along the summed axis, each with a scale a lane."""
    rows = np.moveaxis(np.asarray(w, np.float32), axis, 0)
    parts = []
    for k in range(0, len(rows), GROUP):
        q, scales = quantized(rows[k : k + GROUP])
        parts.append(q.astype(np.float32) * scales)
    return np.moveaxis(np.concatenate(parts), 0, axis)


def rounded(storage: str, w: np.ndarray, axis: int = -2) -> np.ndarray:
    """The weights that contractions of such a layer have."""
    return bfloat16(w) if storage == "bfloat16" else int8(w, axis)
