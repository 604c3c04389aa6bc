"""Weights to a file and back: an .npz of plain arrays, with a description of whose they are.

Non-Goals: optimizer state, states of a stateful layer.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rnncc.runtime.description import Cell

_ABOUT = "_about"  # no weight's name starts with an underscore


def write(
    path: str | os.PathLike[str],
    cell: Cell,
    sizes: Mapping[str, int],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """The file appears whole or not at all, under exactly that path. OSError as the system says."""
    target = Path(path).resolve()  # through a link, the file it leads to
    if target.exists() and not target.is_file():
        kind = errno.EISDIR if target.is_dir() else errno.EINVAL
        raise OSError(kind, "weights can only be saved to a file", os.fspath(path))
    about = np.frombuffer(json.dumps(_about(cell, sizes)).encode(), dtype=np.uint8)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            np.savez(file, **{_ABOUT: about}, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:  # by the name that was given
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read(
    path: str | os.PathLike[str], cell: Cell, *, strict: bool
) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """The sizes and arrays in a file; nothing in it is executed.

    ValueError: not such a file, of another cell, or (strict) of this cell's text or options as
    they were before they changed.
    """
    where = os.fspath(path)
    with open(path, "rb") as file:
        found, arrays = _parsed(file, where)
    own = _about(cell, {})
    if found.get("cell") != cell.name:
        raise ValueError(f"{where} holds weights of {found.get('cell')}, not {cell.name}")
    if strict:
        _compare(where, found, own)
    expected = [a.name for a in (*cell.weights, *cell.constants)]
    missing = [n for n in expected if n not in arrays]
    extra = [n for n in arrays if n not in expected]
    if missing or extra:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"also holds {', '.join(extra)}"] if extra else []
        raise ValueError(
            f"{where} {' and '.join(parts)}; {cell.name} has {', '.join(expected) or 'no weights'}"
        )
    return {str(k): int(v) for k, v in found.get("sizes", {}).items()}, arrays


def _parsed(file: BinaryIO, where: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        if file.read(4) != b"PK\x03\x04":
            raise ValueError("it is no .npz file")
        file.seek(0)
        with np.load(file, allow_pickle=False) as loaded:
            if _ABOUT not in loaded.files:
                raise ValueError("it wasn't written by a layer's save()")
            about = dict(json.loads(bytes(loaded[_ABOUT]).decode()))
            return about, {name: loaded[name] for name in loaded.files if name != _ABOUT}
    # Whatever a damaged file makes zipfile, zlib, json and NumPy raise.
    except Exception as error:
        raise ValueError(f"{where} holds no weights of a layer: {error}") from None


def _about(cell: Cell, sizes: Mapping[str, int]) -> dict[str, Any]:
    return {
        "cell": cell.name,
        "sha256": cell.sha256,
        "options": dict(cell.options),
        "functions": dict(cell.functions),
        "sizes": dict(sizes),
    }


def _compare(path: str, found: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    way_out = "load(path, strict=False) checks names and shapes only"
    for kind in ("options", "functions"):
        theirs = found.get(kind, {})
        for name, value in own[kind].items():
            # Unrolling changes how a cell runs, not what its weights mean.
            if name != "unroll" and theirs.get(name, value) != value:
                raise ValueError(
                    f"{path} was saved with {name}={theirs[name]!r}, this layer has "
                    f"{name}={value!r}; {way_out}"
                )
    if found.get("sha256") != own["sha256"]:
        raise ValueError(f"{path} was saved from another text of {own['cell']}; {way_out}")
