"""Machine code in the store: object files, one a kernel, and the loader that runs them.

    data = find(function)          # bytes of an object file, or None
    load(data).address

A file's name carries a hash of all that decides its content: the source file of the kernel, the
runtime pieces compiled into it, the machine, the versions of the compilers. Objects refer to the C
library alone, so neither Numba nor Python is needed to run them.

Non-Goals: making machine code (`codegen`).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from .machine import host
from .store import runtime_hash, store_dir, write_file

ENTRY = "rnncc.entry"  # symbols begin with it; a digest of the content follows
_DIGEST = 12


@dataclass(frozen=True, slots=True)
class MachineCode:
    """An address, and what must live as long as it is used."""

    address: int
    engine: Any


@cache
def _target() -> str:
    """What machine code depends on besides its source."""
    features = llvm.get_host_cpu_features().flatten()
    parts = [llvm.get_process_triple(), llvm.get_host_cpu_name(), features]
    parts += [_version("numba"), _version("llvmlite")]
    return " ".join([*parts, str(host().vector_bytes), runtime_hash()])


def _version(package: str) -> str:
    """The text of its version file: importing Numba, or reading metadata, would take longer."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).with_name("_version.py").read_text("utf-8")


@cache
def _source_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes() + _target().encode()).hexdigest()[:_DIGEST]


def _path(function: Callable[..., Any]) -> Path | None:
    """Where the function's object belongs; None for one that no file tells apart from others."""
    source = Path(function.__code__.co_filename)
    if "<locals>" in function.__qualname__ or not source.is_file():
        return None
    return store_dir() / f"{source.stem}.{function.__name__}.{_source_hash(source)}.o"


def find(function: Callable[..., Any]) -> bytes | None:
    """The stored object of a kernel's function."""
    path = _path(function)
    try:
        return path.read_bytes() if path else None
    except OSError:
        return None


def save(function: Callable[..., Any], data: bytes) -> None:
    """Puts an object where `find` looks for it."""
    path = _path(function)
    if path:
        write_file(path, data)


# ---- running -----------------------------------------------------------------------------------


class _Loader:
    """LLVM's linker for objects in memory. One engine serves all; symbols differ by content."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
        self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self.lock = threading.Lock()
        self.known: dict[str, int] = {}

    def load(self, data: bytes) -> int:
        name = symbol_in(data)
        with self.lock:
            if name not in self.known:
                self.engine.add_object_file(llvm.ObjectFileRef.from_data(data))
                self.engine.finalize_object()
                self.known[name] = self.engine.get_function_address(name)
            return self.known[name]


@cache
def _loader() -> _Loader:
    return _Loader()


def load(data: bytes) -> MachineCode:
    """An object's entry, ready to run."""
    loader = _loader()
    return MachineCode(loader.load(data), loader.engine)


def symbol(text: str) -> str:
    """The name of an entry whose LLVM text this is: the same content, the same name."""
    return f"{ENTRY}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def symbol_in(data: bytes) -> str:
    """The entry's name, read out of the object."""
    at = data.index(ENTRY.encode())
    return data[at : data.index(b"\0", at)].decode()
