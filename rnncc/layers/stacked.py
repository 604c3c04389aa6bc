"""Layers one on top of the other -> one layer: how they are joined.

Non-Goals: what runs when (`stack`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from rnncc.artifact.cell import CellDescription
from rnncc.layers.composite import Composite, Joined
from rnncc.layers.parts import Link, Part, joined, linked, mixed
from rnncc.layers.stack import StackEngine
from rnncc.layers.stack_second import StackSecondEngine
from rnncc.layers.tracing import traced_part, traced_stack
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.layer_options import Engine, SecondEngine
from rnncc.runtime.traces.traced_cell import TracedCell


@dataclass(frozen=True)
class _Joins:
    """The engine of one layer is its own; of several, they run block by block."""

    parts: tuple[Part, ...]

    def __call__(self, engines: Sequence[Engine]) -> Engine:
        return engines[0] if len(engines) == 1 else StackEngine(self.parts, engines)


def _joined_again(whole: Any, seconds: Sequence[SecondEngine]) -> SecondEngine:
    return seconds[0] if len(seconds) == 1 else StackSecondEngine(whole, seconds)


def maker_of(layers: Sequence[Layer]) -> Joined:
    """Of layers on top of each other. ValueError when one can't read what the one below gives."""
    alone = len(layers) == 1
    parts = tuple(Part(layer, "" if alone else f"cell_{i}") for i, layer in enumerate(layers))
    cell = _described(parts)
    if alone:  # what was given to the layer is settled, otherwise it is its own cell
        cell = replace(parts[0].cell, sizes=cell.sizes, rates=cell.rates)
    return Joined(cell, parts, _Joins(parts), _joined_again)


class Stacked(Composite):
    """Layers as cells: each reads what the one below puts out."""

    def _stack(self, layers: Sequence[Layer], keywords: dict[str, Any]) -> None:
        self._compose(maker_of(layers), keywords)
        if keywords.get("seed") is None:
            seeds = [layer.seed for layer in layers]
            self.seed = seeds[0] if len(seeds) == 1 else mixed(0, " ".join(map(str, seeds)))

    def _traced(self) -> TracedCell:
        trace = traced_part if len(self.parts) == 1 else traced_stack
        return trace(self.cell, self.parts)

    def _state_groups(self) -> list[tuple[str, ...]] | None:
        if len(self.parts) == 1:
            return None
        return [tuple(p.name(s.name) for s in p.cell.states) for p in self.parts if p.cell.states]


def _described(parts: Sequence[Part]) -> CellDescription:
    """ValueError when a cell can't read what the one below puts out."""
    first, last = parts[0], parts[-1]
    links: list[Link] = []
    for below, above in pairwise(parts):
        outputs_below, inputs_above = below.cell.outputs, above.cell.inputs
        what = f"{above.prefix} ({above.cell.name}) reads what {below.prefix} puts out"
        if len(outputs_below) != len(inputs_above):
            outputs, inputs = (
                ", ".join(a.name for a in arrays) for arrays in (outputs_below, inputs_above)
            )
            raise ValueError(
                f"{what}: {len(outputs_below)} outputs ({outputs}) for "
                f"{len(inputs_above)} inputs ({inputs})"
            )
        for output, array in zip(outputs_below, inputs_above, strict=True):
            links += linked(above, array, below.array(output).shape, what)
    contexts = [first.array(c, c.name) for c in first.cell.contexts]
    contexts += [p.array(c) for p in parts[1:] for c in p.cell.contexts]
    return joined(
        "StackedRNNCells",
        parts,
        inputs=[first.array(a, a.name) for a in first.cell.inputs],
        contexts=contexts,
        outputs=[last.array(o, o.name) for o in last.cell.outputs],
        links=links,
        doc=" on ".join(p.cell.name for p in reversed(parts)),
    )
