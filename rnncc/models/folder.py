"""A model as a folder, written whole or not at all.

    model.json             what it is made of: ports, parts and how they are wired; checksums
    weights.safetensors    all arrays
    cells/*.rnn            the texts of cells that aren't built in

Non-Goals: making the parts again (`folder_reading`).
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rnncc.files import folder_whole, write_whole
from rnncc.files.safetensors_files import safetensors_writer
from rnncc.models.component import Port, Wired

MANIFEST, WEIGHTS, CELLS = "model.json", "weights.safetensors", "cells"
FORMAT, VERSION = "rnncc model", 1


class Described(Protocol):
    """What a folder keeps of a model."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Wired, ...]
    constants: dict[str, np.ndarray]
    origin: str
    metadata: dict[str, Any]


def write_folder(model: Described, path: str | os.PathLike[str], replace: bool = False) -> None:
    """See `Model.save`."""
    if replace and os.path.isdir(path) and os.listdir(path):
        if not os.path.isfile(os.path.join(path, MANIFEST)):
            text = "it holds other things than a saved model"
            raise FileExistsError(errno.EEXIST, text, os.fspath(path))
    arrays, texts = _Named(), _Texts()
    nodes = [_described(node, arrays, texts) for node in model.nodes]
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "origin": model.origin,
        "metadata": model.metadata,
        "inputs": [dataclasses.asdict(p) for p in model.inputs],
        "outputs": [dataclasses.asdict(p) for p in model.outputs],
        "constants": {n: arrays.add(f"constant/{n}", a) for n, a in model.constants.items()},
        "nodes": nodes,
    }
    text = _as_json(manifest)  # refused before anything is written
    with folder_whole(path, replace=replace) as folder:
        write_whole(folder / WEIGHTS, safetensors_writer(arrays.found))
        if texts.found:
            (folder / CELLS).mkdir()
        for name, cell in texts.found.items():
            (folder / CELLS / name).write_text(cell, encoding="utf-8", newline="")
        files = {
            p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": checksum(p)}
            for p in sorted(folder.rglob("*"))
            if p.is_file()
        }
        text = _as_json({**manifest, "files": files})
        (folder / MANIFEST).write_text(text, encoding="utf-8")


def checksum(path: Path) -> str:
    """SHA-256 of what it holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _described(node: Wired, arrays: _Named, texts: _Texts) -> dict[str, Any]:
    part = node.part
    if not part.kind:
        raise TypeError(f"{part.name} is a {type(part).__name__}, which says no kind: {part!r}")
    return {
        "name": part.name,
        "kind": part.kind,
        "inputs": node.inputs,
        "outputs": node.outputs,
        "config": replaced(part.config(), texts.taken_out),
        "weights": {n: arrays.add(f"{part.name}/{n}", a) for n, a in part.weights.items()},
    }


def replaced(value: Any, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Any:
    """The same lists and objects, each object changed."""
    if isinstance(value, Mapping):
        return {n: replaced(v, change) for n, v in change(value).items()}
    if isinstance(value, list | tuple):
        return [replaced(v, change) for v in value]
    return value


class _Named:
    """Arrays, each under a name of its own."""

    def __init__(self) -> None:
        self.found: dict[str, np.ndarray] = {}

    def add(self, name: str, array: np.ndarray) -> str:
        free = next(n for n in _numbered(name) if n not in self.found)
        self.found[free] = np.asarray(array)
        return free


class _Texts:
    """Cells' texts as files, each once."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def taken_out(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """A layer's data with its cell's text in a file of its own."""
        if not isinstance(config.get("text"), str) or "class_name" not in config:
            return config
        text, rest = config["text"], {n: v for n, v in config.items() if n != "text"}
        stem = Path(str(config.get("filename", ""))).stem or str(config["class_name"])
        stem = re.sub(r"[^\w-]", "_", stem)[:80]
        names = (f"{n}.rnn" for n in _numbered(stem))
        name = next(n for n in names if self.found.get(n, text) == text)
        self.found[name] = text
        return {**rest, "text_file": f"{CELLS}/{name}", "filename": name}


def _numbered(name: str) -> Any:
    yield name
    yield from (f"{name}_{i}" for i in range(2, 10**9))


def _as_json(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=1, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """Numbers as NumPy has them."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a folder holds no {type(value).__name__}: {value!r:.80}")
