"""What torch's ONNX exporter is told of rnncc's op.

    torch.onnx.export(model, args, "m.onnx", dynamo=True,
                      custom_translation_table=rnncc.torch.onnx_translations())

A translation writes nodes of its own graph; they go over into the exporter's, whose values stand
where the graph's inputs were. Parameters stay parameters of the file.

Non-Goals: which nodes (`recurrence_graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rnncc.torch.ops import recurrence_named
from rnncc.torch.recurrence import Recurrence


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """`custom_translation_table` of torch.onnx.export(..., dynamo=True), for models with modules
    of rnncc.torch in eval mode. ImportError: onnx or onnxscript isn't installed."""
    try:
        import onnx  # noqa: F401
        import onnx_ir  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ImportError(
            "torch.onnx.export takes onnx and onnxscript: pip install onnx onnxscript"
        ) from None
    return {torch.ops.rnncc.forward.default: _forward}


def _forward(
    key: str,
    tensors: Sequence[Any],
    seed: Tensor | None,
    training: bool,
    given: bool,
    masked: bool,
    save: bool,
) -> list[Any]:
    """Values of the results, of values of the exporter's graph."""
    from rnncc.emit.onnx.graph import GraphWriter
    from rnncc.torch.exporting.recurrence_graph import GraphTensor, recurrence_nodes

    recurrence = recurrence_named(key)
    if not isinstance(recurrence, Recurrence):
        raise ValueError(
            f"{key.partition(':')[0]} is a layer of rnncc.keras: save the model, "
            "model.save('m.keras'), and rnncc export m.keras --onnx -o m.onnx"
        )
    if training and recurrence.draws:
        raise ValueError(
            f"{recurrence.cell.name} draws random numbers in training: model.eval() before export"
        )
    # Bodies of loops keep their names, which are unlike all around them.
    w = GraphWriter(recurrence.recipe.dtype, prefix="rnncc.")
    inputs = []
    for i, tensor in enumerate(tensors):
        dtype = tensor.dtype.numpy().name
        inputs.append((w.name(f"tensor_{i}"), list(tensor.shape), dtype))
    asked = [GraphTensor(name, len(shape), dtype) for name, shape, dtype in inputs]
    results = recurrence_nodes(w, recurrence, asked, given=given, masked=masked, save=save)
    return _moved(w, inputs, results, tensors)


def _moved(
    w: Any, inputs: Sequence[tuple[str, Any, str]], results: Sequence[str], tensors: Sequence[Any]
) -> list[Any]:
    """The graph's nodes among those that the exporter is recording."""
    import onnx_ir
    import onnxscript

    recorder = onnxscript.evaluator.default()
    declared = [w.value(name, dtype, ["n"] * len(shape)) for name, shape, dtype in inputs]
    graph = onnx_ir.serde.deserialize_graph(w.graph("recurrence", declared, []))
    values = {v.name: v for v in graph.inputs}
    for (name, _, _), tensor in zip(inputs, tensors, strict=True):
        onnx_ir.convenience.replace_all_uses_with(values[name], tensor)
    found: dict[str, Any] = {}
    for held in list(graph.initializers.values()):
        constant = onnx_ir.node("Constant", [], {"value": held.const_value})
        constant.outputs[0].type, constant.outputs[0].shape = held.type, held.shape
        onnx_ir.convenience.replace_all_uses_with(held, constant.outputs[0])
        recorder.nodes.append(constant)
    for node in list(graph):
        graph.remove(node)
        recorder.nodes.append(node)
        found |= {v.name: v for v in node.outputs}
    # Names that are unlike others of the whole are the exporter's to give.
    for value in found.values():
        value.name = None
    return [found[name] for name in results]
