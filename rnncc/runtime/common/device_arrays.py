"""Arrays that lie on a GPU, as CuPy's: known by `__cuda_array_interface__`, read where they are.

A layer that is given one gives such arrays back. Nothing here imports their library before one has
come.

Non-Goals: tensors of torch (`rnncc.torch` has modules for them); kernels (`runtime.cuda`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

CARRIER = "_carrier"  # among a call's arrays, whoever brings them if they aren't NumPy's


def is_on_gpu(value: Any) -> bool:
    """Whether an array's memory is a GPU's."""
    return type(value) is not np.ndarray and hasattr(value, "__cuda_array_interface__")


def as_gpu_array(name: str, value: Any, dtype: np.dtype[Any], *, own: bool = False) -> Any:
    """The array in `dtype`; itself where it is, unless `own`. TypeError for tensors of torch, and
    for what isn't real numbers."""
    if not hasattr(value, "astype"):
        raise TypeError(
            f"{name} is a {type(value).__module__} {type(value).__name__} on a GPU: modules of "
            "rnncc.torch take tensors, layers take arrays of CuPy or NumPy"
        )
    if np.dtype(value.dtype).kind not in "biuf":
        raise TypeError(
            f"{name} holds {value.dtype} values: give real numbers, which become {dtype}"
        )
    return value.astype(dtype, copy=own)
