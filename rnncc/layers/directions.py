"""Engines of two layers -> the engine that runs one of them forwards, the other backwards.

The second reads x[:, ::-1] and writes its outputs backwards: views, nothing is copied.

Non-Goals: kernels; names of arrays (`parts`), who reads which (`wiring`); what becomes of both
outputs (`merges`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from rnncc.artifact.cell import RESTART, SHOWN, VALID
from rnncc.common.result_roles import final_name
from rnncc.layers.merges import Kept, Merge, turned
from rnncc.layers.parts import Part
from rnncc.layers.wiring import DirectionsWiring
from rnncc.runtime.api.layer_options import Engine, Tensors
from rnncc.runtime.api.masking import turned_behind
from rnncc.runtime.common.memory_pool import write_into

NOTHING: Tensors = MappingProxyType({})


@dataclass(slots=True)
class _Saved:
    """What both directions' pullbacks need, and the merge's."""

    sides: list[Any]
    merged: Kept


class DirectionsEngine(DirectionsWiring):
    """`layer_options.Engine` over those of two directions."""

    reads_gpu_arrays = False  # they are turned and merged by NumPy

    def __init__(self, parts: Sequence[Part], engines: Sequence[Engine], merge: Merge) -> None:
        super().__init__(parts)
        self.engines, self.merge = tuple(engines), merge
        self.dtype = np.dtype(parts[0].layer.dtype)
        self._lasts: list[Any] = [None] * len(engines)
        self.on_gpu = all(engine.on_gpu for engine in engines)

    # ---- forward -------------------------------------------------------------------------------

    def forward(
        self,
        arrays: Tensors,
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        *,
        version: Any,
        save: bool,
        last_only: bool,
        out: Tensors = NOTHING,
        first_step: int = 0,
        checkpoint_every: int | None = None,
        lent: frozenset[str] = frozenset(),
        carry: bool = False,
    ) -> tuple[dict[str, np.ndarray], _Saved | None]:
        """See `layer_options.Engine`."""
        lead = (batch,) if last_only else (batch, time)
        own_sizes = [part.sizes(sizes) for part in self.parts]
        results, places = self.merge.places(own_sizes, lead, out, self.dtype)
        kept: list[Any] = []
        for side, engine in enumerate(self.engines):
            part = self.parts[side]
            own_results, saved = engine.forward(
                self._given(side, arrays, last_only),
                own_sizes[side],
                batch,
                time,
                version=version[side],
                save=save,
                last_only=last_only,
                out={n: turned(side, a, not last_only) for n, a in places[side].items()},
                first_step=first_step,
                checkpoint_every=checkpoint_every,
                lent=frozenset(own for own, name in self._reads[side] if name in lent),
            )
            kept.append(saved)
            self._lasts[side] = engine.last
            for state in part.cell.states:
                results[final_name(part.name(state.name))] = own_results[final_name(state.name)]
        merged = self.merge(places, results, not last_only)
        return write_into(out, results), _Saved(kept, merged) if save else None

    def repeat(self, *_: Any, **__: Any) -> Callable[[], None]:
        """ValueError: the second direction begins with the last step."""
        raise ValueError("both directions need the whole sequence: a stream has one step's")

    def _given(self, side: int, arrays: Tensors, last_only: bool) -> dict[str, Any]:
        """What a direction reads, with its masks and where its rows start anew."""
        read = self.given(side, arrays)
        if RESTART in arrays:
            behind = arrays[RESTART]
            read[RESTART] = turned_behind(behind, arrays.get(VALID)) if side else behind
        if VALID in arrays:
            valid = read[VALID] = turned(side, arrays[VALID], True)
            # Of every step, outputs of masked ones are zeros; of the last, those of rows without
            # a valid step, in the order in which they ran.
            shown = turned(side, arrays[SHOWN], True)
            read[SHOWN] = np.logical_or.accumulate(valid, axis=1) if last_only else shown
        return read

    def keep(self, layers: int) -> None:
        """See `layer_options.Engine`."""
        for engine in self.engines:
            engine.keep(layers)

    def carried(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """See `layer_options.Engine`."""
        states = [part.name(s.name) for part in self.parts for s in part.cell.states]
        return {n: results[final_name(n)] for n in states}

    def block_steps(self, sizes: Mapping[str, int], batch: int) -> int:
        """How many steps at once need a small workspace in both directions."""
        sides = zip(self.parts, self.engines, strict=True)
        return min(engine.block_steps(part.sizes(sizes), batch) for part, engine in sides)

    # ---- backward ------------------------------------------------------------------------------

    def backward(
        self, saved: _Saved, cotangents: Tensors, wanted: frozenset[str], out: Tensors = NOTHING
    ) -> dict[str, np.ndarray]:
        """See `layer_options.Engine`. Gradients of what both read are sums."""
        results: dict[str, np.ndarray] = {}
        handed = self.merge.pullback(saved.merged, cotangents)
        for side, engine in enumerate(self.engines):
            part, reads = self.parts[side], dict(self._reads[side])
            asked = self.asked(side, wanted)
            # The second direction's share of an input is added to the first's.
            places = {
                own: self.turned(side, name, out[name])
                for own, name in self.outside[side].items()
                if own in asked and name in out and not (side and own in reads)
            }
            gradients = engine.backward(
                saved.sides[side],
                {**handed[side], **part.finals(cotangents)},
                asked,
                places,
            )
            self._lasts[side] = engine.last
            self.collect(side, gradients, results)
        return write_into(out, results)

    def collect(self, side: int, found: Tensors, results: dict[str, np.ndarray]) -> None:
        """Gradients of a direction, added to those of both."""
        for own, name in self.outside[side].items():
            if own in found:
                array = self.turned(side, name, found[own])
                if name in results:
                    np.add(results[name], array, out=results[name])
                else:
                    results[name] = array

    # ---- what ran --------------------------------------------------------------------------------

    @property
    def last(self) -> Any:
        """What the last calls ran."""
        return [*self._lasts]

    def plan(self, last: Any = None) -> str:
        """How outputs are merged, and both directions' kernels."""
        how = {
            "concat": "side by side, each direction writes its half",
            None: "apart",
        }.get(self.merge.mode, f"{self.merge.mode}, one pass over both")
        lasts = last or self.last
        lines = [f"two directions, outputs {how}; one after the other, each on all threads"]
        for part, engine, ran in zip(self.parts, self.engines, lasts, strict=True):
            plan = engine.plan(ran).splitlines()
            lines += [f"{part.prefix}:", *("  " + line for line in plan)]
        return "\n".join(lines)
