"""Files and folders that appear whole or not at all.

Non-Goals: formats (`safetensors_files`, `runtime.api.weight_files`, `models`).
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

StrPath = str | os.PathLike[str]


def write_whole(path: StrPath, writer: Callable[[BinaryIO], object]) -> None:
    """What writer puts into the open file appears under exactly that path, or nothing changes.

    OSError as the system says, by the name that was given.
    """
    target = Path(path).resolve()  # through a link, the file it leads to
    if target.exists() and not target.is_file():
        kind = errno.EISDIR if target.is_dir() else errno.EINVAL
        raise OSError(kind, "only a file can be written there", os.fspath(path))
    temporary = _beside(target)
    try:
        with temporary.open("xb") as file:
            writer(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def folder_whole(path: StrPath, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder that becomes `path` when the block ends, and is gone if it raises.

    replace: a folder that is there is exchanged for it; else only an empty one may be there.
    FileExistsError, NotADirectoryError, OSError as the system says.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is no folder", os.fspath(path))
    if target.is_dir() and any(target.iterdir()) and not replace:
        raise FileExistsError(errno.EEXIST, "the folder is not empty", os.fspath(path))
    temporary = _beside(target)
    try:
        temporary.mkdir(parents=False)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from None
    try:
        yield temporary
        for file in (p for p in temporary.rglob("*") if p.is_file()):
            with file.open("rb") as written:
                os.fsync(written.fileno())
        _exchange(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(new: Path, target: Path) -> None:
    """What was there goes only when the new folder has its name."""
    if not target.is_dir() or not any(target.iterdir()):
        os.replace(new, target)
        return
    old = _beside(target)
    os.replace(target, old)
    try:
        os.replace(new, target)
    except OSError:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
