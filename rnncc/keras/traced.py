"""A cell that is written in Python, as a cell of this package: its call is read once, when its
shapes are known, and compiled like a .rnn file's equations.

    RNN(MinimalRNNCell(32))                     the guide's, as it is

Non-Goals: reading (`python`).
"""

from __future__ import annotations

from typing import Any, Unpack

import keras
from keras import tree

from rnncc.common.layer_keywords import KerasLayerKeywords
from rnncc.common.progress import working
from rnncc.keras.arguments import dtype_of
from rnncc.keras.cells import Cell, KerasAbstractCell
from rnncc.keras.python.graph import Graph, graph_of
from rnncc.keras.python.reader import step_graph
from rnncc.keras.recurrent import PACKAGE, as_shapes, is_shape
from rnncc.reading.text import CellText, compiled, write


def is_python_cell(given: Any) -> bool:
    """Whether this is what Keras takes for a cell."""
    return (
        isinstance(given, keras.layers.Layer)
        and not isinstance(given, KerasAbstractCell)
        and hasattr(given, "state_size")
        and callable(getattr(given, "call", None))
    )


@keras.saving.register_keras_serializable(PACKAGE)
class PythonCell(Cell):
    """A cell of Keras's kind: a layer with `state_size`, called with (inputs, states).

    cell: the layer, which keeps its variables. Its call has to compute with keras.ops what doesn't
    depend on the numbers it is given; TypeError says which operation can't be compiled, when the
    cell is built. Inputs are [batch, ...] each.
    """

    def __init__(self, cell: Any, **keywords: Unpack[KerasLayerKeywords]) -> None:
        KerasAbstractCell.__init__(
            self, **{"dtype": cell.dtype_policy, "name": cell.name, **keywords}
        )
        _refuse_own_dropout(cell)
        self.cell = cell
        self.seed_generator = None
        self._sizes: dict[str, int] = {}
        self._equations: CellText | None = None
        self._compiled: Any = None

    # ---- what is read ----

    @property
    def settled(self) -> bool:
        return self._equations is not None

    @property
    def kernel_dtype(self) -> str:
        return dtype_of(self)

    @property
    def compiled(self) -> Any:  # type: ignore[override]
        """The layer of its equations. ValueError before the cell is built."""
        if self._compiled is None:
            raise ValueError(f"{self.name} is read when its shapes are known: build it first")
        return self._compiled

    @property
    def equations(self) -> str:
        """The text of a .rnn file that computes the same. ValueError before the cell is built."""
        _ = self.compiled
        assert self._equations is not None
        return self._equations.text

    def build(self, input_shape: Any) -> None:
        """Build the layer, and read its call. TypeError where it can't be compiled, ValueError for
        shapes that don't tell enough."""
        shapes = as_shapes(input_shape)
        shapes = tuple(shapes) if is_shape(shapes) else shapes
        _symbols(shapes, self.kernel_dtype, self.name)  # refuses what isn't known
        if not self.cell.built:
            self.cell.build(shapes)
            self.cell.built = True
        kind = type(self.cell).__name__
        with working(f"reading {kind}"):
            steps = step_graph(self.cell, self._read(shapes))
            layer, equations = compiled(steps, self.kernel_dtype, f"<{kind}>")
        sizes: dict[str, Any] = dict(equations.sizes)
        self._compiled = layer(**sizes)
        self._equations, self._sizes = equations, sizes
        self._count = _count_variables(self.cell)
        if self._compiled.cell.rates:
            self.seed_generator = keras.random.SeedGenerator()
        self._operations = {}

    def _read(self, shapes: Any) -> Graph:
        """A call that trains: what layers.Dropout does there, kernels do where they train."""
        trains, plain = (self._graph(shapes, training) for training in (True, False))
        texts = {
            write(step_graph(self.cell, graph, every_dropout=True), drops=False).text
            for graph in (trains, plain)
        }
        if len(texts) > 1:
            raise TypeError(
                f"{type(self.cell).__name__} computes something else when training=True: of what "
                "may differ, layers.Dropout alone can be compiled"
            )
        return trains

    def _graph(self, shapes: Any, training: bool) -> Graph:
        inputs = _symbols(shapes, self.kernel_dtype, self.name)
        states = [
            keras.KerasTensor((None, *shape), self.kernel_dtype) for shape in self.state_shapes()
        ]
        return graph_of(self.cell, inputs, states, training)

    # ---- variables and states ----

    def own_variables(self) -> dict[str, Any]:
        assert self._equations is not None
        if _count_variables(self.cell) != self._count:  # LoRA, say, or weights made narrow
            raise RuntimeError(
                f"{self.cell.name} has other variables than when its equations were read: make a "
                "new layer of it"
            )
        cell, own = self.compiled.cell, {**self._equations.weights, **self._equations.constants}
        leaves = {a.name: own[a.name] for a in (*cell.weights, *cell.constants)}
        return {n: leaf.key if leaf.array is None else leaf.array for n, leaf in leaves.items()}

    def output_shapes(self) -> list[tuple[int, ...]]:
        """What was read; before, what the layer says, or else that of its first state."""
        if self.settled:
            return super().output_shapes()
        size = getattr(self.cell, "output_size", None)
        return self.state_shapes()[:1] if size is None else _shapes(size)

    @property
    def state_count(self) -> int:
        return len(self.state_shapes())

    def state_shapes(self) -> list[tuple[int, ...]]:
        """What the layer says."""
        return _shapes(self.cell.state_size)

    @property
    def starts_itself(self) -> bool:
        """Whether the layer says what a sequence starts from."""
        return callable(getattr(self.cell, "get_initial_state", None))

    def starts(self, batch_size: Any) -> list[Any]:
        if self.starts_itself:
            return [*tree.flatten(self.cell.get_initial_state(batch_size=batch_size))]
        dtype = self.compute_dtype
        return [keras.ops.zeros((batch_size, *shape), dtype=dtype) for shape in self.state_shapes()]

    # ---- data ----

    def get_config(self) -> dict[str, Any]:
        """Keywords of the constructor."""
        base = keras.layers.Layer.get_config(self)
        return {**base, "cell": keras.saving.serialize_keras_object(self.cell)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> PythonCell:
        """A cell out of `get_config()`."""
        cell = keras.saving.deserialize_keras_object(config["cell"], custom_objects=custom_objects)
        return cls(**{**config, "cell": cell})


def _count_variables(layer: Any) -> int:
    """Of a layer and those inside."""
    own = len(layer._trainable_variables) + len(layer._non_trainable_variables)
    return own + sum(_count_variables(inner) for inner in layer._layers)


def _shapes(sizes: Any) -> list[tuple[int, ...]]:
    """Keras's sizes, one or several: numbers are vectors. ValueError for groups of states."""
    each = [*sizes] if isinstance(sizes, list | tuple) else [sizes]
    for inner in each:
        if isinstance(inner, list | tuple) and not all(isinstance(n, int) for n in inner):
            raise ValueError(
                f"state_size is {as_plain(sizes)}: of each state a number, or the shape of a row, "
                "one after another. Groups of states can't be read: list them flat"
            )
    return [tuple(n) if isinstance(n, list | tuple) else (int(n),) for n in each]


def as_plain(sizes: Any) -> Any:
    """As lists, whatever Keras tracks them by."""
    return [as_plain(n) for n in sizes] if isinstance(sizes, list | tuple) else sizes


def _symbols(shapes: Any, dtype: str, name: str) -> Any:
    """Symbolic tensors of a batch that isn't known."""
    if not is_shape(shapes):
        if isinstance(shapes, dict):
            return {n: _symbols(s, dtype, name) for n, s in shapes.items()}
        return tuple(_symbols(s, dtype, name) for s in shapes)
    if not shapes or None in shapes[1:]:
        raise ValueError(f"{name} reads [batch, ...] of known sizes, this is {list(shapes)}")
    return keras.KerasTensor((None, *shapes[1:]), dtype)


def _refuse_own_dropout(cell: Any) -> None:
    """Keras's three cells keep their masks themselves."""
    own = (keras.layers.SimpleRNNCell, keras.layers.GRUCell, keras.layers.LSTMCell)
    if isinstance(cell, own) and (cell.dropout or cell.recurrent_dropout):
        raise TypeError(
            f"{cell.name} is a cell of keras.layers with dropout: take rnncc.keras."
            f"{type(cell).__name__}, which has the same arguments"
        )
