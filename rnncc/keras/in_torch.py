"""An operation in torch: the autograd functions and ops of `rnncc.torch`, over Keras's tensors.

Kernels read torch's memory where it is; under torch.compile a layer is one node. Tensors of a GPU
go to recurrences of `rnncc.torch` (`on_device`).

Non-Goals: what a layer computes (`operation`).
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnncc.keras import on_device
from rnncc.operations.calls import Request, SavedCall, SymbolicShapes, known_of, seed_of
from rnncc.operations.operation import Operation
from rnncc.operations.second import second
from rnncc.torch import recurrence as recurrences
from rnncc.torch.arrays import array_of, unreadable
from rnncc.torch.ops import IN_GRAPHS
from rnncc.torch.ops import run as run_op
from rnncc.torch.recurrence import RECURRENCES

HOW = "torch: an autograd function, under torch.compile one node"


# Operations that compute the same: any of them serves a graph that was made of another one, maybe
# in another process.
_alike: dict[str, weakref.WeakSet[Operation]] = {}


def prepare(operation: Operation) -> None:
    """An op finds an operation by what it computes, for as long as there is one."""
    key = operation.key
    operation.made["torch"] = RECURRENCES[key] = _InTorch(operation)  # type: ignore[assignment]
    _alike.setdefault(key, weakref.WeakSet()).add(operation)
    weakref.finalize(operation, _forget, key).atexit = False


def _forget(key: str) -> None:
    """One of a key is gone: the next is found in its place, or nothing of it is left."""
    other = next(iter(_alike.get(key, ())), None)
    IN_GRAPHS.pop(key, None)
    if other is not None:
        RECURRENCES[key] = other.made["torch"]
    else:
        _alike.pop(key, None)


def run(
    operation: Operation, request: Request, tensors: Sequence[Tensor], seed: Any
) -> Sequence[Tensor]:
    """The results of a call."""
    if tensors[0].device.type == "meta":  # Keras asks for shapes
        known = operation.known([t.shape for t in tensors[: len(operation.cell.arguments)]])
        like = tensors[0]
        return [like.new_empty(shape, dtype=tensors[-1].dtype) for shape in known.results]
    if recurrences.is_elsewhere(tensors[0]):
        return on_device.run(operation, request, tensors, seed)
    return run_op(
        operation.made["torch"],
        tensors,
        training=request.training,
        given=request.given,
        masked=request.masked,
        seed=seed,
    )


class _InTorch:
    """What `rnncc.torch.ops` takes for a recurrence; it doesn't keep its operation alive."""

    def __init__(self, operation: Operation) -> None:
        self._operation = weakref.ref(operation)
        self.key, self.cell, self.draws = operation.key, operation.cell, operation.draws
        self.torch_dtype = getattr(torch, operation.dtype.name)

    @property
    def operation(self) -> Operation:
        operation = self._operation() or next(iter(_alike.get(self.key, ())), None)
        if operation is None:
            raise RuntimeError(f"the layer of {self.key} is gone: keep the model that is run")
        return operation

    def known(self, arguments: Sequence[Tensor], *, real: bool) -> SymbolicShapes:
        """Shapes of results. real: not only shapes, which may be symbols."""
        operation, shapes = self.operation, [tuple(t.shape) for t in arguments]
        return (
            operation.known(shapes) if real else known_of(operation.native, operation.sizes, shapes)
        )

    def forward(
        self,
        tensors: Sequence[Tensor],
        seed: Tensor | None,
        training: bool,
        given: bool,
        masked: bool,
        save: bool,
    ) -> tuple[list[Tensor], tuple[SavedCall, list[tuple[int, ...]]] | None]:
        """See `rnncc.torch.recurrence.Recurrence.forward`."""
        request = Request(training, given, masked)
        arrays = [self._array(t) for t in tensors]
        state = None if seed is None else seed.numpy()
        # torch refuses a backward after its tensors were changed.
        results, saved = self.operation.forward(
            request, arrays, seed_of(state), save=save, lent=True
        )
        kept = None if saved is None else (saved, [a.shape for a in arrays])
        return [torch.from_numpy(a) for a in results], kept

    def _array(self, t: Tensor) -> np.ndarray:
        if not t.is_cpu:
            raise TypeError(
                f"a tensor of {self.cell.name} is on {t.device}, others on the CPU: move them "
                "together"
            )
        kind = unreadable(t)
        if kind:
            raise TypeError(
                f"a tensor of {self.cell.name} is {kind}: kernels read plain dense tensors"
            )
        return array_of(t)

    def backward(
        self,
        kept: tuple[SavedCall, list[tuple[int, ...]]],
        cotangents: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> list[Tensor | None]:
        """See `rnncc.torch.gradients.RecurrenceGradients.backward`."""
        saved, shapes = kept
        handed = [None if t is None else self._array(t) for t in cotangents]
        grads = self.operation.backward(saved, handed, wanted, shapes)
        return [None if g is None else torch.from_numpy(g) for g in grads]

    def second(
        self,
        kept: tuple[SavedCall, list[tuple[int, ...]]],
        cotangents: Sequence[Tensor | None],
        d_grads: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """See `rnncc.torch.gradients.RecurrenceGradients.second`."""
        saved, shapes = kept
        handed, d_grad_arrays = (
            [None if t is None else self._array(t) for t in tensors]
            for tensors in (cotangents, d_grads)
        )
        back, grads = second(self.operation, saved, handed, d_grad_arrays, wanted, shapes)
        as_tensors = [None if g is None else torch.from_numpy(g) for g in grads]
        return [torch.from_numpy(d) for d in back], as_tensors
