"""A layer or model with its weights -> a folder of C99: weights, a test, a CMake file, a README.

    NAME.h, NAME.c      the functions (`emit.c`)
    NAME_weights.h      const arrays
    NAME_test.c         a program: inputs, and what the Python layer makes of them
    CMakeLists.txt, README.md

Non-Goals: which cells there are (`to_c`); files (`files.writing`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rnncc.common.layer_keywords import Storage
from rnncc.common.progress import working
from rnncc.common.template_loader import render
from rnncc.emit.c.names import RESERVED
from rnncc.emit.c.parts import CUnit, UnitParts
from rnncc.emit.c.text import CFile, number_lines, texts
from rnncc.export.to_c.chain import CellRow
from rnncc.export.to_c.model_chain import chain_of
from rnncc.files.writing import folder_whole
from rnncc.models.model import Model
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.common.weight_formats import NARROW, narrowed

TEST_STEPS = 24
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
_LOCAL = re.compile(r"real \w+\[(\d+)\]")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True)
class CTest(CFile):
    """NAME_test.c: inputs and right outputs, by name, as lines of numbers."""

    arrays: Mapping[str, list[str]] = field(default_factory=dict)
    dtype: str = "float32"
    steps = TEST_STEPS

    @property
    def tolerance(self) -> str:
        return f"{TOLERANCE[self.dtype]:g}"

    @property
    def step_arguments(self) -> str:
        moved = {True: " + t * {}", False: ""}
        inputs = [f"in_{i.name}{moved[i.each_step].format(i.elements)}" for i in self.u.inputs]
        outputs = [f"stepped_{o.name} + t * {o.elements}" for o in self.u.outputs]
        return ", ".join(inputs + outputs)

    @property
    def block_arguments(self) -> str:
        inputs = [f"in_{i.name}" for i in self.u.inputs]
        return ", ".join(inputs + [f"blocked_{o.name}" for o in self.u.outputs])


@dataclass(frozen=True)
class CReadme(CFile):
    """README.md, with sizes in bytes of items of so many."""

    item: int = 4

    @property
    def flash(self) -> int:
        items = {"real": self.item, "weight": 4 if self.u.storage else self.item}  # words
        starts = sum(s.elements for s in self.u.states if s.values is not None) * self.item
        return starts + sum(a.elements * items[a.kind] for a in self.u.weights)

    @property
    def kept(self) -> str:
        """How weights are kept."""
        return self.u.storage or self.u.real

    @property
    def states(self) -> int:
        return self.u.state_elements * self.item

    @property
    def ram(self) -> int:
        scratch = sum(w.elements for w in self.u.works)
        moved = sum(n for k in self.u.kernels for _, n in k.advances)
        kept = sum((s.rows - 1) * s.elements for s in self.u.states)
        return self.states + (scratch + moved + kept) * self.item

    @property
    def stack(self) -> int:
        """Of the deepest sums: what they keep between calls, and a tile of theirs."""
        tiles = max([*self.u.widths, *self.u.narrow, *(8 for _ in self.u.tall)], default=0)
        parts = [part.lines for k in self.u.kernels for part in k.parts]
        return (tiles + max(map(deepest, parts), default=0)) * self.item

    @property
    def products(self) -> int:
        return self.u.products

    @property
    def called(self) -> str:
        return ", ".join([a.name for a in (*self.u.inputs, *self.u.outputs)])


def deepest(lines: Sequence[str]) -> int:
    """Elements of the arrays that stand in one outermost block.

    >>> deepest(["{", "    real sums[8];", "    real more[4];", "}", "{", "real a[9];", "}"])
    12
    """
    most = here = depth = 0
    for line in lines:
        found = _LOCAL.match(line.strip())
        here += int(found[1]) if found else 0
        depth += line.count("{") - line.count("}")
        most, here = max(most, here), here if depth else 0
    return most


def c(
    what: Layer | Model,
    folder: str | os.PathLike[str],
    *,
    name: str,
    block: int = 16,
    storage: Storage | None = None,
    initial_state: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a layer's cells, or a model's, for one row and with their weights, as C99 into a new
    folder, whole or not at all; returns the folder.

    what: a layer, a stack of cells (RNN), or what `rnncc.load_model` makes, of parts that need no
    later step. A step's output is that of the sequence so far, also where the layer or model
    returns its last one alone. name: what all names in it begin with, a C identifier. block: how
    many steps NAME_block takes at once; each is memory of NAME_state where something is made of
    inputs before it comes to the states. storage: "float32", "bfloat16" or "int8": how the weights
    that sums read are kept, as a layer's `weights=`, which it is if nothing is said; in a model
    dense layers', too. initial_state: what NAME_reset sets, arrays of one row by state; else what
    the cell declares, or zeros.
    TypeError: neither a layer nor a model, or a part that has no C form. ValueError: no weights
    yet, a name that isn't C, a layer that runs backwards, something in a cell that has no C form
    (with its line), states of another shape. OSError: the folder is there and not empty, or can't
    be written.
    """
    with working(f"writing {os.fspath(folder)}"):
        unit, chain = made_of(what, name, block, storage, initial_state)
        files = {**texts(unit), **_around(unit, chain)}
        with folder_whole(folder) as made:
            for file, text in files.items():
                (made / file).write_text(text, encoding="utf-8", newline="\n")
    return Path(folder)


