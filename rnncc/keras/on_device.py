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
from typing import Any

import torch
from torch import Tensor

from rnncc import layers as native_layers
from rnncc.artifact.cell import VALID
from rnncc.common.unrolling import unroll_of
from rnncc.layers.wiring import DirectionsWiring, StackWiring
from rnncc.operations.calls import Request, seed_of
from rnncc.operations.operation import Operation
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.common.precision import PRECISION
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
    mask = named.pop(VALID, None)
    call = _Call(
        request,
        # Which steps run is decided on the CPU: one copy serves every cell.
        None if mask is None else mask.cpu(),
        native.return_sequences,
        operation.zeros,
        native.checkpoint_every,
        operation.made.setdefault("on device", {}),
        native.go_backwards,
        unroll_of(native.unroll),
    )
    arguments = {**named, **operation.rates, PRECISION: native.precision}
    if seed is not None:
        arguments["seed"] = _number(seed)
    outputs, finals = _run(native, arguments, operation.sizes, call)
    return [*outputs, *(finals[name] for name in operation.states)]


@torch.compiler.disable
def _number(seed: Tensor) -> int:
    """What dropout draws from."""
    number = seed_of(seed.detach().cpu().numpy())
    assert number is not None
    return number


@dataclass(frozen=True, slots=True)
class _Call:
    """What is asked of a layer, whose own choices of these are not looked at. used: recurrences
    that ran, by their keys."""

    request: Request
    mask: Tensor | None
    sequences: bool
    zeros: bool
    every: int | None
    used: dict[str, Recurrence]
    backwards: bool
    unroll: int

    def turned(self) -> _Call:
        """Of steps that were turned round: they run as they lie."""
        mask = None if self.mask is None else _turned_steps(self.mask)
        return replace(self, mask=mask, backwards=False)


def _run(native: Layer, named: Mapping[str, Any], sizes: Mapping[str, int], call: _Call) -> Found:
    """A layer over all that it reads, by its own names."""
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
        precision=named.get(PRECISION, "float32"),
        unroll=unroll_of(layer.unroll) if layer.unroll else call.unroll,
    )
    recurrence = recurrence_of(recipe)
    call.used[recurrence.key] = recurrence
    masked, given, seed = call.mask is not None, call.request.given, named.get("seed")
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
        seed=None if seed is None else torch.tensor(seed),
    )
    count = len(recurrence.outputs)
    return [*results[:count]], dict(zip(recurrence.states, results[count:], strict=True))


def _stack(native: Layer, named: Mapping[str, Any], sizes: Mapping[str, int], call: _Call) -> Found:
    """Cells, each over the whole sequence before the next."""
    stack = StackWiring(native.parts)  # type: ignore[attr-defined]
    feed = {n: named[n] for n in stack.first}
    if call.backwards and len(stack.parts) > 1:
        feed, call = {n: _turned(t) for n, t in feed.items()}, call.turned()
    finals: dict[str, Tensor] = {}
    for k, part in enumerate(stack.parts):
        inner = part is not stack.parts[-1]
        asked = replace(call, sequences=True) if inner else call
        own = {**stack.given(k, named), **feed}
        outputs, last = _run(part.layer, own, part.sizes(sizes), asked)
        finals |= {part.name(n): t for n, t in last.items()}
        names = [o.name for o in part.cell.outputs]
        feed = stack.read(k, dict(zip(names, outputs, strict=True)))
    return outputs, finals


def _directions(
    native: native_layers.Bidirectional,
    named: Mapping[str, Any],
    sizes: Mapping[str, int],
    call: _Call,
) -> Found:
    both = DirectionsWiring(native.parts, _turned)
    if call.backwards:
        named = {n: _turned(t) if n in both.timed else t for n, t in named.items()}
        call = call.turned()
    sides: list[list[Tensor]] = []
    finals: dict[str, Tensor] = {}
    for side, part in enumerate(both.parts):
        asked = call.turned() if side else call
        outputs, last = _run(part.layer, both.given(side, named), part.sizes(sizes), asked)
        sides.append([_turned(t) if side and call.sequences else t for t in outputs])
        finals |= {part.name(n): t for n, t in last.items()}
    ahead, back = sides
    merge = MERGES.get(native.merge_mode or "")
    if merge is None:
        return [*ahead, *back], finals
    return [merge(a, b) for a, b in zip(ahead, back, strict=True)], finals


def _turned_steps(mask: Tensor) -> Tensor:
    """A mask for steps the other way round, and resets: what was before a step is behind it."""
    if mask.ndim == 2:
        return _turned(mask)
    valid, resets = (_turned(m) for m in mask)
    return torch.stack([valid, torch.cat([torch.zeros_like(resets[:, :1]), resets[:, :-1]], 1)])


def _turned(tensor: Tensor) -> Tensor:
    """The last step first."""
    return tensor.flip(1)
