"""A layer, a stack of them or a model -> a chain of cells.

A step's output is that of the sequence so far: a layer that returns its last step alone, and what
takes the last step, are as any other here.

Non-Goals: what runs backwards or needs the whole sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.compiler import Compiler
from rnncc.emit.c.parts import CArray
from rnncc.export.to_c.chain import Cell, CellRow, Lookup, Step, made_by
from rnncc.export.to_c.plain_cells import cell_of
from rnncc.layers.stacked import Stacked
from rnncc.models import plain
from rnncc.models.component import Component, Wired
from rnncc.models.model import Model
from rnncc.models.recurrent import Recurrent
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.validation import array_shape


def chain_of(
    what: Layer | Model, storage: str, initial_state: Mapping[str, Any] | None = None
) -> CellRow:
    """TypeError for what is neither, or has a part without a C form; ValueError for one that isn't
    ready."""
    if isinstance(what, Model):
        if initial_state is not None:
            raise TypeError("initial_state is a layer's: a model's layers have their own")
        return _ModelRow(what, storage).chain()
    if not isinstance(what, Layer):
        raise TypeError(f"{type(what).__name__} is neither a layer nor a model of rnncc")
    check(what)
    inputs = {a.name: CArray(a.name, _shape(what, a)) for a in what.cell.inputs}
    inputs |= {a.name: CArray(a.name, _shape(what, a), each_step=False) for a in what.cell.contexts}
    outputs = tuple(o.name for o in what.cell.outputs)
    named = tuple(n if n not in inputs else f"{n}_out" for n in outputs)
    steps = steps_of(what, tuple(inputs), named, _starts(what, initial_state))
    return CellRow(inputs, named, steps)


def steps_of(
    layer: Layer, reads: tuple[str, ...], makes: tuple[str, ...], starts: Mapping[str, np.ndarray]
) -> list[Step]:
    """The cells of a layer, one for each of a stack."""
    check(layer)
    if not isinstance(layer, Stacked):
        return [Cell(layer, reads, makes, starts)]
    steps: list[Step] = []
    for n, part in enumerate(layer.parts):
        last = n == len(layer.parts) - 1
        made = tuple(f"{makes[0]}.{n}.{o.name}" for o in part.cell.outputs)
        own = {s.name: starts[w] for s in part.cell.states if (w := part.name(s.name)) in starts}
        if n and part.cell.contexts:
            raise TypeError(f"cell {n} of a stack reads a context, which has no C form there")
        steps += steps_of(part.layer, reads, makes if last else made, own)
        reads = made
    return steps


def check(layer: Layer) -> None:
    """TypeError for a layer of another kind, ValueError for one that isn't ready."""
    if not isinstance(layer.maker, Compiler) and not isinstance(layer, Stacked):
        what = type(layer).__name__
        raise TypeError(f"{what} needs the whole sequence: it has no C form")
    if layer.go_backwards:
        raise ValueError("a layer that runs backwards needs the whole sequence: it has no C form")
    if not layer.built:
        raise ValueError(f"{layer.cell.name} has no weights yet: call it, build it or load some")
    unknown = [s.name for s in layer.cell.sizes if s.name not in layer.sizes]
    if unknown:
        names = ", ".join(f"{n}=..." for n in unknown)
        raise ValueError(f"C has every size as a number: make the layer with {names}")


