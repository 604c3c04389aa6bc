"""Layers made of layers, traced: every part hands out all that its cell names.

    cell_0.f, cell_0.h, cell_1.f, ...                  of a stack
    forward.f, ..., backward.f, ..., h                 of both directions, in time's order, merged

A part is traced by a twin of its layer, the whole by an engine over the twins' engines. Nothing is
fused away here: each part runs over all steps, then the next.

Non-Goals: gradients of traces; what a cell of one part names (`compiler`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from rnncc.artifact.cell import STEP_FLAGS, Array, CellDescription, Variant
from rnncc.common.result_roles import final_name
from rnncc.layers.directions import DirectionsEngine
from rnncc.layers.merges import Merge, turned
from rnncc.layers.parts import Part
from rnncc.layers.stack import StackEngine
from rnncc.runtime.api.layer_options import BoundCell, Engine, Tensors
from rnncc.runtime.common.memory_pool import write_into
from rnncc.runtime.traces.traced_cell import TracedCell, TracedValue, twin

NOTHING: Tensors = MappingProxyType({})
Joins = Callable[[Sequence[Engine]], Any]


def traced_part(cell: CellDescription, parts: Sequence[Part]) -> TracedCell:
    """Of a layer with one cell, whose names are its own."""
    (part,) = parts
    traced = part.layer._traced()
    outputs = traced.binding.cell.outputs
    own = replace(part, layer=twin(part.layer, traced))
    return replace(traced, binding=BoundCell(replace(cell, outputs=outputs), own.engine))


def traced_stack(cell: CellDescription, parts: Sequence[Part]) -> TracedCell:
    """Of cells on top of each other."""
    joins: Joins = lambda engines: TracedStackEngine(parts, engines)  # noqa: E731
    traced = _joined(cell, parts, cell.outputs, (), joins)
    last = parts[-1]
    above = [(o, last.name(name)) for o, name in last.layer._traced().outputs]
    return replace(traced, outputs=tuple(above))


def traced_directions(cell: CellDescription, parts: Sequence[Part], merge: Merge) -> TracedCell:
    """Of both directions. Masked steps are zeros, as their outputs are."""
    own = cell.outputs if merge.mode is not None else ()  # apart, each is a part's
    values = tuple(TracedValue(o.name, o.name) for o in own)
    joins: Joins = lambda engines: TracedDirectionsEngine(parts, engines, merge)  # noqa: E731
    traced = _joined(cell, parts, own, values, joins)
    pairs = [(o.name, o.name) for o in own]
    if not own:
        for part in parts:
            pairs += [(part.name(o), part.name(n)) for o, n in part.layer._traced().outputs]
    return replace(traced, outputs=tuple(pairs), zeros=True)


def _joined(
    cell: CellDescription,
    parts: Sequence[Part],
    own: Sequence[Array],
    merged: Sequence[TracedValue],
    joins: Joins,
) -> TracedCell:
    """own: outputs of the whole that aren't called as a part's; merged: values that no part has."""
    traced = [part.layer._traced() for part in parts]
    twins = [
        replace(part, layer=twin(part.layer, t)) for part, t in zip(parts, traced, strict=True)
    ]
    outputs = [part.array(o) for part in twins for o in part.cell.outputs]
    described = replace(cell, outputs=(*outputs, *own))

    def engine(variant: Variant) -> Any:
        return joins([part.engine(variant) for part in twins])

    pairs = [*zip(parts, traced, strict=True)]
    values = [v for part, t in pairs for v in t.values_as(part.prefix)]
    values += merged
    left_out = [one for part, t in pairs for one in t.left_out_as(part.prefix)]
    return TracedCell(BoundCell(described, engine), tuple(values), (), tuple(left_out))


def _named(part: Part, found: Tensors) -> dict[str, Any]:
    """Results of a part by their names outside."""
    finals = {final_name(s.name): final_name(part.name(s.name)) for s in part.cell.states}
    return {finals.get(n) or part.name(n): array for n, array in found.items()}


class TracedStackEngine(StackEngine):
    """The inference of a `StackEngine`, of every step, with what every cell hands out."""

    def forward(  # type: ignore[override]
        self,
        arrays: Tensors,
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        *,
        version: Any,
        out: Tensors = NOTHING,
        **_: Any,
    ) -> tuple[dict[str, np.ndarray], None]:
        """See `layer_options.Engine`."""
        results: dict[str, np.ndarray] = {}
        feed = {n: arrays[n] for n in self.first}
        flags = {n: arrays[n] for n in STEP_FLAGS if n in arrays}
        for k, (part, engine) in enumerate(zip(self.parts, self.engines, strict=True)):
            found, _saved = engine.forward(
                {**self.given(k, arrays), **feed, **flags},
                part.sizes(sizes),
                batch,
                time,
                version=version[k],
                save=False,
                last_only=False,
            )
            results |= _named(part, found)
            feed = self.read(k, found)
        results |= {o.name: found[o.name] for o in self.parts[-1].cell.outputs}
        return write_into(out, results), None


class TracedDirectionsEngine(DirectionsEngine):
    """The inference of a `DirectionsEngine`, of every step, with what both directions hand out."""

    def forward(  # type: ignore[override]
        self,
        arrays: Tensors,
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        *,
        version: Any,
        out: Tensors = NOTHING,
        **_: Any,
    ) -> tuple[dict[str, np.ndarray], None]:
        """See `layer_options.Engine`."""
        own_sizes = [part.sizes(sizes) for part in self.parts]
        merged, places = self.merge.places(own_sizes, (batch, time), {}, self.dtype)
        results: dict[str, np.ndarray] = {}
        for side, (part, engine) in enumerate(zip(self.parts, self.engines, strict=True)):
            found, _saved = engine.forward(
                self._given(side, arrays, False),
                own_sizes[side],
                batch,
                time,
                version=version[side],
                save=False,
                last_only=False,
            )
            finals = {final_name(s.name) for s in part.cell.states}
            timely = {n: turned(side, a, n not in finals) for n, a in found.items()}
            for name, place in places[side].items():
                place[...] = timely[name]
            results |= _named(part, timely)
        self.merge(places, merged, True)
        return write_into(out, results | merged), None
