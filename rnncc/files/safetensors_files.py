"""The safetensors format, read and written: a length, a list in JSON, the numbers.

Read here and not by its library, so that models that were saved need NumPy alone; of bfloat16,
which that library leaves to torch; and with a bound on the list before it is parsed.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from rnncc.files import limits
from rnncc.files.errors import FileError
from rnncc.files.json_text import parsed
from rnncc.files.tensors import Tensors, checked_name, from_bfloat16, sized

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}


def read_safetensors(file: BinaryIO, where: str) -> Tensors:
    """FileError where the list is none, or its tensors aren't all of the file, side by side."""
    length = os.fstat(file.fileno()).st_size
    file.seek(0)
    begin = file.read(8)
    if len(begin) < 8:
        raise FileError(where, "it is cut: it has no list of tensors")
    (header,) = struct.unpack("<Q", begin)
    if header > length - 8:
        raise FileError(where, f"it is cut: {length:,} bytes, its list alone has {header:,}")
    limits.check_count(where, header, limits.HEADER, "bytes of names")
    listed = parsed(file.read(header), f"{where}: its list of tensors")
    if not isinstance(listed, dict):
        raise FileError(where, "its list of tensors is no list")
    metadata = listed.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FileError(where, "its metadata are no texts by name")
    limits.check_count(where, len(listed), limits.TENSORS, "tensors")
    entries = {name: _entry(where, name, about) for name, about in listed.items()}
    _check_places(where, entries, length - 8 - header)
    arrays = {}
    for name, (kind, shape, start, end) in entries.items():
        file.seek(8 + header + start)
        data = np.fromfile(file, np.uint8, end - start)
        if data.size != end - start:
            raise FileError(where, f"it changed while {name} was read")
        values = data.view(DTYPES[kind])
        if kind == "BOOL" and (data > 1).any():
            raise FileError(f"{where}: tensor {name}", "it holds bools that are neither 0 nor 1")
        arrays[name] = (from_bfloat16(values) if kind == "BF16" else values).reshape(shape)
    return Tensors(where, "safetensors", arrays, metadata)


Entry = tuple[str, tuple[int, ...], int, int]  # dtype, shape, first byte, byte behind the last


def _entry(where: str, name: object, about: Any) -> Entry:
    label = f"{where}: tensor {checked_name(where, name)}"
    if not isinstance(about, dict) or about.keys() != {"dtype", "shape", "data_offsets"}:
        raise FileError(label, "it hasn't just a dtype, a shape and its offsets")
    kind, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        known = ", ".join(DTYPES)
        raise FileError(label, f"its dtype is {kind!r:.40}; those that are read: {known}")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise FileError(label, "its shape or its offsets are no lists of numbers")
    start, end = offsets
    size = sized(label, tuple(shape), np.dtype(DTYPES[kind]).itemsize)
    if not all(type(n) is int and 0 <= n < 2**62 for n in offsets) or end - start != size:
        raise FileError(
            label, f"its offsets {offsets!r:.80} aren't those of {size:,} bytes, as its shape says"
        )
    return kind, tuple(shape), start, end


def _check_places(where: str, entries: Mapping[str, Entry], length: int) -> None:
    """Side by side, from the first byte to the last: nothing twice, nothing hidden."""
    at = 0
    for name, (_, _, start, end) in sorted(entries.items(), key=lambda e: e[1][2:]):
        if start != at:
            raise FileError(
                f"{where}: tensor {name}", f"it begins at {start:,}, the one before ends at {at:,}"
            )
        at = end
    if at != length:
        behind = "is cut" if at > length else "goes on behind its last tensor"
        raise FileError(where, f"it {behind}: {length:,} bytes of numbers, listed are {at:,}")


def safetensors_writer(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> Any:
    """What `write_whole` calls with the open file. Arrays of the dtypes that are read."""
    names = {np.dtype(code): kind for kind, code in DTYPES.items() if kind != "BF16"}
    listed: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, array in arrays.items():
        kind = names[array.dtype.newbyteorder("<")]
        offsets = [at, at + array.nbytes]
        listed[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        at += array.nbytes
    text = json.dumps(listed, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def write(file: BinaryIO) -> None:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            file.write(little.reshape(-1).view(np.uint8).data)

    return write
