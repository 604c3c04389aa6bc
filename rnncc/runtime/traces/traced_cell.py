"""A cell that returns all that its equations name, and a layer that runs it in another's place.

    layer ─twin→ the same weights, states and options, another cell ─call→ CellTrace

Non-Goals: making that cell (`compiler`); calling it (`Layer.trace`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

_L = TypeVar("_L")


@dataclass(frozen=True, slots=True)
class TracedValue:
    """One value of the equations. name: as the user wrote it; result: the output that holds it;
    is_flag: true or false, which kernels hand out as 1 and 0."""

    name: str
    result: str
    is_flag: bool = False


@dataclass(frozen=True, slots=True)
class TracedCell:
    """binding: the `BoundCell` whose outputs are all of these values, and the layer's own outputs
    by their own names. outputs: (name of an output
    of the layer's, name of the value that it is). left_out: names that have no array, each with
    why. zeros: masked steps are zeros."""

    binding: Any
    values: tuple[TracedValue, ...]
    outputs: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, str], ...] = ()
    zeros: bool = False

    def values_as(self, prefix: str) -> tuple[TracedValue, ...]:
        """Under the names they have outside of a part of a layer."""
        return tuple(
            replace(v, name=f"{prefix}.{v.name}", result=f"{prefix}.{v.result}")
            for v in self.values
        )

    def left_out_as(self, prefix: str) -> tuple[tuple[str, str], ...]:
        return tuple((f"{prefix}.{name}", why) for name, why in self.left_out)


def twin(layer: _L, traced: TracedCell | None = None) -> _L:
    """A layer that reads the weights of this one and starts where it would, and returns every step,
    of the traced cell or its own; whatever its calls keep, this one doesn't see."""
    made: Any = object.__new__(type(layer))
    made.__dict__.update(vars(layer))
    made.return_sequences, made.return_state = True, False
    if traced is not None:
        made._binding, made.cell = traced.binding, traced.binding.cell
    made._prepare()
    return made  # type: ignore[no-any-return]
