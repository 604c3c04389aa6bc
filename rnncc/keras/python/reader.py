"""What a call of a Keras cell applies to what -> the StepGraph of it.

Keras counts in several kinds of numbers, equations in one kind of floats, with conditions and whole
numbers among them; floats that are narrower or wider than the cell's are refused.

Non-Goals: what operations mean (`operations`, `arrangements`); text (`rnncc.reading`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from rnncc.keras.python import arrangements  # noqa: F401  (fills READERS)
from rnncc.keras.python.graph import Applied, Graph, is_symbolic
from rnncc.keras.python.operations import READS, Reading, given
from rnncc.reading.graph import Kind, Origin, StepGraph, Unreadable
from rnncc.reading.recorder import Recorder
from rnncc.reading.traced import BATCH, Traced

_WHOLE = ("int32", "int64")
# Operations that may give conditions; others would count with them, as Keras does.
_CONDITIONS = (
    "LogicalAnd LogicalOr LogicalNot LogicalXor Where Equal NotEqual Greater GreaterEqual Less "
    "LessEqual Cast ConvertToTensor Identity StopGradient Any All GetItem Reshape ExpandDims "
    "Squeeze Flatten Ravel BroadcastTo Transpose Swapaxes Moveaxis Concatenate Stack Split Unstack "
    "Flip Roll"
)
_FIRST_ONLY = ("GetItem", "Dropout", "LayerNorm", "RMSNorm")  # other arguments are no operands
_CALLED_WITH = {
    "GetItem": ("key",),
    "Dropout": ("training",),
    "LayerNorm": ("gamma", "beta"),
    "RMSNorm": ("scale",),
}


def step_graph(cell: Any, graph: Graph, *, every_dropout: bool = False) -> StepGraph:
    """TypeError, with the operation, for what can't be read. every_dropout: also those that do
    nothing in this call."""
    return _Reader(cell, graph, every_dropout).read()


class _Reader:
    def __init__(self, cell: Any, graph: Graph, every_dropout: bool) -> None:
        self.cell, self.graph, self.every_dropout = cell, graph, every_dropout
        # What a mixed policy computes in is narrower than what kernels count in.
        self.floats = {str(cell.compute_dtype), str(cell.variable_dtype)}
        self.r = Recorder(type(cell).__name__)
        self.values: dict[int, Traced] = {}
        self.variables: dict[int, Traced] = {}
        for variable, name, trained in _variables(cell):
            if str(variable.dtype) in (*self.floats, *_WHOLE, "bool"):
                kind, shape = self.kind(str(variable.dtype)), tuple(variable.shape)
                traced = self.r.weight(name, shape, variable, trained, kind)
                self.variables[id(variable)] = traced
        for tensors, make, base in (
            (graph.inputs, self.r.input, "x"),
            (graph.contexts, self.r.context, "constant"),
            (graph.states, self.r.state, "h"),
        ):
            for i, tensor in enumerate(tensors):
                name = base if len(tensors) == 1 else f"{base}_{i + 1}"
                self.values[id(tensor)] = make(name, (BATCH, *tensor.shape[1:]))

    def read(self) -> StepGraph:
        name = self.r.graph.name
        try:
            for step in self.graph.order:
                origin = Origin(type(step.operation).__name__, *step.line)
                with self.r.at(origin):
                    self._apply(step)
        except Unreadable as why:
            raise TypeError(f"{name} can't be compiled: {self.r.origin} {why}") from None
        try:
            for tensor in (*self.graph.after, *self.graph.outputs):
                if _dtype(tensor) not in self.floats:
                    raise Unreadable(f"gives {_dtype(tensor)}, the cell counts in floats")
            ends = ([self.value(t) for t in own] for own in (self.graph.outputs, self.graph.after))
            self.r.result(*ends)
        except Unreadable as why:
            raise TypeError(f"{name} can't be compiled: it {why}") from None
        return self.r.graph

    def _apply(self, step: Applied) -> None:
        _refuse_unknown(step)
        name = type(step.operation).__name__
        read = _operands(step)
        kinds = [self.kind(_dtype(t)) for t in (*read, *step.outputs)][len(read) :]
        if "bool" in kinds and name not in _CONDITIONS.split():
            raise Unreadable("counts with conditions: cast them to floats")
        drops = self.every_dropout or bool(step.keywords.get("training"))
        shape = tuple(step.outputs[0].shape)
        reading = Reading(self.r, step, shape, kinds[0], self.value, drops)
        results = given(reading, [self.value(a) for a in read])
        for tensor, traced, kind in zip(step.outputs, results, kinds, strict=True):
            self.values[id(tensor)] = self.r.convert(traced, kind)

    def kind(self, dtype: str) -> Kind:
        """Of a name of Keras's, or of a number of Python's."""
        if dtype in ("bool", "int"):
            return "bool" if dtype == "bool" else "int"
        if dtype in _WHOLE:
            return "int"
        if dtype and dtype not in (*self.floats, "float"):
            raise Unreadable(f"counts in {dtype}, the cell in {' and '.join(sorted(self.floats))}")
        return "float"

    def value(self, operand: Any) -> Traced:
        if is_symbolic(operand):
            tensor = self.graph.found(operand)
            variable = self.graph.weights.get(id(tensor))
            if variable is not None:
                return self._variable(variable)
            if id(tensor) not in self.values:
                raise Unreadable("reads a symbolic tensor from outside")
            return self.values[id(tensor)]
        if isinstance(operand, keras.Variable):
            return self._variable(operand)
        if isinstance(operand, str):
            raise Unreadable(f"reads the text {operand!r}")
        if isinstance(operand, bool | int | float):
            return Traced(operand)
        return self.r.constant(np.asarray(keras.ops.convert_to_numpy(operand)))

    def _variable(self, variable: Any) -> Traced:
        found = self.variables.get(id(variable))
        if found is None:
            raise Unreadable(f"reads the variable {variable.name}, which no layer of it holds")
        return found


def _dtype(given: Any) -> str:
    """A name of Keras's; of numbers of Python's theirs."""
    if isinstance(given, bool | int | float):
        return type(given).__name__
    return str(keras.backend.standardize_dtype(given.dtype)) if hasattr(given, "dtype") else ""


def _operands(step: Applied) -> list[Any]:
    arguments = tree.flatten((step.args, step.keywords))
    if type(step.operation).__name__ in _FIRST_ONLY:
        arguments = arguments[:1]
    return [a for a in arguments if a is not None]


def _refuse_unknown(step: Applied) -> None:
    """Unreadable for an argument that changes what is computed and that its reader doesn't know."""
    own, name = step.operation, type(step.operation).__name__
    reads = READS.get(name)
    if reads is None:
        return
    for argument, declared in inspect.signature(type(own).__init__).parameters.items():
        if argument in ("self", "name") or argument in reads:
            continue
        value = getattr(own, argument, declared.default)
        if value is not declared.default and value != declared.default:
            raise Unreadable(f"takes {argument}={value!r}")
    for argument, value in step.keywords.items():
        is_known = value is None or is_symbolic(value) or isinstance(value, keras.Variable)
        if not is_known and argument not in _CALLED_WITH.get(name, ("x", "x1", "x2")):
            raise Unreadable(f"is called with {argument}={value!r}")


# ---- variables -----------------------------------------------------------------------------------


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
