"""Engines of second derivatives of cells one on top of the other -> the one of them all.

    gradients   last cell to first, as a pullback: each hands down the cotangent of what it read
    second      first to last, through those gradients: each hands up what that cotangent gets;
                last to first, through the first pullbacks: what a cell read has a gradient now,
                and is what the one below has put out

Non-Goals: kernels; names of arrays (`parts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.common.result_roles import cotangent_name, final_name
from rnncc.layers.parts import added
from rnncc.layers.stack import StackEngine
from rnncc.runtime.api.layer_options import SecondEngine, Tensors


@dataclass(frozen=True, slots=True)
class _SavedAgain:
    """What the cells' pullbacks need, and what their second ones do, in order of the cells."""

    first: list[Any]
    again: list[Any]


class StackSecondEngine:
    """`layer_options.SecondEngine` over those of the cells, first to last."""

    def __init__(self, stack: StackEngine, seconds: Sequence[SecondEngine]) -> None:
        """stack: the engine whose forward saves what `gradients` takes."""
        self.stack, self.seconds = stack, tuple(seconds)

    def gradients(
        self, saved: Any, cotangents: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], _SavedAgain]:
        """See `layer_options.SecondEngine`."""
        stack, cells = self.stack, range(len(self.seconds))
        results: dict[str, np.ndarray] = {}
        names = [o.name for o in stack.parts[-1].cell.outputs]
        handed = {n: cotangents[n] for n in names if n in cotangents}
        kept: list[Any] = [None for _ in cells]
        for k in reversed(cells):
            own_cotangents = {**handed, **stack.parts[k].finals(cotangents)}
            gradients, kept[k] = self.seconds[k].gradients(saved.cells[k], own_cotangents)
            results |= {
                name: gradients[own] for own, name in stack.outside[k].items() if own in gradients
            }
            handed = stack.handed(k, gradients)
        return results, _SavedAgain(saved.cells, kept)

    def second(
        self, saved: _SavedAgain, cotangents: Mapping[str, np.ndarray], wanted: frozenset[str]
    ) -> dict[str, np.ndarray]:
        """See `layer_options.SecondEngine`."""
        results: dict[str, np.ndarray] = {}
        cells = self._up(saved, cotangents, wanted, results)
        handed: Tensors = {}
        for k in reversed(range(len(self.seconds))):
            asked, gradients = self.stack.asked(k, wanted), cells[k]
            if handed and asked:
                more = self.stack.engines[k].backward(saved.first[k], handed, asked)
                gradients = added(gradients, more)
            own = self.stack.outside[k].items()
            results |= {name: gradients[o] for o, name in own if o in gradients and name in wanted}
            handed = self.stack.handed(k, gradients)
        return results

    def _up(
        self,
        saved: _SavedAgain,
        cotangents: Mapping[str, np.ndarray],
        wanted: frozenset[str],
        results: dict[str, np.ndarray],
    ) -> list[dict[str, np.ndarray]]:
        """Through the cells' gradients: of each cell, what those depend on by its own names.

        What the cotangents of the whole get goes into `results`.
        """
        stack, cells = self.stack, []
        handed: dict[str, np.ndarray] = {}
        top = len(self.seconds) - 1
        for k, (part, engine) in enumerate(zip(stack.parts, self.seconds, strict=True)):
            own = stack.outside[k].items()
            own_cotangents = {o: cotangents[name] for o, name in own if name in cotangents} | handed
            outside = {final_name(s.name): final_name(part.name(s.name)) for s in part.cell.states}
            if k == top:
                outside |= {o.name: o.name for o in part.cell.outputs}
            asked = {o for o, name in outside.items() if cotangent_name(name) in wanted}
            if k < top:
                asked |= {o.name for o in part.cell.outputs}
            brought = {cotangent_name(o): o for o in asked}
            gradients: dict[str, np.ndarray] = {}
            if own_cotangents:  # else there is nothing of which this cell is a part
                names = stack.asked(k, wanted)
                gradients = engine.second(saved.again[k], own_cotangents, names.union(brought))
            back = {brought[n]: gradients.pop(n) for n in [*gradients] if n in brought}
            results |= {cotangent_name(name): back[o] for o, name in outside.items() if o in back}
            handed = stack.read(k, back)
            cells.append(gradients)
        return cells

    def plan(self) -> str:
        """Every cell's kernels."""
        lines = [f"{len(self.seconds)} cells, one after the other"]
        for part, engine in zip(self.stack.parts, self.seconds, strict=True):
            lines += [f"{part.prefix}:", *("  " + line for line in engine.plan().splitlines())]
        return "\n".join(lines)
