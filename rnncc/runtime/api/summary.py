"""A layer's arrays -> a table of names, shapes and counts.

Non-Goals: values; which kernels run (`Layer.plan`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table


def summary(
    title: str, weights: Mapping[str, tuple[int, ...]], constants: Mapping[str, tuple[int, ...]]
) -> str:
    """The table as text. weights, constants: shapes by name."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("weight", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    for names in (weights, constants):
        for name, shape in names.items():
            kind = "" if names is weights else " (not trained)"
            table.add_row(name + kind, _shown(shape), f"{math.prod(shape):,}")
    trained, fixed = (sum(map(math.prod, names.values())) for names in (weights, constants))
    table.add_section()
    table.add_row("total", "", f"{trained + fixed:,}")
    if constants:
        table.add_row("trained", "", f"{trained:,}")
    console = Console(width=200, color_system=None, markup=False)
    with console.capture() as captured:
        console.print(table)
    lines = [title, *captured.get().strip("\n").splitlines()]
    return "\n".join(line.rstrip() for line in lines)


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
