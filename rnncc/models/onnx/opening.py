"""An .onnx file -> a checked ModelProto, and its large arrays beside it.

Tensors in files beside it are read if those lie in the model's folder. Functions of the model are
written out. Nothing of it is executed.

Non-Goals: what the nodes mean (`reader`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rnncc.files import FileError, limits, onnx_wire
from rnncc.files.needed import needed
from rnncc.files.onnx_files import MOST_BYTES, taken_out
from rnncc.files.onnx_wire import Stored, cut_apart
from rnncc.models.onnx.settings import OPERATORS


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """proto: onnx.ModelProto. large: numbers of initializers by name, which are inputs of `proto`;
    all others it holds."""

    proto: Any
    large: dict[str, np.ndarray]


def opened(path: str | os.PathLike[str]) -> OpenedModel:
    """FileError, which names the file and the node or tensor."""
    file = Path(path)
    onnx = library(file)
    try:
        if not file.is_file():
            file.stat()
            raise FileError(file, "is no file")
        size = file.stat().st_size
        if size > MOST_BYTES:
            raise FileError(file, f"has {size} bytes, more than the {MOST_BYTES} of a model's file")
        with file.open("rb") as opened_file:
            data, stored = cut_apart(opened_file, file)
    except OSError as e:
        raise FileError(file, f"can't be read: {e.strerror or e}") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as e:  # protobuf's DecodeError, and MemoryError of its allocator
        raise FileError(file, f"is no ONNX model: {one_line(e)}") from None
    del data
    if not model.HasField("graph") or not model.graph.node:
        raise FileError(file, "is no ONNX model: it has no graph, or one of no nodes")
    limits.check_count(os.fspath(file), len(model.graph.initializer), limits.TENSORS, "tensors")
    _refuse_unread(model, file)
    large = _take_out(model, file, file.parent, stored)
    _check_operators(onnx, model, file)
    try:
        onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except Exception as e:  # the library's ValidationError, ValueError, RuntimeError, ...
        raise FileError(file, f"is no right ONNX model: {one_line(e)}") from None
    _refuse_hidden(model, file)
    return OpenedModel(model, large)


def check_part(model: Any, where: object) -> None:
    """Of a graph of plain operators that was saved as a part of a model. FileError."""
    onnx = library(where)
    _refuse_unread(model, where)
    _take_out(model, where, None, {})
    _check_operators(onnx, model, where)
    _refuse_hidden(model, where)
    for i, node in enumerate(model.graph.node):
        if node.op_type in OPERATORS:
            raise FileError(f"{where}: {label(node, i)}", "is no plain operator")


def library(where: object) -> Any:
    with needed("onnx", str(where)):
        import onnx
        import onnx.inliner
    return onnx


def label(node: Any, index: int) -> str:
    """What messages call a node."""
    return f"node {node.name or index} ({node.op_type})"


def graphs_of(node: Any) -> Iterator[Any]:
    """Of its attributes: branches, bodies of loops."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_graphs(graph: Any) -> Iterator[Any]:
    """The graph and those of its nodes, at any depth."""
    yield graph
    for node in graph.node:
        for inner in graphs_of(node):
            yield from all_graphs(inner)


def one_line(e: BaseException) -> str:
    """What a library says, short."""
    return " ".join(str(e).split())[:300] or type(e).__name__


def _refuse_unread(model: Any, where: object) -> None:
    for graph in all_graphs(model.graph):
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise FileError(where, f"tensor {name} is sparse, which isn't read: make it dense")


def _refuse_hidden(model: Any, where: object) -> None:
    """Recurrent nodes in branches and loops would be run by whoever runs those."""
    for i, node in enumerate(model.graph.node):
        for inner in graphs_of(node):
            for graph in all_graphs(inner):
                for hidden in graph.node:
                    if hidden.op_type in OPERATORS and hidden.domain in ("", "ai.onnx"):
                        raise FileError(
                            f"{where}: {label(node, i)}",
                            f"has a {hidden.op_type} ({hidden.name or 'no name'}) in a branch or "
                            "loop, where it isn't read: export the model without",
                        )


def _check_operators(onnx: Any, model: Any, where: object) -> None:
    """That each is known to ONNX, or to onnxruntime, or is a function of the model."""
    versions = {o.domain: o.version for o in model.opset_import}
    own = {(f.domain, f.name) for f in model.functions}
    bodies = [model.graph, *model.functions]
    for body in bodies:
        for graph in [body] if body is not model.graph else all_graphs(body):
            for i, node in enumerate(graph.node):
                domain = "" if node.domain == "ai.onnx" else node.domain
                if (node.domain, node.op_type) in own or domain.startswith("com.microsoft"):
                    continue
                version = versions.get(node.domain, versions.get(domain))
                at = f"{where}: {label(node, i)}"
                if version is None:
                    raise FileError(at, f"the model imports no operators of domain {domain!r}")
                try:
                    onnx.defs.get_schema(node.op_type, version, domain)
                except Exception:  # the library's SchemaError
                    of = f" of domain {domain!r}" if domain else ""
                    raise FileError(
                        at, f"there is no operator {node.op_type}{of} in version {version}"
                    ) from None


# ---- tensors outside -----------------------------------------------------------------------------


def tensors_of(model: Any) -> Iterator[Any]:
    """Every TensorProto: initializers and attributes, at any depth, of functions, too."""
    for body in (model.graph, *model.functions):
        graphs = all_graphs(body) if body is model.graph else _of_function(body)
        for graph in graphs:
            yield from getattr(graph, "initializer", ())
            for node in graph.node:
                for attribute in node.attribute:
                    if attribute.HasField("t"):
                        yield attribute.t
                    yield from attribute.tensors


def _of_function(function: Any) -> Iterator[Any]:
    yield function
    for node in function.node:
        for inner in graphs_of(node):
            yield from all_graphs(inner)


def _take_out(
    model: Any, where: object, folder: Path | None, stored: Mapping[int, Stored]
) -> dict[str, np.ndarray]:
    """Large numbers of initializers, by name; what else lies elsewhere is put into the model.

    folder: where tensors outside of the file may lie; None: nowhere. stored: the initializers that
    were cut out of the file, by place.
    """
    left = MOST_BYTES - model.ByteSize() - sum(s.length for s in stored.values())
    initializers, large = len(model.graph.initializer), {}
    for i, tensor in enumerate(tensors_of(model)):  # the graph's initializers are the first
        label, is_outside = f"{where}: tensor {tensor.name}", tensor.data_location == 1
        least = onnx_wire.LARGE if i < initializers else MOST_BYTES
        array = taken_out(tensor, label, folder, stored.get(i), left, least)
        if array is not None:
            large[tensor.name] = array
        if is_outside:
            left -= tensor.ByteSize() if array is None else array.nbytes
    _as_inputs(model.graph, large)
    return large


def _as_inputs(graph: Any, large: Mapping[str, np.ndarray]) -> None:
    """Initializers become inputs: the library's checks would miss their numbers."""
    there = {i.name for i in graph.input}
    kept = []
    for tensor in graph.initializer:
        if tensor.name not in large:
            kept.append(tensor)
        elif tensor.name not in there:
            add_input(graph, tensor.name, tensor.data_type, tensor.dims)
    if large:
        del graph.initializer[:]
        graph.initializer.extend(kept)


def add_input(graph: Any, name: str, data_type: int, shape: Sequence[int]) -> None:
    """An input of known type and shape."""
    kind = graph.input.add(name=name).type.tensor_type
    kind.elem_type = data_type
    kind.shape.SetInParent()
    for size in shape:
        kind.shape.dim.add(dim_value=size)
