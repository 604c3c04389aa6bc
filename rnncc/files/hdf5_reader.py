"""HDF5 files read by h5py, in a process that may be killed: what `hdf5` starts.

Only what lies in the file itself is read: no links to others, no external or virtual storage, no
filters that HDF5 would load from a folder.

Non-Goals: Keras's names (`models`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from rnncc.files import limits
from rnncc.files.errors import FileError
from rnncc.files.needed import needed
from rnncc.files.safetensors_files import safetensors_writer
from rnncc.files.tensors import Tensors, checked_name, sized

ARRAYS, ABOUT = "arrays", "about"  # files in the folder that answers lie in
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32"}
_SECONDS, _BYTES_A_SECOND = 1, 20_000_000  # of processor time, and more for long files
_MEMORY = 2**29  # above what it has when it begins and what the file may become


def main(path: str, where: str, folder: str) -> None:
    """The arrays of an HDF5 file into a folder, or what is wrong with it."""
    try:
        with needed("h5py", where):
            import h5py
        length = os.stat(path).st_size
        _bound_itself(length)
        tensors = _read(h5py, path, where, length)
        with Path(folder, ARRAYS).open("wb") as file:
            safetensors_writer(tensors)(file)
        answer: dict[str, Any] = {"metadata": tensors.metadata}
    except FileError as error:
        answer = {"error": [error.where, error.what]}
    Path(folder, ABOUT).write_text(json.dumps(answer), encoding="utf-8")


def _bound_itself(length: int) -> None:
    """HDF5 may go in circles, or take what a damaged number says: where the system can tell it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime + 0.5) + _SECONDS + length // _BYTES_A_SECOND
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = held + _MEMORY + 2 * (limits.TIMES * length + limits.ANY)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _read(h5py: Any, path: str, where: str, length: int) -> Tensors:
    try:
        with h5py.File(path, "r") as opened:
            return _Walk(h5py, where, length).read(opened)
    except FileError:
        raise
    except Exception as error:  # whatever a damaged file makes HDF5 raise
        raise FileError(where, f"it is no whole HDF5 file: {error!s:.200}") from None


class _Walk:
    """Through all groups: once through each, though links may lead to it twice."""

    def __init__(self, h5py: Any, where: str, length: int) -> None:
        self.h5py, self.where, self.length = h5py, where, length
        self.seen: set[int] = set()
        self.bytes = self.attribute_bytes = 0
        self.attributes: dict[str, dict[str, Any]] = {}

    def read(self, root: Any) -> Tensors:
        arrays: dict[str, np.ndarray] = {}
        for name, dataset in self.datasets(root, "", 0):
            limits.check_count(self.where, len(arrays) + 1, limits.TENSORS, "tensors")
            arrays[name] = self.array(name, dataset)
        metadata = self.attributes.pop("", {})
        return Tensors(self.where, "hdf5", arrays, {**metadata, "attributes": self.attributes})

    def datasets(self, group: Any, path: str, level: int) -> Iterator[tuple[str, Any]]:
        limits.check_count(self.where, level, limits.LEVELS, "levels of groups")
        self.enter(group, path)
        for key in group:
            name = checked_name(self.where, f"{path}/{key}" if path else key)
            link = group.get(key, getlink=True)
            if not isinstance(link, self.h5py.HardLink):
                raise FileError(
                    f"{self.where}: {name}", "it is a link to elsewhere, never followed"
                )
            inner = group[key]
            if isinstance(inner, self.h5py.Group):
                yield from self.datasets(inner, name, level + 1)
            elif isinstance(inner, self.h5py.Dataset):
                self.enter(inner, name)
                yield name, inner
            else:
                raise FileError(f"{self.where}: {name}", "it is neither a group nor a dataset")

    def enter(self, item: Any, path: str) -> None:
        place = self.h5py.h5o.get_info(item.id).addr
        if place in self.seen:
            raise FileError(f"{self.where}: {path or '/'}", "it is there under two names")
        self.seen.add(place)
        limits.check_count(self.where, len(self.seen), 2 * limits.TENSORS, "groups and tensors")
        if len(item.attrs):
            self.attributes[path] = {n: self.attribute(item, path, n) for n in item.attrs}

    def attribute(self, item: Any, path: str, name: str) -> Any:
        """Texts as str, lists of them as lists of str, numbers as lists of them."""
        label = f"{self.where}: attribute {name:.80} of {path or '/'}"
        low = self.h5py.h5a.open(item.id, name.encode())
        size = sized(label, low.shape, low.dtype.itemsize)
        limits.check_count(label, size, limits.ATTRIBUTE, "bytes")
        value = item.attrs[name]
        self.attribute_bytes += size + (len(value) if isinstance(value, str | bytes) else 0)
        limits.check_count(
            self.where, self.attribute_bytes, limits.ATTRIBUTES, "bytes of attributes"
        )
        return _plain(value)

    def array(self, name: str, dataset: Any) -> np.ndarray:
        label = f"{self.where}: tensor {name}"
        dtype = dataset.dtype
        if dataset.shape is None or dtype.kind not in "biuf":
            raise FileError(label, f"it holds {dtype} values, not numbers")
        if dataset.is_virtual or dataset.external:
            raise FileError(label, "its numbers lie in other files, which are never read")
        filters = dataset.id.get_create_plist()
        for i in range(filters.get_nfilters()):
            code = filters.get_filter(i)[0]
            if code not in _FILTERS:
                known = ", ".join(_FILTERS.values())
                raise FileError(label, f"it is packed by filter {code}; read are {known}")
        size = sized(label, dataset.shape, dtype.itemsize)
        chunk = sized(label, dataset.chunks or (), dtype.itemsize)
        self.bytes += max(size, chunk)
        limits.check_unpacked(label, self.bytes, self.length)
        found: np.ndarray = np.asarray(dataset[()])
        return found


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray) and value.dtype.kind in "SO":
        flat = [_plain(v) for v in value.reshape(-1).tolist()]
        return [v if isinstance(v, str) else repr(v)[:80] for v in flat]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
