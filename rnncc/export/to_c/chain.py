"""Cells in a row, and the values between them: written into one C file, or run on arrays.

    inputs of the file -> step -> values in NAME_state, of every step of a block -> step -> outputs

Non-Goals: which layers a model has (`model_chain`); what a cell is in C (`emit.c`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnncc.common.user_text import Code
from rnncc.driver import Derivation
from rnncc.emit.c.names import CNames
from rnncc.emit.c.parts import CArray, CKernel, UnitParts
from rnncc.emit.c.unit import UnitWriter
from rnncc.layers.config import deserialize, serialize
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.validation import array_shape

# A layer that shows every step, from its cell's own start.
PLAIN: dict[str, object] = {"return_sequences": True, "return_state": False, "stateful": False}
PLAIN |= {"time_major": False, "checkpoint_every": None}


@dataclass(frozen=True)
class Cell:
    """A layer of one cell. reads, makes: values by name, in the cell's order. starts: of states."""

    layer: Layer
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    starts: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Lookup:
    """A row of a table for each number that is read; the first for what is no row of it."""

    table: np.ndarray
    reads: tuple[str, ...]
    makes: tuple[str, ...]


Step = Cell | Lookup


@dataclass(frozen=True)
class CellRow:
    """inputs: values by name, and each step's shape, or of all steps. words: of inputs that are
    numbers of rows, how many there are."""

    inputs: Mapping[str, CArray]
    outputs: Sequence[str]
    steps: Sequence[Step]
    words: Mapping[str, int] = field(default_factory=dict)

    def write(self, parts: UnitParts) -> None:
        places: dict[str, str] = {}
        shapes = {name: array.shape for name, array in self.inputs.items()}
        ports = CNames()
        for name, array in self.inputs.items():
            own = CArray(ports.fresh_of(name, ""), array.shape, each_step=array.each_step)
            parts.inputs.append(own)
            places[name] = f"in_{own.name}"
        shapes |= {n: shape for step in self.steps for n, shape in made_by(step).items()}
        for name in self.outputs:
            own = CArray(ports.fresh_of(name, ""), shapes[name])
            parts.outputs.append(own)
            places[name] = f"out_{own.name}"
        for step in self.steps:
            for name in step.makes:
                if name not in places:
                    places[name] = parts.work(_word(name), shapes[name], every_step=True)
            if isinstance(step, Cell):
                write_cell(parts, step, places)
            else:
                _write_lookup(parts, step, places)

    def run(self, inputs: Mapping[str, np.ndarray], storage: str) -> list[np.ndarray]:
        """What the Python layers make of one row, [time, ...], of every step."""
        values = {n: a[None] for n, a in inputs.items()}
        for step in self.steps:
            read = [values[n] for n in step.reads]
            if isinstance(step, Lookup):
                values[step.makes[0]] = step.table[read[0][..., 0].astype(int)]
                continue
            found = _shown(step.layer, storage)(
                dict(zip(_ports(step.layer), read, strict=True)),
                initial_state={n: s[None] for n, s in step.starts.items()} or None,
            )
            made = found if isinstance(found, tuple) else (found,)
            values |= dict(zip(step.makes, made, strict=True))
        return [values[n][0] for n in self.outputs]


def made_by(step: Step) -> dict[str, tuple[int, ...]]:
    """Values and their shapes of one step."""
    if isinstance(step, Lookup):
        return {step.makes[0]: step.table.shape[1:]}
    layer = step.layer
    shapes = [tuple(array_shape(o, layer.sizes)) for o in layer.cell.outputs]
    return dict(zip(step.makes, shapes, strict=True))


def write_cell(parts: UnitParts, step: Cell, places: Mapping[str, str]) -> None:
    layer = step.layer
    spec = layer.maker.spec  # type: ignore[attr-defined]
    rates = {n: np.asarray(r) for n, r in layer._chosen.rates.items()}
    outputs = [o.name for o in layer.cell.outputs]
    UnitWriter(
        parts,
        # What an inference runs: rates that matter there among it.
        Derivation.of(spec, layer.cell).programs(layer.plain_variant).forward.schedule,
        layer.cell,
        layer.sizes,
        {**layer.weights, **layer.constants, **rates},
        inputs={n: places[v] for n, v in zip(_ports(layer), step.reads, strict=True)},
        outputs={n: places[v] for n, v in zip(outputs, step.makes, strict=True)},
        starts=step.starts,
        source=dict(enumerate(spec.text.split("\n"), 1)),
    ).write()


def _ports(layer: Layer) -> list[str]:
    return [a.name for a in (*layer.cell.inputs, *layer.cell.contexts)]


def _write_lookup(parts: UnitParts, step: Lookup, places: Mapping[str, str]) -> None:
    words, features = step.table.shape
    table = parts.constant("table", step.table)
    parts.weights.append(table)
    kernel = CKernel(parts.named.fresh_of("rows", ""), Code("Rows of a table."))
    number = f"({places[step.reads[0]]})[t]"
    target = f"({places[step.makes[0]]})[t * {features} + j]"
    kernel.add(
        True,
        [
            f"const int row = {number} >= 0 && {number} < {words} ? (int){number} : 0;",
            f"for (int j = 0; j < {features}; ++j)",
            f"    {target} = {table.name}[row * {features} + j];",
        ],
    )
    parts.kernels.append(kernel)


def _word(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_") or "value"


def _shown(layer: Layer, storage: str) -> Layer:
    """The layer as one that shows every step."""
    data: dict[str, Any] = serialize(layer)
    data["config"] = {**data["config"], **PLAIN, "weights": storage or None}
    whole = deserialize(data)
    if whole.built:  # all of its sizes were chosen
        for kept, given in ((whole.weights, layer.weights), (whole.constants, layer.constants)):
            for name, array in given.items():
                kept[name] = array
    else:
        whole.build_with(layer.sizes, {**layer.weights, **layer.constants})
    return whole
