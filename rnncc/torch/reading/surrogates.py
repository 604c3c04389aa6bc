"""torch.autograd.Function: a value, and what its derivative is said to be.

    class Spike(Function):
        forward   (v > 0).to(v.dtype)                        a value, of one trained tensor
        backward  grad / (1 + 10 * v.abs()) ** 2             grad times something: the derivative

A call's forward is read where it stands, like all operations. Its backward is read in runs of the
Function alone, with a cotangent of ones; that it is linear, element by element, is tried.

Non-Goals: Functions of several tensors, or whose backward mixes elements.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rnncc.reading.graph import Unreadable
from rnncc.reading.recorder import Recorder
from rnncc.reading.traced import Traced
from rnncc.torch.reading.pairs import Folded, PairedCall, Pairing
from rnncc.torch.reading.slots import Slot, Slots
from rnncc.torch.reading.trace import FunctionCall, StepTrace, record


class _Replays(Protocol):
    """What a Function is read with (`replay._Replays`)."""

    r: Recorder
    slots: Slots
    pairing: Pairing
    dtype: torch.dtype
    leaf: Any
    unlistened: bool

    def __init__(self, name: str, dtype: torch.dtype, leaf: Any) -> None: ...

    def given(self, first: Tensor, second: Tensor, traced: Any, what: str) -> None: ...

    def run(self, first: StepTrace, second: StepTrace) -> None: ...

    def refused(self, origin: Any, why: object) -> Exception: ...

    def value(self, tensor: Tensor) -> Traced: ...

    def held(self, tensor: Tensor) -> Any: ...


class Surrogates:
    """Of one replay."""

    def __init__(self, replay: _Replays) -> None:
        self.replay = replay
        self._last: dict[int, FunctionCall] = {}  # the last operation of each, by its id
        self._ends: set[int] = set()
        self._calls: list[PairedCall] = []

    def begin(self, calls: list[PairedCall], first: StepTrace) -> None:
        """These are about to be replayed."""
        self._calls = calls
        last: dict[FunctionCall, PairedCall] = {c.inside: c for c in calls if c.inside is not None}
        self._last = {id(call): inside for inside, call in last.items()}
        self._ends = {id(t) for t in pytree.tree_leaves(first.returned)}

    def after(self, call: PairedCall) -> None:
        """This was replayed: where it was a Function's last, its output has a derivative."""
        inside = self._last.get(id(call))
        if inside is None or self.replay.unlistened:
            return
        name = f"{inside.function.__module__}.{inside.function.__qualname__}"
        try:
            with self.replay.r.at(call.origin):
                self._function(inside)
        except Unreadable as why:
            raise self.replay.refused(f"{name}.apply", why) from None

    def _function(self, inside: FunctionCall) -> None:
        replay, own = self.replay, [c for c in self._calls if c.inside is inside]
        made = {id(t): t for c in own for t in c.outputs if isinstance(t, Tensor)}
        read = {id(t) for c in self._calls if c.inside is not inside for t in _tensors(c)}
        outputs = [t for i, t in made.items() if i in read or i in self._ends]
        if not outputs:
            return
        trained = [
            t
            for t in inside.args
            if isinstance(t, Tensor)
            and t.is_floating_point()
            and not isinstance(replay.held(t), Folded)
        ]
        if not trained:
            return
        if len(outputs) > 1:
            raise Unreadable("gives several tensors: one can be read")
        (y,) = outputs
        derivatives = self._derivatives(inside, own, trained, y)
        given = [(t, d) for t, d in zip(trained, derivatives, strict=True) if d is not None]
        if len(given) > 1:
            raise Unreadable("has gradients of several tensors: of one it can be read")
        if not given:
            replay.slots.slot(y).value = replay.r.stop_gradient(replay.value(y))
            return
        ((x, derivative),) = given
        value = replay.r.surrogate(replay.value(x), replay.value(y), derivative)
        replay.slots.slot(y).value = value

    def _derivatives(
        self, inside: FunctionCall, own: list[PairedCall], trained: list[Tensor], y: Tensor
    ) -> list[Any]:
        """Of each of these tensors, what its gradient is of a cotangent of ones."""
        replay, runs = self.replay, []
        for number in range(2):
            runs.append(_run(inside, own, trained, number, replay))
        (first, leaves, ones, grads), (second, others, more, _) = runs
        inner = type(replay)(replay.r.graph.name, replay.dtype, replay.leaf)
        inner.r, inner.unlistened = replay.r, True
        for a, b, outer in zip(leaves, others, inside.args, strict=True):
            if isinstance(a, Tensor):
                held = replay.held(outer) if isinstance(outer, Tensor) else None
                inner.given(a, b, held, "a tensor that it was given")
        inner.pairing.leaves([ones], [more])
        inner.slots.add(
            Slot(ones, Folded((ones.double().numpy(), more.double().numpy())), fixed="grad_output")
        )
        inner.run(first, second)
        found: list[Any] = []
        for grad in grads:
            found.append(None if grad is None else inner.value(grad))
        return found


