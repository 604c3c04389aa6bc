"""Gradients of an operation's gradients, where a backend asks for them: on torch.

Non-Goals: TensorFlow and JAX, whose graphs would need two more functions to call out to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from rnncc.common.result_roles import cotangent_name
from rnncc.operations.calls import SavedCall
from rnncc.operations.operation import Operation
from rnncc.runtime.api.call import repeated_rows

Given = Sequence[np.ndarray | None]


def second(
    operation: Operation,
    saved: SavedCall,
    cotangents: Given,
    d_grads: Given,
    wanted: Sequence[bool],
    shapes: Sequence[tuple[int, ...]],
) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Gradients of sum(d_grads * gradients): of the cotangents of all results, and of those tensors
    of the call that are wanted.

    d_grads: like the gradients that `Operation.backward` returns; None is zero."""
    names = operation.names(saved.request)
    asked = {n: s for n, s, w in zip(names, shapes, wanted, strict=True) if w}
    d_by_name = {n: d for n, d in zip(names, d_grads, strict=True) if d is not None}
    ran = saved.direction
    handed = operation.cotangents(saved, cotangents)
    if not operation.native.return_sequences:
        handed = ran.over_time(handed, partial(np.zeros, dtype=operation.dtype))
    gradients = ran.second(
        operation.native._binding.second_engine,
        handed,
        _as_run(operation, saved, d_by_name),
        operation.asked(saved.request, asked),
    )
    back = [
        _put_back(
            operation,
            saved,
            name,
            tuple(n or 0 for n in shape),
            gradients.get(cotangent_name(name)),
        )
        for name, shape in zip(operation.results, saved.known.results, strict=True)
    ]
    for name in operation.timed:
        if name in gradients and name in asked:
            all_steps = np.zeros(asked[name], operation.dtype)
            operation.order.run(all_steps)[:, : ran.steps] = gradients[name]
            gradients[name] = all_steps
    return back, [operation.shaped(gradients.get(n), asked.get(n)) for n in names]


def _as_run(
    operation: Operation, saved: SavedCall, given: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Cotangents of gradients, by parameter, of the steps that ran."""
    steps = saved.direction.steps
    d = {
        n: np.ascontiguousarray(operation.order.run(a)[:, :steps] if n in operation.timed else a)
        for n, a in given.items()
    }
    batch = saved.known.batch
    assert batch is not None
    operation.asked(saved.request, given).hand_back(d, batch, repeated_rows)
    return d


def _put_back(
    operation: Operation,
    saved: SavedCall,
    name: str,
    shape: tuple[int, ...],
    found: np.ndarray | None,
) -> np.ndarray:
    """The gradient of a result's cotangent."""
    target = np.zeros(shape, operation.dtype)
    if found is None:
        return target
    if name not in operation.outputs:
        target[...] = found
    elif not operation.native.return_sequences:
        target[...] = found[:, -1]
    else:
        saved.direction.unfold(found, target)
    return target
