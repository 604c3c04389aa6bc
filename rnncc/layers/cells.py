"""Cells: what one step computes, for RNN, for StackedRNNCells, or called on one step at a time.

    cell = LSTMCell(10)
    output, states = cell(x, states)            x [batch, features], states h and c [batch, units]

A cell is a layer that is run for one step by the same kernels.

Non-Goals: sequences (`rnn`).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Unpack

import numpy as np

from rnncc.artifact.cell import names_of
from rnncc.common.layer_keywords import GatedCellKeywords, SimpleCellKeywords
from rnncc.common.result_roles import final_name
from rnncc.layers.arguments import given
from rnncc.layers.built_in import GRU, LSTM, BuiltIn, SimpleRNN
from rnncc.layers.composite import Composite
from rnncc.layers.config import deserialize, serializable, serialize
from rnncc.layers.stacked import Stacked
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.validation import array_shape, spread, whole_number
from rnncc.runtime.api.weights import Arrays


class _Step(Stacked):
    """The cell's layers, called on one step."""

    def __init__(self, layers: Sequence[Layer], name: str) -> None:
        self._stack(layers, {"return_state": True, "name": name})


class AbstractCell:
    """Layers that are one cell."""

    def __init__(self, layers: Sequence[Layer], name: str) -> None:
        self.layers, self.name = tuple(layers), name
        self._step = _Step(self.layers, name)

    def __call__(
        self,
        inputs: Any,
        states: Any = None,
        *,
        training: bool | None = False,
        seed: int | None = None,
    ) -> tuple[Any, Any]:
        """One step: (output, states).

        inputs: [batch, ...], several as a layer takes them, without time. states: like
        `initial_state` of a layer; None: those a sequence starts from. States come back as a
        tuple; of stacked cells, one such tuple for each cell.
        Raises TypeError and ValueError for arrays of a wrong kind or shape.
        """
        cell = self._step.cell
        values, layout = spread(f"inputs of {cell.name}", inputs, cell.arguments)
        timed = {a.name for a in cell.inputs}
        steps = {n: np.asarray(v)[:, None] if n in timed else v for n, v in values.items()}
        y, *after = self._step(
            layout.arrange(steps), initial_state=states, training=training, seed=seed
        )
        return y, tuple(after)

    # ---- sizes ----

    @property
    def state_size(self) -> Any:
        """Of one state an int, or a shape if its rank isn't 1; of several states a list; of
        stacked cells a list of these. ValueError while sizes are unknown."""
        each = [self._sizes(layer, layer.cell.states) for layer in self.layers]
        sizes = [s[0] if len(s) == 1 else s for s in each]
        return sizes[0] if len(sizes) == 1 else sizes

    @property
    def output_size(self) -> Any:
        """An int, or a shape if the output's rank isn't 1; a tuple of these of several outputs."""
        sizes = self._sizes(self.layers[-1], self.layers[-1].cell.outputs)
        return sizes[0] if len(sizes) == 1 else tuple(sizes)

    def _sizes(self, layer: Layer, arrays: Iterable[Any]) -> list[Any]:
        sizes = []
        for array in arrays:
            unknown = {n for t in array.shape for n in names_of(t)} - layer._fixed.keys()
            if unknown:
                raise ValueError(
                    f"the size of {array.name} in {self.name} needs {', '.join(sorted(unknown))}: "
                    "build the cell first"
                )
            shape = array_shape(array, layer._fixed)
            sizes.append(shape[0] if len(shape) == 1 else shape)
        return sizes

    def get_initial_state(self, batch_size: int = 1) -> Any:
        """The states a sequence starts from, arranged as a call returns them."""
        step, lead = self._step, (whole_number("batch_size", batch_size),)
        arrays: dict[str, np.ndarray] = {}
        for part in step.parts:
            own = part.layer
            for state in own.cell.states:
                self._sizes(own, [state])
                start = np.zeros((), own.dtype)
                if state.default is not None:
                    start = own._built().arrays[state.default]
                shape = (*lead, *array_shape(state, own._fixed))
                arrays[final_name(part.name(state.name))] = np.array(np.broadcast_to(start, shape))
        outputs = {o.name: np.zeros(0) for o in step.cell.outputs}
        return tuple(step._leave({**outputs, **arrays})[1:])

    # ---- weights: those of the step's layer ----

    def build(self, shapes: Any) -> None:
        """Make the weights for inputs of these shapes, without time: (None, features)."""
        cell = self._step.cell
        several = isinstance(shapes, Mapping) or (
            len(shapes) > 0 and isinstance(shapes[0], tuple | list)
        )
        values, _ = spread(
            f"shapes of {cell.name}", shapes if several else [*shapes], cell.arguments
        )
        timed = {a.name for a in cell.inputs}
        sequence_shapes = {
            n: [s[0], None, *s[1:]] if n in timed else [*s] for n, s in values.items()
        }
        self._step.build(sequence_shapes)

    @property
    def built(self) -> bool:
        """Whether there are weights."""
        return self._step.built

    @property
    def dtype(self) -> str:
        """float32 or float64."""
        return self._step.dtype

    @property
    def weights(self) -> Arrays:
        """What is trained, by name; assign to an item to change it."""
        return self._step.weights

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights, then of all constants."""
        return self._step.get_weights()

    def set_weights(self, weights: Iterable[Any]) -> None:
        """The counterpart of `get_weights`."""
        self._step.set_weights(weights)

    def count_params(self) -> int:
        """How many numbers the weights and constants hold."""
        return self._step.count_params()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Weights into a file. See `Layer.save`."""
        self._step.save(path)

    def load(self, path: str | os.PathLike[str], *, strict: bool = True) -> None:
        """Weights from a file. See `Layer.load`."""
        self._step.load(path, strict=strict)

    def summary(self) -> None:
        """Print weights, shapes and counts."""
        self._step.summary()

    def plan(self) -> str:
        """Which kernels a step runs."""
        return self._step.plan()

    # ---- copies and data ----

    def _repr_html_(self) -> str:
        """The equations, drawings and weights, as a layer's."""
        return self._step._shown_as(repr(self))

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "layers": tuple(map(copy.copy, self.layers))}
        del state["_step"]
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._step = _Step(self.layers, self.name)

    def get_config(self) -> dict[str, Any]:
        """Keywords of the constructor."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AbstractCell:
        """A cell out of `get_config()`, its weights new."""
        return cls(**config)


_SEQUENCES = ("return_sequences", "return_state", "go_backwards", "stateful", "time_major")


@serializable
class Cell(AbstractCell):
    """The cell of a layer: Cell(Peephole(units=64)).

    layer: of a class made by `rnncc.compile` or of this package, but not one made of cells. They
    share their weights. TypeError for anything else, ValueError for a layer with an option that
    speaks of sequences: it is the RNN's.
    """

    def __init__(self, layer: Layer, name: str | None = None, *, what: str = "cell") -> None:
        if isinstance(layer, type) and issubclass(layer, Layer):
            raise TypeError(
                f"{what} is a layer, not the class {layer.__name__}: give {layer.__name__}(...)"
            )
        if not isinstance(layer, Layer) or isinstance(layer, Composite):
            raise TypeError(
                f"{what} is an LSTMCell(64) or the like, a layer of a compiled class or a list "
                f"of these, not {layer!r}: it has no equations of states"
            )
        chosen = [n for n in _SEQUENCES if getattr(layer, n, False)]
        if chosen:
            raise ValueError(
                f"{what} has {chosen[0]}=True: a cell computes one step, give {chosen[0]} to RNN"
            )
        super().__init__([layer], name or f"{layer.name}_cell")

    def get_config(self) -> dict[str, Any]:
        """Keywords of the constructor, the layer as `rnncc.layers.serialize` writes it."""
        return {"layer": serialize(self.layers[0]), "name": self.name}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AbstractCell:
        """A cell out of `get_config()`, its weights new."""
        return cls(**{**config, "layer": deserialize(config["layer"])})

    def __repr__(self) -> str:
        return f"Cell({self.layers[0]!r})"


class BuiltInCell(AbstractCell):
    """The cell of a built-in layer, with the layer's arguments."""

    layer_class: ClassVar[type[BuiltIn]]

    def _make(self, arguments: dict[str, Any]) -> None:
        named = {k: v for k, v in arguments.items() if k not in _SEQUENCES}
        wrong = [k for k in arguments if k in _SEQUENCES]
        if wrong:
            raise TypeError(f"{type(self).__name__} computes one step: give {wrong[0]} to RNN")
        layer = self.layer_class(**named)
        self._arguments = arguments
        super().__init__([layer], arguments.get("name") or f"{layer.name}_cell")

    @property
    def units(self) -> int:
        """How many there are."""
        return int(self.layers[0]._fixed["units"])

    def get_config(self) -> dict[str, Any]:
        """The keywords that make a cell like this one."""
        return {**self._arguments, "dtype": self.dtype, "name": self.name}

    def __repr__(self) -> str:
        return repr(self.layers[0]).replace("(", "Cell(", 1)