def _starts(layer: Layer, given: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    known = {s.name: tuple(array_shape(s, layer.sizes)) for s in layer.cell.states}
    found = {}
    for name, value in (given or {}).items():
        if name not in known:
            raise ValueError(f"initial_state names {name!r}, the states are {[*known]}")
        found[name] = np.asarray(value, np.float64)
        if found[name].shape != known[name]:
            shapes = f"{list(found[name].shape)}, expected {list(known[name])}"
            raise ValueError(f"initial_state {name} has shape {shapes}: one row")
    return found


def _shape(layer: Layer, array: Any) -> tuple[int, ...]:
    return tuple(array_shape(array, layer.sizes))


class _ModelRow:
    """shapes: of a step of values that are known so far. same: values that are others."""

    def __init__(self, model: Model, storage: str) -> None:
        self.model, self.storage = model, storage
        floats = {a.dtype.name for a in model.weights.values() if a.dtype.kind == "f"}
        self.dtype = "float64" if floats == {"float64"} else "float32"
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.same: dict[str, str] = {}
        self.words: dict[str, int] = {}
        self.steps: list[Step] = []
        self.read_by_none = {v for n in model.nodes for v in n.outputs}
        self.read_by_none -= {v for n in model.nodes for v in n.inputs}
        self.read_by_none -= {p.name for p in model.outputs}

    def chain(self) -> CellRow:
        if self.model.constants:
            names = ", ".join(self.model.constants)
            raise TypeError(f"constants of the model ({names}) have no C form")
        for port in self.model.inputs:
            self.shapes[port.name] = self._input_shape(port)
        for node in self.model.nodes:
            self._add(node)
        outputs = [self._value(p.name) for p in self.model.outputs]
        inputs = {p.name: CArray(p.name, self.shapes[p.name]) for p in self.model.inputs}
        if len({*outputs} - inputs.keys()) < len(outputs):
            raise TypeError("an output that is an input or another output has no C form")
        return CellRow(inputs, outputs, self.steps, self.words)

    def _input_shape(self, port: Any) -> tuple[int, ...]:
        readers = [n.part for n in self.model.nodes if port.name in n.inputs]
        rows = any(isinstance(_inner(r), plain.Embedding) for r in readers)
        if rows and len(port.shape) == 2:
            return (1,)
        last = port.shape[-1]
        if len(port.shape) != 3 or not isinstance(last, int):
            raise TypeError(f"input {port} has no C form: expected [batch, time, a number]")
        return (last,)

    def _value(self, name: str) -> str:
        while name in self.same:
            name = self.same[name]
        return name

    def _add(self, node: Wired) -> None:
        part, reads = _inner(node.part), [self._value(v) for v in node.inputs if v]
        made, *more = node.outputs
        used = [v for v in more if v and v not in self.read_by_none]
        if used or (isinstance(part, Recurrent) and any(node.inputs[1:])):
            what = "masks and states that go from part to part have no C form"
            raise TypeError(f"{part.name} ({part.kind}): {what}")
        if isinstance(part, plain.Same | plain.LastStep):
            self.same[made] = reads[0]
            return
        if isinstance(part, plain.Embedding):
            self.words[reads[0]] = len(part.table)
            self._take([Lookup(part.table, (reads[0],), (made,))])
            return
        if isinstance(part, Recurrent):
            self._take(self._recurrent(part, reads[0], made))
            return
        sizes = [self.shapes[v][-1] for v in reads]
        for value, array in part.weights.items():
            if array.dtype.kind == "f" and array.dtype != self.dtype:
                given = f"{array.dtype} values, the model is of {self.dtype}"
                raise TypeError(f"{part.name}/{value} holds {given}")
        layer = cell_of(part, sizes, self.dtype, self.storage)
        self._take([Cell(layer, tuple(reads), (made,))])

    def _recurrent(self, part: Recurrent, read: str, made: str) -> Sequence[Step]:
        layer = part.layer
        if layer.dtype != self.dtype:
            raise TypeError(f"{part.name} is of {layer.dtype}, the model of {self.dtype}")
        outputs = layer.cell.outputs
        if len(outputs) != 1 or len(layer.cell.arguments) != 1:
            raise TypeError(f"{part.name} has several inputs or outputs: no C form in a model")
        shape = _shape(layer, layer.cell.inputs[0])
        if layer.built and self.shapes[read] != shape:
            given = f"{list(self.shapes[read])} features, its weights are for {list(shape)}"
            raise ValueError(f"{part.name} reads {given}")
        names = [s.name for s in layer.cell.states]
        starts = (
            {}
            if part.initial_state is None
            else dict(zip(names, (s[0] for s in part.initial_state), strict=True))
        )
        return steps_of(layer, (read,), (made,), starts)

    def _take(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.shapes |= made_by(step)
            self.steps.append(step)


def _inner(part: Component) -> Component:
    """What a part at each step does."""
    return _inner(part.part) if isinstance(part, plain.EachStep) else part
