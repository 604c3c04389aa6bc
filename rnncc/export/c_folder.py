"""A layer with its weights -> a folder of C99: the cell, weights, a test, a CMake file, a README.

    NAME.h, NAME.c      the functions (`emit.c`)
    NAME_weights.h      const arrays
    NAME_test.c         a program: inputs, and what the Python layer makes of them
    CMakeLists.txt, README.md

Non-Goals: models of several layers; files (`files.writing`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rnncc.common.template_loader import render
from rnncc.compiler import Compiler
from rnncc.driver import Derivation
from rnncc.emit.c.names import RESERVED
from rnncc.emit.c.text import CFile, number_lines, texts
from rnncc.emit.c.unit import CUnit, UnitWriter
from rnncc.files.writing import folder_whole
from rnncc.layers.config import deserialize, serialize
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.common.weight_formats import NARROW, narrowed

TEST_STEPS = 24
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
# A layer that shows every step, from its cell's own start.
PLAIN: dict[str, object] = {"return_sequences": True, "return_state": False, "stateful": False}
PLAIN |= {"time_major": False, "checkpoint_every": None}
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
    def products(self) -> int:
        return self.u.products

    @property
    def called(self) -> str:
        return ", ".join([a.name for a in (*self.u.inputs, *self.u.outputs)])


def c(
    layer: Layer,
    folder: str | os.PathLike[str],
    *,
    name: str,
    block: int = 16,
    storage: str | None = None,
    initial_state: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the layer's cell, for one row and with the layer's weights, as C99 into a new folder,
    whole or not at all; returns the folder.

    name: what all names in it begin with, a C identifier. block: how many steps NAME_block takes
    at once; each is memory of NAME_state where the cell makes something of its inputs before it
    comes to its states. storage: "float32", "bfloat16" or "int8": how the weights that sums read
    are kept, as a layer's `weights=`, which it is if nothing is said. initial_state: what
    NAME_reset sets, arrays of one row by state; else what the cell declares, or zeros.
    TypeError: not a layer of one cell. ValueError: no weights yet, a name that isn't C, a layer
    that runs backwards, something in the cell that has no C form (with its line). OSError: the
    folder is there and not empty, or can't be written.
    """
    unit = unit_of(layer, name, block, initial_state, storage)
    files = {**texts(unit), **_around(layer, unit, initial_state)}
    with folder_whole(folder) as made:
        for file, text in files.items():
            (made / file).write_text(text, encoding="utf-8", newline="\n")
    return Path(folder)


def unit_of(
    layer: Layer,
    name: str,
    block: int,
    initial_state: Mapping[str, Any] | None = None,
    storage: str | None = None,
) -> CUnit:
    """Raises as `c`."""
    if not isinstance(layer, Layer) or not isinstance(layer.maker, Compiler):
        what = type(layer).__name__
        raise TypeError(f"{what} is no layer of one cell: export its layers one by one")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESERVED:
        raise ValueError(f"name={name!r} is no C identifier: letters, digits and _, as in 'gate'")
    if not isinstance(block, int) or isinstance(block, bool) or not 1 <= block <= 65536:
        raise ValueError(f"block={block!r}: a number of steps, 1 to 65536")
    if not layer.built:
        raise ValueError(f"{layer.cell.name} has no weights yet: call it, build it or load some")
    if layer.go_backwards:
        raise ValueError("a layer that runs backwards needs the whole sequence: it has no C form")
    unknown = [s.name for s in layer.cell.sizes if s.name not in layer.sizes]
    if unknown:
        names = ", ".join(f"{n}=..." for n in unknown)
        raise ValueError(f"C has every size as a number: make the layer with {names}")
    rates = {n: np.asarray(r) for n, r in layer._chosen.rates.items()}
    return UnitWriter(
        _schedule(layer),
        layer.cell,
        name,
        layer.sizes,
        {**layer.weights, **layer.constants, **rates},
        dtype=layer.dtype,
        storage=_storage(layer, storage),
        block=block,
        starts=_starts(layer, initial_state),
        source=dict(enumerate(layer.maker.spec.text.split("\n"), 1)),
    ).unit(f"{layer.cell.name}: {layer.cell.doc}" if layer.cell.doc else layer.cell.name)


def _storage(layer: Layer, given: str | None) -> str:
    """As `weight_formats` names it."""
    if given is None:
        return layer.storage
    if given not in ("float32", *NARROW):
        raise ValueError(f"storage={given!r} is none of 'float32', 'bfloat16', 'int8'")
    if layer.dtype != "float32":
        raise ValueError(f"storage={given!r} is for float32, the layer's dtype is {layer.dtype}")
    return narrowed(given)


def _schedule(layer: Layer) -> Any:
    """What an inference runs: rates that matter there among it."""
    derived = Derivation.of(layer.maker.spec, layer.cell)  # type: ignore[attr-defined]
    return derived.programs(layer.plain_variant).forward.schedule


def _starts(layer: Layer, given: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    states = [s.name for s in layer.cell.states]
    unknown = sorted(set(given or {}) - {*states})
    if unknown:
        raise ValueError(f"initial_state names {unknown}, the states are {states}")
    return {n: np.asarray(v, np.float64) for n, v in (given or {}).items()}


def _around(layer: Layer, unit: CUnit, initial_state: Mapping[str, Any] | None) -> dict[str, str]:
    """The test, the build file and the README."""
    rng = np.random.default_rng(0)
    dtype, double = np.dtype(layer.dtype), layer.dtype == "float64"
    shapes = [(TEST_STEPS, *i.shape) if i.each_step else i.shape for i in unit.inputs]
    inputs = {
        i.name: rng.standard_normal(shape).astype(dtype)
        for i, shape in zip(unit.inputs, shapes, strict=True)
    }
    expected = _expected(layer, inputs, initial_state, unit.storage)
    arrays = {f"in_{n}": number_lines(a, double) for n, a in inputs.items()}
    arrays |= {
        f"right_{o.name}": number_lines(y, double)
        for o, y in zip(unit.outputs, expected, strict=True)
    }
    return {
        f"{unit.prefix}_test.c": render(
            "c/test.c.jinja", m=CTest(unit, arrays=arrays, dtype=layer.dtype)
        ),
        "CMakeLists.txt": render("c/CMakeLists.txt.jinja", m=CFile(unit)),
        "README.md": render("c/README.md.jinja", m=CReadme(unit, item=dtype.itemsize)),
    }


def _expected(
    layer: Layer,
    inputs: Mapping[str, np.ndarray],
    initial_state: Mapping[str, Any] | None,
    storage: str,
) -> list[np.ndarray]:
    """What the layer's cell makes of one row, every step."""
    data = serialize(layer)
    data["config"] = {**data["config"], **PLAIN, "weights": storage or None}
    whole = deserialize(data)
    if whole.built:  # all of its sizes were chosen
        for kept, given in ((whole.weights, layer.weights), (whole.constants, layer.constants)):
            for name, array in given.items():
                kept[name] = array
    else:
        whole.build_with(layer.sizes, {**layer.weights, **layer.constants})
    rows = {n: a[None] for n, a in inputs.items()}
    starts = None
    if initial_state is not None:
        starts = {n: np.asarray(v)[None] for n, v in initial_state.items()}
    found = whole(rows, initial_state=starts)
    return [y[0] for y in (found if isinstance(found, tuple) else (found,))]
