"""`rnncc new`: a file to start from: a small gated cell, each part of it explained.

Non-Goals: more than one beginning; the language's whole (`rnncc cells` has examples).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import BinaryIO

from rnncc.cli.settings import UsageError
from rnncc.files.writing import write_whole
from rnncc.frontend.diagnostics import SpecError
from rnncc.lowering.cell_interface import check_text

START = '''\
"""One sentence of what the cell is, and whose: {name}, a start to be changed."""
cell: {name}

# Sizes. `features` is read off the data, `units` is given when a layer is made.
features: size
units: size

# What comes in at each step, and what is kept from one step to the next (zeros at the start).
x: input[features]
h: state[units]

# What is trained, each with the initializer that fills it.
kernel: weight[features, 2 * units] = glorot_uniform
recurrent_kernel: weight[units, 2 * units] = orthogonal
bias: weight[2 * units] = zeros

# A function, an option and a rate: keywords of the layer, with their defaults. An option is decided
# before anything is compiled; a rate matters in training alone.
activation: function = tanh
use_bias: option = True
dropout: rate = 0

# One step of one sequence, as a paper writes it: `@` is a product of a vector and a matrix, `*` is
# by element, `h[t-1]` is the state as the last step left it. Lines may be in any order.
z = drop(x[t], dropout) @ kernel + h[t-1] @ recurrent_kernel + (bias if use_bias else 0)
z_gate, z_candidate = split(z, 2)
gate = sigmoid(z_gate)  # how much of the state is kept, between 0 and 1
candidate = activation(z_candidate)
h[t] = gate * h[t-1] + (1 - gate) * candidate

# What a layer hands out at each step.
return h[t]
'''


def run(arguments: argparse.Namespace) -> int:
    path = _path(arguments.name, arguments.output)
    text = START.format(name=arguments.name)
    try:
        check_text(text, arguments.name)
    except SpecError as error:  # what is left to be wrong is the name
        why = f"{error.diagnostics[0].message}: {error.diagnostics[0].help}".rstrip(": ")
        raise UsageError(f"{arguments.name!r} is no name of a cell: {why}") from None

    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    write_whole(path, write)
    print(f"{path}: a small gated cell; try `rnncc check {path}`")
    return 0


def _path(name: str, output: str | None) -> Path:
    if not (name.isidentifier() and name.isascii()):
        raise UsageError(
            f"{name!r} is no name of a cell: letters, digits and underscores, a letter first"
        )
    path = Path(output) if output else Path(f"{name.lower()}.rnn")
    if path.suffix != ".rnn":
        raise UsageError(f"{path}: a cell's file ends in .rnn")
    if path.is_symlink() or path.exists():
        raise UsageError(f"{path} is there already: name another with -o")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    return path