@serializable
class SimpleRNNCell(BuiltInCell):
    """The cell of SimpleRNN, with the arguments of that layer."""

    layer_class = SimpleRNN

    def __init__(
        self,
        units: int,
        activation: str | None = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: None = None,
        recurrent_regularizer: None = None,
        bias_regularizer: None = None,
        kernel_constraint: None = None,
        recurrent_constraint: None = None,
        bias_constraint: None = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **keywords: Unpack[SimpleCellKeywords],
    ) -> None:
        self._make(given(locals()))


@serializable
class GRUCell(BuiltInCell):
    """The cell of GRU, with the arguments of that layer."""

    layer_class = GRU

    def __init__(
        self,
        units: int,
        activation: str | None = "tanh",
        recurrent_activation: str | None = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: None = None,
        recurrent_regularizer: None = None,
        bias_regularizer: None = None,
        kernel_constraint: None = None,
        recurrent_constraint: None = None,
        bias_constraint: None = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        seed: int | None = None,
        **keywords: Unpack[GatedCellKeywords],
    ) -> None:
        self._make(given(locals()))


@serializable
class LSTMCell(BuiltInCell):
    """The cell of LSTM, with the arguments of that layer."""

    layer_class = LSTM

    def __init__(
        self,
        units: int,
        activation: str | None = "tanh",
        recurrent_activation: str | None = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: None = None,
        recurrent_regularizer: None = None,
        bias_regularizer: None = None,
        kernel_constraint: None = None,
        recurrent_constraint: None = None,
        bias_constraint: None = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **keywords: Unpack[GatedCellKeywords],
    ) -> None:
        self._make(given(locals()))
