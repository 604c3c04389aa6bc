"""A graph -> the text of a .rnn file.

What is read once stands where it is read, what is read several times has a name; what is a state's
next value is that state's equation.

Non-Goals: what operations are called (`words`).
"""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import tree

from rnncc.frontend.library import RESERVED
from rnncc.keras.python.graph import Applied, Graph, is_symbolic
from rnncc.keras.python.kinds import in_kind, kind_of, refuse_shapes, refuse_unknown
from rnncc.keras.python.sizes import Sizes
from rnncc.keras.python.values import (
    ATOM,
    COMPARED,
    SIGN,
    TracedValue,
    Unreadable,
    along_of,
    number,
    row_shape,
)
from rnncc.keras.python.words import WORDS

_LONGEST = 72  # of an expression that stands within another
_FIRST_ONLY = ("GetItem", "Dropout")  # operations whose other arguments are no operands


@dataclass(frozen=True, slots=True)
class CellText:
    """A cell's text, the numbers of its sizes, and its variables by their names there."""

    text: str
    sizes: dict[str, int]
    variables: dict[str, Any]


def identifier(text: str) -> str:
    """A name of the language that looks like the text."""
    name = re.sub(r"[^0-9A-Za-z_]", "_", text).lstrip("_0123456789") or "v"
    return f"{name}_" if keyword.iskeyword(name) or name in RESERVED or name == "t" else name


@dataclass
class Writer:
    """Writes one graph. drops: with what layers.Dropout does. names: of sizes, or numbers alone."""

    cell: Any
    graph: Graph
    drops: bool = True
    names: bool = True
    lines: list[str] = field(default_factory=list)
    rates: list[tuple[str, float]] = field(default_factory=list)
    used: dict[str, Any] = field(default_factory=dict)  # variables

    def __post_init__(self) -> None:
        graph = self.graph
        # What a mixed policy computes in is narrower than what kernels count in.
        self.floats = {str(self.cell.compute_dtype), str(self.cell.variable_dtype)}
        states, inputs = (
            [row_shape(t.shape)[1] for t in tensors] for tensors in (graph.states, graph.inputs)
        )
        self.sizes = Sizes(states, inputs, self.names)
        self.taken = {*self.sizes.values}
        variables = [*_variables(self.cell)]
        self.weights = {
            id(variable): self.fresh(identifier(name)) for variable, name, _ in variables
        }
        self.trained = {id(variable) for variable, _, trained in variables if trained}
        self.inputs, self.states = self._leaves(graph.inputs, "x"), self._leaves(graph.states, "h")
        self._values: dict[int, TracedValue] = {}
        for names, tensors, time in (
            (self.inputs, graph.inputs, "t"),
            (self.states, graph.states, "t-1"),
        ):
            for name, tensor in zip(names, tensors, strict=True):
                shape = row_shape(tensor.shape)[1]
                self._values[id(tensor)] = TracedValue(f"{name}[{time}]", shape, rows=True)
        self._parts: dict[tuple[str, int, int], list[TracedValue]] = {}
        self._named: dict[str, str] = {}
        read = [a for step in graph.order for a in operands(step)]
        ends = [*graph.outputs, *graph.after]
        self._reads = Counter(id(graph.found(a)) for a in (*read, *ends))
        self._next: dict[int, str] = {}
        for name, tensor in zip(self.states, graph.after, strict=True):
            self._next.setdefault(id(graph.found(tensor)), name)

    def _leaves(self, tensors: list[Any], base: str) -> list[str]:
        count = len(tensors)
        return [self.fresh(base if count == 1 else f"{base}_{i + 1}") for i in range(count)]

    def fresh(self, base: str) -> str:
        """A name that nothing has yet."""
        name, count = base, 1
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        return name

    # ---- values ----

    def value(self, given: Any) -> TracedValue:
        """An operand."""
        if is_symbolic(given):
            tensor = self.graph.found(given)
            variable = self.graph.weights.get(id(tensor))
            if variable is not None:
                return self._weight(variable)
            if id(tensor) not in self._values:
                raise Unreadable("reads a symbolic tensor from outside")
            return self._values[id(tensor)]
        if isinstance(given, keras.Variable):
            return self._weight(given)
        if isinstance(given, str):
            raise Unreadable(f"reads the text {given!r}")
        if isinstance(given, bool):
            return TracedValue("1 > 0" if given else "1 < 0", binds=COMPARED)
        if isinstance(given, int | float):
            return TracedValue(number(given), binds=ATOM if given >= 0 else SIGN)
        return self._constant(given)

    def _weight(self, variable: Any) -> TracedValue:
        name = self.weights.get(id(variable))
        if name is None:
            raise Unreadable(f"reads the variable {variable.name}, which no layer of it holds")
        self.used[name] = variable
        return TracedValue(name, tuple(variable.shape))

    def _constant(self, given: Any) -> TracedValue:
        array = np.asarray(keras.ops.convert_to_numpy(given))
        if array.size and array.dtype.kind in "biuf" and (array == array.flat[0]).all():
            return self.value(array.flat[0].item())
        raise Unreadable(
            f"reads an array of its own of shape {list(array.shape)}: make it a weight "
            "(add_weight, trainable=False)"
        )

    def named(self, value: TracedValue) -> TracedValue:
        """With a name, if it is more than that."""
        if re.fullmatch(r"[A-Za-z]\w*(\[t(-1)?\])?", value.text):
            return value
        name = self._named.get(value.text)
        if name is None:
            name = self._named[value.text] = self.fresh("z")
            self.lines.append(f"{name} = {value.text}")
        return TracedValue(name, value.shape, value.rows)

    def reshaped(self, value: TracedValue, shape: tuple[int, ...]) -> TracedValue:
        """The same numbers in another shape of a row."""
        if shape == value.shape:
            return value
        if not shape:
            return TracedValue(value.within(ATOM) + "[0]" * len(value.shape), (), value.rows)
        text = f"reshape({value.text}, {self.sizes.shape(shape)})"
        return TracedValue(text, shape, value.rows)

    def parts(self, value: TracedValue, count: int, axis: int) -> list[TracedValue]:
        """Equal parts along an axis of a row."""
        value = self.named(value)
        key = value.text, count, axis
        parts = self._parts.get(key)
        if parts is None:
            names = [self.fresh(f"{identifier(value.text)}_{i}") for i in range(count)]
            where = along_of(axis, value.shape)
            left = names[0] if count == 1 else ", ".join(names)
            right = f"split({value.text}, {count}{where})" if count > 1 else value.text
            self.lines.append(f"{left} = {right}")
            width = value.shape[axis] // count
            shape = (*value.shape[:axis], width, *value.shape[axis + 1 :])
            parts = self._parts[key] = [TracedValue(n, shape, value.rows) for n in names]
        return parts

    def rate(self, layer: Any) -> str:
        """The name of a layer's dropout rate."""
        name = self.fresh("dropout")
        self.rates.append((name, float(layer.rate)))
        return name

    # ---- equations ----

    def write(self) -> CellText:
        """TypeError for what there are no words for."""
        for step in self.graph.order:
            try:
                self._apply(step)
            except Unreadable as why:
                what = type(step.operation).__name__
                raise TypeError(
                    f"{type(self.cell).__name__} can't be compiled: {what} {why}"
                ) from None
        try:
            for name, tensor in zip(self.states, self.graph.after, strict=True):
                value = self.value(tensor)
                if value.text != f"{name}[t]":
                    self.lines.append(f"{name}[t] = {value.text}")
            shown = [self.value(t).text for t in self.graph.outputs]
            for tensor in (*self.graph.after, *self.graph.outputs):
                if kind_of(tensor) not in self.floats:
                    raise Unreadable(f"gives {kind_of(tensor)}, the cell counts in floats")
        except Unreadable as why:
            raise TypeError(f"{type(self.cell).__name__} can't be compiled: it {why}") from None
        text = "\n".join([*self._head(), "", *self.lines, f"return {', '.join(shown)}", ""])
        return CellText(text, dict(self.sizes.values), dict(self.used))

    def _apply(self, step: Applied) -> None:
        word = WORDS.get(type(step.operation).__name__)
        if word is None:
            raise Unreadable(
                "is an operation that equations have no word for (README: the language in one page)"
            )
        refuse_unknown(step)
        read = operands(step)
        refuse_shapes(step, read)
        values = in_kind(step, read, [self.value(a) for a in read], self.floats)
        for tensor, value in zip(step.outputs, word(self, step, values), strict=True):
            state = self._next.get(id(tensor))
            if state is not None and value.rows:
                self.lines.append(f"{state}[t] = {value.text}")
                value = TracedValue(f"{state}[t]", value.shape, rows=True)
            elif self._reads[id(tensor)] > 1 or len(value.text) > _LONGEST:
                value = self.named(value)
            self._values[id(tensor)] = value

    def _head(self) -> Iterator[str]:
        name = type(self.cell).__name__
        yield f'"""{name}, as its Python computes one step."""'
        yield f"cell: {identifier(name)}"
        yield ""
        yield from (f"{size}: size" for size in self.sizes.values)
        yield ""
        for what, names, tensors in (
            ("input", self.inputs, self.graph.inputs),
            ("state", self.states, self.graph.states),
        ):
            for own, tensor in zip(names, tensors, strict=True):
                yield f"{own}: {what}{self.sizes.declared(row_shape(tensor.shape)[1])}"
        for own, variable in self.used.items():
            kind = "weight" if id(variable) in self.trained else "constant"
            yield f"{own}: {kind}{self.sizes.declared(variable.shape)}"
        yield from (f"{own}: rate = {value}" for own, value in self.rates)


