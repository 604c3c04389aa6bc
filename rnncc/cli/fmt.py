"""`rnncc fmt`: specs, laid out as the built-in cells are (`frontend.formatting`).

All files are read before any is written; each is written whole or not at all, through a link, and
stays as readable to others as it was. `-` reads stdin and prints.

Non-Goals: what the layout is.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from pathlib import Path
from typing import BinaryIO

from rnncc.cli.settings import UsageError
from rnncc.common.progress import working
from rnncc.files.writing import write_whole
from rnncc.frontend.diagnostics import SpecError
from rnncc.frontend.formatting import formatted
from rnncc.frontend.limits import CHARACTERS
from rnncc.frontend.parse import read_text

STDIN = "-"


def run(arguments: argparse.Namespace) -> int:
    """0, or 1 with --check where a file isn't laid out, and where one can't be read."""
    names: list[str] = list(dict.fromkeys(arguments.files))
    only_looks = arguments.check or arguments.diff
    if STDIN in names and (len(names) > 1 or only_looks):
        raise UsageError("fmt - reads stdin and prints: no other FILE, --check or --diff with it")
    if names == [STDIN]:
        print(formatted(_stdin(), "<stdin>"), end="")
        return 0
    changed, wrong = _changed(names)
    for name, (old, new) in changed.items():
        if arguments.diff:
            lines = difflib.unified_diff(
                old.splitlines(keepends=True), new.splitlines(keepends=True), name, name
            )
            sys.stdout.writelines(line if line.endswith("\n") else f"{line}\n" for line in lines)
        elif arguments.check:
            print(f"{name} would be laid out anew")
        if not only_looks and not wrong:
            _write(Path(name), new)
            print(f"{name}: laid out")
    for error in wrong:
        print(error, file=sys.stderr)
    if wrong and changed and not only_looks:
        print("rnncc: so no file was written", file=sys.stderr)
    return int(bool(wrong) or bool(arguments.check and changed))


def _stdin() -> str:
    data = sys.stdin.buffer.read(4 * CHARACTERS + 4)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError("fmt -: stdin is not UTF-8 text") from None


def _changed(names: list[str]) -> tuple[dict[str, tuple[str, str]], list[SpecError]]:
    """What is there and what is to be, of files where that differs; and what can't be read."""
    changed: dict[str, tuple[str, str]] = {}
    wrong: list[SpecError] = []
    with working("laying out") as line:
        for number, name in enumerate(names, 1):
            line.say(f"laying out {name}, {number} of {len(names)}")
            try:
                old = read_text(name)
                new = formatted(old, name)
            except SpecError as error:
                wrong.append(error)
                continue
            if new != old:
                changed[name] = (old, new)
    return changed, wrong


def _write(path: Path, text: str) -> None:
    """In place of the file, with its mode."""
    mode = path.stat().st_mode & 0o7777

    def write(file: BinaryIO) -> None:
        file.write(text.encode())
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), mode)

    write_whole(path, write)
