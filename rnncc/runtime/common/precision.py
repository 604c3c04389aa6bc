"""`precision=`: how a GPU may round the operands of its matrix products, and what that costs.

    float32     not at all, the default
    tf32        to 10 bits behind the point: each product is off by at most 2**-10 of itself
    bfloat16    to 7 bits behind the point: by at most 2**-7

Sums, states, gradients and everything between the products stay in float32. Which products it is
about, `plan()` says.

Non-Goals: arrays of other dtypes; the CPU, whose kernels would be no faster.
"""

from __future__ import annotations

from typing import Any

from rnncc.common.layer_keywords import Precision

PRECISIONS = ("float32", "tf32", "bfloat16")
PRECISION = "_precision"  # among a call's arrays, if it isn't the default


def precision_of(value: Any, dtype: str) -> Precision:
    """The keyword's value; ValueError for another, or for one that goes with no float64."""
    precision: Any = "float32" if value is None else value
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {value!r}")
    if precision != "float32" and dtype != "float32":
        raise ValueError(
            f"precision={precision!r} is for layers of float32, this one is of {dtype}"
        )
    chosen: Precision = precision
    return chosen


def refuse_on_cpu(cell: str, precision: str) -> None:
    """ValueError unless the CPU has it."""
    if precision != "float32":
        raise ValueError(
            f"{cell} has precision={precision!r}, which is for a GPU: kernels of the CPU compute "
            "in float32. Move the layer there, or leave precision out"
        )
