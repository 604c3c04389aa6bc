"""An operation over tensors of a GPU: recurrences of `rnncc.torch`, which torch joins.

    one cell         a recurrence, as a module of rnncc.torch is one
    a stack          a recurrence a cell, each over what the one below puts out
    Bidirectional    both of its layers, the second over the steps turned round, and their merge

On the CPU a stack is one node of torch's graphs; here it is one a cell, with torch's own operations
in between. So gradients, second ones, checkpoints and compiled graphs are those of recurrences.

Non-Goals: one recurrence (`rnncc.torch.on_device`); other backends, which can't hand a GPU's arrays
to Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from rnncc import layers as native_layers
from rnncc.keras.calls import Request, seed_of
from rnncc.keras.operation import Operation
from rnncc.runtime.api.layer import Layer
from rnncc.torch.ops import run as run_op
from rnncc.torch.recipe import Recipe
from rnncc.torch.recurrence import Recurrence, recurrence_of

Found = tuple[list[Tensor], dict[str, Tensor]]  # outputs, and last states by name

MERGES = {
    "concat": lambda a, b: torch.cat([a, b], -1),
    "sum": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "ave": lambda a, b: (a + b) * 0.5,
}


def run(
    operation: Operation, request: Request, tensors: Sequence[Tensor], seed: Tensor | None
) -> list[Tensor]:
    """The results of a call, outputs and last states."""
    native = operation.native
    named: dict[str, Any] = dict(zip(operation.names(request), tensors, strict=True))
    mask = named.pop("valid", None)
    call = _Call(
        request,
        # Which steps run is decided on the CPU: one copy serves every cell.
        None if mask is None else mask.cpu(),
        None if seed is None else _number(seed),
        native.return_sequences,
        operation.zeros,
        native.checkpoint_every,
        operation.made.setdefault("on device", {}),
        native.go_backwards,
        native.precision,
    )
    outputs, finals = _run(native, {**named, **operation.rates}, operation.sizes, call)
    return [*outputs, *(finals[name] for name in operation.states)]


@torch.compiler.disable
def _number(seed: Tensor) -> int:
    """What dropout draws from."""
    found = seed_of(seed.detach().cpu().numpy())
    assert found is not None
    return found


@dataclass(frozen=True, slots=True)
class _Call:
    """What is asked of a layer, whose own choices of these are not looked at. used: recurrences
    that ran, by their keys."""

    request: Request
    mask: Tensor | None
    seed: int | None
    sequences: bool
    zeros: bool
    every: int | None
    used: dict[str, Recurrence]
    backwards: bool
    precision: str

    def turned(self) -> _Call:
        """Of steps that were turned round: they run as they lie."""
        mask = None if self.mask is None else self.mask.flip(1)
        return replace(self, mask=mask, backwards=False)

    def of(self, part: Any) -> _Call:
        """Of one of a layer's parts."""
        seed = None if self.seed is None else part.seed(self.seed)
        return replace(self, seed=seed, precision=part.precision(self.precision))


def _run(native: Layer, named: Mapping[str, Any], sizes: Mapping[str, int], call: _Call) -> Found:
    """A layer over arguments, states, weights and rates by its own names for them."""
    if isinstance(native, native_layers.Bidirectional):
        return _directions(native, named, sizes, call)
    if isinstance(native, native_layers.RNN):
        return _stack(native, named, sizes, call)
    return _recurrence(native, named, sizes, call)


def _recurrence(
    layer: Layer, named: Mapping[str, Any], sizes: Mapping[str, int], call: _Call
) -> Found:
    cell, chosen = layer.cell, layer._chosen
    recipe = Recipe(
        type(layer),
        tuple(sizes.items()),
        tuple(chosen.options.items()),
        tuple(chosen.functions.items()),
        tuple((r.name, named[r.name]) for r in cell.rates),
        dtype=layer.dtype,
        directions=(call.backwards,),
        return_sequences=call.sequences,
        zeros=call.zeros and call.sequences,
        checkpoint_every=call.every,
        precision=call.precision,
    )
    recurrence = recurrence_of(recipe)
    call.used[recurrence.key] = recurrence
    masked, given = call.mask is not None, call.request.given
    tensors = [
        *(named[a] for a in cell.arguments),
        *([call.mask] if masked else []),
        *(named[s] for s in (recurrence.states if given else ())),
        *(named[w] for w in recurrence.owned),
    ]
    results = run_op(
        recurrence,
        tensors,
        training=call.request.training,
        given=given,
        masked=masked,
        seed=None if call.seed is None else torch.tensor(call.seed),
    )
    count = len(recurrence.outputs)
    return [*results[:count]], dict(zip(recurrence.states, results[count:], strict=True))


def _stack(native: Layer, named: Mapping[str, Any], sizes: Mapping[str, int], call: _Call) -> Found:
    """Cells, each over the whole sequence before the next."""
    parts: Sequence[Any] = native.parts  # type: ignore[attr-defined]
    if len(parts) == 1:
        return _run(parts[0].layer, named, sizes, call.of(parts[0]))
    feed = {a.name: named[a.name] for a in parts[0].cell.inputs}
    if call.backwards:
        feed, call = {n: t.flip(1) for n, t in feed.items()}, call.turned()
    finals: dict[str, Tensor] = {}
    for part, above in pairwise([*parts, None]):
        first = part is parts[0]
        own = {**part.inside(named), **feed}
        for context in part.cell.contexts:
            own[context.name] = named[context.name if first else part.name(context.name)]
        asked = call.of(part) if above is None else replace(call.of(part), sequences=True)
        outputs, last = _run(part.layer, own, part.sizes(sizes), asked)
        finals |= {part.name(n): t for n, t in last.items()}
        if above is not None:
            feed = {a.name: t for a, t in zip(above.cell.inputs, outputs, strict=True)}
    return outputs, finals


def _directions(
    native: native_layers.Bidirectional,
    named: Mapping[str, Any],
    sizes: Mapping[str, int],
    call: _Call,
) -> Found:
    arguments = native.parts[0].cell.arguments
    timed = {a.name for a in native.parts[0].cell.inputs}
    if call.backwards:
        named, call = {n: t.flip(1) if n in timed else t for n, t in named.items()}, call.turned()
    sides: list[list[Tensor]] = []
    finals: dict[str, Tensor] = {}
    for side, part in enumerate(native.parts):
        own, asked = part.inside(named), call.of(part)
        for name, outside in zip(part.cell.arguments, arguments, strict=True):
            tensor = named[outside]
            own[name] = tensor.flip(1) if side and outside in timed else tensor
        asked = asked.turned() if side else asked
        outputs, last = _run(part.layer, own, part.sizes(sizes), asked)
        sides.append([t.flip(1) if side and call.sequences else t for t in outputs])
        finals |= {part.name(n): t for n, t in last.items()}
    ahead, back = sides
    merge = MERGES.get(native.merge_mode or "")
    if merge is None:
        return [*ahead, *back], finals
    return [merge(a, b) for a, b in zip(ahead, back, strict=True)], finals
