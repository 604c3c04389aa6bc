"""`rnncc draw`: a cell's step as a picture: states, inputs, weights, dense products and the rest.

Non-Goals: what it looks like (`rnncc.drawing.picture`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rnncc.cli.settings import UsageError, load
from rnncc.common.machine import Missing
from rnncc.drawing.chosen import chosen_cell
from rnncc.drawing.picture import FORMATS, picture
from rnncc.files.writing import write_whole


def run(arguments: argparse.Namespace) -> int:
    path = Path(arguments.output)
    format = path.suffix.removeprefix(".").lower()
    if format not in FORMATS:
        known = ", ".join(f".{f}" for f in FORMATS)
        raise UsageError(f"-o {arguments.output}: a picture's name ends in one of {known}")
    settings = load(arguments.file, arguments.settings)
    cell = chosen_cell(settings.spec, settings.options, settings.functions)
    try:
        data = picture(cell, format)
    except ImportError as error:
        raise Missing(str(error)) from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    write_whole(path, lambda file: file.write(data))
    print(f"{path}: {settings.spec.name}, {len(data):,} bytes")
    return 0
