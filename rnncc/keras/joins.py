"""Cells inside a layer: their sizes, variables and states as those of the whole.

Non-Goals: how they are joined (`rnncc.layers.parts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import tree


def joined_sizes(native: Any, cells: Sequence[Any]) -> dict[str, int]:
    """Sizes of the parts of a layer by their names in the whole."""
    pairs = zip(native.parts, cells, strict=True)
    return {part.size(n): v for part, cell in pairs for n, v in cell.own_sizes().items()}


def joined_variables(native: Any, cells: Sequence[Any]) -> dict[str, Any]:
    """Variables likewise."""
    pairs = zip(native.parts, cells, strict=True)
    return {part.name(n): v for part, cell in pairs for n, v in cell.own_variables().items()}


def grouped(cell: Any, states: Sequence[Any]) -> list[Any]:
    """Flat states as they are returned: together where a stacked cell has several."""
    leaves, rest = cell.leaves(), iter(states)
    if len(leaves) == 1:
        return [*states]
    groups = [[next(rest) for _ in range(leaf.state_count)] for leaf in leaves]
    return [g[0] if len(g) == 1 else g for g in groups if g]


def flat_states(cell: Any, given: Any) -> list[Any]:
    """States one after another. ValueError for too many or too few."""
    flat, names = tree.flatten(given), [s.name for s in cell.description.states]
    if len(flat) != len(names):
        raise ValueError(
            f"{cell.name} has {len(names)} states ({', '.join(names)}), {len(flat)} were given"
        )
    return flat
