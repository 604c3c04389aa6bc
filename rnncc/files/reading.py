"""A file of any format here, told by its first bytes.

Non-Goals: the formats, a module each.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from contextlib import closing
from typing import BinaryIO

from rnncc.files.archive import Archive
from rnncc.files.errors import FileError
from rnncc.files.hdf5 import read_hdf5
from rnncc.files.json_text import read_json
from rnncc.files.keras_files import CONFIG, WEIGHTS, read_keras
from rnncc.files.npz import read_npz
from rnncc.files.onnx_files import read_onnx
from rnncc.files.safetensors_files import read_safetensors
from rnncc.files.tensors import Tensors
from rnncc.files.torch_files import LEGACY, is_torch_archive, read_torch

READ = "safetensors, .npz, HDF5, .keras, torch's state_dict, ONNX and JSON"


def read(path: str | os.PathLike[str]) -> Tensors:
    """All arrays of a file, by name, whatever its extension.

    FileError (a ValueError): where and what is wrong with it, or which library is missing to read
    it. OSError as the system says. Nothing of the file is executed, unpickled or followed to
    elsewhere, and memory is the file's own size and some more, whatever it says.
    """
    where = os.fspath(path)
    with opened(where) as file:
        return _READERS[_format(file, where)](file, where)


def format_of(path: str | os.PathLike[str]) -> str:
    """What `read` would call it. FileError for none of them."""
    where = os.fspath(path)
    with opened(where) as file:
        return _format(file, where)


def opened(where: str) -> BinaryIO:
    """A file, and nothing that has no end or waits for another program."""
    mode = os.stat(where).st_mode
    if stat.S_ISDIR(mode):
        raise FileError(where, "it is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise FileError(where, "it is no regular file")
    return open(where, "rb")


def _format(file: BinaryIO, where: str) -> str:
    head = file.read(4096)
    if not head:
        raise FileError(where, "it is empty")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_format(file, where)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head.startswith(b"\x93NUMPY"):
        raise FileError(where, "it is one array without a name: numpy.savez gives it one")
    if head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 2**40:
        return "safetensors"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return "json"
    if head.startswith(LEGACY):
        return "torch"
    if head.startswith(b"\x80"):
        raise FileError(where, "it is a pickle, which is never unpickled: save a state_dict")
    if head[:1] == b"\x08":
        return "onnx"  # its first field, the version of the format; it has no other mark
    raise FileError(where, f"it is of no format that is read: {READ}")


def _zip_format(file: BinaryIO, where: str) -> str:
    with closing(Archive(file, where)) as archive:
        names = archive.names
    if CONFIG in names and WEIGHTS in names:
        return "keras"
    if is_torch_archive(names):
        return "torch"
    if names and all(n.endswith(".npy") for n in names):
        return "npz"
    held = ", ".join(names[:5])
    raise FileError(where, f"a zip archive of no kind that is read; it holds {held or 'nothing'}")


def _unzipped(reader: Callable[[Archive], Tensors]) -> Callable[[BinaryIO, str], Tensors]:
    def read_archive(file: BinaryIO, where: str) -> Tensors:
        with closing(Archive(file, where)) as archive:
            return reader(archive)

    return read_archive


def _read_torch(file: BinaryIO, where: str) -> Tensors:
    length = os.fstat(file.fileno()).st_size
    file.seek(0)
    if file.read(len(LEGACY)) == LEGACY:
        return read_torch(file, where, None, length)
    with closing(Archive(file, where)) as archive:
        return read_torch(file, where, archive, length)


_READERS = {
    "onnx": read_onnx,
    "torch": _read_torch,
    "safetensors": read_safetensors,
    "json": read_json,
    "hdf5": lambda file, where: read_hdf5(where, where),
    "npz": _unzipped(read_npz),
    "keras": _unzipped(read_keras),
}
