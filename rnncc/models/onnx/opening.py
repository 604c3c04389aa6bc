"""The bytes of an .onnx file -> a checked ModelProto that holds all its arrays.

Tensors in files beside it are read if those lie in the model's folder. Functions of the model are
written out. Nothing of it is executed.

Non-Goals: what the nodes mean (`reader`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rnncc.files import FileError
from rnncc.files.needed import needed
from rnncc.files.onnx_files import MOST_BYTES, bring_in
from rnncc.models.onnx.settings import OPERATORS


def opened(path: str | os.PathLike[str]) -> Any:
    """onnx.ModelProto. FileError, which names the file and the node or tensor."""
    file = Path(path)
    try:
        size = file.stat().st_size
        if not file.is_file():
            raise FileError(file, "is no file")
        if size > MOST_BYTES:
            raise FileError(file, f"has {size} bytes, more than the {MOST_BYTES} of a model's file")
        data = file.read_bytes()
    except OSError as e:
        raise FileError(file, f"can't be read: {e.strerror or e}") from None
    return checked(data, file, file.parent)


def checked(data: bytes, where: object, folder: Path | None) -> Any:
    """folder: where tensors outside of the file may lie; None: nowhere."""
    onnx = library(where)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as e:  # protobuf's DecodeError, and MemoryError of its allocator
        raise FileError(where, f"is no ONNX model: {one_line(e)}") from None
    if not model.HasField("graph") or not model.graph.node:
        raise FileError(where, "is no ONNX model: it has no graph, or one of no nodes")
    _refuse_unread(model, where)
    _bring_in(model, where, folder)
    _check_operators(onnx, model, where)
    try:
        onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except Exception as e:  # the library's ValidationError, ValueError, RuntimeError, ...
        raise FileError(where, f"is no right ONNX model: {one_line(e)}") from None
    _refuse_hidden(model, where)
    return model


def check_part(model: Any, where: object) -> None:
    """Of a graph of plain operators that was saved as a part of a model. FileError."""
    onnx = library(where)
    _refuse_unread(model, where)
    _bring_in(model, where, None)
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


def _bring_in(model: Any, where: object, folder: Path | None) -> None:
    left = MOST_BYTES - model.ByteSize()
    for tensor in tensors_of(model):
        if tensor.data_location == 1:  # EXTERNAL
            left -= bring_in(tensor, f"{where}: tensor {tensor.name}", folder, left)
