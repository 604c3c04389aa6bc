"""Source text to modules, by way of the cache.

    module = keyed_module(stem, key, render)      # rendered only if this rnncc hasn't before
    module = text_module(stem, text)

A module's name carries a hash of its text, so the same text is one module, and machine code made of
another text is never taken for its own. Modules live as long as something of them is in use: they
aren't in `sys.modules`.

Non-Goals: the files (`cache_folder`); modules the user asked to have written elsewhere.
"""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any
from weakref import WeakValueDictionary

from rnncc.common.machine import host
from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.jit.cache_folder import entry_name, read, sound_entries, write, written_by
from rnncc.runtime.jit.module_grammar import check_module

PACKAGE = Path(__file__).parents[2]
# What generated modules import, so what compiled kernels contain pieces of.
KERNEL_SOURCES = (
    *(f"runtime/jit/{m}.py" for m in ("compiler", "front_end", "helper")),
    *(f"runtime/jit/{m}.py" for m in ("integer_builtins", "intrinsics")),
    *(f"runtime/cpu/intrinsics/{m}.py" for m in ("kernel_namespace", "quantized_tiles")),
    *(f"runtime/cpu/intrinsics/{m}.py" for m in ("scalar_intrinsics", "simd", "tile_intrinsics")),
    *(f"runtime/cpu/intrinsics/{m}.py" for m in ("vector_math", "vector_types", "rounding")),
    "runtime/cpu/intrinsics/trigonometry.py",
    *(f"runtime/cpu/kernels/{m}.py" for m in ("barrier", "loop_helpers", "stamps")),
)


@cache
def runtime_hash() -> str:
    """A hash of the runtime's sources that end up in compiled kernels."""
    digest = hashlib.sha256()
    for name in KERNEL_SOURCES:
        digest.update(name.encode() + b"\0" + (PACKAGE / name).read_bytes())
    return digest.hexdigest()


@cache
def compiler_hash() -> str:
    """A hash of everything that decides a module's text: rnncc's own sources and templates, each by
    its size and the time it was changed, as Python tells its own byte code's source. Reading them
    all would take a tenth of the time from import to a first output."""
    inside = PACKAGE / "templates"
    roots = [PACKAGE] if inside.is_dir() else [PACKAGE, PACKAGE.parent / "templates"]
    sources = []
    for root in roots:
        for folder, _, _ in os.walk(root):
            with os.scandir(folder) as files:
                for file in files:
                    if file.name.endswith((".py", ".jinja")):
                        about = file.stat()
                        place = os.path.relpath(file.path, root)
                        sources.append((place, about.st_size, about.st_mtime_ns))
    return hashlib.sha256(repr(sorted(sources)).encode("utf-8", "surrogatepass")).hexdigest()


def python_version() -> str:
    """Whose byte code this is."""
    return f"{sys.implementation.cache_tag} {importlib.util.MAGIC_NUMBER.hex()}"


# ---- modules -------------------------------------------------------------------------------------


def keyed_module(stem: str, key: str, render: Callable[[], str]) -> ModuleType:
    """The module of a key: as it is cached, or else of the text that `render` returns.

    NotAModule, before anything is run or written, for a text that templates don't make; what is
    read from the cache was checked so, and its checksum says that it is the same.
    """
    about = "\n".join(
        [
            f"module {stem} of {written_by()} {compiler_hash()}",
            f"{python_version()}, vectors of {host().vector_bytes} bytes",
            f"key {hashlib.sha256(key.encode()).hexdigest()}",
        ]
    )
    name = entry_name(stem, about, "module")
    cached = read(name, about)
    if cached is not None:
        text, stored = _text_of(cached)
        return _module_of(stem, text, marshal.loads(stored))
    text = check_module(render())
    code = code_of(stem, text)
    data = text.encode()
    write(name, about, len(data).to_bytes(8, "little") + data + marshal.dumps(code))
    return _module_of(stem, text, code)


def _text_of(data: bytes) -> tuple[str, bytes]:
    """An entry's text, and the byte code behind it."""
    size = int.from_bytes(data[:8], "little")
    return data[8 : 8 + size].decode(), data[8 + size :]


def cached_texts() -> tuple[dict[str, str], list[str]]:
    """The texts of all modules in the cache, by the name that tracebacks call them by; and what is
    wrong with entries that are damaged. Nothing of them is run."""
    entries, damaged = sound_entries("module")
    texts = ((name.rsplit(".", 2)[0], _text_of(data)[0]) for name, data in entries)
    return {_name(stem, text): text for stem, text in texts}, damaged


def text_module(stem: str, text: str) -> ModuleType:
    """The module of that text, compiled anew in each process; it may be any, as tests have them."""
    return _module_of(stem, text, code_of(stem, text))


def code_of(stem: str, text: str) -> CodeType:
    """A text's byte code. All that is ever run came through here, in this process or in the one
    that wrote the entry."""
    return compile(text, f"rnncc:{_name(stem, text)}.py", "exec", dont_inherit=True)


class _Loader:
    """The loader of a module that is in no file: tracebacks find its lines."""

    def __init__(self, text: str, code: CodeType) -> None:
        self.text, self.code = text, code

    def create_module(self, spec: ModuleSpec) -> None:
        """A plain one."""

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)

    def get_source(self, name: str) -> str:
        return self.text


_modules: WeakValueDictionary[str, ModuleType] = WeakValueDictionary()
_lock = threading.RLock()
open_in_children(sys.modules[__name__], "_lock")


def _name(stem: str, text: str) -> str:
    return f"{stem}_{text_hash(text.encode())}"


def text_hash(text: bytes) -> str:
    """What a module's name ends in."""
    return hashlib.sha256(text).hexdigest()[:12]


def _module_of(stem: str, text: str, code: CodeType) -> ModuleType:
    """The module, run once for as long as it is in use."""
    name = f"rnncc_module_{_name(stem, text)}"
    with _lock:
        module = _modules.get(name)
        if module is None:
            loader: Any = _Loader(text, code)
            spec = ModuleSpec(name, loader, origin=code.co_filename)
            module = importlib.util.module_from_spec(spec)
            module.__file__ = code.co_filename
            # Whoever uses one of its functions keeps it, so that it is found and shared.
            module.__dict__["__this__"] = module
            exec(code, module.__dict__)
            _modules[name] = module
        return module