def _run(
    inside: FunctionCall,
    own: list[PairedCall],
    trained: list[Tensor],
    number: int,
    replay: _Replays,
) -> tuple[StepTrace, list[Any], Tensor, list[Any]]:
    """A run of the Function alone, forward and back, of the first or the second size: its trace,
    its arguments, the cotangent, and its gradients of what is trained."""
    at = [id(t) for t in trained]
    given: list[Any] = []
    for position, arg in enumerate(inside.args):
        if not isinstance(arg, Tensor):
            given.append(arg)
            continue
        array = _of_run(inside, own, position, number)
        t = array.detach().clone()
        given.append(t.requires_grad_() if id(arg) in at else t)
    leaves = [t for t, arg in zip(given, inside.args, strict=True) if id(arg) in at]
    ones: list[Tensor] = []

    def step(*args: Any) -> Any:
        y = inside.function.apply(*args)
        if not isinstance(y, Tensor):
            raise Unreadable("gives several tensors: one can be read")
        ones.append(torch.ones_like(y))
        return torch.autograd.grad(y, leaves, ones[0], allow_unused=True)

    with torch.enable_grad():
        trace = record(step, given, replay.r.graph.name)
        _refuse_mixing(inside, given, leaves)
    start = next(i for i, c in enumerate(trace.calls) if any(t is ones[0] for t in c.outputs))
    del trace.calls[start]
    return trace, given, ones[0], [*trace.returned]


def _of_run(inside: FunctionCall, own: list[PairedCall], position: int, number: int) -> Tensor:
    """An argument, of the first or the second run."""
    calls = own[0].calls[number]
    assert calls.inside is not None
    tensor: Tensor = calls.inside.args[position]
    return tensor


def _refuse_mixing(inside: FunctionCall, given: list[Any], leaves: list[Tensor]) -> None:
    """Unreadable where the backward isn't the cotangent times something."""
    y = inside.function.apply(*given)
    plain = torch.autograd.grad(y, leaves, torch.ones_like(y), allow_unused=True)
    for scale in (torch.randn_like(y), 3 * torch.randn_like(y)):
        y = inside.function.apply(*given)
        grads = torch.autograd.grad(y, leaves, scale, allow_unused=True)
        for one, grad in zip(plain, grads, strict=True):
            if one is None or grad is None:
                continue
            if grad.shape != scale.shape or not torch.allclose(
                grad, scale * one, rtol=1e-4, atol=1e-6, equal_nan=True
            ):
                raise Unreadable(
                    "has a backward that isn't its cotangent times something, element by element"
                )


def _tensors(call: PairedCall) -> list[Tensor]:
    leaves = pytree.tree_leaves((call.args, call.keywords))
    return [t for t in leaves if isinstance(t, Tensor)]
