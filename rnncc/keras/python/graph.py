"""A Keras cell -> what one call of it applies to what: its operations in order.

The cell is called on symbolic tensors, and the layers it calls are called on them in turn, so what
is left are operations of keras.ops. Variables stand there as symbolic tensors, too.

Non-Goals: what operations mean (`operations`).
"""

from __future__ import annotations

import inspect
import linecache
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
from keras import tree

Line = tuple[str, int, str]  # a file's name, the line's number, its text
NO_LINE: Line = ("", 0, "")
_THEIRS = (str(Path(keras.__file__).parent), str(Path(__file__).parents[2]))
# A layer that is an operation of equations itself.
OWN = ("Dropout",)
# Functions of keras.activations that don't take symbolic tensors -> the same by keras.ops.
_ACTIVATIONS = {
    id(keras.activations.mish): lambda x: x * keras.ops.tanh(keras.ops.softplus(x)),
    id(keras.activations.hard_silu): keras.ops.hard_silu,
}


class _StandIn(keras.KerasTensor):  # type: ignore[misc]
    """A variable's symbolic tensor, which takes all keys that a variable does."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__((key,) if isinstance(key, slice) else key)


@dataclass(slots=True)
class Applied:
    """One operation: outputs = operation(*args, **keywords). line: the user's."""

    operation: Any
    args: Sequence[Any]
    keywords: dict[str, Any]
    outputs: list[Any]
    line: Line = NO_LINE


@dataclass(slots=True)
class Graph:
    """One step. contexts: Keras's constants. weights: the variables that symbolic tensors stand
    for, by the tensors' ids. aliases: what a layer gave -> what was computed inside of it, by ids.
    lines: the user's that made a tensor, by its id."""

    inputs: list[Any]
    states: list[Any]
    contexts: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    after: list[Any] = field(default_factory=list)
    order: list[Applied] = field(default_factory=list)
    weights: dict[int, Any] = field(default_factory=dict)
    aliases: dict[int, Any] = field(default_factory=dict)
    lines: dict[int, Line] = field(default_factory=dict)
    alive: list[Any] = field(default_factory=list)  # an id means what it does as long as it lives

    def found(self, tensor: Any) -> Any:
        """What was computed."""
        while id(tensor) in self.aliases:
            tensor = self.aliases[id(tensor)]
        return tensor


