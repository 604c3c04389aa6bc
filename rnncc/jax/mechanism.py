"""An operation in JAX: calls of kernels as primitives of its own (`primitives`).

Works eagerly, under jit, grad, jvp, checkpoint, scan and vmap, and twice: gradients of gradients,
products of Hessians and vectors in any order of modes.

Non-Goals: devices other than the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rnncc.jax.callee import HOW, Callee
from rnncc.jax.primitives import run_p
from rnncc.operations.calls import Request
from rnncc.operations.graph_calls import calls_of
from rnncc.operations.operation import Operation

__all__ = ["HOW", "prepare", "run"]


def prepare(operation: Operation) -> None:
    """Nothing to prepare."""


def run(operation: Operation, request: Request, tensors: Sequence[Any], seed: Any) -> Sequence[Any]:
    """The results of a call."""
    key = "jax", request
    callee = operation.made.get(key)
    if callee is None:
        callee = operation.made[key] = Callee(calls_of(operation, request))
    return run_p.bind(*tensors, *([] if seed is None else [seed]), call=callee)  # type: ignore[no-any-return]
