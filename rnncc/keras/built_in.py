"""SimpleRNN, GRU and LSTM and their cells, with Keras's arguments, order and defaults.

Weights have Keras's names, shapes and order, and lie in files where Keras's lie: `load_weights` and
`set_weights` take those of Keras's layers, and the other way round.

Non-Goals: what they compute (`rnncc.layers`).
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, ClassVar, Unpack

import keras
from keras import constraints, initializers, ops, regularizers

from rnncc import layers as native_layers
from rnncc.artifact.cell import Array
from rnncc.common.layer_keywords import (
    KerasGatedCellKeywords,
    KerasGatedKeywords,
    KerasSimpleCellKeywords,
    KerasSimpleKeywords,
)
from rnncc.keras.arguments import (
    dtype_of,
    function_of,
    refuse_sequences,
    refuse_time_major,
    taken,
)
from rnncc.keras.cells import KERAS, Cell
from rnncc.keras.recurrent import PACKAGE
from rnncc.keras.rnn import FLAGS, RNN
from rnncc.layers.arguments import FUNCTIONS
from rnncc.layers.arguments import given as arguments_of
from rnncc.runtime.api.layer_options import refuse_rate

# Which weight an argument is for.
_WEIGHTS = {"kernel": "kernel", "recurrent_kernel": "recurrent", "bias": "bias"}
_KINDS = {"initializer": initializers, "regularizer": regularizers, "constraint": constraints}
_KEPT = {f"{w}_{kind}": module for w in _WEIGHTS.values() for kind, module in _KINDS.items()}
_RATES = ("dropout", "recurrent_dropout")
_SHAPES = ("input_shape", "input_dim")  # as keras.layers.Layer takes them
_ARGUMENTS = """
    Arguments as in Keras, implementation among them, which says how many dropout masks are drawn
    where recurrent_dropout is 0; activation and recurrent_activation: a name, a text such as
    "lambda v: v / (1 + abs(v))" or one of keras.activations; None is linear.

    Raises TypeError and ValueError for arguments of a wrong kind or value.
    """


class _Rate:
    """A rate as an attribute: `layer_options.ChosenRate` says why only to be read."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, cls: type | None = None) -> Any:
        if owner is None:
            return self
        return getattr(owner, "cell", owner).compiled._chosen.rates[self.name]

    def __set__(self, owner: Any, value: object) -> None:
        refuse_rate(type(owner).__name__, self.name, value)


class KerasBuiltInCell(Cell):
    """What the three cells have in common. Arguments are attributes, as in Keras."""

    layer_class: ClassVar[Any]
    computed_arguments: ClassVar[tuple[str, ...]]  # what the kernels are chosen by

    def _make(self, arguments: dict[str, Any]) -> None:
        refuse_sequences(type(self).__name__, arguments)
        seed, own = arguments.pop("seed"), taken(arguments, KERAS)
        super(Cell, self).__init__(**own)
        for name, module in _KEPT.items():
            setattr(self, name, module.get(arguments.pop(name)))
        for name in FUNCTIONS:
            if name in arguments:
                arguments[name] = function_of(name, arguments[name])
        self.unit_forget_bias = arguments.pop("unit_forget_bias", False)
        compiled = self.layer_class(**arguments, dtype=dtype_of(self))
        for name in self.computed_arguments:
            if name not in _RATES:
                setattr(self, name, arguments[name])
        drawing = ("implementation", *(option for option, _ in compiled.cell.rated_options))
        self._drawing = {n: arguments[n] for n in drawing if n in arguments}
        self._take(compiled, seed)

    def chosen(self, what: str, name: str) -> Any:
        return getattr(self, f"{_WEIGHTS[name]}_{what.removesuffix('s')}")

    def initializer_of(self, array: Array) -> Any:
        chosen = self.chosen("initializers", array.name)
        if array.name != "bias" or not self.unit_forget_bias:
            return chosen

        def with_forget_bias(shape: Any, dtype: Any = None, **_: Any) -> Any:
            units = shape[0] // 4
            return ops.concatenate(
                [
                    chosen((units,), dtype=dtype),
                    ops.ones((units,), dtype=dtype),
                    chosen((2 * units,), dtype=dtype),
                ]
            )

        return with_forget_bias

    def arguments(self) -> dict[str, Any]:
        """Those of the constructor that aren't every layer's."""
        arguments = {name: getattr(self, name) for name in self.computed_arguments}
        arguments |= {name: module.serialize(getattr(self, name)) for name, module in _KEPT.items()}
        if isinstance(self, LSTMCell):
            arguments["unit_forget_bias"] = self.unit_forget_bias
        if self.compiled.storage:
            arguments["weights"] = self.compiled.storage
        return {**arguments, **self._drawing, "seed": self.seed}

    def get_config(self) -> dict[str, Any]:
        """Keywords of the constructor."""
        return {**super(Cell, self).get_config(), **self.arguments()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KerasBuiltInCell:
        """A cell out of `get_config()`."""
        return cls(**config)


@keras.saving.register_keras_serializable(PACKAGE)
class SimpleRNNCell(KerasBuiltInCell):
    layer_class = native_layers.SimpleRNN
    computed_arguments = ("units", "activation", "use_bias", "dropout", "recurrent_dropout")

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **keywords: Unpack[KerasSimpleCellKeywords],
    ) -> None:
        self._make(arguments_of(locals()))


