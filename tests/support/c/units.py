"""Cells as C, compiled by whatever C compiler there is, and called."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnncc.driver import Derivation
from rnncc.emit.c.parts import CUnit, UnitParts
from rnncc.emit.c.text import texts
from rnncc.emit.c.unit import UnitWriter

COMPILER = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


def unit_of(
    layer: Any, prefix: str = "net", block: int = 16, starts: Mapping[str, Any] | None = None
) -> CUnit:
    """A built layer's cell with its weights."""
    spec = layer.maker.spec
    chosen = Derivation.of(spec, layer.cell)
    lines = dict(enumerate(spec.text.split("\n"), 1))
    parts = UnitParts(prefix, layer.dtype, layer.storage, block)
    UnitWriter(
        parts,
        chosen.plain.forward.schedule,
        layer.cell,
        layer.sizes,
        {**layer.weights, **layer.constants, **layer._chosen.rates},
        starts=starts,
        source=lines,
    ).write()
    return parts.unit(layer.cell.doc)


class Compiled:
    """A unit's functions on NumPy arrays."""

    def __init__(self, unit: CUnit, folder: Path, flags: Sequence[str] = ("-O2",)) -> None:
        assert COMPILER is not None
        self.unit, self.folder = unit, folder
        for name, text in texts(unit).items():
            (folder / name).write_text(text, encoding="utf-8")
        library = folder / f"{unit.prefix}.so"
        source = str(folder / f"{unit.prefix}.c")
        command = [COMPILER, *STRICT, *flags, "-shared", "-fPIC", "-o", str(library), source, "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        self.library = ctypes.CDLL(str(library))
        self.dtype = np.dtype({"float": "f4", "double": "f8"}[unit.real])
        elements = sum((s.rows + 1) * s.elements for s in unit.states) + sum(
            w.elements for w in unit.works
        )
        self.state = np.full(elements + 8, np.nan, self.dtype)
        self.call("init")

    def call(self, function: str, *arguments: Any) -> None:
        pointers = [
            ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments
        ]
        state = ctypes.c_void_p(self.state.ctypes.data)
        getattr(self.library, f"{self.unit.prefix}_{function}")(state, *pointers)

    def outputs(self, steps: int) -> list[np.ndarray]:
        return [np.full((steps, *o.shape), np.nan, self.dtype) for o in self.unit.outputs]

    def steps(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """A step after the other, of inputs [time, ...]."""
        found = self.outputs(len(inputs[0]))
        for t in range(len(inputs[0])):
            pairs = zip(inputs, self.unit.inputs, strict=True)
            now = (i[t : t + 1] if a.each_step else i for i, a in pairs)
            self.call("step", *now, *(o[t : t + 1] for o in found))
        return found

    def block(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = self.outputs(len(inputs[0]))
        self.call("block", *inputs, *found, len(inputs[0]))
        return found


def inputs_of(unit: CUnit, steps: int, seed: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    dtype = {"float": "f4", "double": "f8"}[unit.real]
    shapes = [(steps, *i.shape) if i.each_step else i.shape for i in unit.inputs]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def built(layer: Any, shapes: Any, seed: int = 5) -> Any:
    """With weights none of which is zero."""
    layer.build(shapes)
    rng = np.random.default_rng(seed)
    for name, array in (*layer.weights.items(), *layer.constants.items()):
        part: Mapping[str, Any] = layer.weights if name in layer.weights else layer.constants
        part[name] = array + 0.2 * rng.standard_normal(array.shape)  # type: ignore[index]
    return layer
