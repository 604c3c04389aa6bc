"""Weights to a file and back: an .npz or .safetensors of plain arrays, with a description of whose
they are.

Non-Goals: optimizer state, states of a stateful layer.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

import numpy as np
import numpy.lib.format as npy

from rnncc.artifact.cell import CellDescription
from rnncc.files.archive import Archive
from rnncc.files.safetensors_files import read_safetensors, safetensors_writer
from rnncc.files.tensors import Tensors
from rnncc.files.writing import write_whole

SAFETENSORS = ".safetensors"
_SAFETENSORS_ABOUT = "rnncc"  # in the format's own metadata
_ABOUT = "_about"  # no weight's name starts with an underscore
_MOST_ABOUT = 2**20  # bytes
_MOST_SIZE = 2**53
_MOST_ENTRY = 512  # bytes of an archive's directory that an array takes
Header = tuple[tuple[int, ...], np.dtype[Any]]


def write(
    path: str | os.PathLike[str],
    cell: CellDescription,
    sizes: Mapping[str, int],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """The file appears whole or not at all, under exactly that path. OSError as the system says.

    Of a name that ends in .safetensors: in that format, which others read, too.
    """
    about = json.dumps(_about(cell, sizes))
    if os.fspath(path).endswith(SAFETENSORS):
        write_whole(path, safetensors_writer(arrays, {_SAFETENSORS_ABOUT: about}))
        return
    text = np.frombuffer(about.encode(), dtype=np.uint8)
    write_whole(path, lambda file: np.savez(file, **{_ABOUT: text}, **arrays))  # type: ignore[arg-type]


class Weights:
    """An open file of weights: what it says of itself, and its arrays, not yet read.

    cell, sizes: whose weights they are.
    """

    def __init__(self, archive: Archive) -> None:
        self.where, self._archive = archive.where, archive
        self._entries = {n.removesuffix(".npy"): n for n in archive.names}
        if len(self._entries) < len(archive.names):
            raise ValueError("it holds a name with .npy and without")
        if _ABOUT not in self._entries:
            raise ValueError("it wasn't written by a layer's save()")
        about, start = self._header(_ABOUT)
        length = self._size(_ABOUT) - start
        if about != ((length,), np.dtype(np.uint8)) or length > _MOST_ABOUT:
            raise ValueError(f"{_ABOUT} is no text")
        self.about = _described(json.loads(bytes(self._read(_ABOUT, about)).decode()))
        self.sizes: dict[str, int] = self.about["sizes"]

    @property
    def names(self) -> list[str]:
        return [name for name in self._entries if name != _ABOUT]

    def arrays(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """All of them. ValueError before any is read where one hasn't the shape it should have."""
        headers = {}
        try:
            for name in self.names:
                headers[name], start = self._header(name)
                shape, dtype = headers[name]
                if dtype.kind not in "biuf":
                    raise ValueError(f"{name} holds {dtype} values, not numbers")
                if start + math.prod(shape) * dtype.itemsize != self._size(name):
                    raise ValueError(f"{name} is cut, or goes on behind its end")
        except Exception as error:
            raise ValueError(f"{self.where} holds no weights of a layer: {error}") from None
        for name, (shape, _) in headers.items():
            if shape != shapes[name]:
                raise ValueError(
                    f"{self.where}: weight {name} has shape {list(shape)}, "
                    f"expected {list(shapes[name])}"
                )
        try:
            return {name: self._read(name, header) for name, header in headers.items()}
        except Exception as error:
            raise ValueError(f"{self.where} holds no weights of a layer: {error}") from None

    def _size(self, name: str) -> int:
        return self._archive.size(self._entries[name])

    def _header(self, name: str) -> tuple[Header, int]:
        """An array's shape and dtype, and where its numbers begin."""
        with self._archive.open(self._entries[name]) as file:
            if npy.read_magic(file) != (1, 0):  # others are for what no weight is
                raise ValueError(f"{name} is of another kind of .npy files")
            shape, _, dtype = npy.read_array_header_1_0(file)
            return (shape, dtype), file.tell()

    def _read(self, name: str, header: Header) -> np.ndarray:
        with self._archive.open(self._entries[name]) as file:
            array: np.ndarray = npy.read_array(file, allow_pickle=False)
        if (array.shape, array.dtype) != header:
            raise ValueError(f"{name} changed while it was read")
        return array


