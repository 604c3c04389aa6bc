"""A paired run -> calls of a Recorder, operation by operation.

What is computed of numbers alone is numbers, as the run had them. What a step reads that it was not
given is a leaf that the reader finds again: parameters, buffers, tensors of the surroundings.

Non-Goals: what operations are (`words`); steps (`reader`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rnncc.reading.graph import Origin, Unreadable
from rnncc.reading.recorder import Recorder
from rnncc.reading.traced import Length, Traced
from rnncc.torch.reading import along, elementwise, layouts, products  # noqa: F401  (fill WORDS)
from rnncc.torch.reading.pairs import (
    Differs,
    Folded,
    PairedCall,
    Pairing,
    row_of,
)
from rnncc.torch.reading.slots import Slot, Slots
from rnncc.torch.reading.surrogates import Surrogates
from rnncc.torch.reading.trace import Refused, StepTrace
from rnncc.torch.reading.words import PUTS, WORDS, found, kind_of

# What they give says nothing of what is in the tensor they are given.
_NEW = (
    "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty "
    "new_empty_strided"
)
_LIKE = frozenset(_NEW.split())


@dataclass(frozen=True, slots=True)
class DropMask:
    """What dropout multiplies by, before it did: kept with this probability, scaled so."""

    kept: float
    scale: float


class Replay:
    """leaf: of a tensor that a step reads and was not given, what it is."""

    def __init__(
        self, name: str, dtype: torch.dtype, leaf: Callable[[Recorder, Tensor], Traced]
    ) -> None:
        self.r = Recorder(name)
        self.dtype, self.leaf = dtype, leaf
        self.slots = Slots(self.traced_of)
        self.pairing = Pairing()
        self.shapes: Sequence[tuple[Length, ...]] = ()
        self.leaves: list[Tensor] = []  # what `leaf` was asked for
        self.unlistened = False  # operations under no_grad are as any others
        self._surrogates = Surrogates(self)
        self._drops = 0

    def given(self, first: Tensor, second: Tensor, traced: Any, what: str) -> None:
        """A tensor of both runs that stands for that."""
        self.pairing.leaves([first], [second])
        self.slots.add(Slot(first, traced, fixed=what))

    def run(self, first: StepTrace, second: StepTrace) -> None:
        """Refused, with the operation and the user's line, for what can't be read."""
        calls: list[PairedCall] = []
        try:
            calls.extend(self.pairing.calls(first, second))
        except Differs as error:
            raise Refused(f"{self.r.graph.name} can't be compiled: {error}") from None
        self._surrogates.begin(calls, first)
        for call in calls:
            self.one(call)

    def one(self, call: PairedCall) -> None:
        """One operation."""
        with self.r.at(call.origin):
            try:
                self._read(call)
            except Unreadable as why:
                raise self.refused(call.origin, why) from None
        self._surrogates.after(call)

    def refused(self, origin: Origin | str, why: object) -> Refused:
        return Refused(f"{self.r.graph.name} can't be compiled: {origin} {why}")

    # ---- what tensors hold ----

    def value(self, tensor: Tensor) -> Traced:
        """What a tensor holds now."""
        held = self.held(tensor)
        traced = self.traced_of(held, tensor)
        if held is not traced:
            self.slots.slot(tensor).value = traced
        return traced

    def held(self, tensor: Tensor) -> Any:
        if tensor not in self.slots:
            self.leaves.append(tensor)
            what = "a parameter" if isinstance(tensor, torch.nn.Parameter) else "a tensor"
            traced = self.leaf(self.r, tensor)
            self.slots.add(Slot(tensor, traced, fixed=f"{what} that it was not given"))
        return self.slots.held(tensor)

    def traced_of(self, held: Any, tensor: Tensor) -> Traced:
        if isinstance(held, DropMask):
            raise Unreadable("draws random numbers: of what draws, dropout can be compiled")
        if held is None:
            raise Unreadable("reads what only the way back does, or places of the largest numbers")
        if not isinstance(held, Folded):
            assert isinstance(held, Traced)
            return held
        shape = self._shape_of(held, tensor)
        constant = self.r.constant(row_of(held, shape))
        constant = self.r.convert(constant, kind_of(tensor.dtype))
        return self.r.broadcast(constant, shape) if shape else constant

    def _shape_of(self, held: Folded, tensor: Tensor) -> tuple[Length, ...]:
        first, second = (torch.empty(v.shape, device="meta") for v in held.values)
        return self.pairing.shape(first, second)

    # ---- operations ----

    def _read(self, call: PairedCall) -> None:
        operation, name = call.calls[0].operation, call.name
        tensors = [t for t in pytree.tree_leaves((call.args, call.keywords)) if _is_tensor(t)]
        if name.startswith("aten.lift_fresh"):
            self.slots.add(Slot(call.outputs[0], call.known[0]))
            return
        held = [self.held(t) for t in tensors]
        in_place = _written(operation, call)
        plain = name.split(".")[1].rstrip("_") if name.count(".") else name
        if torch.Tag.nondeterministic_seeded in operation.tags and found(WORDS, name) is None:
            self._draw(call, held)
            return
        if any(isinstance(h, DropMask) for h in held) and self._dropped(call, held, in_place):
            return
        if plain in _LIKE or all(isinstance(h, Folded) for h in held):
            results: list[Any] = [*call.known]
        elif held == [None]:  # autograd keeps what it has for the way back
            results = [None] * len(call.outputs)
        else:
            results = self._word(call)
        if in_place is not None:
            self.slots.write(in_place, self._written(call, in_place, results[0]))
            return
        for number, (tensor, result) in enumerate(zip(call.outputs, results, strict=True)):
            if _is_tensor(tensor):
                self._keep(call, number, tensor, result, tensors)

    def _word(self, call: PairedCall) -> list[Any]:
        word = found(WORDS, call.name)
        if word is None:
            raise Unreadable("is an operation that equations have no word for (docs/language.md)")
        self.shapes = call.shapes
        args, keywords = self.arguments((call.args, call.keywords))
        returned = word(self, *args, **_known(keywords))
        results = [*returned] if isinstance(returned, list) else [returned]
        quiet = not call.with_grad and call.inside is None and not self.unlistened
        return [
            self._finished(t, result, shape, quiet)
            for t, result, shape in zip(call.outputs, results, call.shapes, strict=True)
        ]

    def _written(self, call: PairedCall, target: Tensor, result: Any) -> Any:
        """What a target holds behind a write. Where autograd doesn't listen (no_grad), its gradient
        is that of what it held before."""
        listens = call.with_grad or call.inside or self.unlistened
        if listens or not isinstance(result, Traced) or result.kind != "float":
            return result
        slot, before = self.slots.slot(target), self.value(target)
        if slot.parent is not None and slot.remake is not None:  # the view may be a quiet one
            before = slot.remake(self.value(slot.parent.tensor))
        if result.shape != before.shape:
            result = self.r.broadcast(result, before.shape)
        one = self.r.broadcast(Traced(1.0), before.shape)
        return self.r.surrogate(before, result, one)

    def arguments(self, given: Any) -> Any:
        """Tensors as what they hold."""
        return pytree.tree_map(lambda a: self.value(a) if _is_tensor(a) else a, given)

    def _finished(
        self, tensor: Any, result: Traced | None, shape: tuple[Length, ...], quiet: bool
    ) -> Traced | None:
        """Of the kind and shape that torch says. quiet: no gradient goes through."""
        if result is None:
            return None
        kind = kind_of(tensor.dtype)
        if kind == "float" and tensor.dtype != self.dtype:
            raise Unreadable(
                f"gives {tensor.dtype}: equations count in one kind of floats, here {self.dtype}"
            )
        if result.kind != kind:
            result = self.r.convert(result, kind)
        if result.shape != shape:
            result = self.r.broadcast(result, shape)
        return self.r.stop_gradient(result) if quiet and kind == "float" else result

    def _keep(
        self, call: PairedCall, number: int, tensor: Tensor, result: Any, tensors: list[Tensor]
    ) -> None:
        """An output, which may share memory with what the operation was given."""
        owner = self.slots.owner(tensor, tensors)
        if owner is None:
            self.slots.add(Slot(tensor, result))
            return
        back, args = found(PUTS, call.name), call.args[1:]

        def remake(wholly: Traced) -> Traced:
            word = found(WORDS, call.name)
            if word is None:
                raise Unreadable("is a view of what was written in place")
            self.shapes = call.shapes
            with self.r.at(call.origin):
                made = word(self, wholly, *args, **_known(call.keywords))
            one: Traced = made[number] if isinstance(made, list) else made
            return one

        def put_in(wholly: Traced, part: Traced) -> Traced:
            if back is None:
                raise Unreadable("is a view of what was written in place")
            whole: Traced = back(self.r, wholly, part, number, *args, **_known(call.keywords))
            return whole

        self.slots.add(Slot(tensor, result, owner, remake, put_in, owner.fixed))

    # ---- dropout ----

    def _draw(self, call: PairedCall, held: list[Any]) -> None:
        """torch's two ways of it: native_dropout, and a mask made of bernoulli_."""
        if call.name == "aten.bernoulli_.float":
            kept = call.args[1] if len(call.args) > 1 else 0.5  # torch leaves it out
            self.slots.write(call.args[0], DropMask(float(kept), 1.0))
        elif call.name == "aten.native_dropout.default":
            x, rate, training = call.args
            dropped = self.value(x)
            if training is not False and rate:
                dropped = self._drop(dropped, float(rate))
            self.slots.add(Slot(call.outputs[0], dropped))
            self.slots.add(Slot(call.outputs[1], DropMask(1 - rate, 1.0)))
        else:
            raise Unreadable("draws random numbers: of what draws, dropout can be compiled")

    def _drop(self, x: Traced, rate: float) -> Traced:
        rate = float(f"{rate:.12g}")  # 1 - 0.9 is 0.1
        self._drops += 1
        return self.r.drop(x, f"dropout_{self._drops}" if self._drops > 1 else "dropout", rate)

    def _dropped(self, call: PairedCall, held: list[Any], in_place: Tensor | None) -> bool:
        """Whether this is a step of dropout."""
        mask = next(h for h in held if isinstance(h, DropMask))
        if call.name == "aten.div_.Scalar" and in_place is not None:
            self.slots.write(in_place, DropMask(mask.kept, mask.scale / call.args[1]))
            return True
        if call.name not in ("aten.mul.Tensor", "aten.mul_.Tensor") or len(held) != 2:
            return False
        if isinstance(held[0], DropMask) and isinstance(held[1], DropMask):
            return False
        x, other = call.args if not isinstance(held[0], DropMask) else call.args[::-1]
        fits = x.shape == other.shape and abs(mask.scale * mask.kept - 1) < 1e-6
        if not fits:
            return False
        dropped = self._drop(self.value(x), 1 - mask.kept)
        if in_place is not None:
            self.slots.write(in_place, dropped)
        else:
            self.slots.add(Slot(call.outputs[0], dropped))
        return True


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _known(keywords: dict[str, Any]) -> dict[str, Any]:
    """Without what says where a result lies, not what it is."""
    left = ("memory_format", "layout", "device", "pin_memory", "implicit")
    return {k: v for k, v in keywords.items() if k not in left and not _is_default(k, v)}


def _is_default(name: str, value: Any) -> bool:
    return name in ("non_blocking", "copy") and not value


def _written(operation: Any, call: PairedCall) -> Tensor | None:
    """The tensor that an in-place operation writes into. Unreadable for other writes."""
    if not operation._schema.is_mutable:
        return None
    places = [
        i
        for i, a in enumerate(operation._schema.arguments)
        if a.alias_info is not None and a.alias_info.is_write
    ]
    if places != [0] or not _is_tensor(call.args[0]):
        raise Unreadable("writes into a tensor that it is given (out=)")
    target: Tensor = call.args[0]
    return target
