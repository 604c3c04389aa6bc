"""`rnncc cache`: what the cache of modules and machine code holds, and how to empty it."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.table import Table

from rnncc.runtime.jit.cache_folder import Unusable, clear, contents, most_bytes

_KINDS = {
    "module": "modules",
    "o": "machine code for the CPU",
    "cubin": "machine code for GPUs",
    "tmp": "left unfinished",
}


def run(arguments: argparse.Namespace) -> int:
    """Shows or empties the folder; 1 if it isn't used, or not empty afterwards."""
    try:
        return _clear() if arguments.clear else _show()
    except Unusable as error:
        print(f"rnncc: the cache isn't used: {error.why}", file=sys.stderr)
        return 1


def _show() -> int:
    cached, most = contents(), most_bytes()
    table = Table(title=str(cached.path), title_justify="left", show_footer=True)
    table.add_column("what", "all")
    entries, size = (sum(k[i] for k in cached.kinds.values()) for i in (0, 1))
    table.add_column("entries", f"{entries:,}", justify="right")
    table.add_column("bytes", f"{size:,} of at most {most:,}", justify="right")
    for kind, (count, bytes_) in cached.kinds.items():
        table.add_row(_KINDS[kind], f"{count:,}", f"{bytes_:,}")
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    console.print(table, markup=False)
    return 0


def _clear() -> int:
    gone, left = clear()
    print(f"{gone:,} {'entry' if gone == 1 else 'entries'} removed")
    for name in left:
        print(f"rnncc: {name} could not be removed", file=sys.stderr)
    return 1 if left else 0
