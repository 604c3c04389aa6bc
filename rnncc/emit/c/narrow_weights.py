"""Rows of weights [k, lane] -> bfloat16 or int8, as a Python layer's `weights=` stores them.

    bfloat16    the upper half of a float32: to the nearest, to even between two; NaN stays NaN
    int8        in groups of 64 k's, a lane's largest weight of a group becoming 127; a scale each

A word of 32 bits has the next two or four k's of a lane, the first in its lowest bits: words become
vectors anywhere, and shifts take them apart.

Non-Goals: what the Python layer does with them (`runtime.cpu.kernels.quantized_packing`).
"""

from __future__ import annotations

import numpy as np

from rnncc.common.formulas import SCALE_GROUP as GROUP

PARTS = {"": 1, "bfloat16": 2, "int8": 4}  # k's of a word


def stored(rows: np.ndarray, storage: str) -> tuple[np.ndarray, np.ndarray | None]:
    """What is written, words where there are some, and a row of scales for each group of k's."""
    numbers, scales = _narrowed(rows, storage)
    if not storage:
        return numbers, scales
    parts = PARTS[storage]
    numbers = np.pad(numbers, ((0, -len(numbers) % parts), (0, 0)))
    bits = 32 // parts
    words = numbers.astype(np.int64) & (1 << bits) - 1
    whole = sum(words[n::parts] << bits * n for n in range(parts))
    return np.asarray(whole, np.uint32), scales


def widened(rows: np.ndarray, storage: str) -> np.ndarray:
    """What the stored rows stand for.

    >>> widened(np.array([[1.0], [0.3]]), "bfloat16").ravel().tolist()
    [1.0, 0.30078125]
    """
    numbers, scales = _narrowed(rows, storage)
    if scales is not None:
        return numbers * np.repeat(scales, GROUP, axis=0)[: len(rows)]
    if storage == "bfloat16":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers


def _narrowed(rows: np.ndarray, storage: str) -> tuple[np.ndarray, np.ndarray | None]:
    if not storage:
        return rows, None
    if storage == "bfloat16":
        words = np.ascontiguousarray(rows, np.float32).view(np.uint32)
        nearest = words + ((words >> 16 & 1) + np.uint32(0x7FFF))
        return (np.where(np.isnan(rows), words | 0x00400000, nearest) >> 16).astype(np.uint16), None
    values = rows.astype(np.float32)
    parts, scales = [], []
    for begin in range(0, len(values), GROUP):
        group = values[begin : begin + GROUP]
        scale = np.abs(group).max(axis=0) / np.float32(127)
        with np.errstate(invalid="ignore", divide="ignore"):
            exact = np.rint(group / scale)
        parts.append(np.clip(np.nan_to_num(exact, nan=0.0), -128, 127).astype(np.int8))
        scales.append(scale)
    return np.concatenate(parts), np.stack(scales)
