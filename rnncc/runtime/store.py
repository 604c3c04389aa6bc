"""Source text to importable module files, in a cache folder that Numba can cache beside.

A file's name carries a hash of its text and of the runtime it was written against, so a changed
template, simd formula or rnncc never meets stale machine code: Numba's own cache notices changes of
a function's own file only.

Non-Goals: evicting old files; modules the user asked to have written elsewhere.
"""

import atexit
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

RUNTIME = Path(__file__).parent
# What generated modules import, so what compiled kernels contain pieces of.
KERNEL_SOURCES = (
    "kernel.py",
    "raw.py",
    "simd.py",
    "simd_math.py",
    "nest.py",
    "pool.py",
    "threads.py",
    "tiles.py",
    "vector_types.py",
)


def _version() -> str:
    try:
        return version("rnncc")
    except PackageNotFoundError:
        return "checkout"


def store_dir() -> Path:
    """$RNNCC_CACHE, else ~/.cache/rnncc/<version>; made if it isn't there."""
    chosen = os.environ.get("RNNCC_CACHE")
    folder = Path(chosen) if chosen else Path.home() / ".cache" / "rnncc" / _version()
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
    digest = hashlib.sha256((text + runtime_hash()).encode()).hexdigest()[:12]
    path = store_dir() / f"{stem}_{digest}.py"
    data = text.encode()
    try:
        if path.read_bytes() == data:
            return path
    except OSError:
        pass
    # Two processes may write the same file: each replaces it whole.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{stem}_", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def import_module(path: Path) -> ModuleType:
    """The module in that file, imported once a process, under a name Numba can pickle."""
    path = Path(path)
    name = f"rnncc_module_{path.stem}"
    module = sys.modules.get(name)
    if module is not None and Path(module.__file__) == path:
        return module
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
