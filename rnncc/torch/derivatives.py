"""Nodes of a recurrence's derivatives in autograd's graphs, each a function of tensors again.

    f: tensors t -> results, and for cotangents c of the results, directions d of the tensors
    gradients   f'(t)^T c         linear in c        kernels of the backward
    tangents    f'(t) d           linear in d        kernels of the backward's pullback
    curvatures  (c . f)''(t) d    linear in d and c  all four kernels of second derivatives

c . f has a symmetric second derivative, so that what is linear in d is its own transpose: the three
are closed under differentiation by c and by d, to any order. That is all that products of Hessians
with vectors need. What is left, curvatures differentiated by t or c, is a third derivative:
NotImplementedError, from a node that autograd meets on every way to t and c, and on no other.

    of             by c                      by d                          by t
    gradients      tangents                                                curvatures
    tangents                                 gradients                     curvatures
    curvatures     refused                   curvatures                    refused

Non-Goals: what is computed (`gradients`); the node of a call itself, graphs of a compiler (`ops`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from rnncc.artifact.cell import CellDescription
from rnncc.torch.batched import is_batched, one_by_one

Some = Sequence[Tensor | None]


class Differentiable(Protocol):
    """What goes back through its calls, and through that once more: see `Recurrence`."""

    @property
    def cell(self) -> CellDescription: ...

    def backward(self, saved: Any, cotangents: Some, wanted: Sequence[bool]) -> Some: ...

    def second(
        self, saved: Any, cotangents: Some, d_grads: Some, wanted: Sequence[bool]
    ) -> tuple[Some, Some]: ...


def refuse_dual(what: str, tensors: Some) -> None:
    """NotImplementedError for a tensor that carries a derivative forwards."""
    if forward_ad._current_level >= 0 and any(t is not None and _is_dual(t) for t in tensors):
        raise NotImplementedError(
            f"{what} has no forward mode (torch.autograd.forward_ad, torch.func.linearize): "
            "torch.autograd.functional.jvp gives the same products"
        )


def _is_dual(t: Tensor) -> bool:
    return forward_ad.unpack_dual(t).tangent is not None


def each(backward: Any, handed: Some) -> Some:
    """What `backward` returns for cotangents, which a vmap may have handed in many at a time."""
    refuse_dual("a gradient of rnncc.torch", handed)
    gradients: Some = one_by_one(backward, handed) if is_batched(handed) else backward(handed)
    return gradients


class Source:
    """The call that is differentiated. saved: what it left."""

    __slots__ = ("recurrence", "saved")

    def __init__(self, recurrence: Differentiable, saved: Any) -> None:
        self.recurrence, self.saved = recurrence, saved

    def gradients(self, cotangents: Some, tensors: Some, wanted: Sequence[bool]) -> Some:
        """Of the tensors wanted; None of others. A node where a graph is made."""
        if not any(wanted):
            return [None] * len(tensors)
        if not torch.is_grad_enabled():
            return self.recurrence.backward(self.saved, cotangents, wanted)
        gradients: Some = _Gradients.apply(self, wanted, len(cotangents), *cotangents, *tensors)
        return gradients

    def tangents(self, directions: Some, tensors: Some, count: int) -> Some:
        """Of all `count` results."""
        tangents: Some = _Tangents.apply(self, count, *directions, *tensors)
        return tangents

    def curvatures(
        self, cotangents: Some, directions: Some, tensors: Some, wanted: Sequence[bool]
    ) -> Some:
        """By the tensors wanted; None of others. What depends on nothing but numbers is one node,
        what depends on cotangents and tensors another, whose results are zeros."""
        curvatures: Some = _Curvatures.apply(self, wanted, cotangents, tensors, *directions)
        if torch.is_grad_enabled():
            name = self.recurrence.cell.name
            shapes = [None if f is None else f.shape for f in curvatures]
            like = next(t for t in tensors if t is not None)
            zeros = _Third.apply(name, shapes, like.detach(), *cotangents, *tensors)
            curvatures = [
                None if f is None or z is None else f + z
                for f, z in zip(curvatures, zeros, strict=True)
            ]
        return curvatures

    def second(
        self, cotangents: Some, directions: Some, tensors: Some, needed: Sequence[bool]
    ) -> Some:
        """Tangents, then curvatures, those that are needed."""
        count = len(cotangents)
        wanted = needed[count:]
        if not torch.is_grad_enabled():
            tangents, curvatures = self.recurrence.second(
                self.saved, cotangents, directions, wanted
            )
            return _only(needed, [*tangents, *curvatures])
        back: Some = [None] * count
        if any(needed[:count]):
            back = self.tangents(directions, tensors, count)
        grads: Some = [None] * len(tensors)
        if any(wanted):
            grads = self.curvatures(cotangents, directions, tensors, wanted)
        return _only(needed, [*back, *grads])


def _only(needed: Sequence[bool], found: Some) -> Some:
    return [f if n else None for f, n in zip(found, needed, strict=True)]


class _Gradients(torch.autograd.Function):
    """(cotangents, tensors) -> gradients."""

    @staticmethod
    def forward(
        ctx: Any, source: Source, wanted: Sequence[bool], count: int, *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        ctx.source, ctx.count = source, count
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        return tuple(source.recurrence.backward(source.saved, tensors[:count], wanted))

    @staticmethod
    def backward(ctx: Any, *directions: Tensor | None) -> Any:
        saved = ctx.saved_tensors  # torch refuses those that were changed in between
        cotangents, tensors = saved[: ctx.count], saved[ctx.count :]
        needed = ctx.needs_input_grad[3:]

        def back(d: Some) -> Some:
            return ctx.source.second(cotangents, d, tensors, needed)

        return None, None, None, *each(back, directions)


class _Tangents(torch.autograd.Function):
    """(directions, tensors) -> tangents of the results."""

    @staticmethod
    def forward(
        ctx: Any, source: Source, count: int, *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        ctx.source = source
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        half = len(tensors) // 2
        nothing = [None] * count
        tangents, _ = source.recurrence.second(
            source.saved, nothing, tensors[:half], [False] * half
        )
        return tuple(tangents)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        saved, source = ctx.saved_tensors, ctx.source
        half = len(saved) // 2
        directions, tensors = saved[:half], saved[half:]
        needed = ctx.needs_input_grad[2:]

        def back(c: Some) -> Some:
            by_d = source.gradients(c, tensors, needed[:half])
            by_t: Some = [None] * half
            if any(needed[half:]):
                by_t = source.curvatures(c, directions, tensors, needed[half:])
            return [*by_d, *by_t]

        return None, None, *each(back, cotangents)


class _Curvatures(torch.autograd.Function):
    """directions -> curvatures; of cotangents and tensors it is a node only in `_Third`."""

    @staticmethod
    def forward(
        ctx: Any,
        source: Source,
        wanted: Sequence[bool],
        cotangents: Some,
        tensors: Some,
        *directions: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        ctx.source, ctx.count = source, len(cotangents)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*cotangents, *tensors)
        _, curvatures = source.recurrence.second(source.saved, cotangents, directions, wanted)
        return tuple(_only(wanted, curvatures))

    @staticmethod
    def backward(ctx: Any, *along: Tensor | None) -> Any:
        saved = ctx.saved_tensors
        cotangents, tensors = saved[: ctx.count], saved[ctx.count :]
        needed = ctx.needs_input_grad[4:]

        def back(d: Some) -> Some:
            return ctx.source.curvatures(cotangents, d, tensors, needed)

        return None, None, None, None, *each(back, along)


class _Third(torch.autograd.Function):
    """(cotangents, tensors) -> zeros like curvatures, which don't go back."""

    @staticmethod
    def forward(
        ctx: Any,
        name: str,
        shapes: Sequence[torch.Size | None],
        like: Tensor,
        *tensors: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        ctx.name = name
        ctx.set_materialize_grads(False)
        return tuple([None if s is None else like.new_zeros(s) for s in shapes])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        if all(c is None for c in cotangents):
            return (None,) * len(ctx.needs_input_grad)
        raise NotImplementedError(
            f"third derivatives of {ctx.name} are not available: differentiate a gradient of a "
            "gradient by vectors that it is multiplied with, as products of Hessians with vectors "
            "do, or take torch.nn's module"
        )
