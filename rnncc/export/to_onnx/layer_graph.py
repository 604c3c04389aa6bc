"""Layers -> nodes: cells on top of each other, both directions.

Sequences have their steps first here and are in the order of time, whichever way a cell runs.

Non-Goals: cells (`cell_graph`); a model's inputs and outputs (`door`); layers between recurrent
ones (`parts`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rnncc.common.result_roles import final_name
from rnncc.compiler import Compiler
from rnncc.export.to_onnx.cell_graph import CellGraph, CellWriter, LayerInputs
from rnncc.layers.bidirectional import Bidirectional
from rnncc.layers.stacked import Stacked
from rnncc.layers.wiring import DirectionsWiring, StackWiring
from rnncc.runtime.api.layer import Layer


class LayerWriter(CellWriter):
    """See `CellWriter`."""

    def results(self, layer: Layer, given: LayerInputs, last_only: bool) -> dict[str, str]:
        """Outputs, of every step [T, B, ...] or of the one that runs last [B, ...], and last
        states, by name. TypeError and ValueError for a layer that has no such form."""
        if isinstance(layer, Bidirectional):
            return self._directions(layer, given, last_only)
        if isinstance(layer, Stacked):
            return self._stack(layer, given, last_only)
        return self.cell(CellGraph.of(layer), given, last_only)

    # ---- layers of layers ----

    def _stack(self, layer: Stacked, given: LayerInputs, last_only: bool) -> dict[str, str]:
        wiring = StackWiring(layer.parts)
        found: dict[str, str] = {}
        feed = {n: given.arrays[n] for n in wiring.first}
        for k, part in enumerate(layer.parts):
            own = replace(given, arrays={**wiring.given(k, given.arrays), **feed})
            last = k == len(layer.parts) - 1
            made = self.results(part.layer, own, last and last_only)
            feed = wiring.read(k, made)
            finals = {s.name: made[final_name(s.name)] for s in part.cell.states}
            found |= {final_name(part.name(n)): v for n, v in finals.items()}
        return found | {o.name: made[o.name] for o in layer.parts[-1].cell.outputs}

    def _directions(
        self, layer: Bidirectional, given: LayerInputs, last_only: bool
    ) -> dict[str, str]:
        wiring = DirectionsWiring(layer.parts, turn=lambda name: name)
        # Of the last step, a masked one's output is repeated.
        zeros = given.zeros and not last_only
        found: dict[str, str] = {}
        sides = []
        for side, part in enumerate(layer.parts):
            own = replace(
                given,
                arrays=wiring.given(side, given.arrays),
                zeros=zeros,
                backwards=given.backwards != bool(side),
            )
            made = self.results(part.layer, own, last_only)
            sides.append([made[o.name] for o in part.cell.outputs])
            finals = {s.name: made[final_name(s.name)] for s in part.cell.states}
            found |= {final_name(part.name(n)): v for n, v in finals.items()}
        names = [o.name for o in layer.cell.outputs]
        if layer.merge_mode is None:
            return found | dict(zip(names, [*sides[0], *sides[1]], strict=True))
        pairs = zip(names, sides[0], sides[1], strict=True)
        return found | {n: self._merged(layer.merge_mode, a, b) for n, a, b in pairs}

    def _merged(self, mode: str, ahead: str, back: str) -> str:
        w = self.writer
        if mode == "concat":
            return w.node("Concat", ahead, back, axis=-1)
        merged = w.node("Mul" if mode == "mul" else "Add", ahead, back)
        return w.node("Mul", merged, w.number(0.5)) if mode == "ave" else merged


def check_layer(layer: Any) -> None:
    """TypeError for what is no layer with its equations, ValueError for one that can't be a file's
    graph."""
    if not isinstance(layer, Layer):
        raise TypeError(f"{type(layer).__name__} is neither a layer nor a model of rnncc")
    if not layer.built:
        raise ValueError(f"{layer.cell.name} has no weights yet: call it, build it or load some")
    if layer.stateful:
        raise ValueError(
            f"{layer.name} is stateful, and a file keeps nothing from call to call: make the layer "
            "without it and export it with states=True"
        )
    for part in _leaves(layer):
        if not isinstance(part.maker, Compiler):
            raise TypeError(
                f"{part.cell.name} is of a written module, without its equations: make it with "
                f"rnncc.compile({part.cell.source!r})"
            )
        if part.storage or layer.storage:
            raise ValueError(
                f"weights={(part.storage or layer.storage)!r} has no ONNX form: make the layer "
                "without it"
            )
        unknown = [s.name for s in part.cell.sizes if s.name not in part.sizes]
        if unknown:
            names = ", ".join(f"{n}=..." for n in unknown)
            raise ValueError(f"the graph has every size as a number: make the layer with {names}")


def _leaves(layer: Layer) -> list[Layer]:
    parts = getattr(layer, "parts", None)
    return [layer] if parts is None else [leaf for p in parts for leaf in _leaves(p.layer)]