@keras.saving.register_keras_serializable(PACKAGE)
class GRUCell(KerasBuiltInCell):
    layer_class = native_layers.GRU
    computed_arguments = (
        "units",
        "activation",
        "recurrent_activation",
        "use_bias",
        "dropout",
        "recurrent_dropout",
        "reset_after",
    )

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        seed: int | None = None,
        **keywords: Unpack[KerasGatedCellKeywords],
    ) -> None:
        self._make(arguments_of(locals()))


@keras.saving.register_keras_serializable(PACKAGE)
class LSTMCell(KerasBuiltInCell):
    layer_class = native_layers.LSTM
    computed_arguments = (
        "units",
        "activation",
        "recurrent_activation",
        "use_bias",
        "dropout",
        "recurrent_dropout",
    )

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **keywords: Unpack[KerasGatedCellKeywords],
    ) -> None:
        self._make(arguments_of(locals()))


def _held(layer: Any, *names: str) -> dict[str, Any]:
    """Those of its attributes with these names that it has."""
    return {n: vars(layer)[n] for n in names if n in vars(layer)}


# ---- layers --------------------------------------------------------------------------------------


class KerasBuiltIn(RNN):
    """What the three layers have in common: the arguments of the cell are theirs."""

    cell_class: ClassVar[type[KerasBuiltInCell]]
    cell_name: ClassVar[str]  # Keras's

    def _make(self, arguments: dict[str, Any]) -> None:
        kept = taken(arguments, ("use_cudnn",))  # there is one kernel: nothing to choose
        if kept.get("use_cudnn", "auto") not in ("auto", True, False):
            raise ValueError(f"use_cudnn is 'auto', True or False, not {kept['use_cudnn']!r}")
        refuse_time_major(type(self).__name__, arguments)
        own = taken(arguments, (*KERAS, *_SHAPES, *FLAGS, "checkpoint_every", "precision"))
        shared = {n: own[n] for n in ("dtype", "trainable") if n in own}
        cell = self.cell_class(**arguments, **shared, name=self.cell_name)
        super().__init__(cell, **own)
        for name, value in kept.items():
            setattr(self, name, value)
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def get_config(self) -> dict[str, Any]:
        """Keywords of the constructor."""
        config = super().get_config()
        del config["cell"]
        return {**config, **self.cell.arguments(), **_held(self, "use_cudnn")}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> KerasBuiltIn:
        """A layer out of `get_config()`."""
        return cls(**config)


@keras.saving.register_keras_serializable(PACKAGE)
class SimpleRNN(KerasBuiltIn):
    cell_class, cell_name = SimpleRNNCell, "simple_rnn_cell"

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool | int = False,
        seed: int | None = None,
        **keywords: Unpack[KerasSimpleKeywords],
    ) -> None:
        self._make(arguments_of(locals()))


@keras.saving.register_keras_serializable(PACKAGE)
class GRU(KerasBuiltIn):
    cell_class, cell_name = GRUCell, "gru_cell"

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool | int = False,
        reset_after: bool = True,
        use_cudnn: bool | str = "auto",
        **keywords: Unpack[KerasGatedKeywords],
    ) -> None:
        self._make(arguments_of(locals()))


@keras.saving.register_keras_serializable(PACKAGE)
class LSTM(KerasBuiltIn):
    cell_class, cell_name = LSTMCell, "lstm_cell"
    unit_forget_bias = property(attrgetter("cell.unit_forget_bias"))

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool | int = False,
        use_cudnn: bool | str = "auto",
        **keywords: Unpack[KerasGatedKeywords],
    ) -> None:
        self._make(arguments_of(locals()))


for _class, _said in (
    (SimpleRNN, "The simple recurrent layer (Elman 1990)."),
    (GRU, "Gated recurrent units (Cho et al. 2014); reset_after: as in cuDNN, else the paper's."),
    (LSTM, "Long short-term memory (1997); unit_forget_bias: the forget gate's bias starts at 1."),
):
    _class.__doc__ = f"{_said}\n{_ARGUMENTS}"
    for _name in (*_class.cell_class.computed_arguments, *_KEPT):  # attributes here, too
        setattr(_class, _name, property(attrgetter(f"cell.{_name}")))
    for _name in _RATES:
        setattr(_class, _name, _Rate(_name))
        setattr(_class.cell_class, _name, _Rate(_name))
    _class.cell_class.__doc__ = f"The cell of {_class.__name__}.\n{_ARGUMENTS}"
