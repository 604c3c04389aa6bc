"""NumPy's archives of arrays. Nothing in them is unpickled.

Non-Goals: what layers save (`runtime.api.weight_files`), which says whose arrays it has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.lib.format as npy

from rnncc.files.archive import Archive
from rnncc.files.errors import FileError
from rnncc.files.tensors import Tensors, checked_name, sized


def read_npz(archive: Archive) -> Tensors:
    """Arrays by their names in the archive. FileError for pickles and whatever is no array."""
    arrays = {}
    for entry in archive.names:
        name = checked_name(archive.where, entry.removesuffix(".npy"))
        if name in arrays:
            raise FileError(archive.where, f"it holds {name} twice")
        arrays[name] = _array(archive, entry, f"{archive.where}: tensor {name}")
    return Tensors(archive.where, "npz", arrays)


def _array(archive: Archive, entry: str, label: str) -> np.ndarray:
    try:
        with archive.open(entry) as file:
            shape, dtype = _header(file, label)
            if sized(label, shape, dtype.itemsize) != archive.size(entry) - file.tell():
                raise FileError(label, "it is cut, or goes on behind its end")
        with archive.open(entry) as file:
            array: np.ndarray = npy.read_array(file, allow_pickle=False)
            file.read(1)  # the end, where the checksum is looked at
    except FileError:
        raise
    except Exception as error:  # zlib's, zipfile's, NumPy's
        raise FileError(label, f"it is no array of NumPy's: {error!s:.200}") from None
    if (array.shape, array.dtype) != (shape, dtype):
        raise FileError(label, "it changed while it was read")
    return array


def _header(file: Any, label: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(file)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise FileError(label, f"its .npy format {version} is for what no weight is")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise FileError(label, "it is a pickle, which is never unpickled: save numbers")
    if dtype.kind not in "biuf":
        raise FileError(label, f"it holds {dtype} values, not numbers")
    return shape, dtype
