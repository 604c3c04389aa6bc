"""Layers -> nodes: cells, cells on top of each other, both directions.

Sequences have their steps first here and are in the order of time, whichever way a cell runs.

Non-Goals: a model's inputs and outputs (`door`); layers between recurrent ones (`parts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rnncc.artifact.cell import SHOWN, VALID
from rnncc.common.result_roles import final_name
from rnncc.compiler import Compiler
from rnncc.driver import Derivation
from rnncc.emit.onnx.graph import GraphWriter
from rnncc.emit.onnx.program import ProgramWriter
from rnncc.export.to_onnx.recognition import Recognised, recognised
from rnncc.export.to_onnx.standard_node import NodeInputs, standard_node
from rnncc.layers.bidirectional import Bidirectional
from rnncc.layers.stacked import Stacked
from rnncc.layers.wiring import DirectionsWiring, StackWiring
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.validation import array_shape

FORMS = ("auto", "node", "scan")
Names = Mapping[str, str]


@dataclass(frozen=True)
class LayerInputs:
    """Names of values. arrays: of inputs [T, B, ...], contexts [B, ...] and those states [B, ...]
    that don't start from what the cell declares. valid: bools [T, B] or "", zeros: whether outputs
    are zeros wherever it is False. lengths: int64 [B], where these say what is valid."""

    arrays: Names
    rows: str
    valid: str = ""
    lengths: str = ""
    zeros: bool = False
    backwards: bool = False


@dataclass(frozen=True)
class LayerWriter:
    """form: "auto": ONNX's nodes where runtimes have them, "node": always nodes, "scan": never.
    forms: of each cell that was written, what it became."""

    writer: GraphWriter
    form: str = "auto"
    forms: list[str] = field(default_factory=list)

    def results(self, layer: Layer, given: LayerInputs, last_only: bool) -> dict[str, str]:
        """Outputs, of every step [T, B, ...] or of the one that runs last [B, ...], and last
        states, by name. TypeError and ValueError for a layer that has no such form."""
        if isinstance(layer, Bidirectional):
            return self._directions(layer, given, last_only)
        if isinstance(layer, Stacked):
            return self._stack(layer, given, last_only)
        found = self._cell(layer, given)
        if last_only:
            place = self.writer.constant(np.array(0 if given.backwards else -1, np.int64), "last")
            for output in layer.cell.outputs:
                name = found[output.name]
                found[output.name] = self.writer.node("Gather", name, place, axis=0, like="last")
        return found

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

    # ---- cells ----

    def _cell(self, layer: Layer, given: LayerInputs) -> dict[str, str]:
        derivation = Derivation.of(layer.maker.spec, layer.cell)  # type: ignore[attr-defined]
        rates = {n: np.asarray(r) for n, r in layer._chosen.rates.items()}
        arrays = {**layer.weights, **layer.constants, **rates}
        variant = layer.plain_variant
        node = None
        if self.form != "scan":
            lowered = derivation.programs(variant).lowered
            node = recognised(lowered, layer.sizes, arrays)
        if node is not None and self._is_run(node) and bool(given.valid) == bool(given.lengths):
            self.forms.append(node.operator)
            return self._as_node(layer, node, given)
        if self.form == "node":
            why = "a mask other than lengths" if node is not None else "its equations"
            raise ValueError(f"ONNX has no node for {layer.cell.name} ({why}): form='scan' has one")
        self.forms.append("Scan")
        program = derivation.programs(replace(variant, mask=bool(given.valid))).lowered
        written = ProgramWriter(
            self.writer, program, layer.sizes, arrays, backwards=given.backwards
        )
        return written.results({**given.arrays, **self._states(layer, given), **self._masks(given)})

    def _is_run(self, node: Recognised) -> bool:
        """Whether onnxruntime computes what the operator's text says."""
        if self.form == "node":
            return True
        clipped = node.operator == "LSTM" and node.clip is not None
        return self.writer.dtype == "float32" and not clipped

    def _as_node(self, layer: Layer, node: Recognised, given: LayerInputs) -> dict[str, str]:
        begun = self._states(layer, given)
        zeros = {s.name for s in layer.cell.states if not s.default} - given.arrays.keys()
        (x,) = layer.cell.inputs
        inputs = NodeInputs(
            given.arrays[x.name],
            tuple("" if n in zeros else begun[n] for n in node.states),
            given.lengths,
            given.valid,
            given.zeros,
            given.backwards,
        )
        y, lasts = standard_node(self.writer, node, inputs)
        finals = {final_name(n): v for n, v in zip(node.states, lasts, strict=True)}
        return {layer.cell.outputs[0].name: y} | finals

    def _states(self, layer: Layer, given: LayerInputs) -> dict[str, str]:
        """Where every state starts."""
        w, found = self.writer, {}
        arrays = {**layer.weights, **layer.constants}
        for state in layer.cell.states:
            if state.name in given.arrays:
                found[state.name] = given.arrays[state.name]
                continue
            shape = array_shape(state, layer.sizes)
            start = np.zeros((), w.dtype) if state.default is None else arrays[state.default]
            value = w.constant(np.asarray(start, w.dtype), f"start_{state.name}")
            parts = [given.rows, *([w.whole(*shape)] if shape else [])]
            found[state.name] = w.node("Expand", value, w.shaped(*parts), like=state.name)
        return found

    def _masks(self, given: LayerInputs) -> dict[str, str]:
        if not given.valid:
            return {}
        w = self.writer
        if given.zeros:
            return {VALID: given.valid, SHOWN: given.valid}
        axis = w.constant(np.array(0, np.int64), "axis")
        so_far = w.node("CumSum", w.cast(given.valid, "int32"), axis, reverse=int(given.backwards))
        return {VALID: given.valid, SHOWN: w.cast(so_far, "bool")}


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
