"""Gradients of an operation's gradients, where a backend asks for them: on torch.

Non-Goals: TensorFlow and JAX, whose graphs would need two more functions to call out to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from rnncc.keras.calls import SavedCall
from rnncc.keras.operation import Operation
from rnncc.runtime.common.allocators import of_every_step

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
    given = {n: d for n, d in zip(names, d_grads, strict=True) if d is not None}
    d = _as_run(operation, saved, given)
    if saved.engine is None:  # nothing ran: gradients of first states are the last ones'
        found = {f"d.final_{n}": d[n] for n in operation.states if n in d}
    else:
        assert saved.variant is not None
        engine = operation.native._binding.second_engine(saved.variant)
        _, again = engine.gradients(saved.saved, _over_time(operation, saved, cotangents))
        results = (f"d.{name}" for name in operation.results)
        found = engine.second(again, d, operation.wanted(saved, asked).union(results))
    back = [
        _put_back(operation, saved, name, tuple(n or 0 for n in shape), found.get(f"d.{name}"))
        for name, shape in zip(operation.results, saved.known.results, strict=True)
    ]
    for name in operation.timed:
        if name in found and name in asked:
            whole = np.zeros(asked[name], operation.dtype)
            operation.order.run(whole)[:, : saved.steps] = found[name]
            found[name] = whole
    operation.hand_on(saved, asked, found)
    return back, [operation.shaped(found.get(n), asked.get(n)) for n in names]


def _as_run(
    operation: Operation, saved: SavedCall, given: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Cotangents of gradients, by parameter, of the steps that ran."""
    d = {
        n: operation.order.run(a)[:, : saved.steps] if n in operation.timed else a
        for n, a in given.items()
    }
    for state in () if saved.request.given else operation.starting:
        if state.default in d:  # its gradient went to the weight it started from
            shape = (saved.known.batch, *d[state.default].shape)
            d[state.name] = np.broadcast_to(d[state.default], shape)
    return {n: np.ascontiguousarray(a) for n, a in d.items()}


def _over_time(operation: Operation, saved: SavedCall, cotangents: Given) -> dict[str, np.ndarray]:
    """Cotangents of every step."""
    whole = operation.cotangents(saved, cotangents)
    if not operation.native.return_sequences:
        for name in operation.outputs:
            if name in whole:
                zeros = partial(np.zeros, dtype=operation.dtype)
                whole[name] = of_every_step(whole[name], saved.steps, zeros)
    return whole


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
        target[:, : saved.steps] = found
        if saved.masks and saved.steps < target.shape[1]:
            saved.masks.fill(target)
    return target
