"""The door: a file that somebody else wrote, or a saved folder -> a Model.

Non-Goals: what each kind of file means (`readers`, `onnx`).
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import rnncc.models.onnx
import rnncc.models.plain  # noqa: F401
from rnncc.common.progress import working
from rnncc.files import FileError, Tensors, read
from rnncc.files.reading import format_of
from rnncc.models.folder_reading import read_folder
from rnncc.models.model import Model
from rnncc.models.onnx import load_onnx
from rnncc.models.readers.amplifiers import is_amplifier, read_amplifier
from rnncc.models.readers.torch_chain import chain_of, guessed, warn_of_guess
from rnncc.models.readers.torch_groups import groups_of
from rnncc.runtime.api.validation import dtype_name

_KEEP_ORDER = ("npz", "torch", "json")  # safetensors sorts its names


def load_model(
    path: str | os.PathLike[str],
    *,
    layers: str | None = None,
    ignore: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    dtype: Literal["float32", "float64"] | None = None,
    plain: Literal["auto", "onnxruntime", "reference"] | None = None,
) -> Model:
    """A trained network out of a file, told by what is in it, or out of a folder of `Model.save`.

    Read are ONNX; Keras's .keras and .h5; RTNeural's, AIDA-X's and Proteus's JSON; .nam of LSTMs;
    and state_dicts of torch (.safetensors, .pt, .npz, JSON) of a chain of layers:

    layers: that chain in words, "lstm(40, 256, 3) relu linear" (`readers.torch_chain`). None: it is
    guessed from names and shapes, and shown in a warning. ignore: patterns of modules' names that
    aren't needed. names: new names of tensors by their own, where they aren't torch's. dtype: of a
    chain or an amplifier, whose files don't say: float32 (None) or float64. plain: of ONNX, who
    runs its other operators (`load_onnx`).

    FileError (a ValueError) for what can't be read, with where and what. Nothing of a file is
    executed. Sequences of chains are [batch, time, features], whatever batch_first was.
    """
    where, chosen = os.fspath(path), dtype_name("float32" if dtype is None else dtype)
    chain = {"layers": layers, "ignore": ignore, "names": names}
    with working(f"reading {where}"):
        if os.path.isdir(where):
            _refuse(where, "a folder", **chain, plain=plain, dtype=dtype)
            return read_folder(where)
        kind = format_of(path)
        if kind == "onnx":
            _refuse(where, "ONNX", **chain, dtype=dtype)
            return load_onnx(path, plain or "auto")
        _refuse(where, kind, plain=plain)
        tensors = read(path)
        if kind == "keras" or (kind == "hdf5" and "model_config" in tensors.metadata):
            from rnncc.models.readers.keras_model import read_keras_model

            _refuse(where, "Keras", **chain, dtype=dtype)
            return read_keras_model(tensors)
        if kind == "hdf5":
            raise FileError(
                where, "weights without a model: make the layer, then rnncc.load_weights"
            )
        if kind == "json" and is_amplifier(tensors.metadata["document"]):
            _refuse(where, "an amplifier", **chain)
            return read_amplifier(tensors.metadata["document"], where, chosen)
        return _torch_chain(tensors, layers, ignore, names or {}, chosen)


def _refuse(where: str, what: str, **given: Any) -> None:
    """ValueError for arguments that this kind of file has no use for."""
    useless = [n for n, value in given.items() if value]
    if useless:
        raise ValueError(f"{where}: {what} says itself what it is: leave {', '.join(useless)} out")


def _torch_chain(
    tensors: Tensors,
    layers: str | None,
    ignore: Sequence[str],
    names: Mapping[str, str],
    dtype: str,
) -> Model:
    where = tensors.where
    if isinstance(ignore, str):
        raise TypeError(f"ignore is a list of patterns, not {ignore!r}")
    arrays = {}
    for name in tensors:
        new = names.get(name, name)
        if new in arrays:
            raise FileError(where, f"two tensors are called {new}")
        arrays[new] = tensors.array(name)
    unknown = [n for n in names if n not in tensors]
    if unknown:
        raise FileError(where, f"it has no tensor {', '.join(unknown)}, that names= renames")

    def ignored(name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)

    groups = groups_of(arrays, where)
    text = layers
    if text is None:
        kept = [g for g in groups if not ignored(g.name)]
        text = guessed(kept, where, tensors.format in _KEEP_ORDER)
    chain, shown = chain_of(text, groups, where, dtype, ignored)
    if layers is None:
        warn_of_guess(where, shown)
    return chain.model({"layers": shown, "tensors": chain.sources})
