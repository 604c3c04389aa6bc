"""Source text to importable module files, in a cache folder that holds machine code, too.

A file's name carries a hash of its text and of the runtime it was written against, so a changed
template, simd formula or rnncc never meets a stale module.

Non-Goals: evicting old files; modules the user asked to have written elsewhere.
"""

import atexit
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

from rnncc import __version__

from .machine import host

RUNTIME = Path(__file__).parent
# What generated modules import, so what compiled kernels contain pieces of.
KERNEL_SOURCES = (
    "codegen.py",
    "helper.py",
    "narrow_tiles.py",
    "primitives.py",
    "raw.py",
    "simd.py",
    "simd_math.py",
    "nest.py",
    "threads.py",
    "tiles.py",
    "vector_types.py",
)


def store_dir() -> Path:
    """$RNNCC_CACHE, else ~/.cache/rnncc/<version>; made if it isn't there."""
    chosen = os.environ.get("RNNCC_CACHE")
    # Absolute, as files of modules are: kernels ask whether theirs is in the store.
    folder = Path(chosen).absolute() if chosen else Path.home() / ".cache" / "rnncc" / __version__
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        if chosen:
            raise
        return _throwaway()
    return folder if chosen or os.access(folder, os.W_OK) else _throwaway()


@cache
def _throwaway() -> Path:
    """For a read-only home: kernels are compiled once a process. A name nobody else can prepare."""
    folder = tempfile.mkdtemp(prefix="rnncc-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def runtime_hash() -> str:
    """A hash of the runtime's sources that end up in compiled kernels."""
    digest = hashlib.sha256()
    for name in KERNEL_SOURCES:
        digest.update(name.encode() + b"\0" + (RUNTIME / name).read_bytes())
    return digest.hexdigest()


def write_module(stem: str, text: str) -> Path:
    """The path of a file `<stem>_<hash>.py` holding the text; written only if it isn't there."""
    # The same text is other machine code at another vector width.
    what = f"{text}{runtime_hash()}{host().vector_bytes}"
    digest = hashlib.sha256(what.encode()).hexdigest()[:12]
    path = store_dir() / f"{stem}_{digest}.py"
    data = text.encode()
    try:
        if path.read_bytes() == data:
            return path
    except OSError:
        pass
    write_file(path, data)
    return path


def write_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all; two processes may write the same one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}_", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@cache
def compiler_hash() -> str:
    """A hash of everything that decides a module's text: rnncc's own sources and templates."""
    digest = hashlib.sha256()
    package = RUNTIME.parent
    inside = package / "templates"
    templates = inside if inside.is_dir() else package.parent / "templates"
    for path in sorted([*package.rglob("*.py"), *templates.rglob("*.jinja")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def keyed_module(stem: str, key: str, render: Callable[[], str]) -> Path:
    """The module of a key, rendered only if this rnncc hasn't before."""
    digest = hashlib.sha256(f"{key}{compiler_hash()}{host().vector_bytes}".encode()).hexdigest()[
        :12
    ]
    note = store_dir() / f"{stem}_{digest}.module"
    try:
        path = store_dir() / note.read_text()
        if path.is_file():
            return path
    except OSError:
        pass
    path = write_module(stem, render())
    write_file(note, path.name.encode())
    return path


def import_module(path: Path) -> ModuleType:
    """The module in that file, imported once a process, under a name that can be pickled."""
    path = Path(path)
    name = f"rnncc_module_{path.stem}"
    module = sys.modules.get(name)
    if module is not None and module.__file__ and Path(module.__file__) == path:
        return module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
