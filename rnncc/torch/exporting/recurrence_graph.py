"""A recurrence over tensors of a graph -> nodes of ONNX.

    forward(key, [x, mask, states, weights]) -> [outputs, last states]

Non-Goals: torch's exporter (`translation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rnncc.artifact.cell import Variant
from rnncc.common.result_roles import final_name
from rnncc.emit.onnx.graph import GraphWriter
from rnncc.export.to_onnx.calls import flipped, steps_first, valid_steps
from rnncc.export.to_onnx.cell_graph import CellGraph, CellWriter, LayerInputs
from rnncc.torch.recurrence import Recurrence


@dataclass(frozen=True)
class GraphTensor:
    """A value of the graph. dtype: as NumPy calls it."""

    name: str
    rank: int
    dtype: str


def recurrence_nodes(
    w: GraphWriter,
    recurrence: Recurrence,
    tensors: Sequence[GraphTensor],
    *,
    given: bool,
    masked: bool,
    save: bool,
) -> list[str]:
    """Names of the results of such a call. ValueError for what has no form."""
    recipe, cell = recurrence.recipe, recurrence.cell
    at, count = len(cell.arguments), len(recurrence.owned)
    ranks = {a.name: 2 + len(a.shape) for a in cell.inputs}
    arguments = {n: t.name for n, t in zip(cell.arguments, tensors[:at], strict=True)}
    if not recipe.time_major:
        arguments |= {n: steps_first(w, arguments[n], rank) for n, rank in ranks.items()}
    first = arguments[cell.inputs[0].name]
    rows = w.size(first, 1)
    valid, lengths = _flags(w, tensors[at], first) if masked else ("", "")
    begun = tensors[at + masked : at + masked + len(recurrence.states)] if given else ()
    weights = tensors[at + masked + len(begun) :]
    writer = CellWriter(w)
    ways = []
    for number, backwards in enumerate(recipe.directions):
        own = weights[number * count : (number + 1) * count]
        states = {
            n: _direction(w, t.name, number) if recipe.stacked else t.name
            for n, t in zip(recurrence.states, begun, strict=False)
        }
        graph = _cell_graph(recurrence, [t.name for t in own])
        zeros = recipe.zeros and recipe.return_sequences
        inputs = LayerInputs(
            {**arguments, **states}, rows, valid, lengths, zeros, backwards=backwards
        )
        ways.append(writer.cell(graph, inputs, not recipe.return_sequences))
    results = []
    for output in cell.outputs:
        parts = [way[output.name] for way in ways]
        if recipe.return_sequences:
            turned = [b and not recipe.in_place for b in recipe.directions]
            parts = [flipped(w, p) if t else p for p, t in zip(parts, turned, strict=True)]
        y = w.node("Concat", *parts, axis=-1) if len(parts) > 1 else parts[0]
        if recipe.return_sequences and not recipe.time_major:
            y = steps_first(w, y, 2 + len(output.shape))
        results.append(y)
    for state in recurrence.states:
        lasts = [way[final_name(state)] for way in ways]
        if recipe.stacked:
            lasts = [w.node("Unsqueeze", last, w.whole(0)) for last in lasts]
            results.append(w.node("Concat", *lasts, axis=0) if len(lasts) > 1 else lasts[0])
        else:
            results += lasts
    if save:  # the handle of what a backward would read
        results.append(w.whole(0))
    return [w.last(name, f"result_{i}") for i, name in enumerate(results)]


def _cell_graph(recurrence: Recurrence, weights: Sequence[str]) -> CellGraph:
    spec = getattr(recurrence.recipe.layer_class.maker, "spec", None)
    if spec is None:
        raise ValueError(f"{recurrence.cell.name} is of a written module, without its equations")
    still = {r.name for r in recurrence.cell.rates if r.at_inference}
    active = frozenset(n for n, rate in recurrence.rates.items() if rate and n in still)
    return CellGraph(
        spec,
        recurrence.cell,
        recurrence.sizes,
        {n: np.asarray(r) for n, r in recurrence.rates.items()},
        Variant(active_rates=active),
        {},
        dict(zip(recurrence.owned, weights, strict=True)),
    )


def _direction(w: GraphWriter, states: str, number: int) -> str:
    place = w.constant(np.array(number, np.int64), "direction")
    return w.node("Gather", states, place, axis=0, like="state")


def _flags(w: GraphWriter, mask: GraphTensor, first: str) -> tuple[str, str]:
    """Of a mask [batch, time] or lengths [batch]: bools [T, B], and the lengths or ""."""
    if mask.rank == 3:
        raise ValueError("resets have no ONNX form: call the model once an episode")
    if mask.rank == 2:
        flags = mask.name if mask.dtype == "bool" else w.cast(mask.name, "bool")
        return steps_first(w, flags, 2), ""
    lengths = w.cast(mask.name, "int64")
    return valid_steps(w, lengths, first), lengths
