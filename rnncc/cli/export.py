"""`rnncc export`: a trained cell or model -> a folder of C99, or with --onnx a file of ONNX.

Non-Goals: what is in it (`export.c_folder`, `export.to_onnx`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rnncc.cli.settings import UsageError, find_cell, load
from rnncc.cli.trained import loaded
from rnncc.compiler import compile
from rnncc.export import c, onnx
from rnncc.files import FileError
from rnncc.models.model import Model
from rnncc.runtime.api import weight_files
from rnncc.runtime.api.layer import Layer

STEPS = 16  # that NAME_block takes at once
OF_C, OF_ONNX = ("name", "block", "storage"), ("states", "lengths", "mask", "last")


def run(arguments: argparse.Namespace) -> int:
    """UsageError, FileError."""
    for name in OF_C if arguments.onnx else OF_ONNX:
        if getattr(arguments, name):
            raise UsageError(f"--{name} is of {'C' if arguments.onnx else '--onnx'}")
    return _onnx_file(arguments) if arguments.onnx else _c_folder(arguments)


def _c_folder(arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        raise UsageError("--name is needed: C has names of its own")
    what = _source(arguments)
    block = STEPS if arguments.block is None else arguments.block
    try:
        folder = c(
            what, arguments.output, name=arguments.name, block=block, storage=arguments.storage
        )
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    count = sum(a.size for a in what.weights.values())
    print(f"{folder}: {arguments.name}.c, of {count:,} weights; its README has sizes")
    return 0


def _source(arguments: argparse.Namespace, **options: bool) -> Layer | Model:
    """A cell with weights, as a layer with these options, or a model that has them."""
    if arguments.weights is not None:
        if arguments.layers is not None:
            raise UsageError("--layers is of a model, and --weights of a cell: one of them")
        return _layer(arguments, **options)
    path = Path(arguments.file)
    if path.suffix == ".rnn" or (not path.exists() and find_cell(arguments.file) != path):
        raise UsageError(f"--weights is needed: {arguments.file} is a cell, which has none")
    if arguments.settings or arguments.last:
        raise UsageError("--set and --last are of a cell, which needs --weights")
    return loaded(arguments.file, layers=arguments.layers)


def _onnx_file(arguments: argparse.Namespace) -> int:
    asked = {n: getattr(arguments, n) for n in ("states", "lengths", "mask", "form")}
    what = _source(arguments, return_sequences=not arguments.last)
    try:
        path = onnx(what, arguments.output, **asked)
    except (ImportError, TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


def _layer(arguments: argparse.Namespace, **options: bool) -> Layer:
    """The cell's layer with the file's weights, and of the file's sizes."""
    settings = load(arguments.file, arguments.settings)
    cell = settings.derivation.cell(arguments.dtype)
    declared = {s.name for s in cell.sizes}
    try:
        with weight_files.opened(arguments.weights, cell, strict=True) as file:
            sizes = {n: v for n, v in file.sizes.items() if n in declared}
    except ValueError as error:
        raise FileError(arguments.weights, _without(arguments.weights, error)) from None
    for name, size in settings.sizes.items():
        if sizes.get(name, size) != size:
            raise UsageError(f"--set {name}={size}: the weights have {name}={sizes[name]}")
    own = {**settings.sizes, **sizes, **settings.options, **settings.functions}
    keywords: dict[str, Any] = {**own, **options, "dtype": arguments.dtype}
    made = compile(find_cell(arguments.file))(**keywords)
    try:
        made.load(arguments.weights)
    except ValueError as error:
        raise FileError(arguments.weights, _without(arguments.weights, error)) from None
    layer: Layer = made
    return layer


def _without(where: str, error: Exception) -> str:
    """A message that begins with the file anyhow."""
    return str(error).removeprefix(where).lstrip(": ")
