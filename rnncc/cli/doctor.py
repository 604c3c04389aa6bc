"""`rnncc doctor`: what rnncc finds on this machine, and what is missing for what.

1 where something that rnncc itself needs is wrong: a package that is missing or too old, a cache
folder that isn't used. What extras need and isn't there is said, and is no mistake.

Non-Goals: mending; whether kernels are right (`check`).
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from rich.console import Console
from rich.table import Table

from rnncc.cli.report import print_json
from rnncc.common.machine import host
from rnncc.common.version import __version__
from rnncc.runtime.jit.cache_folder import Unusable, contents, most_bytes

# What rnncc needs, with the oldest that was tried: pyproject.toml says the same.
NEEDED = {"numpy": "2.0", "numba": "0.62", "llvmlite": "0.45", "jinja2": "3.1", "rich": "13.7"}
FRAMEWORKS = ("torch", "keras", "jax", "tensorflow", "tensorflow-cpu", "onnx", "onnxruntime")
COMPILERS = ("cc", "gcc", "clang")
VERSIONED = ("numba", "llvmlite", "numpy")  # what a report of a mistake needs to say


@dataclass(frozen=True)
class Ability:
    """What a part of rnncc takes beyond the package: `found`, or what is `missing` and the mend."""

    name: str
    found: str = ""
    missing: str = ""


def run(arguments: argparse.Namespace) -> int:
    wrong = [*_wrong_packages()]
    cache = _cache(wrong)
    machine = _machine()
    abilities = [*_abilities()]
    versions = {n: version_of(n) for n in (*NEEDED, *FRAMEWORKS)}
    if arguments.json:
        print_json(
            "doctor",
            ok=not wrong,
            rnncc=__version__,
            python=platform.python_version(),
            machine=machine,
            cache=cache,
            packages=versions,
            abilities={a.name: {"found": a.found, "missing": a.missing} for a in abilities},
            wrong=wrong,
        )
    else:
        _show(machine, cache, versions, abilities, wrong)
    return int(bool(wrong))


def version_of(package: str) -> str | None:
    """An installed package's version, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions() -> str:
    """What `rnncc --version` says: all that a report of a mistake needs."""
    others = ", ".join(f"{name} {version_of(name) or 'missing'}" for name in VERSIONED)
    return f"rnncc {__version__} (Python {platform.python_version()}, {others})"


def _wrong_packages() -> Iterator[str]:
    for name, oldest in NEEDED.items():
        found = version_of(name)
        if found is None:
            yield f"{name} is not installed: pip install '{name}>={oldest}'"
        elif _numbers(found) < _numbers(oldest):
            yield f"{name} {found} is older than {oldest}: pip install '{name}>={oldest}'"


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers a version begins with: 0.62.1rc1 -> (0, 62, 1)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _machine() -> dict[str, Any]:
    found = host()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": found.threads,
        "vector_bits": 8 * found.vector_bytes,
        "vector_registers": found.registers,
        "l1_bytes": found.l1,
        "l2_bytes": found.l2,
        "environment": {n: v for n, v in sorted(os.environ.items()) if n.startswith("RNNCC_")},
    }


def _cache(wrong: list[str]) -> dict[str, Any]:
    try:
        cached = contents()
    except Unusable as error:
        wrong.append(f"the cache isn't used: {error.why}")
        return {"folder": None, "entries": 0, "bytes": 0, "most_bytes": most_bytes()}
    return {
        "folder": str(cached.path),
        "entries": sum(count for count, _ in cached.kinds.values()),
        "bytes": sum(size for _, size in cached.kinds.values()),
        "most_bytes": most_bytes(),
    }


# ---- what more there may be --------------------------------------------------------------------


def _abilities() -> Iterator[Ability]:
    yield _gpu()
    compiler = next((c for c in (os.environ.get("CC"), *COMPILERS) if c and shutil.which(c)), "")
    yield Ability("C", compiler, "" if compiler else "a C99 compiler (cc, gcc or clang; or set CC)")
    for name, package, extra in (
        ("ONNX", "onnx", "onnx"),
        ("files of HDF5 and Keras", "h5py", "files"),
        ("torch", "torch", "torch"),
        ("Keras", "keras", "keras"),
        ("JAX", "jax", "jax"),
        ("editor (rnncc lsp)", "pygls", "lsp"),
        ("shell completion", "argcomplete", "completion"),
    ):
        version = version_of(package)
        found = f"{package} {version}" if version else ""
        yield Ability(name, found, "" if version else f"{package}: pip install 'rnncc[{extra}]'")


def _gpu() -> Ability:
    """By what lies on the disk: a driver that is asked may take seconds, and starts its own."""
    version = version_of("numba-cuda")
    if version is None:
        return Ability("GPU", missing="numba-cuda: pip install 'rnncc[cuda]'")
    if not _has_driver():
        return Ability("GPU", f"numba-cuda {version}", "NVIDIA's driver (libcuda): install one")
    return Ability("GPU", f"numba-cuda {version}, a driver of NVIDIA's")


def _has_driver() -> bool:
    from ctypes.util import find_library

    return bool(find_library("nvcuda" if sys.platform == "win32" else "cuda"))


# ---- for people ----------------------------------------------------------------------------------


def _show(
    machine: dict[str, Any],
    cache: dict[str, Any],
    packages: dict[str, str | None],
    abilities: list[Ability],
    wrong: list[str],
) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("rnncc", f"{__version__}, Python {platform.python_version()}")
    table.add_row("machine", f"{machine['system']}, {machine['processor']}")
    table.add_row(
        "vectors", f"{machine['vector_bits']} bits, {machine['vector_registers']} registers"
    )
    table.add_row("threads", f"{machine['threads']} of {machine['cores']} cores")
    table.add_row(
        "memory", f"L1 {machine['l1_bytes'] >> 10} KiB, L2 {machine['l2_bytes'] >> 10} KiB"
    )
    for name, value in machine["environment"].items():
        table.add_row(name, value)
    used = f"{cache['bytes']:,} of at most {cache['most_bytes']:,} bytes in {cache['entries']:,}"
    table.add_row("cache", f"{cache['folder']}: {used} entries" if cache["folder"] else "not used")
    table.add_row("packages", ", ".join(f"{n} {v}" for n, v in packages.items() if v))
    for ability in abilities:
        needs = f"needs {ability.missing}" if ability.missing else ""
        table.add_row(ability.name, "; ".join(filter(None, (ability.found, needs))))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    console.print(table, markup=False)
    for what in wrong:
        print(f"wrong: {what}")
    if not wrong:
        print("all right")
