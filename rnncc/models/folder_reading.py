"""A saved folder -> the model that it was.

Non-Goals: writing (`folder`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rnncc.files import FileError, limits, read
from rnncc.files.json_text import parsed
from rnncc.models.component import Component, Port, Wired
from rnncc.models.folder import CELLS, FORMAT, MANIFEST, VERSION, WEIGHTS, checksum, replaced
from rnncc.models.model import Model

_CELL = re.compile(CELLS + r"/[\w-]{1,100}\.rnn")
_SHAPES = (int, str)


def read_folder(path: str | os.PathLike[str]) -> Model:
    """FileError for a file that is missing, or isn't what the manifest says, and for parts that
    can't be made of it."""
    folder = Path(path)
    where = os.fspath(folder / MANIFEST)
    if not os.path.isfile(where):
        raise FileError(path, f"it has no {MANIFEST}, so it is no saved model")
    with open(where, "rb") as file:
        manifest = parsed(file.read(limits.TEXT + 1), where)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise FileError(where, f"it isn't of the format {FORMAT!r}")
    if manifest.get("version") != VERSION:
        raise FileError(where, f"version {manifest.get('version')!r:.40} is not {VERSION}")
    return _Reading(folder, where, manifest).model()


class _Reading:
    """One folder on its way to a model."""

    def __init__(self, folder: Path, where: str, manifest: Mapping[str, Any]) -> None:
        self.folder, self.where, self.manifest = folder, where, manifest
        self.files = self._checked_files()
        self.arrays = read(folder / WEIGHTS)

    def model(self) -> Model:
        nodes = [self._node(i, n) for i, n in enumerate(self._list("nodes"))]
        constants = self._arrays("constants", self.manifest.get("constants"))
        inputs, outputs = ([self._port(p) for p in self._list(n)] for n in ("inputs", "outputs"))
        metadata = self.manifest.get("metadata")
        origin = self.manifest.get("origin")
        if not isinstance(metadata, dict) or not isinstance(origin, str):
            raise FileError(self.where, "metadata is an object, origin a text")
        try:
            return Model(inputs, outputs, nodes, constants, origin, metadata)
        except ValueError as error:
            raise FileError(self.where, str(error)) from None

    def _checked_files(self) -> dict[str, Path]:
        """The files that the manifest names, each whole."""
        listed = self.manifest.get("files")
        if not isinstance(listed, dict) or WEIGHTS not in listed:
            raise FileError(self.where, f"files lists {WEIGHTS} and the others with checksums")
        found: dict[str, Path] = {}
        for name, about in listed.items():
            if name != WEIGHTS and not _CELL.fullmatch(name):
                raise FileError(self.where, f"files names {name!r:.80}, which is none of a model's")
            path = self.folder / name
            if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
                raise FileError(path, "the manifest lists it, and it is missing, or a link")
            if not isinstance(about, dict) or checksum(path) != about.get("sha256"):
                raise FileError(path, "it isn't what was saved: its checksum differs")
            found[name] = path
        return found

    def _list(self, name: str) -> list[Any]:
        found = self.manifest.get(name)
        if not isinstance(found, list):
            raise FileError(self.where, f"{name} is a list")
        return found

    def _port(self, data: Any) -> Port:
        try:
            port = Port(str(data["name"]), tuple(data["shape"]), np.dtype(data["dtype"]).name)
            if all(type(n) in _SHAPES for n in port.shape) and np.dtype(port.dtype).kind in "biuf":
                return port
        except (KeyError, TypeError, ValueError):
            pass
        raise FileError(self.where, f"no input or output is {data!r:.200}")

    def _arrays(self, label: str, names: Any) -> dict[str, np.ndarray]:
        if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
            raise FileError(self.where, f"{label}: arrays are named by an object of texts")
        missing = [n for n in names.values() if n not in self.arrays]
        if missing:
            raise FileError(self.arrays.where, f"it has no tensor {', '.join(missing)!s:.200}")
        # Infinity, too: checksums say that it is what was saved.
        return {own: self.arrays[name] for own, name in names.items()}

    def _node(self, number: int, data: Any) -> Wired:
        label = f"{self.where}: nodes/{number}"
        if not isinstance(data, dict) or not isinstance(data.get("config"), dict):
            raise FileError(label, "a part has a name, a kind, a config")
        name, kind = data.get("name"), data.get("kind")
        values = [data.get("inputs"), data.get("outputs")]
        texts = all(isinstance(v, list) and all(isinstance(n, str) for n in v) for v in values)
        if not isinstance(name, str) or len(name) > limits.NAME or not texts:
            raise FileError(label, "a part has a name, and names of what it reads and makes")
        if not isinstance(kind, str) or kind not in Component.kinds:
            raise FileError(label, f"{name} is a {kind!r:.80}, which this rnncc doesn't know")
        weights = self._arrays(f"nodes/{number}", data.get("weights"))
        try:
            config = replaced(data["config"], self._put_back)
            part = Component.kinds[kind].made(name, config, weights)
        except FileError:
            raise
        except Exception as error:  # whatever a stranger's configuration makes a part say
            said = f"{type(error).__name__}: {error}"
            raise FileError(f"{label}: {name} ({kind})", f"it can't be made: {said:.500}") from None
        return Wired(part, *(tuple(map(str, v or ())) for v in values))

    def _put_back(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """A layer's data with the text that is in a file."""
        if "text_file" not in config or "class_name" not in config:
            return config
        name = config["text_file"]
        if not isinstance(name, str) or name not in self.files:
            raise FileError(self.where, f"{name!r:.80} isn't among its files")
        text = self.files[name].read_text(encoding="utf-8")
        return {**{n: v for n, v in config.items() if n != "text_file"}, "text": text}