class SafetensorsWeights:
    """The same of a .safetensors file, whose arrays are read."""

    def __init__(self, tensors: Tensors) -> None:
        self.where, self._tensors = tensors.where, tensors
        about = tensors.metadata.get(_SAFETENSORS_ABOUT)
        if about is None:
            raise ValueError(
                "it wasn't written by a layer's save(): rnncc.load_weights reads others"
            )
        if len(about) > _MOST_ABOUT:
            raise ValueError(f"{_SAFETENSORS_ABOUT} is no description")
        self.about = _described(json.loads(about))
        self.sizes: dict[str, int] = self.about["sizes"]

    @property
    def names(self) -> list[str]:
        return list(self._tensors)

    def arrays(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """All of them. ValueError where one hasn't the shape it should have."""
        for name, array in self._tensors.items():
            if array.shape != shapes[name]:
                raise ValueError(
                    f"{self.where}: weight {name} has shape {list(array.shape)}, "
                    f"expected {list(shapes[name])}"
                )
        return dict(self._tensors)


@contextmanager
def opened(
    path: str | os.PathLike[str], cell: CellDescription, *, strict: bool
) -> Iterator[Weights | SafetensorsWeights]:
    """A file of weights of this cell; of its arrays only their names are known to be right.

    ValueError: not such a file, of another cell, or (strict) of this cell's text or options as
    they were before they changed. Nothing in it is executed, and what is read of it before its
    `arrays` is short, whatever it says.
    """
    where = os.fspath(path)
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise ValueError(f"{where} holds no weights of a layer: it is not a file")
    with open(path, "rb") as file, ExitStack() as closed:
        try:
            weights: Weights | SafetensorsWeights
            if _is_safetensors(file):
                weights = SafetensorsWeights(read_safetensors(file, where))
            else:
                if file.read(4) != b"PK\x03\x04":
                    raise ValueError("it is no .npz file")
                arrays = 1 + len(cell.weights) + len(cell.constants)
                archive = Archive(file, where, _MOST_ENTRY * arrays)
                closed.callback(archive.close)
                weights = Weights(archive)
        # Whatever a damaged file makes zipfile, zlib, json and NumPy raise.
        except Exception as error:
            what = str(error).removeprefix(f"{where}: ")
            raise ValueError(f"{where} holds no weights of a layer: {what}") from None
        _compare(weights, cell, strict)
        yield weights


def _is_safetensors(file: BinaryIO) -> bool:
    head = file.read(9)
    file.seek(0)
    return head[:2] != b"PK" and head[8:] == b"{"


def _described(about: object) -> dict[str, Any]:
    """What a file says of itself, checked. ValueError names the entry that is wrong."""
    if not isinstance(about, dict):
        raise ValueError(f"{_ABOUT} is no description")
    plain = (bool, int, float, str)
    kinds: dict[str, tuple[type, ...]] = {"options": plain, "functions": (str,), "sizes": (int,)}
    description: dict[str, Any] = {}
    for name in ("cell", "sha256"):
        description[name] = about.get(name)
        if not isinstance(description[name], str | None):
            raise ValueError(f"{_ABOUT}: {name} is a text, not {description[name]!r:.80}")
    for name, kind in kinds.items():
        description[name] = about.get(name, {})
        if not isinstance(description[name], dict):
            raise ValueError(f"{_ABOUT}: {name} are given by name, not {description[name]!r:.80}")
        for key, value in description[name].items():
            if not isinstance(value, kind):
                raise ValueError(f"{_ABOUT}: {name} has {key!r:.80} = {value!r:.80}")
    for key, value in description["sizes"].items():
        if isinstance(value, bool) or not 1 <= value <= _MOST_SIZE:
            raise ValueError(f"{_ABOUT}: the size {key!r:.80} is {value!r:.80}")
    return description


def _about(cell: CellDescription, sizes: Mapping[str, int]) -> dict[str, Any]:
    return {
        "cell": cell.name,
        "sha256": cell.sha256,
        "options": dict(cell.options),
        "functions": dict(cell.functions),
        "sizes": dict(sizes),
    }


def _compare(found: Weights | SafetensorsWeights, cell: CellDescription, strict: bool) -> None:
    """ValueError unless the file's weights are called as the cell's, and mean the same."""
    where, theirs, own = found.where, found.about, _about(cell, {})
    # How a cell runs, and what it draws, is not what its weights mean.
    harmless = {"unroll", *(option for option, _ in cell.rated_options)}
    way_out = "load(path, strict=False) checks names and shapes only"
    if theirs["cell"] != cell.name:
        raise ValueError(f"{where} holds weights of {theirs['cell']}, not {cell.name}")
    for kind in ("options", "functions") if strict else ():
        for name, value in own[kind].items():
            if name not in harmless and theirs[kind].get(name, value) != value:
                raise ValueError(
                    f"{where} was saved with {name}={theirs[kind][name]!r}, this layer has "
                    f"{name}={value!r}; {way_out}"
                )
    if strict and theirs["sha256"] != own["sha256"]:
        raise ValueError(f"{where} was saved from another text of {own['cell']}; {way_out}")
    expected = [a.name for a in (*cell.weights, *cell.constants)]
    missing = [n for n in expected if n not in found.names]
    extra = [n for n in found.names if n not in expected]
    if missing or extra:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"also holds {', '.join(extra)}"] if extra else []
        raise ValueError(
            f"{where} {' and '.join(parts)}; {cell.name} has {', '.join(expected) or 'no weights'}"
        )
