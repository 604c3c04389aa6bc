"""A cell -> a node of ONNX where its equations are one's, else a Scan.

Sequences have their steps first here and are in the order of time, whichever way a cell runs.

Non-Goals: layers of layers (`layer_graph`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from rnncc.artifact.cell import SHOWN, VALID, CellDescription, Variant
from rnncc.common.result_roles import final_name
from rnncc.driver import Derivation
from rnncc.emit.onnx.graph import GraphWriter
from rnncc.emit.onnx.program import ProgramWriter
from rnncc.export.to_onnx.recognition import Recognised, recognised
from rnncc.export.to_onnx.standard_node import NodeInputs, standard_node
from rnncc.export.to_onnx.traced import TracedWeight, traced
from rnncc.frontend.spec import CellSpec
from rnncc.ir.program import Program
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
class CellGraph:
    """A cell with its weights and constants: arrays, or names of values of the graph.

    variant: of a call at inference without a mask.
    """

    spec: CellSpec
    cell: CellDescription
    sizes: Mapping[str, int]
    rates: Mapping[str, np.ndarray]
    variant: Variant
    arrays: Mapping[str, np.ndarray]
    names: Names = field(default_factory=dict)

    @classmethod
    def of(cls, layer: Layer) -> CellGraph:
        """Of a layer of one cell that was checked."""
        rates = {n: np.asarray(r) for n, r in layer._chosen.rates.items()}
        arrays = {**layer.weights, **layer.constants}
        spec: CellSpec = layer.maker.spec  # type: ignore[attr-defined]
        return cls(spec, layer.cell, layer.sizes, rates, layer.plain_variant, arrays)

    def program(self, *, masked: bool) -> Program:
        """As it is lowered."""
        derivation = Derivation.of(self.spec, self.cell)
        return derivation.programs(replace(self.variant, mask=masked)).lowered

    def recognised(self) -> Recognised | None:
        """The node that it is."""
        if self.names:
            return self._traced.node if self._traced is not None else None
        arrays = {**self.arrays, **self.rates}
        return recognised(self.program(masked=False), self.sizes, arrays)

    def weights_of(self, node: Recognised, w: GraphWriter) -> Names | None:
        """Names of the node's arrays. None: they can't be put together of values of the graph."""
        if self.names:
            return self._traced.names(w, self.names) if self._traced is not None else None
        return {n: w.constant(a[None].astype(w.dtype), n) for n, a in node.arrays.items()}

    @cached_property
    def _traced(self) -> TracedWeight | None:
        declared = (*self.cell.weights, *self.cell.constants)
        shapes = {a.name: array_shape(a, self.sizes) for a in declared}
        return traced(self.program(masked=False), self.sizes, shapes, self.rates)


@dataclass(frozen=True)
class CellWriter:
    """form: "auto": ONNX's nodes where runtimes have them, "node": always nodes, "scan": never."""

    writer: GraphWriter
    form: str = "auto"

    def cell(self, cell: CellGraph, given: LayerInputs, last_only: bool) -> dict[str, str]:
        """Outputs, of every step or of the one that runs last, and last states. ValueError for
        what has no such form."""
        found = self._written(cell, given)
        if last_only:
            place = self.writer.constant(np.array(0 if given.backwards else -1, np.int64), "last")
            for output in cell.cell.outputs:
                name = found[output.name]
                found[output.name] = self.writer.node("Gather", name, place, axis=0, like="last")
        return found

    def _written(self, cell: CellGraph, given: LayerInputs) -> dict[str, str]:
        node = None
        if self.form != "scan":
            node = cell.recognised()
        masked = bool(given.valid) != bool(given.lengths)
        if node is not None and self._is_run(node) and not masked:
            weights = cell.weights_of(node, self.writer)
            if weights is not None:
                return self._as_node(cell, node, weights, given)
        if self.form == "node":
            why = "a mask other than lengths" if node is not None and masked else "its equations"
            raise ValueError(f"ONNX has no node for {cell.cell.name} ({why}): form='scan' has one")
        program = cell.program(masked=bool(given.valid))
        arrays = {**cell.arrays, **cell.rates}
        written = ProgramWriter(self.writer, program, cell.sizes, arrays, backwards=given.backwards)
        begun = {**self._states(cell, given), **self._masks(given)}
        return written.results({**cell.names, **given.arrays, **begun})

    def _is_run(self, node: Recognised) -> bool:
        """Whether onnxruntime computes what the operator's text says."""
        if self.form == "node":
            return True
        clipped = node.operator == "LSTM" and node.clip is not None
        return self.writer.dtype == "float32" and not clipped

    def _as_node(
        self, cell: CellGraph, node: Recognised, weights: Names, given: LayerInputs
    ) -> dict[str, str]:
        zeros = {s.name for s in cell.cell.states if not s.default} - given.arrays.keys()
        begun = self._states(cell, given, without=zeros)
        (x,) = cell.cell.inputs
        inputs = NodeInputs(
            given.arrays[x.name],
            tuple("" if n in zeros else begun[n] for n in node.states),
            given.lengths,
            given.valid,
            given.zeros,
            given.backwards,
        )
        y, lasts = standard_node(self.writer, node, weights, inputs)
        finals = {final_name(n): v for n, v in zip(node.states, lasts, strict=True)}
        return {cell.cell.outputs[0].name: y} | finals

    def _states(
        self, cell: CellGraph, given: LayerInputs, without: Collection[str] = ()
    ) -> dict[str, str]:
        """Where every state starts."""
        w, found = self.writer, {}
        for state in cell.cell.states:
            if state.name in given.arrays:
                found[state.name] = given.arrays[state.name]
                continue
            if state.name in without:
                continue
            shape = array_shape(state, cell.sizes)
            value = cell.names.get(state.default or "", "")
            if not value:
                array = cell.arrays[state.default] if state.default else np.zeros(())
                value = w.constant(np.asarray(array, w.dtype), f"start_{state.name}")
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
