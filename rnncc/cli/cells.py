"""`rnncc cells`: what is built in."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rnncc.cli.report import print_json
from rnncc.cli.settings import builtin_cells
from rnncc.frontend.parse import parse_file
from rnncc.frontend.spec import CellSpec
from rnncc.ir.sizes import Size
from rnncc.lowering.cell_interface import CellInterface


def run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        print_json("cells", ok=True, cells=[_described(n, p) for n, p in builtin_cells().items()])
        return 0
    table = Table(title="Built-in cells", title_justify="left", show_lines=False)
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("what it is")
    table.add_column("parameters")
    for name, path in builtin_cells().items():
        spec = parse_file(path)
        table.add_row(name, _first_line(spec), str(parameter_count(CellInterface(spec))))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
    return 0


def _described(name: str, path: Path) -> dict[str, str]:
    spec = parse_file(path)
    return {
        "name": name,
        "cell": spec.name,
        "what": _first_line(spec),
        "parameters": str(parameter_count(CellInterface(spec))),
        "file": str(path),
    }


def parameter_count(interface: CellInterface) -> Size:
    """How many numbers the weights hold, in terms of the cell's sizes."""
    total = Size.of(0)
    for shape, _ in interface.weights.values():
        count = Size.of(1)
        for size in shape:
            count = count * size
        total = total + count
    return total


def _first_line(spec: CellSpec) -> str:
    return (spec.doc.strip().splitlines() or [spec.name])[0]