def is_symbolic(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


class _Around(keras.layers.Layer):  # type: ignore[misc]
    """A layer that is called around another one: layers inside hear from it whether they train,
    though a cell between them says nothing of it."""

    def __init__(self, run: Callable[[], Any]) -> None:
        super().__init__()
        self.run, self.given = run, None

    def called(self, tensors: Any, training: bool) -> Any:
        """What it gives. A cell may be read in the midst of a model's call, which goes on as it
        was: layers of one call share a context."""
        context = vars(self._get_call_context())
        before = dict(context)
        try:
            self(tensors, training=training)
        finally:
            context.clear()
            context.update(before)
        return self.given

    def call(self, tensors: Any, training: bool | None = None) -> Any:
        raise NotImplementedError

    def compute_output_spec(self, tensors: Any, training: bool | None = None) -> Any:
        self.given = self.run()
        return [keras.KerasTensor(t.shape, t.dtype) for t in tensors]


def _takes(cell: Any, argument: str) -> bool:
    return argument in inspect.signature(cell.call).parameters


def graph_of(cell: Any, inputs: Any, states: Any, training: bool, constants: Any = None) -> Graph:
    """Of one call. inputs, states, constants: symbolic tensors as the cell takes them. TypeError
    for a cell that can't be called on them, or gives something else than (output, states)."""
    graph, name = Graph(*map(tree.flatten, (inputs, states, constants))), type(cell).__name__
    graph.contexts = [t for t in graph.contexts if t is not None]
    keywords: dict[str, Any] = {"training": training} if _takes(cell, "training") else {}
    if constants is not None:
        keywords["constants"] = constants
    around = _Around(lambda: cell(inputs, states, **keywords))
    with _read(cell, graph):
        try:
            returned = around.called(graph.states, training)
        except Exception as error:
            raise TypeError(
                f"{name}.call can't be read: on symbolic tensors it fails with "
                f"{type(error).__name__}: {_plainly(error)}. A cell that is to be compiled "
                "computes with keras.ops, the same whatever a batch holds; or write its equations "
                "as a .rnn file"
            ) from error
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            raise TypeError(f"{name}.call gives {returned!r}, a cell gives (output, states)")
        graph.outputs, graph.after = tree.flatten(returned[0]), tree.flatten(returned[1])
        if len(graph.after) != len(graph.states):
            raise TypeError(
                f"{name}.call gives {len(graph.after)} states and was given {len(graph.states)}"
            )
        graph.order = [*_in_order(graph)]
    return graph


def _plainly(error: Exception) -> str:
    """A message without what Keras puts around it: colours, and all arguments of a call."""
    text = re.sub(r"\x1b\[\d+m", "", str(error))
    text = re.sub(r"Exception encountered when calling [^\n]*\n", "", text)
    return text.partition("Arguments received")[0].strip().rstrip(".")


@contextmanager
def _read(cell: Any, graph: Graph) -> Iterator[None]:
    """A cell whose layers open up, and whose variables are symbolic tensors, for one call."""
    changed: list[tuple[dict[str, Any], str, Any]] = []
    nodes = [(layer, len(layer._inbound_nodes)) for layer in cell._flatten_layers()]
    stand_ins: dict[int, Any] = {}
    for layer, _ in nodes:
        attributes = vars(layer)
        changed.append((attributes, "compute_output_spec", None))
        opened = _same_shape if type(layer).__name__ in OWN else partial(_open, graph, layer)
        attributes["compute_output_spec"] = opened
        for name, value in list(attributes.items()):
            if isinstance(value, keras.Variable) and "float" in value.dtype:
                if id(value) not in stand_ins:
                    stand_ins[id(value)] = _stand_in(graph, value)
                changed.append((attributes, name, value))
                attributes[name] = stand_ins[id(value)]
            elif id(value) in _ACTIVATIONS:
                changed.append((attributes, name, value))
                attributes[name] = _ACTIVATIONS[id(value)]
    draw, call = keras.random.SeedGenerator.next, keras.Operation.symbolic_call
    keras.random.SeedGenerator.next = _refuse_draw
    keras.Operation.symbolic_call = _noting_lines(graph, call)
    try:
        yield
    finally:
        keras.random.SeedGenerator.next, keras.Operation.symbolic_call = draw, call
        for attributes, name, value in changed:
            if value is None:
                del attributes[name]
            else:
                attributes[name] = value
        for layer, count in nodes:
            graph.alive += layer._inbound_nodes[count:]
            del layer._inbound_nodes[count:]


def _stand_in(graph: Graph, variable: Any) -> Any:
    tensor = _StandIn(variable.shape, variable.dtype, name=variable.name)
    graph.weights[id(tensor)] = variable
    graph.alive.append(tensor)
    return tensor


def _refuse_draw(*_: Any, **__: Any) -> Any:
    raise TypeError("it draws random numbers: of what draws, layers.Dropout can be compiled")


def _noting_lines(graph: Graph, call: Callable[..., Any]) -> Callable[..., Any]:
    """In place of `Operation.symbolic_call`: which line of the user's made what."""

    def noting(operation: Any, *args: Any, **keywords: Any) -> Any:
        outputs = call(operation, *args, **keywords)
        line = _user_line()
        for tensor in tree.flatten(outputs):
            graph.lines[id(tensor)] = line
            graph.alive.append(tensor)
        return outputs

    return noting


def _user_line() -> Line:
    """The innermost that is neither Keras's nor ours, within the cell's call."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not graph_of.__code__:
        file = frame.f_code.co_filename
        if not file.startswith(_THEIRS):
            text = linecache.getline(file, frame.f_lineno).strip()
            return Path(file).name, frame.f_lineno, text
        frame = frame.f_back  # type: ignore[assignment]
    return NO_LINE


def _same_shape(tensor: Any, **_: Any) -> Any:
    return keras.KerasTensor(tensor.shape, tensor.dtype)


def _open(graph: Graph, layer: Any, *args: Any, **keywords: Any) -> Any:
    """In place of a layer's `compute_output_spec`: its call on symbolic tensors. What it gives are
    copies, since Keras writes down that the layer itself made them."""
    losses = len(layer._losses)
    outputs = layer.call(*args, **keywords)
    if len(layer._losses) > losses:
        raise TypeError(f"{layer.name} adds a loss in every step, which no kernel does")

    def copied(tensor: Any) -> Any:
        if not is_symbolic(tensor):
            raise TypeError(f"{layer.name} gives {tensor!r}, which isn't computed from tensors")
        copy = keras.KerasTensor(tensor.shape, tensor.dtype)
        graph.aliases[id(copy)] = tensor
        graph.alive += [copy, tensor]
        return copy

    return tree.map_structure(copied, outputs)


def _in_order(graph: Graph) -> Iterator[Applied]:
    """Operations, each after those it reads. Without recursion: cells may be long."""
    done: set[int] = set()
    stack = [(t, False) for t in reversed([*graph.outputs, *graph.after])]
    while stack:
        tensor, read = stack.pop()
        history = getattr(graph.found(tensor), "_keras_history", None)
        if history is None or history.operation is None:
            continue
        node = history.operation._inbound_nodes[history.node_index]
        if id(node) in done:
            continue
        if not read:
            stack.append((tensor, True))
            stack += [(t, False) for t in reversed(node.arguments.keras_tensors)]
            continue
        done.add(id(node))
        graph.alive.append(node)
        args, keywords = node.arguments.args, node.arguments.kwargs
        line = graph.lines.get(id(node.outputs[0]), NO_LINE)
        yield Applied(node.operation, args, keywords, node.outputs, line)
