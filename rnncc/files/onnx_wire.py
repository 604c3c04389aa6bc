"""An ONNX model's bytes without the numbers of its large tensors, which stay in the file.

A message of protobuf keeps what it was parsed from as long as it lives, and each check of the onnx
package copies it more than once. So the numbers are cut out before: `raw_data` of initializers.

Non-Goals: what the rest means (`onnx_files`, `models.onnx`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rnncc.files.errors import FileError
from rnncc.files.tensors import sized

CUT_FROM = 2**22  # bytes of a file that isn't parsed as it is
LARGE = 2**16  # bytes of numbers that are cut out
MOST_FIELDS = 200_000  # of a file that is cut: looking through them takes less than a second
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # fields of ModelProto, GraphProto, TensorProto
# TensorProto's numbers of types that NumPy has.
DTYPES = {
    1: "<f4",
    2: "|u1",
    3: "|i1",
    4: "<u2",
    5: "<i2",
    6: "<i4",
    7: "<i8",
    10: "<f2",
    11: "<f8",
    12: "<u4",
    13: "<u8",
}


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor's numbers lie."""

    path: Path
    start: int
    length: int

    def read(self, label: str) -> np.ndarray:
        """The bytes. FileError where they are there no more."""
        try:
            data = np.fromfile(self.path, np.uint8, self.length, offset=self.start)
        except OSError as error:
            raise FileError(label, f"its numbers can't be read: {error}") from None
        if data.size != self.length:
            raise FileError(label, "its file changed while it was read")
        return data

    def numbers_of(self, tensor: Any, label: str) -> np.ndarray | None:
        """Those of a TensorProto; None where a library has to say what they are."""
        if tensor.data_type not in DTYPES:
            return None
        dtype = np.dtype(DTYPES[tensor.data_type])
        if sized(label, tuple(tensor.dims), dtype.itemsize) != self.length:
            expected = f"those of shape {list(tensor.dims)}"
            raise FileError(label, f"it has {self.length} bytes of numbers, not {expected}")
        return self.read(label).view(dtype).reshape(tuple(tensor.dims))


def cut_apart(file: BinaryIO, path: Path) -> tuple[bytes, dict[int, Stored]]:
    """The model's bytes without large numbers; where those lie, by the initializer's place.

    What isn't as protobuf writes it is left for protobuf to judge.
    """
    size = os.fstat(file.fileno()).st_size
    if size > CUT_FROM:
        try:
            return _Cutting(file, path).model(size)
        except _Strange:
            pass
    file.seek(0)
    return file.read(), {}


class _Strange(Exception):
    """No fields as protobuf writes them, or too many."""


@dataclass(frozen=True, slots=True)
class _Field:
    """From start to stop, with its number; what it holds begins at body."""

    number: int
    is_bytes: bool
    start: int
    body: int
    stop: int


class _Cutting:
    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.found: dict[int, Stored] = {}
        self.initializers = self.fields = 0

    def model(self, size: int) -> tuple[bytes, dict[int, Stored]]:
        parts = []
        for field in self._within(0, size):
            is_graph = field.number == _GRAPH and field.is_bytes
            parts.append(self._graph(field) if is_graph else self._bytes(field.start, field.stop))
        return b"".join(parts), self.found

    def _graph(self, graph: _Field) -> bytes:
        parts = []
        for field in self._within(graph.body, graph.stop):
            if field.number == _INITIALIZER and field.is_bytes:
                parts.append(self._tensor(field))
                self.initializers += 1
            else:
                parts.append(self._bytes(field.start, field.stop))
        return _written(_GRAPH, b"".join(parts))

    def _tensor(self, tensor: _Field) -> bytes:
        if tensor.stop - tensor.body <= LARGE:
            return self._bytes(tensor.start, tensor.stop)
        fields = [*self._within(tensor.body, tensor.stop)]
        raw = [f for f in fields if f.number == _RAW_DATA and f.is_bytes]
        if len(raw) != 1 or raw[0].stop - raw[0].body <= LARGE:
            return self._bytes(tensor.start, tensor.stop)
        length = raw[0].stop - raw[0].body
        self.found[self.initializers] = Stored(self.path, raw[0].body, length)
        rest = [self._bytes(f.start, f.stop) for f in fields if f is not raw[0]]
        return _written(_INITIALIZER, b"".join(rest))

    def _within(self, at: int, end: int) -> Iterator[_Field]:
        while at < end:
            self.fields += 1
            if self.fields > MOST_FIELDS:
                raise _Strange
            head = self._bytes(at, min(at + 20, end))
            tag, body = _varint(head, 0)
            number, kind = tag >> 3, tag & 7
            if kind == 2:
                length, body = _varint(head, body)
                stop = at + body + length
            elif kind == 0:
                stop = at + _varint(head, body)[1]
            elif kind in (1, 5):
                stop = at + body + (8 if kind == 1 else 4)
            else:
                raise _Strange
            if stop > end:
                raise _Strange
            yield _Field(number, kind == 2, at, at + body, stop)
            at = stop

    def _bytes(self, start: int, stop: int) -> bytes:
        self.file.seek(start)
        found = self.file.read(stop - start)
        if len(found) != stop - start:
            raise _Strange
        return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number, and where it ends."""
    found = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        found |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return found, at
    raise _Strange


def _written(number: int, body: bytes) -> bytes:
    """A field of bytes."""
    head, left = bytearray([number << 3 | 2]), len(body)
    while left > 127:
        head.append(left & 127 | 128)
        left >>= 7
    head.append(left)
    return bytes(head) + body
