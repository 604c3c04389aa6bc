"""Rooms import rooms to their left alone, and generated modules import the runtime alone."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from rnncc.emit.module import render_module

from .cases import NAMES, ROOT, spec_of

PACKAGE = ROOT / "rnncc"
ROOMS = ("ir", "frontend", "passes", "schedule", "emit", "runtime")
# Files and folders that put rooms together; `layers` and `torch` stand on the compiler, `keras` on
# all three.
ABOVE = ("cli", "keras", "torch", "__init__", "__main__", "compiler", "oracle", "layers")
# (importer, imported): why it may look to its right.
ALLOWED = {
    ("rnncc.emit.describe", "rnncc.runtime.initializers"): (
        "an initializer's signature says which arguments a cell may give it"
    ),
}


def files() -> Iterator[Path]:
    return (p for p in sorted(PACKAGE.rglob("*.py")) if "templates" not in p.parts)


def imports(tree: ast.Module, package: str) -> Iterator[str]:
    """What a file imports, by full names: anywhere but for annotations alone."""
    for node in itertools.chain(*(ast.walk(n) for n in tree.body if not is_for_types(n))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = (
                ".".join([*parents, node.module or ""]).rstrip(".") if node.level else node.module
            )
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def room_of(module: str) -> str:
    """The room of `rnncc.<room>....`."""
    return module.split(".")[1]


EDGES = [
    (".".join(path.relative_to(ROOT).with_suffix("").parts), imported)
    for path in files()
    for imported in imports(
        ast.parse(path.read_text(encoding="utf-8")), ".".join(path.relative_to(ROOT).parts[:-1])
    )
    if imported.startswith("rnncc.")
]


def test_every_folder_is_a_room() -> None:
    folders = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert folders == {*ROOMS, "cli", "keras", "layers", "torch"}
    assert {p.stem for p in PACKAGE.glob("*.py")} == {*ABOVE} - {"cli", "keras", "layers", "torch"}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_to_their_left(room: str) -> None:
    right = {*ROOMS[ROOMS.index(room) + 1 :], *ABOVE}
    wrong = {
        (importer, imported)
        for importer, imported in EDGES
        if room_of(importer) == room and room_of(imported) in right
    }
    wrong = {(a, b) for a, b in wrong if not any(a == x and b.startswith(y) for x, y in ALLOWED)}
    assert not wrong


def test_layers_stand_on_the_compiler() -> None:
    """On it and the runtime: what it took to compile them is none of their business."""
    wrong = {b for a, b in EDGES if room_of(a) == "layers"}
    assert {room_of(b) for b in wrong} == {"layers", "compiler", "runtime"}
    above = [room_of(a) for a, b in EDGES if room_of(b) == "layers"]
    assert set(above) == {"layers", "keras"}


def test_every_exception_is_needed() -> None:
    unused = {(x, y) for x, y in ALLOWED if not any(a == x and b.startswith(y) for a, b in EDGES)}
    assert not unused


def reached(start: str, graph: dict[str, set[str]]) -> set[str]:
    """The modules that a module imports, or that those import, and so on."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def test_no_imports_in_circles() -> None:
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in files()}
    graph: dict[str, set[str]] = {m: set() for m in modules}
    for importer, imported in EDGES:
        target = imported if imported in modules else imported.rsplit(".", 1)[0]
        if target in modules:
            graph[importer].add(target)
    assert not [m for m in sorted(modules) if m in reached(m, graph)]


def generated(text: str) -> set[str]:
    return set(imports(ast.parse(text), "generated"))


@pytest.mark.parametrize("name", NAMES)
def test_generated_modules_import_the_runtime_alone(name: str) -> None:
    wrong = [
        i
        for i in generated(render_module(spec_of(name)))
        if i.split(".")[0] not in ("numpy", "numba") and not i.startswith("rnncc.runtime.")
    ]
    assert not wrong
