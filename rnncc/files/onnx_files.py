"""The arrays of an ONNX model: its initializers. Read by the onnx package.

Non-Goals: what its nodes compute (`models`). Nothing of it is executed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rnncc.files import limits
from rnncc.files.errors import FileError
from rnncc.files.needed import needed
from rnncc.files.onnx_wire import Stored, cut_apart
from rnncc.files.tensors import Tensors, checked_name, from_bfloat16, sized

RECURRENT = {
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
}
MOST_BYTES = 2**31 - 1  # of a protobuf message


def read_onnx(file: BinaryIO, where: str) -> Tensors:
    """Initializers and values of Constant nodes, by name. metadata: "recurrent", for each RNN, GRU
    and LSTM node of the graph, in order: its "name", "op", "inputs" (names by ONNX's: W, R, B, P)
    and "attributes".
    """
    with needed("onnx", where):
        import onnx
    limits.check_count(where, os.fstat(file.fileno()).st_size, MOST_BYTES, "bytes of protobuf")
    data, stored = cut_apart(file, Path(where))
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError
        raise FileError(where, f"it is no whole ONNX model: {error!s:.200}") from None
    graph = model.graph
    if not model.HasField("graph") or not (graph.node or graph.initializer):
        raise FileError(where, "it is no ONNX model: it has no graph, or an empty one")
    if graph.sparse_initializer:
        raise FileError(where, "it has sparse tensors, which aren't read: make them dense")
    folder = Path(where).resolve().parent
    arrays: dict[str, np.ndarray] = {}
    left = MOST_BYTES  # of numbers in other files
    for i, (name, tensor) in enumerate(_tensors(graph)):
        label = f"{where}: tensor {checked_name(where, name)}"
        if name in arrays:
            raise FileError(label, "it is there twice")
        limits.check_count(where, len(arrays) + 1, limits.TENSORS, "tensors")
        is_outside = tensor.data_location == onnx.TensorProto.EXTERNAL
        arrays[name] = _array_of(onnx, tensor, label, folder, stored.get(i), left)
        left -= arrays[name].nbytes if is_outside else 0
    nodes = [_described(onnx, n, where) for n in graph.node if n.op_type in RECURRENT]
    return Tensors(where, "onnx", arrays, {"recurrent": nodes})


def _tensors(graph: Any) -> Iterator[tuple[str, Any]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant" and node.output and len(node.attribute) == 1:
            if node.attribute[0].HasField("t"):
                yield node.output[0], node.attribute[0].t


def _array_of(
    onnx: Any, tensor: Any, label: str, folder: Path, stored: Stored | None, left: int
) -> np.ndarray:
    """A TensorProto's numbers. stored: where they lie, if they were cut out. left:
    bytes that other files may hold."""
    if tensor.data_type == onnx.TensorProto.STRING:
        raise FileError(label, "it holds texts, not numbers")
    array = taken_out(tensor, label, folder, stored, left, 0)
    if array is not None:
        return array
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        size = sized(label, tuple(tensor.dims), dtype.itemsize)
        limits.check_unpacked(label, size, tensor.ByteSize())
        array = np.asarray(onnx.numpy_helper.to_array(tensor))
    except FileError:
        raise
    except Exception as error:  # the library's, NumPy's
        raise FileError(label, f"its numbers aren't those of its shape: {error!s:.200}") from None
    if dtype.name == "bfloat16":
        return from_bfloat16(array.view(np.uint16))
    return array


def taken_out(
    tensor: Any,
    label: str,
    folder: Path | None,
    stored: Stored | None,
    most: int,
    least: int,
) -> np.ndarray | None:
    """The numbers of a TensorProto that lie elsewhere: out of the model's file, where they were
    cut out, or in a file beside it. None where it holds them itself, afterwards: so do those of
    less than so many bytes, and of types that NumPy hasn't.

    folder: where files beside it may lie; None: nowhere. most: bytes. FileError.
    """
    if tensor.data_location == 1:  # EXTERNAL
        stored = _beside(tensor, label, folder, most)
        del tensor.external_data[:]
        tensor.data_location = 0
    if stored is None:
        return None
    found = stored.numbers_of(tensor, label) if stored.length >= least else None
    if found is None:
        tensor.raw_data = stored.read(label).tobytes()
    return found


def _beside(tensor: Any, label: str, folder: Path | None, most: int) -> Stored:
    """Where a tensor's numbers are in a file beside the model or below."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    if folder is None or not location:
        raise FileError(label, "its numbers are in another file, which can't be there")
    shown = f"{location!r:.200}"
    try:
        place = (folder / location).resolve()
        if Path(location).is_absolute() or folder.resolve() not in place.parents:
            raise FileError(label, f"its numbers are in {shown}, outside of the model's folder")
        if not place.is_file():
            raise FileError(label, f"its numbers are in {shown}, which is no file")
        offset, size = int(said.get("offset", 0)), place.stat().st_size
        length = int(said.get("length", size - offset))
    except FileError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # of links in a circle, the last
        raise FileError(label, f"its numbers in {shown} can't be read: {error}") from None
    if offset < 0 or length < 0 or offset + length > size:
        raise FileError(label, f"{shown} has {size} bytes, none of {length} at {offset}")
    if length > most:
        raise FileError(label, f"with its {length} bytes the model is larger than {MOST_BYTES}")
    return Stored(place, offset, length)


def _described(onnx: Any, node: Any, where: str) -> dict[str, Any]:
    names = zip(RECURRENT[node.op_type], node.input, strict=False)
    attributes = {}
    for attribute in node.attribute:
        try:
            value = onnx.helper.get_attribute_value(attribute)
        except Exception as error:  # the library's ValueError
            raise FileError(f"{where}: node {node.name}", f"an attribute: {error!s:.200}") from None
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, list | tuple):
            value = [v.decode(errors="replace") if isinstance(v, bytes) else v for v in value]
        attributes[attribute.name] = value
    return {
        "name": node.name,
        "op": node.op_type,
        "inputs": {n: value for n, value in names if value},
        "attributes": attributes,
    }
