"""FILE and --set to a checked spec, its options, functions and sizes.

Non-Goals: what values mean: options are checked where they are bound, functions where lowered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rnncc.driver import Derivation
from rnncc.frontend.diagnostics import an, nearest
from rnncc.frontend.elaborate import bind_options
from rnncc.frontend.limits import WHOLE
from rnncc.frontend.spec import CellSpec, Number, SizeDecl
from rnncc.ir.program import Span
from rnncc.lowering.cell_interface import check_file

CELLS = Path(__file__).parent.parent / "cells"


class UsageError(Exception):
    """The command itself is wrong: an unknown name, a value that can't be read."""


@dataclass(frozen=True)
class Settings:
    """A cell with what --set says: `spec` has the given sizes as its defaults."""

    spec: CellSpec
    options: dict[str, object] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    @cached_property
    def derivation(self) -> Derivation:
        """What all steps of a command are taken from."""
        return Derivation(self.spec, self.options, self.functions)


def builtin_cells() -> dict[str, Path]:
    """The built-in cells' files by name, in order."""
    return {path.stem: path for path in sorted(CELLS.glob("*.rnn"))}


def find_cell(text: str) -> Path:
    """A .rnn file's path, or a built-in cell's by its name."""
    path = Path(text)
    if path.suffix or len(path.parts) != 1:
        return path  # what is wrong with it, reading says
    known = builtin_cells()
    if text.lower() in known:
        return known[text.lower()]
    if path.exists():
        return path
    hint = nearest(text.lower(), known)
    listed = hint or "`rnncc cells` lists the built-in ones"
    raise UsageError(f"{text} is neither a file nor a built-in cell: {listed}")


def load(file: str, given: Iterable[str]) -> Settings:
    """The cell and its settings; UsageError names the setting that is wrong."""
    spec = check_file(find_cell(file))
    settings = Settings(spec)
    kinds = {d.name: d.kind for d in spec.declarations if d.kind in ("option", "function", "size")}
    for name, value in _pairs(given):
        kind = kinds.get(name)
        if kind == "option":
            settings.options[name] = _number_or_text(value)
        elif kind == "function":
            settings.functions[name] = value
        elif kind == "size":
            settings.sizes[name] = _whole(name, value)
        else:
            raise UsageError(_unknown(spec, name, kinds))
    if settings.options or settings.functions:  # without any it was checked as it stands
        try:
            bind_options(spec, settings.options)
            _ = settings.derivation.plain
        except (TypeError, ValueError) as error:
            raise UsageError(f"--set: {error}") from None
    if settings.sizes:
        return dataclasses.replace(settings, spec=with_sizes(spec, settings.sizes))
    return settings


def with_sizes(spec: CellSpec, sizes: dict[str, int]) -> CellSpec:
    """The spec with these sizes as its defaults."""
    here = Span(1, 1, 1)
    declarations = tuple(
        dataclasses.replace(d, default=Number(sizes[d.name], here))
        if isinstance(d, SizeDecl) and d.name in sizes
        else d
        for d in spec.declarations
    )
    return dataclasses.replace(spec, declarations=declarations)


def _pairs(given: Iterable[str]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for text in given:
        name, equals, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name or not value:
            raise UsageError(f"--set takes NAME=VALUE, not {text!r}")
        if name in seen:
            raise UsageError(f"--set gives {name} twice")
        seen.add(name)
        yield name, value


def _unknown(spec: CellSpec, name: str, kinds: dict[str, str]) -> str:
    declared = spec.find(name)
    if declared is not None:
        return f"--set {name}: {an(declared.kind)} is bound when the layer runs, not here"
    hint = nearest(name, kinds)
    known = hint or f"it has {', '.join(kinds) or 'nothing to set'}"
    return f"--set {name}: {spec.name} has no such option, function or size: {known}"


def _whole(name: str, value: str) -> int:
    short = len(value) <= len(str(WHOLE)) and value.isdecimal() and value.isascii()
    if not short or not 1 <= int(value) <= WHOLE:
        raise UsageError(
            f"--set {name}: a size is a whole number of at least 1 and at most 2**53, not {value}"
        )
    return int(value)


def _number_or_text(value: str) -> object:
    words: dict[str, object] = {"true": True, "false": False}
    if value.lower() in words:
        return words[value.lower()]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value
