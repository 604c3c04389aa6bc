"""Machine code in the cache, one entry a kernel, and the loader that runs it.

    data = find(function)          # bytes of an object file, or None
    load(data, function).address

An entry is about all that decides its content: the kernel's byte code and what its names mean, the
runtime pieces compiled into it, the machine, the versions of the compilers. Objects refer to the C
library alone, so neither Numba nor Python is needed to run them.

Non-Goals: making machine code (`compiler`).
"""

from __future__ import annotations

import hashlib
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from rnncc.common.machine import host
from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.common.one_for_all import one_for_all
from rnncc.runtime.jit.cache_folder import entry_name, read, write, written_by
from rnncc.runtime.jit.fingerprint import Unknown, fingerprint
from rnncc.runtime.jit.module_cache import python_version, runtime_hash

ENTRY = "rnncc.entry"  # symbols begin with it; a digest of the content follows


@dataclass(frozen=True, slots=True)
class MachineCode:
    """An address, and what must live as long as it is used."""

    address: int
    loader: Loader


@cache
def _target() -> str:
    """What machine code depends on besides its kernel."""
    features = llvm.get_host_cpu_features().flatten()
    return "\n".join(
        [
            f"{written_by()} {runtime_hash()}, {python_version()}",
            f"numba {_version('numba')}, llvmlite {_version('llvmlite')}",
            f"{llvm.get_process_triple()} {llvm.get_host_cpu_name()} {features}",
            f"vectors of {host().vector_bytes} bytes",
        ]
    )


def _version(package: str) -> str:
    """The text of its version file: importing Numba, or reading metadata, would take longer."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    text = Path(spec.origin).with_name("_version.py").read_text("utf-8")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _entry(function: Callable[..., Any]) -> tuple[str, str] | None:
    """(name, what it is about) of the function's entry; None for one that can't be told apart."""
    if "<locals>" in function.__qualname__:
        return None
    try:
        about = f"{_target()}\nkernel {fingerprint(function)}"
    except Unknown:
        return None
    # Without the hash of a module's text: a comment that is changed is no other machine code.
    stem = re.sub("^rnncc_module_|_[0-9a-f]{12}$", "", function.__module__.rpartition(".")[2])
    return entry_name(f"{stem}.{function.__name__}", about, "o"), about


def find(function: Callable[..., Any]) -> bytes | None:
    """The cached object of a kernel's function."""
    entry = _entry(function)
    return read(*entry) if entry else None


def save(function: Callable[..., Any], data: bytes) -> None:
    """Puts an object where `find` looks for it."""
    entry = _entry(function)
    if entry:
        write(*entry, data)


# ---- running -----------------------------------------------------------------------------------


def llvm_lock() -> Any:
    """What llvmlite holds during each call of LLVM; one of our own where it has none."""
    return getattr(getattr(llvm.ffi.lib, "_lock", None), "_lock", None) or threading.RLock()


class Loader:
    """LLVM's linker for objects in memory. What it loaded goes when nobody holds it any longer."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
        self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self.lock = threading.Lock()
        open_in_children(self, "lock")
        self.known: dict[str, int] = {}  # symbols differ by content

    def load(self, data: bytes) -> int:
        name = symbol_in(data)
        with self.lock:
            if name not in self.known:
                self.engine.add_object_file(llvm.ObjectFileRef.from_data(data))
                self.engine.finalize_object()
                self.known[name] = self.engine.get_function_address(name)
            return self.known[name]


@one_for_all
def _own_loader() -> Loader:
    """Of rnncc's own kernels, which stay."""
    return Loader()


_making = threading.Lock()
open_in_children(sys.modules[__name__], "_making")


def _loader_of(function: Callable[..., Any]) -> Loader:
    """One for each module of kernels, which keeps it: they are let go together."""
    home = function.__globals__  # type: ignore[attr-defined]
    with _making:
        if str(home.get("__name__")).startswith("rnncc."):
            return _own_loader()
        loader = home.get("__machine_code__") or Loader()
        home["__machine_code__"] = loader
        return loader


def load(data: bytes, function: Callable[..., Any]) -> MachineCode:
    """The entry of a kernel's object, ready to run."""
    loader = _loader_of(function)
    return MachineCode(loader.load(data), loader)


def symbol(text: str) -> str:
    """The name of an entry whose LLVM text this is: the same content, the same name."""
    return f"{ENTRY}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def symbol_in(data: bytes) -> str:
    """The entry's name, read out of the object."""
    at = data.index(ENTRY.encode())
    return data[at : data.index(b"\0", at)].decode()
