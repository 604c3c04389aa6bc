"""The backend Keras runs on -> how it calls kernels, one file each.

    run(operation, request, tensors, seed) -> results
    prepare(operation)                                      once, outside of any graph

tensors: the backend's, as `operation` orders them; seed: a SeedGenerator's state, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import keras

from rnncc.operations.calls import Request
from rnncc.operations.operation import Operation

BACKENDS = ("tensorflow", "jax", "torch")
Run = Callable[[Operation, Request, Sequence[Any], Any], Sequence[Any]]
Prepare = Callable[[Operation], object]


def _chosen() -> tuple[Run, Prepare, str]:
    """ImportError for a backend there is no mechanism for."""
    name = keras.backend.backend()
    if name not in BACKENDS:
        raise ImportError(
            f"rnncc.keras runs on the backends {', '.join(BACKENDS)}, Keras is on {name}: set "
            "KERAS_BACKEND before keras is imported"
        )
    mechanism = import_module(f"rnncc.keras.in_{name}")
    return mechanism.run, mechanism.prepare, mechanism.HOW


run, prepare, HOW = _chosen()
