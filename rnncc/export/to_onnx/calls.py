"""A layer's call as its user sees it -> the same over sequences that have their steps first.

    x [batch, time, ...] or [time, batch, ...]  ->  y, and last states

Non-Goals: names of a model's inputs and outputs (`door`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rnncc.common.result_roles import final_name
from rnncc.emit.onnx.graph import GraphWriter
from rnncc.export.to_onnx.cell_graph import LayerInputs
from rnncc.export.to_onnx.layer_graph import LayerWriter
from rnncc.runtime.api.layer import Layer

Names = Mapping[str, str]


@dataclass(frozen=True)
class CallNames:
    """Names of what a call is given. inputs: its arguments. states: those that are given. lengths:
    int64 [batch], mask: bools [batch, time]; one of them, or "" both."""

    inputs: Names
    states: Names = field(default_factory=dict)
    lengths: str = ""
    mask: str = ""


def called(writer: LayerWriter, layer: Layer, given: CallNames) -> tuple[list[str], list[str]]:
    """Outputs in order, and all last states. The first input says how many rows and steps."""
    w, arrays = writer.writer, {**given.states}
    ranks = {a.name: 2 + len(a.shape) for a in layer.cell.inputs}
    for name in layer.cell.arguments:
        value = given.inputs[name]
        arrays[name] = (
            steps_first(w, value, ranks[name])
            if name in ranks and not (layer.time_major)
            else value
        )
    first = arrays[layer.cell.inputs[0].name]
    valid = _valid(w, given, first)
    last_only = not layer.return_sequences
    found = writer.results(
        layer,
        LayerInputs(
            arrays,
            w.size(first, 1),
            valid,
            given.lengths,
            layer.zero_output_for_mask and layer.return_sequences,
            layer.go_backwards,
        ),
        last_only,
    )
    outputs = []
    for output in layer.cell.outputs:
        y = found[output.name]
        if not last_only:
            y = flipped(w, y) if layer.go_backwards else y  # in the order in which they run
            y = y if layer.time_major else steps_first(w, y, 2 + len(output.shape))
        outputs.append(y)
    return outputs, [found[final_name(s.name)] for s in layer.cell.states]


def steps_first(w: GraphWriter, value: str, rank: int) -> str:
    """[B, T, ...] -> [T, B, ...], and back."""
    return w.node("Transpose", value, perm=[1, 0, *range(2, rank)])


def flipped(w: GraphWriter, value: str) -> str:
    """The last step first."""
    end = np.iinfo(np.int64).min
    return w.node("Slice", value, w.whole(-1), w.whole(end), w.whole(0), w.whole(-1))


def _valid(w: GraphWriter, given: CallNames, first: str) -> str:
    """Bools [T, B]; "" where every step counts."""
    if given.mask:
        return steps_first(w, given.mask, 2)
    return valid_steps(w, given.lengths, first) if given.lengths else ""


def valid_steps(w: GraphWriter, lengths: str, first: str) -> str:
    """Bools [T, B]: lengths int64 [B], of what has as many steps as `first`."""
    zero, one = (w.constant(np.array(n, np.int64), "step") for n in (0, 1))
    end = w.node("Squeeze", w.size(first, 0), w.whole(0))
    steps = w.node("Unsqueeze", w.node("Range", zero, end, one), w.whole(1))
    return w.node("Less", steps, w.node("Unsqueeze", lengths, w.whole(0)))
