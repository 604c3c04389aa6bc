"""Layers of layers, and arrays in whatever they come."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncc.layers import (
    RNN,
    GRUCell,
    LSTMCell,
    StackedRNNCells,
)

F64 = {"dtype": "float64"}


def same(a: Any, b: Any) -> None:
    """Equal bits, in the same arrangement."""
    if isinstance(a, tuple | list):
        assert len(a) == len(b)
        for left, right in zip(a, b):
            same(left, right)
    else:
        np.testing.assert_array_equal(a, b)


def stack(**keywords: Any) -> RNN:
    cells = [LSTMCell(5, seed=1, **F64), GRUCell(3, seed=2, **F64), LSTMCell(4, seed=3, **F64)]
    return RNN(StackedRNNCells(cells), **keywords)


def leaves(value: Any) -> list[np.ndarray]:
    if isinstance(value, tuple | list):
        return [leaf for v in value for leaf in leaves(v)]
    return [value]
