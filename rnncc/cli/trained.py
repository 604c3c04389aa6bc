"""`rnncc import` and `rnncc run`: trained networks out of files, and on arrays.

Non-Goals: what a file means (`models`).
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import Any, BinaryIO

import numpy as np

from rnncc.cli.settings import UsageError
from rnncc.common.progress import working
from rnncc.files import FileError, write_whole
from rnncc.models.component import NoStream
from rnncc.models.load import load_model
from rnncc.models.model import Model

LONG = 4  # blocks, from which on a sequence is run block by block


def import_file(arguments: argparse.Namespace) -> int:
    """A file -> a folder."""
    model = loaded(arguments.file, layers=arguments.layers, dtype=arguments.dtype)
    model.save(arguments.output, replace=arguments.replace)
    if arguments.report:
        model.summary()
        if "layers" in model.metadata:
            print(f"layers: {model.metadata['layers']}")
        print(model.plan())
    else:
        ways = [", ".join(map(str, ports)) for ports in (model.inputs, model.outputs)]
        print(f"{arguments.output}: {' -> '.join(ways)}")
    return 0


def run_model(arguments: argparse.Namespace) -> int:
    """An array through a model, into a file."""
    if arguments.block < 1:
        raise UsageError(f"--block is a number of steps, at least 1, not {arguments.block}")
    model = loaded(arguments.model, layers=arguments.layers)
    inputs = _read(arguments.input, model)
    try:
        outputs = _blocks(model, inputs, arguments.block)
        with working(f"running {os.path.basename(model.origin) or 'model'}"):
            found = model(inputs) if outputs is None else outputs
    except (ValueError, TypeError) as error:
        raise FileError(arguments.input, str(error)) from None
    _write(arguments.output, found)
    return 0


def loaded(path: str, **options: Any) -> Model:
    """The model; what its reader warns of is said in a line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = load_model(path, **options)
        except FileError:
            raise
        except ValueError as error:  # --layers that says nothing, or is of no use
            raise UsageError(str(error)) from None
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    return model


def _read(path: str, model: Model) -> dict[str, np.ndarray]:
    """Inputs by name."""
    names = [p.name for p in model.inputs]
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError):  # which may advise to unpickle it
        raise FileError(path, "it is no array of numpy.save or numpy.savez") from None
    if isinstance(found, np.ndarray):
        if len(names) != 1:
            raise FileError(path, f"the model has inputs {', '.join(names)}: give an .npz of them")
        return {names[0]: found}
    with found:
        return {name: found[name] for name in found.files}


def _blocks(model: Model, inputs: dict[str, np.ndarray], block: int) -> dict[str, Any] | None:
    """A long sequence block by block, with a bar; None where it isn't long, or can't be cut."""
    checked = model.fed(inputs)
    if len(checked) != 1 or len(model.inputs[0].shape) < 2 or model.inputs[0].shape[1] != "time":
        return None
    ((name, x),) = checked.items()
    steps = x.shape[1]
    if steps < LONG * block:
        return None
    try:
        stream = model.stream({name: x[:, :block]})
    except NoStream:
        return None
    parts: list[dict[str, np.ndarray]] = []
    what = f"running {os.path.basename(model.origin) or 'model'}"
    with working(what) as line:
        for start in range(0, steps, block):
            piece = x[:, start : start + block]
            short = block - piece.shape[1]
            if short:  # a stream's calls have one shape; what is behind the end is cut off again
                piece = np.concatenate([piece, np.zeros_like(x[:, :short])], 1)
            made = stream({name: piece})
            if any(y.ndim < 2 or y.shape[1] != block for y in made.values()):
                return None  # an output that isn't of each step
            parts.append({n: y[:, : block - short] for n, y in made.items()})
            line.say(f"{what}: {start + block - short:,} of {steps:,} steps")
    return {n: np.concatenate([p[n] for p in parts], 1) for n in parts[0]}


def _write(path: str, outputs: dict[str, np.ndarray]) -> None:
    """.npz by names; .npy where there is one."""
    if path.endswith(".npz"):

        def write(file: BinaryIO) -> None:
            np.savez(file, **outputs)  # type: ignore[arg-type]

    elif len(outputs) == 1:
        (array,) = outputs.values()

        def write(file: BinaryIO) -> None:
            np.save(file, array, allow_pickle=False)

    else:
        raise UsageError(f"{path}: the model has outputs {', '.join(outputs)}: name an .npz")
    write_whole(path, write)
