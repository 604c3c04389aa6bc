"""rnncc.export.onnx: what is asked for, and the file that appears whole or not at all.

Non-Goals: nodes (`calls`, `parts`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rnncc.common.result_roles import final_name
from rnncc.common.version import __version__
from rnncc.emit.onnx.graph import ELEMENTS, GraphWriter, model_of
from rnncc.export.to_onnx.calls import CallNames, called
from rnncc.export.to_onnx.cell_graph import FORMS
from rnncc.export.to_onnx.layer_graph import LayerWriter, check_layer
from rnncc.export.to_onnx.parts import model_values
from rnncc.files.writing import write_whole
from rnncc.models.model import Model
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.validation import array_shape

MOST_BYTES = 2**31 - 1  # of a file, which is what protobuf can hold


def written(
    what: Layer | Model,
    path: str | os.PathLike[str],
    *,
    states: bool,
    lengths: bool,
    mask: bool,
    form: str,
) -> Path:
    """See `rnncc.export.onnx`."""
    model = graph_of(what, states=states, lengths=lengths, mask=mask, form=form)
    data = model.SerializeToString()
    write_whole(path, lambda file: file.write(data))
    return Path(path)


def graph_of(what: Any, *, states: bool, lengths: bool, mask: bool, form: str) -> Any:
    """The ModelProto."""
    if form not in FORMS:
        raise ValueError(f"form={form!r}, expected one of {', '.join(map(repr, FORMS))}")
    if lengths and mask:
        raise TypeError("lengths and mask are both asked for: a file has one of them")
    if isinstance(what, Model):
        if states or lengths or mask:
            raise TypeError("a model has the inputs it has: states, lengths and mask are a layer's")
        _check_size(what.weights.values())
        return _finished(*model_values(what, form), what.origin or "model")
    check_layer(what)
    _check_size(what.get_weights())
    return _finished(*_layer_values(what, states, lengths, mask, form), repr(what))


def _layer_values(
    layer: Layer, states: bool, lengths: bool, mask: bool, form: str
) -> tuple[LayerWriter, list[Any], list[Any]]:
    """Inputs and outputs of the graph of a layer's call."""
    w = GraphWriter(layer.dtype)
    lead = ["time", "batch"] if layer.time_major else ["batch", "time"]
    inputs = []

    def asked(name: str, dtype: str, shape: list[Any]) -> str:
        made = w.name(name)
        inputs.append(w.value(made, dtype, shape))
        return made

    cell, sizes = layer.cell, layer.sizes
    timed = {a.name: a for a in cell.inputs}
    given = {}
    for array in (*cell.inputs, *cell.contexts):
        before = lead if array.name in timed else ["batch"]
        given[array.name] = asked(array.name, w.dtype, [*before, *array_shape(array, sizes)])
    if lengths:
        more = CallNames(given, lengths=asked("lengths", "int64", ["batch"]))
    else:
        more = CallNames(given, mask=asked("mask", "bool", ["batch", "time"]) if mask else "")
    begun = {
        s.name: asked(f"initial_{s.name}", w.dtype, ["batch", *array_shape(s, sizes)])
        for s in cell.states
        if states
    }
    writer = LayerWriter(w, form)
    found, finals = called(writer, layer, CallNames(given, begun, more.lengths, more.mask))
    shown = ["batch"] if not layer.return_sequences else lead
    outputs = [
        w.value(w.last(y, o.name), w.dtype, [*shown, *array_shape(o, sizes)])
        for o, y in zip(cell.outputs, found, strict=True)
    ]
    if states or layer.return_state:
        outputs += [
            w.value(w.last(v, final_name(s.name)), w.dtype, ["batch", *array_shape(s, sizes)])
            for s, v in zip(cell.states, finals, strict=True)
        ]
    return writer, inputs, outputs


def _finished(writer: LayerWriter, inputs: list[Any], outputs: list[Any], doc: str) -> Any:
    graph = writer.writer.graph("rnncc", inputs, outputs)
    size = graph.ByteSize()
    if size > MOST_BYTES - 2**16:
        raise _too_large(size)
    return model_of(graph, "rnncc", __version__, doc)


def _check_size(arrays: Any) -> None:
    size = sum(a.nbytes for a in arrays)
    if size > MOST_BYTES:
        raise _too_large(size)


def _too_large(size: int) -> ValueError:
    return ValueError(
        f"an .onnx file holds {MOST_BYTES} bytes, this one would have {size}: export its layers "
        "one by one, or in float32"
    )


__all__ = ["ELEMENTS", "graph_of", "written"]