def made_of(
    what: Layer | Model,
    name: str,
    block: int = 16,
    storage: str | None = None,
    initial_state: Mapping[str, Any] | None = None,
) -> tuple[CUnit, CellRow]:
    """Raises as `c`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESERVED:
        raise ValueError(f"name={name!r} is no C identifier: letters, digits and _, as in 'gate'")
    if not isinstance(block, int) or isinstance(block, bool) or not 1 <= block <= 65536:
        raise ValueError(f"block={block!r}: a number of steps, 1 to 65536")
    kept = _storage(what, storage)
    chain = chain_of(what, kept, initial_state)
    dtype = _dtype(what)
    if kept and dtype != "float32":
        raise ValueError(f"storage={kept!r} is for float32, {what!r} is of {dtype}")
    parts = UnitParts(name, dtype, kept, block)
    chain.write(parts)
    return parts.unit(_title(what)), chain


def _title(what: Layer | Model) -> str:
    """A sentence, with its full stop."""
    if isinstance(what, Model):
        kinds = ", ".join(node.part.kind for node in what.nodes)
        return f"{Path(what.origin).name or 'A model'}: {kinds}."
    doc = what.cell.doc.rstrip().rstrip(".")
    return f"{what.cell.name}: {doc}." if doc else f"{what.cell.name}."


def _dtype(what: Layer | Model) -> str:
    if isinstance(what, Layer):
        return what.dtype
    floats = {a.dtype.name for a in what.weights.values() if a.dtype.kind == "f"}
    return "float64" if floats == {"float64"} else "float32"


def _storage(what: Any, given: str | None) -> str:
    """As `weight_formats` names it."""
    if given is None:
        return what.storage if isinstance(what, Layer) else ""
    if given not in ("float32", *NARROW):
        raise ValueError(f"storage={given!r} is none of 'float32', 'bfloat16', 'int8'")
    return narrowed(given)


def _around(unit: CUnit, chain: CellRow) -> dict[str, str]:
    """The test, the build file and the README."""
    rng = np.random.default_rng(0)
    dtype = np.dtype({"float": "float32", "double": "float64"}[unit.real])
    inputs = {}
    for name, array in chain.inputs.items():
        shape = (TEST_STEPS, *array.shape) if array.each_step else array.shape
        inputs[name] = rng.standard_normal(shape).astype(dtype)
        if name in chain.words:
            inputs[name] = rng.integers(0, chain.words[name], shape).astype(dtype)
    expected = chain.run(inputs, unit.storage)
    double = dtype == np.float64
    arrays = {
        f"in_{port.name}": number_lines(a, double)
        for port, a in zip(unit.inputs, inputs.values(), strict=True)
    }
    arrays |= {
        f"right_{o.name}": number_lines(y, double)
        for o, y in zip(unit.outputs, expected, strict=True)
    }
    test = CTest(unit, arrays=arrays, dtype=dtype.name)
    return {
        f"{unit.prefix}_test.c": render("c/test.c.jinja", m=test),
        "CMakeLists.txt": render("c/CMakeLists.txt.jinja", m=CFile(unit)),
        "README.md": render("c/README.md.jinja", m=CReadme(unit, item=dtype.itemsize)),
    }
