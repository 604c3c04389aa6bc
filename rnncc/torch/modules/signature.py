"""What a module's forward takes: inputs of a layer -> the arguments of a step.

    forward(x, state)                layer(x), layer((a, b)) where x is a tuple, layer({...})
    forward(x, state, gap, memory)   layer((x, gap, memory)), layer({"x": ..., "gap": ...})

Non-Goals: what comes out (`rnncc.torch.reading.steps`).
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rnncc.runtime.api.validation import an
from rnncc.torch.reading.steps import Arguments


@dataclass(frozen=True, slots=True)
class ForwardSignature:
    """first: of forward, the name of its first parameter; more: of those behind the state.
    contexts: names, or places, of what is the same at every step."""

    first: str
    more: tuple[str, ...]
    contexts: tuple[str | int, ...]

    @classmethod
    def of(cls, cell: torch.nn.Module, contexts: Collection[str | int]) -> ForwardSignature:
        """TypeError for a forward that takes no state."""
        known = [
            p
            for p in inspect.signature(cell.forward).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        if len(known) < 2:
            name = type(cell).__name__
            raise TypeError(
                f"{name}.forward{inspect.signature(cell.forward)} isn't a step: a cell's forward "
                "takes (x, state), x of one step, and gives (y, state), or the state alone"
            )
        if isinstance(contexts, str | int):
            contexts = (contexts,)
        return cls(known[0].name, tuple(p.name for p in known[2:]), tuple(contexts))

    def call(self, cell: torch.nn.Module, inputs: Any, state: Any) -> Any:
        """One step. inputs: a tensor or a tree of a step's, as the layer is given."""
        if self.more and isinstance(inputs, dict) and self.first in inputs:
            rest = {n: v for n, v in inputs.items() if n != self.first}
            return cell(inputs[self.first], state, **rest)
        if self.more and type(inputs) in (tuple, list) and len(inputs) > 1:
            return cell(inputs[0], state, *inputs[1:])
        return cell(inputs, state)

    def names(self, inputs: Any, count: int) -> tuple[str, ...]:
        """Of the tensors that inputs have, in the order of their tree."""
        if count == 1:
            return (self.first,)
        if isinstance(inputs, dict) and len(inputs) == count:
            return tuple(str(n) for n in inputs)
        if isinstance(inputs, tuple) and hasattr(inputs, "_fields") and len(inputs) == count:
            return tuple(inputs._fields)
        if self.more and count <= 1 + len(self.more):
            return (self.first, *self.more)[:count]
        return tuple(f"{self.first}_{i + 1}" for i in range(count))

    def arguments(self, inputs: Any, name: str, time_major: bool) -> Arguments:
        """Of a layer's inputs. TypeError and ValueError for what can't be any."""
        leaves, tree = pytree.tree_flatten(inputs)
        names = self.names(inputs, len(leaves))
        for own, t in zip(names, leaves, strict=True):
            if not isinstance(t, Tensor):
                raise TypeError(f"{own} of {name} is {an(type(t).__name__)}: give a torch tensor")
        same = self._contexts(names, name)
        rows = []
        for number, t in enumerate(leaves):
            least = 1 if number in same else 2
            if t.dim() < least:
                axes = "[batch, ...]" if number in same else "[batch, time, ...]"
                raise ValueError(f"{names[number]} of {name} is {[*t.shape]}, expected {axes}")
            rows.append(tuple(t.shape[least:]))
        if len(same) == len(leaves):
            raise TypeError(f"all inputs of {name} are contexts: one has to have steps")
        return Arguments(tree, names, tuple(rows), same)

    def _contexts(self, names: Sequence[str], name: str) -> frozenset[int]:
        found = set()
        for which in self.contexts:
            if which in names:
                found.add(names.index(str(which)))
            elif isinstance(which, int) and 0 <= which < len(names):
                found.add(which)
            else:
                raise ValueError(f"contexts of {name} has {which!r}, its inputs are {[*names]}")
        return frozenset(found)
