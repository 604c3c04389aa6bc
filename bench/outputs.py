"""Files of a run: checked before anything is measured, and written whole or not at all.

Non-Goals: what is in them.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bench.harness import BenchError


def check_writable(option: str, path: Path) -> None:
    """BenchError where a file can't be written later."""
    if path.is_dir():
        raise BenchError(f"{option} {path}: a folder; it takes a file's name")
    if not path.parent.is_dir():
        raise BenchError(f"{option} {path}: there is no folder {path.parent}")
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise BenchError(f"{option} {path}: can't be written: {error.strerror}") from None
    if path.exists() and not os.access(path, os.W_OK):
        raise BenchError(f"{option} {path}: is there, and read-only")


def write(option: str, path: Path, data: bytes) -> None:
    """Beside it first, then in its place: a reader never sees half of it."""
    beside = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".bench-", delete=False) as file:
            beside = Path(file.name)
            file.write(data)
        beside.chmod(0o644)
        beside.replace(path)
    except OSError as error:
        if beside is not None:
            beside.unlink(missing_ok=True)
        raise BenchError(f"{option} {path}: can't be written: {error.strerror}") from None


def per_suite(path: Path, suite: str, several: bool) -> Path:
    """plot.png, or plot-latency.png where several suites each have one."""
    return path.with_name(f"{path.stem}-{suite}{path.suffix}") if several else path
