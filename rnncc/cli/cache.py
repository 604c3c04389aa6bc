"""`rnncc cache`: what the cache of modules and machine code holds, and how to empty it.

`--texts FOLDER` writes the modules as files, for people: what ran can be read there under the name
that tracebacks give it. A file's name ends in the hash of its text, by which it is known to be one
of these. Nothing reads them again.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rnncc.cli.settings import UsageError
from rnncc.runtime.jit.cache_folder import Unusable, clear, contents, most_bytes
from rnncc.runtime.jit.module_cache import cached_texts, text_hash

_KINDS = {
    "module": "modules",
    "o": "machine code for the CPU",
    "cubin": "machine code for GPUs",
    "tmp": "left unfinished",
}


_TEXT = re.compile(r"\w+_([0-9a-f]{12})\.py", re.ASCII)
_UNFINISHED = re.compile(r"\.\w+_[0-9a-f]{12}_\w+", re.ASCII)  # of a process that was killed


def run(arguments: argparse.Namespace) -> int:
    """Shows or empties the folder, or writes its texts; 1 if it isn't used, or not empty
    afterwards, or holds what is damaged."""
    try:
        if arguments.texts is not None:
            return _write_texts(Path(arguments.texts))
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


def _write_texts(folder: Path) -> int:
    from rnncc.cli.compile import write_text

    unfinished = _look_at(folder)
    texts, damaged = cached_texts()
    folder.mkdir(exist_ok=True)
    for path in unfinished:
        path.unlink(missing_ok=True)
    for name, text in texts.items():
        write_text(folder / f"{name}.py", text)
    print(f"{len(texts):,} {'text' if len(texts) == 1 else 'texts'} in {folder}")
    for what in damaged:
        print(f"rnncc: damaged, and left out: {what}", file=sys.stderr)
    return 1 if damaged else 0


def _look_at(folder: Path) -> list[Path]:
    """What is left unfinished in it. UsageError for a folder that holds anything but texts."""
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    unfinished: list[Path] = []
    for path in sorted(folder.iterdir()):
        found = _TEXT.fullmatch(path.name)
        plain = path.is_file() and not path.is_symlink()
        if plain and _UNFINISHED.fullmatch(path.name):
            unfinished.append(path)
        elif not (plain and found and text_hash(path.read_bytes()) == found[1]):
            raise UsageError(
                f"{folder} holds {path.name}, which is none of the texts: name a folder of their "
                "own, an empty one or one that isn't there"
            )
    return unfinished


def _clear() -> int:
    gone, left = clear()
    print(f"{gone:,} {'entry' if gone == 1 else 'entries'} removed")
    for name in left:
        print(f"rnncc: {name} could not be removed", file=sys.stderr)
    return 1 if left else 0
