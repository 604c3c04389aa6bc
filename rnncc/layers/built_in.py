"""SimpleRNN, GRU and LSTM with Keras's arguments: the classes of `rnncc.compile`, otherwise.

Weights have Keras's names, shapes and order: kernel, recurrent_kernel, bias; gates i, f, g, o of
the LSTM, z, r, h of the GRU, whose bias has a row for inputs and one for states (reset_after).

Non-Goals: regularizers and constraints, which belong to whoever trains.
"""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import numpy as np

from rnncc.artifact.cell import Array
from rnncc.common import initializers
from rnncc.common.layer_keywords import GatedKeywords, SimpleKeywords
from rnncc.compiler import compile
from rnncc.layers.arguments import (
    drawn,
    given,
    initializer,
    keywords_of,
    with_forget_bias,
)
from rnncc.layers.config import options_of, serializable
from rnncc.runtime.api.layer import Layer

_ARGUMENTS = """
    units: int, at least 1. activation, recurrent_activation: a name of the language or a text
        such as "lambda v: v / (1 + abs(v))"; None is linear.
    use_bias: bool. kernel_initializer, recurrent_initializer, bias_initializer: a name, with
        arguments if need be ("random_normal(stddev=0.1)"), or a function of shape and dtype.
    dropout, recurrent_dropout: in [0, 1), in training, with one mask for all steps. As in Keras,
        GRU and LSTM draw a mask for each gate, for inputs and for states, if recurrent_dropout
        isn't 0 or implementation is 1; else one for all gates. dropout_per_gate: a bool that
        says so instead. seed: of initial weights and dropout.
    use_cudnn: there is one kernel, whatever it says. Regularizers and constraints: None.
    The other keywords are those of every layer.

    Raises TypeError and ValueError for arguments of a wrong kind or value.
    """


class BuiltIn(Layer):
    """What the three have in common: initializers that are arguments."""

    # Which weight an argument is for.
    initialized: ClassVar[dict[str, str]] = {
        "kernel": "kernel_initializer",
        "recurrent_kernel": "recurrent_initializer",
        "bias": "bias_initializer",
    }
    _arguments: dict[str, Any]

    def _make(self, arguments: dict[str, Any]) -> None:
        self._arguments = arguments
        super().__init__(**keywords_of(arguments, self.maker.cell))

    def _drawn(self, array: Array, shape: tuple[int, ...]) -> np.ndarray:
        argument = self.initialized[array.name]
        chosen = initializer(argument, self._arguments[argument])
        rng = initializers.stream(self.seed, array.name)
        label = f"weight {array.name} of {self.cell.name}"

        def draw(shape: tuple[int, ...]) -> np.ndarray:
            return drawn(label, chosen, shape, self.dtype, rng)

        if array.name == "bias" and self._arguments.get("unit_forget_bias"):
            return with_forget_bias(draw, shape[0] // 4)
        return draw(shape)

    @property
    def units(self) -> int:
        """How many there are."""
        return self._fixed["units"]

    def get_config(self) -> dict[str, Any]:
        """The keywords that make a layer like this one."""
        return {**self._arguments, **options_of(self), "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BuiltIn:
        """A layer out of `get_config()`, its weights new."""
        return cls(**config)


@serializable
class SimpleRNN(BuiltIn, compile("simple_rnn")):  # type: ignore[misc]
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
        activity_regularizer: None = None,
        kernel_constraint: None = None,
        recurrent_constraint: None = None,
        bias_constraint: None = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool | int = False,
        seed: int | None = None,
        **keywords: Unpack[SimpleKeywords],
    ) -> None:
        self._make(given(locals()))


@serializable
class GRU(BuiltIn, compile("gru")):  # type: ignore[misc]
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
        activity_regularizer: None = None,
        kernel_constraint: None = None,
        recurrent_constraint: None = None,
        bias_constraint: None = None,
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
        **keywords: Unpack[GatedKeywords],
    ) -> None:
        self._make(given(locals()))


@serializable
class LSTM(BuiltIn, compile("lstm")):  # type: ignore[misc]
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
        activity_regularizer: None = None,
        kernel_constraint: None = None,
        recurrent_constraint: None = None,
        bias_constraint: None = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool | int = False,
        use_cudnn: bool | str = "auto",
        **keywords: Unpack[GatedKeywords],
    ) -> None:
        self._make(given(locals()))


for _class, _said in (
    (SimpleRNN, "The simple recurrent layer (Elman 1990)."),
    (GRU, "Gated recurrent units (Cho et al. 2014); reset_after: as in cuDNN, else the paper's."),
    (LSTM, "Long short-term memory (1997); unit_forget_bias: the forget gate's bias starts at 1."),
):
    _class.__doc__ = f"{_said}\n{_ARGUMENTS}"
