"""`rnncc export`: a cell with trained weights -> a folder of C99.

Non-Goals: what is in it (`export.c_folder`).
"""

from __future__ import annotations

import argparse

from rnncc.cli.settings import UsageError, find_cell, load
from rnncc.compiler import compile
from rnncc.export import c
from rnncc.files import FileError
from rnncc.runtime.api import weight_files
from rnncc.runtime.api.layer import Layer


def run(arguments: argparse.Namespace) -> int:
    layer = _layer(arguments)
    try:
        folder = c(layer, arguments.output, name=arguments.name, block=arguments.block)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    print(
        f"{folder}: {arguments.name}.c, of {layer.count_params():,} weights; its README has sizes"
    )
    return 0


def _layer(arguments: argparse.Namespace) -> Layer:
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
    made = compile(find_cell(arguments.file))(
        **{**settings.sizes, **sizes},
        **settings.options,
        **settings.functions,
        dtype=arguments.dtype,
    )
    try:
        made.load(arguments.weights)
    except ValueError as error:
        raise FileError(arguments.weights, _without(arguments.weights, error)) from None
    layer: Layer = made
    return layer


def _without(where: str, error: Exception) -> str:
    """A message that begins with the file anyhow."""
    return str(error).removeprefix(where).lstrip(": ")
