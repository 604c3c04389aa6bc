"""Nodes of a call and its derivatives in autograd's graphs, each a function of tensors.

    f: tensors t -> results, and for cotangents c of the results, directions d of the tensors
    call        f(t)
    gradients   f'(t)^T c         linear in c        kernels of the backward
    tangents    f'(t) d           linear in d        kernels of the backward's pullback
    curvatures  (c . f)''(t) d    linear in d and c  all four kernels of second derivatives

c . f has a symmetric second derivative, so that what is linear in d is its own transpose: the last
three are closed under differentiation by c and by d, to any order, backwards and forwards. That is
all that products of Hessians with vectors need. What is left is a third derivative, or a second one
of which nothing was summed: NotImplementedError, backwards from a node that autograd meets on every
way to t and c, and on no other.

    of             by c                      by d             by t, back       by t, forwards
    call                                                      gradients        tangents
    gradients      tangents (back)                            curvatures       curvatures
                   gradients (forwards)
    tangents                                 gradients        curvatures       refused
                                             (back)
    curvatures     refused                   curvatures       refused          refused

Each may be mapped (`mapped`), so that torch.func's transforms compose. What a call saved goes with
them as a handle; whoever finds it gone, or maps over what the call had read, runs the call again.

Non-Goals: what is computed (`gradients`); the plain node of a call (`ops`), which is faster; graphs
of a compiler.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from rnncc.artifact.cell import CellDescription
from rnncc.torch.arrays import is_recorded
from rnncc.torch.batched import is_batched, one_by_one
from rnncc.torch.handles import NOTHING, handle_of, saved_by
from rnncc.torch.mapped import each_alone, fold, folds, unfold
from rnncc.torch.uncompiled import run_as_is

Some = Sequence[Tensor | None]


class Differentiable(Protocol):
    """What is called, goes back through its calls, and through that once more: see `Recurrence`."""

    @property
    def cell(self) -> CellDescription: ...
    @property
    def draws(self) -> bool: ...

    def forward(
        self,
        tensors: Sequence[Tensor],
        seed: Tensor | None,
        training: bool,
        given: bool,
        masked: bool,
        save: bool,
    ) -> tuple[list[Tensor], Any]: ...

    def backward(self, saved: Any, cotangents: Some, wanted: Sequence[bool]) -> Some: ...

    def second(
        self, saved: Any, cotangents: Some, d_grads: Some, wanted: Sequence[bool]
    ) -> tuple[Some, Some]: ...


def is_dual(tensors: Some) -> bool:
    """Whether one of them carries a derivative forwards."""
    return forward_ad._current_level >= 0 and any(
        t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors
    )


def each(backward: Any, handed: Some) -> Some:
    """What `backward` returns for cotangents, which a vmap may have handed in many at a time."""
    gradients: Some = one_by_one(backward, handed) if is_batched(handed) else backward(handed)
    return gradients


@dataclass(frozen=True, eq=False, slots=True)
class CallKind:
    """What of a call is no tensor."""

    recurrence: Differentiable
    training: bool
    given: bool
    masked: bool

    @property
    def is_mapped_as_rows(self) -> bool:
        """Whether many calls side by side are one with as many rows: not where rows are packed, or
        draw what their number says."""
        return hasattr(self.recurrence, "recipe") and not (self.training and self.recurrence.draws)

    def run(self, tensors: Sequence[Tensor], seed: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Results, and a handle of what the call saved."""
        recurrence, how = self.recurrence, (self.training, self.given, self.masked, True)
        if is_recorded():
            key = self._recorded("packed rows")
            *results, handle = torch.ops.rnncc.forward(key, list(tensors), seed, *how)
            return results, handle
        results, saved = recurrence.forward(tensors, seed, *how)
        return results, handle_of(saved)

    def back(self, saved: Any, cotangents: Some, tensors: Some, wanted: Sequence[bool]) -> Some:
        """Gradients of those tensors that are wanted."""
        if not is_recorded():
            return self.recurrence.backward(saved, cotangents, wanted)
        key = self._recorded("packed rows")
        handle = saved if isinstance(saved, Tensor) else handle_of(saved)
        present, handed = (
            [c is not None for c in cotangents],
            [c for c in cotangents if c is not None],
        )
        named = key, handle, list(tensors), handed, present, list(wanted)
        return _spread(torch.ops.rnncc.backward(*named), wanted)

    def second(
        self, saved: Any, cotangents: Some, d_grads: Some, wanted: Sequence[bool]
    ) -> tuple[Some, Some]:
        """Tangents of all results, and curvatures of those tensors that are wanted."""
        self._recorded("second derivatives and forward mode", is_recorded())
        return self.recurrence.second(saved, cotangents, d_grads, wanted)

    def _recorded(self, what: str, refused: bool | None = None) -> Any:
        """What a graph knows the recurrence by. NotImplementedError for what it can't hold."""
        recurrence: Any = self.recurrence
        if refused or (refused is None and not getattr(recurrence, "in_graphs", True)):
            raise NotImplementedError(
                f"{what} of {recurrence.cell.name} can't be written into a graph (make_fx, "
                "torch.func.linearize, torch.compile): call the function itself"
            )
        return recurrence.key

    def results(self, seed: Tensor | None, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Of a call under transforms, or of tensors that carry derivatives forwards."""
        results: Sequence[Tensor] = _Call.apply(self, seed, *tensors)
        return results[:-1]


@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """The call that is differentiated. saved: what it left, or a handle of that."""

    kind: CallKind
    saved: Any
    seed: Tensor | None

    def found(self, tensors: Sequence[Tensor]) -> Any:
        """What the call left, or leaves now."""
        if not isinstance(self.saved, Tensor):
            return self.saved
        if is_recorded():
            return self.saved
        saved = saved_by(self.saved)
        return saved_by(self.kind.run(tensors, self.seed)[1]) if saved is None else saved

    def gradients(self, cotangents: Some, tensors: Some, wanted: Sequence[bool]) -> list[Any]:
        """Of the tensors wanted; None of others."""
        if not any(wanted) or all(c is None for c in cotangents):
            return [None] * len(tensors)
        kept = self.kind, self.saved, self.seed
        found = _Gradients.apply(*kept, tuple(wanted), len(cotangents), *cotangents, *tensors)
        return _spread(found, wanted)

    def tangents(self, directions: Some, tensors: Some, count: int) -> list[Any]:
        """Of all `count` results."""
        if all(d is None for d in directions):
            return [None] * count
        kept = self.kind, self.saved, self.seed
        return list(_Tangents.apply(*kept, count, *directions, *tensors))

    def curvatures(
        self, cotangents: Some, directions: Some, tensors: Some, wanted: Sequence[bool]
    ) -> list[Any]:
        """By the tensors wanted; None of others. What depends on nothing but numbers is one node,
        what depends on cotangents and tensors another, whose results are zeros."""
        if not any(wanted) or all(d is None for d in directions):
            return [None] * len(tensors)
        kept = self.kind, self.saved, self.seed
        given = tuple(cotangents), tuple(tensors)
        found = _Curvatures.apply(*kept, tuple(wanted), *given, *directions)
        name = self.kind.recurrence.cell.name
        like = tuple((f.shape, f.dtype, f.device) for f in found)
        zeros = _Third.apply(name, like, *cotangents, *tensors)
        return _spread([f + z for f, z in zip(found, zeros, strict=True)], wanted)


def _spread(found: Iterable[Tensor], wanted: Sequence[bool]) -> list[Tensor | None]:
    rest = iter(found)
    return [next(rest) if w else None for w in wanted]


def _only(found: Some, wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    return tuple([f for f, w in zip(found, wanted, strict=True) if w and f is not None])


def _added(first: Some, second: Some) -> list[Tensor | None]:
    pairs = zip(first, second, strict=True)
    return [b if a is None else a if b is None else a + b for a, b in pairs]


def _keep(ctx: Any, *tensors: Tensor | None) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _as_tensor(saved: Any) -> Tensor | None:
    return saved if isinstance(saved, Tensor) else None


def _lost(saved: Any, dims: Iterable[int | None]) -> Any:
    """What was saved, unless what it was saved of is mapped over."""
    return saved if all(d is None for d in dims) else NOTHING


class _Node(torch.autograd.Function):
    """One whose call, `kind, saved, seed`, is what its arguments begin with."""

    @staticmethod
    def kept(ctx: Any, inputs: Any) -> Any:
        """Remember them; what isn't saved otherwise."""
        kind, saved, seed, *rest = inputs
        ctx.kind, ctx.saved = kind, None if isinstance(saved, Tensor) else saved
        return _as_tensor(saved), seed, *rest

    @staticmethod
    def source(ctx: Any) -> tuple[Source, list[Any]]:
        handle, seed, *tensors = ctx.saved_tensors
        return Source(ctx.kind, ctx.saved if handle is None else handle, seed), tensors


@run_as_is
class _Call(torch.autograd.Function):
    """(seed, tensors) -> (results, a handle)."""

    @staticmethod
    def forward(kind: CallKind, seed: Tensor | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        results, handle = kind.run(tensors, seed)
        return *results, handle

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.kind, *tensors = inputs
        ctx.count = len(output) - 1
        ctx.mark_non_differentiable(output[-1])
        _keep(ctx, output[-1], *tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        handle, seed, *tensors = ctx.saved_tensors
        source, wanted = Source(ctx.kind, handle, seed), ctx.needs_input_grad[2:]
        back = each(lambda c: source.gradients(c, tensors, wanted), cotangents[:-1])
        return None, None, *back

    @staticmethod
    def jvp(ctx: Any, *directions: Tensor | None) -> Any:
        handle, seed, *tensors = ctx.saved_tensors
        source = Source(ctx.kind, handle, seed)
        return *source.tangents(directions[2:], tensors, ctx.count), None

    @staticmethod
    def vmap(info: Any, dims: Any, kind: CallKind, seed: Tensor | None, *tensors: Tensor) -> Any:
        if kind.is_mapped_as_rows and folds(kind, dims[2:]):
            *results, handle = _Call.apply(
                kind, seed, *fold(kind, info.batch_size, dims[2:], tensors)
            )
            found, own = unfold(kind, info.batch_size, results)
            return (*found, handle), (*own, None)
        results, own = each_alone(_Call, info.batch_size, dims, (kind, seed, *tensors))
        return (*results[:-1], NOTHING), (*own[:-1], None)


@run_as_is
class _Gradients(_Node):
    """(cotangents, tensors) -> gradients of those wanted."""

    @staticmethod
    def forward(
        kind: CallKind, saved: Any, seed: Any, wanted: Sequence[bool], count: int, *tensors: Any
    ) -> tuple[Tensor, ...]:
        left = Source(kind, saved, seed).found(tensors[count:])
        return _only(kind.back(left, tensors[:count], tensors[count:], wanted), wanted)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        handle, seed, ctx.wanted, ctx.count, *tensors = _Node.kept(ctx, inputs)
        _keep(ctx, handle, seed, *tensors)

    @staticmethod
    def backward(ctx: Any, *handed: Tensor | None) -> Any:
        source, tensors = _Node.source(ctx)
        cotangents, tensors = tensors[: ctx.count], tensors[ctx.count :]
        needed = ctx.needs_input_grad[5:]

        def back(directions: Some) -> Some:
            d = _spread(directions, ctx.wanted)  # type: ignore[arg-type]
            by_c: Some = [None] * ctx.count
            if any(needed[: ctx.count]):
                by_c = source.tangents(d, tensors, ctx.count)
            by_t = source.curvatures(cotangents, d, tensors, needed[ctx.count :])
            return [f if n else None for f, n in zip((*by_c, *by_t), needed, strict=True)]

        return None, None, None, None, None, *each(back, handed)

    @staticmethod
    def jvp(ctx: Any, *directions: Tensor | None) -> Any:
        source, tensors = _Node.source(ctx)
        cotangents, tensors = tensors[: ctx.count], tensors[ctx.count :]
        d_c, d_t = directions[5 : 5 + ctx.count], directions[5 + ctx.count :]
        by_c = source.gradients(d_c, tensors, ctx.wanted)
        by_t = source.curvatures(cotangents, d_t, tensors, ctx.wanted)
        return tuple([f for f, w in zip(_added(by_c, by_t), ctx.wanted, strict=True) if w])

    @staticmethod
    def vmap(
        info: Any,
        dims: Any,
        kind: CallKind,
        saved: Any,
        seed: Any,
        wanted: Any,
        count: int,
        *t: Any,
    ) -> Any:
        first = 5 + count
        own = dims[first:]
        rows = kind.is_mapped_as_rows and dims[2] is None and folds(kind, own, wanted)
        if not rows:
            left = _lost(saved, (dims[2], *own))
            given = (kind, left, seed, wanted, count, *t)
            return each_alone(_Gradients, info.batch_size, (None, None, *dims[2:]), given)
        size = info.batch_size
        found = _Gradients.apply(
            kind,
            saved,
            seed,
            wanted,
            count,
            *fold(kind, size, dims[5:first], t[:count], results=True),
            *fold(kind, size, own, t[count:]),
        )
        return unfold(kind, size, found, wanted)


@run_as_is
class _Tangents(_Node):
    """(directions, tensors) -> tangents of the results."""

    @staticmethod
    def forward(
        kind: CallKind, saved: Any, seed: Any, count: int, *tensors: Any
    ) -> tuple[Tensor, ...]:
        half = len(tensors) // 2
        left = Source(kind, saved, seed).found(tensors[half:])
        nothing, none = [None] * count, [False] * half
        tangents, _ = kind.second(left, nothing, tensors[:half], none)
        return tuple(tangents)  # type: ignore[arg-type]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        handle, seed, ctx.count, *tensors = _Node.kept(ctx, inputs)
        _keep(ctx, handle, seed, *tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        source, tensors = _Node.source(ctx)
        half = len(tensors) // 2
        directions, tensors = tensors[:half], tensors[half:]
        needed = ctx.needs_input_grad[4:]

        def back(c: Some) -> Some:
            by_d = source.gradients(c, tensors, needed[:half])
            by_t = source.curvatures(c, directions, tensors, needed[half:])
            return [*by_d, *by_t]

        return None, None, None, None, *each(back, cotangents)

    @staticmethod
    def jvp(ctx: Any, *d: Tensor | None) -> Any:
        source, tensors = _Node.source(ctx)
        half = len(tensors) // 2
        if any(t is not None for t in d[4 + half :]):
            raise NotImplementedError(
                f"forward mode over what is second order of {ctx.kind.recurrence.cell.name} (a jvp "
                "of a jvp, or of a gradient of a gradient) is not available: let the inner one go "
                "back, as torch.func.hessian does, jacfwd(jacrev(f))"
            )
        return tuple(source.tangents(d[4 : 4 + half], tensors[half:], ctx.count))

    @staticmethod
    def vmap(
        info: Any, dims: Any, kind: CallKind, saved: Any, seed: Any, count: int, *t: Any
    ) -> Any:
        left = _lost(saved, (dims[2], *dims[4 + len(t) // 2 :]))
        given = (kind, left, seed, count, *t)
        return each_alone(_Tangents, info.batch_size, (None, None, *dims[2:]), given)


@run_as_is
class _Curvatures(_Node):
    """directions -> curvatures; of cotangents and tensors it is a node only in `_Third`."""

    @staticmethod
    def forward(
        kind: CallKind,
        saved: Any,
        seed: Any,
        wanted: Sequence[bool],
        cotangents: Some,
        tensors: Any,
        *directions: Tensor | None,
    ) -> tuple[Tensor, ...]:
        left = Source(kind, saved, seed).found(tensors)
        _, curvatures = kind.second(left, cotangents, directions, wanted)
        return _only(curvatures, wanted)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        handle, seed, ctx.wanted, cotangents, tensors, *_ = _Node.kept(ctx, inputs)
        ctx.count = len(cotangents)
        _keep(ctx, handle, seed, *cotangents, *tensors)

    @staticmethod
    def backward(ctx: Any, *handed: Tensor | None) -> Any:
        needed = ctx.needs_input_grad[6:]

        def back(along: Some) -> Some:
            return _Curvatures.along(ctx, _spread(along, ctx.wanted), needed)  # type: ignore[arg-type]

        return None, None, None, None, None, None, *each(back, handed)

    @staticmethod
    def along(ctx: Any, directions: Some, wanted: Sequence[bool]) -> Some:
        source, tensors = _Node.source(ctx)
        cotangents, tensors = tensors[: ctx.count], tensors[ctx.count :]
        return source.curvatures(cotangents, directions, tensors, wanted)

    @staticmethod
    def jvp(ctx: Any, *d: Tensor | None) -> Any:
        found = _Curvatures.along(ctx, d[6:], ctx.wanted)
        return tuple([f for f, w in zip(found, ctx.wanted, strict=True) if w])

    @staticmethod
    def vmap(info: Any, dims: Any, kind: CallKind, saved: Any, seed: Any, *rest: Any) -> Any:
        given = (kind, _lost(saved, (dims[2], *dims[5])), seed, *rest)
        return each_alone(_Curvatures, info.batch_size, (None, None, *dims[2:]), given)


@run_as_is
class _Third(torch.autograd.Function):
    """(cotangents, tensors) -> zeros like curvatures, which don't go on."""

    @staticmethod
    def forward(name: str, like: Any, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        return tuple([torch.zeros(s, dtype=d, device=on) for s, d, on in like])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.name = inputs[0]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        if all(c is None for c in cotangents):
            return (None,) * len(ctx.needs_input_grad)
        raise _no_third(ctx.name)

    @staticmethod
    def jvp(ctx: Any, *directions: Tensor | None) -> Any:
        raise _no_third(ctx.name)

    @staticmethod
    def vmap(info: Any, dims: Any, name: str, like: Any, *tensors: Tensor | None) -> Any:
        return _Third.apply(name, like, *tensors), (None,) * len(like)


def _no_third(name: str) -> NotImplementedError:
    return NotImplementedError(
        f"third derivatives of {name} are not available: differentiate a gradient of a "
        "gradient by vectors that it is multiplied with, as products of Hessians with vectors "
        "do, or take torch.nn's module"
    )