def operands(step: Applied) -> list[Any]:
    arguments = tree.flatten((step.args, step.keywords))
    if type(step.operation).__name__ in _FIRST_ONLY:
        arguments = arguments[:1]
    return [a for a in arguments if a is not None]


def _variables(cell: Any) -> Iterator[tuple[Any, str, bool]]:
    """Every variable with its name, behind the attributes that lead to its layer, and whether it
    was made to be trained, frozen or not."""
    seen: set[int] = set()
    for prefix, layer in _layers(cell, ""):
        for trained in (True, False):
            variables = layer._trainable_variables if trained else layer._non_trainable_variables
            for variable in variables:
                if id(variable) not in seen:
                    seen.add(id(variable))
                    yield variable, f"{prefix}{variable.name}", trained


def _layers(layer: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    yield prefix, layer
    inner = {id(own): own for own in layer._layers}
    # What Keras keeps for itself, behind an underscore, comes last: lists of all layers, too.
    attributes = {**vars(layer), **vars(layer).get("_modules", {})}  # torch has them apart
    for name, value in sorted(attributes.items(), key=lambda pair: pair[0].startswith("_")):
        for at, item in _held(value):
            own = inner.pop(id(item), None)
            if own is not None:
                yield from _layers(own, f"{prefix}{name.strip('_')}{at}_")
    for number_, own in enumerate(inner.values()):
        yield from _layers(own, f"{prefix}layer_{number_}_")


def _held(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        return [(f"_{i}", v) for i, v in enumerate(value)]
    if isinstance(value, dict):
        return [(f"_{k}", v) for k, v in value.items()]
    return [("", value)]
