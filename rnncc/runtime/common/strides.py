"""Where the rows of an array lie: side by side, or anywhere.

Non-Goals: buffers of our own (`cpu.kernel_arguments`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def has_dense_rows(array: np.ndarray, lead: int) -> bool:
    """Whether elements lie side by side behind the first axes, wherever those lead."""
    flags = array.flags
    if not flags.aligned:
        return False
    return flags.c_contiguous or rows_are_dense(
        array.shape[lead:], array.strides[lead:], array.itemsize
    )


def rows_are_dense(shape: Sequence[int], strides: Sequence[int], step: int) -> bool:
    """Whether elements of a row lie side by side. step: from one to the next, in what strides are
    told in."""
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1 and stride != step:
            return False
        step *= n
    return True


def row_strides(array: np.ndarray, axes: str) -> tuple[int, int] | None:
    """Bytes from row to row of the batch (B) and from step to step (T, behind it); None where rows
    lie one after another. An axis of one has the stride that lets the two merge, whatever NumPy
    says of it."""
    if not axes or array.flags.c_contiguous:
        return None
    row = array.itemsize * math.prod(array.shape[len(axes) :])
    if axes == "B":
        b = array.strides[0]
        return None if array.shape[0] == 1 or b == row else (b, 0)
    (batch, time), (b, t) = array.shape[:2], array.strides[:2]
    if batch == 1:
        b, t = (row, row) if time == 1 else (t * time, t)
    elif time == 1:
        t = b
    return None if (b, t) == (row * time, row) else (b, t)


def repeated(array: np.ndarray, lead: tuple[int, ...]) -> np.ndarray:
    """One array for every place along axes in front of its own."""
    strides = (*(0 for _ in lead), *array.strides)
    return np.ndarray((*lead, *array.shape), array.dtype, array, 0, strides)
