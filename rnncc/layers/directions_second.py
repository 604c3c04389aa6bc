"""Engines of second derivatives of two directions -> the one of both.

The gradients of either direction depend on its own arrays and on the cotangent it was handed: what
the merge's pullback made of dy. Of a product that is dy times the other direction's output, so that
there the way back goes on through the first pullbacks of both.

Non-Goals: kernels; names of arrays (`parts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.common.result_roles import cotangent_name, final_name
from rnncc.layers.directions import DirectionsEngine
from rnncc.runtime.api.layer_options import SecondEngine

Arrays = Mapping[str, np.ndarray]
Found = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class _SavedAgain:
    """What both directions' pullbacks need and their second ones; of products, dy of every step."""

    first: Any
    again: list[Any]
    dy: Found


class DirectionsSecondEngine:
    """`layer_options.SecondEngine` over those of two directions."""

    def __init__(self, both: DirectionsEngine, seconds: Sequence[SecondEngine]) -> None:
        """both: the engine whose forward saves what `gradients` takes."""
        self.both, self.seconds = both, tuple(seconds)

    def gradients(self, saved: Any, cotangents: Arrays) -> tuple[Found, _SavedAgain]:
        """See `layer_options.SecondEngine`. Gradients of what both read are sums."""
        both, again = self.both, []
        results: Found = {}
        for side, handed in enumerate(both.merge.pullback(saved.merged, cotangents)):
            own_cotangents = handed | both.parts[side].finals(cotangents)
            gradients, kept = self.seconds[side].gradients(saved.sides[side], own_cotangents)
            both.collect(side, gradients, results)
            again.append(kept)
        dy = {n: np.array(cotangents[n]) for n in saved.merged.factors if n in cotangents}
        return results, _SavedAgain(saved, again, dy)

    def second(self, saved: _SavedAgain, cotangents: Arrays, wanted: frozenset[str]) -> Found:
        """See `layer_options.SecondEngine`."""
        both = self.both
        results: Found = {}
        handed = [self._side(i, saved, cotangents, wanted, results) for i in (0, 1)]
        dy = both.merge.pullback2(saved.first.merged, handed)
        results |= {cotangent_name(n): d for n, d in dy.items() if cotangent_name(n) in wanted}
        for side, outputs in enumerate(both.merge.across(saved.first.merged, saved.dy, handed)):
            asked = both.asked(side, wanted)
            if outputs and asked:
                gradients = both.engines[side].backward(saved.first.sides[side], outputs, asked)
                both.collect(side, gradients, results)
        return results

    def _side(
        self, side: int, saved: _SavedAgain, cotangents: Arrays, wanted: frozenset[str], to: Found
    ) -> Found:
        """Through the gradients of a direction: what the cotangents of its outputs get. All else is
        added `to` those of both."""
        both, part = self.both, self.both.parts[side]
        names = {own: n for own, n in both.outside[side].items() if n in cotangents}
        own_cotangents = {own: both.turned(side, n, cotangents[n]) for own, n in names.items()}
        if not own_cotangents:
            return {}
        finals = {
            cotangent_name(final_name(s.name)): cotangent_name(final_name(part.name(s.name)))
            for s in part.cell.states
        }
        outputs = {cotangent_name(o.name): o.name for o in part.cell.outputs}
        asked = {*outputs, *(own for own, name in finals.items() if name in wanted)}
        asked |= both.asked(side, wanted)
        gradients = self.seconds[side].second(saved.again[side], own_cotangents, frozenset(asked))
        both.collect(side, gradients, to)
        to |= {name: gradients[own] for own, name in finals.items() if own in gradients}
        return {name: gradients[own] for own, name in outputs.items() if own in gradients}

    def plan(self) -> str:
        """Both directions' kernels."""
        lines = ["two directions, one after the other"]
        for part, engine in zip(self.both.parts, self.seconds, strict=True):
            lines += [f"{part.prefix}:", *("  " + line for line in engine.plan().splitlines())]
        return "\n".join(lines)
