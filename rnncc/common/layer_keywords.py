"""Keywords of every layer, with their types, for whoever checks scripts before they run.

Non-Goals: checking them when a layer is made (`runtime.api.layer_options`).
"""

from __future__ import annotations

from typing import Any, Literal, SupportsFloat, TypeAlias, TypedDict

# What a cell declares itself: sizes, options, functions and rates. NumPy's numbers are among those
# that are made floats.
CellKeyword: TypeAlias = str | SupportsFloat | None
Target: TypeAlias = Literal["cpu", "cuda"]
Precision: TypeAlias = Literal["float32", "tf32", "bfloat16"]
Storage: TypeAlias = Literal["float32", "bfloat16", "int8"]
MergeMode: TypeAlias = Literal["concat", "sum", "mul", "ave"]


class CommonKeywords(TypedDict, total=False):
    """Those of layers and of Keras's cells."""

    precision: Precision | None
    weights: Storage | None
    dtype: Any  # "float32", numpy.float64, ...
    name: str | None


class FewKeywords(CommonKeywords, total=False):
    """Those that no layer of Keras's has, or that each of them takes among others."""

    time_major: bool
    zero_output_for_mask: bool
    checkpoint_every: int | None


class LayerKeywords(FewKeywords, total=False):
    """All of them."""

    return_sequences: bool
    return_state: bool
    go_backwards: bool
    stateful: bool
    unroll: bool | int
    seed: int | None


class StackKeywords(FewKeywords, total=False):
    """Of `layers.RNN`, beside those it spells out."""

    go_backwards: bool
    stateful: bool
    unroll: bool | int
    seed: int | None


class RowKeywords(TypedDict, total=False):
    """Of a call, which of its steps count and where rows start anew."""

    mask: Any
    lengths: Any
    resets: Any


class CallKeywords(RowKeywords, total=False):
    """Of a call of a layer of NumPy arrays."""

    initial_state: Any
    training: bool | None
    seed: int | None


class SimpleKeywords(FewKeywords, total=False):
    """Of `layers.SimpleRNN`, beside Keras's."""

    implementation: int
    use_cudnn: bool | str


class GatedKeywords(FewKeywords, total=False):
    """Of `layers.GRU` and `layers.LSTM`, beside Keras's."""

    implementation: int
    dropout_per_gate: bool


class SimpleCellKeywords(CommonKeywords, total=False):
    """Of `layers.SimpleRNNCell`, beside Keras's."""

    implementation: int
    use_cudnn: bool | str


class GatedCellKeywords(SimpleCellKeywords, total=False):
    """Of `layers.GRUCell` and `layers.LSTMCell`, beside Keras's."""

    dropout_per_gate: bool


class TorchStackKeywords(TypedDict, total=False):
    """Of `torch.RecurrentStack`, beside those it spells out and a cell's own."""

    zero_output_for_mask: bool
    checkpoint_every: int | None
    unroll: bool | int
    precision: Precision | None
    weights: Storage | None


class ModuleKeywords(TorchStackKeywords, total=False):
    """Of `torch.Recurrent` of a module, beside those it spells out."""

    return_sequences: bool
    return_state: bool
    go_backwards: bool
    time_major: bool


class KerasKeywords(TypedDict, total=False):
    """What `rnncc.keras` hands on to keras.layers.Layer, beside what its classes spell out."""

    name: str | None
    dtype: Any  # or a policy
    trainable: bool
    autocast: bool


class KerasLayerKeywords(KerasKeywords, total=False):
    """Of `keras.Bidirectional`, `keras.StackedRNNCells` and `keras.PythonCell`."""

    activity_regularizer: Any
    input_shape: Any
    input_dim: int


class KerasBuiltInKeywords(KerasKeywords, total=False):
    """Of `keras.SimpleRNN`, `keras.GRU` and `keras.LSTM`, beside Keras's."""

    zero_output_for_mask: bool
    checkpoint_every: int | None
    precision: Precision | None
    weights: Storage | None
    implementation: int
    input_shape: Any
    input_dim: int


class KerasSimpleKeywords(KerasBuiltInKeywords, total=False):
    """Of `keras.SimpleRNN`, beside those."""

    use_cudnn: bool | str


class KerasGatedKeywords(KerasBuiltInKeywords, total=False):
    """Of `keras.GRU` and `keras.LSTM`, beside those."""

    dropout_per_gate: bool


class KerasSimpleCellKeywords(KerasKeywords, total=False):
    """Of `keras.SimpleRNNCell`, beside Keras's."""

    activity_regularizer: Any
    weights: Storage | None
    implementation: int
    use_cudnn: bool | str


class KerasGatedCellKeywords(KerasSimpleCellKeywords, total=False):
    """Of `keras.GRUCell` and `keras.LSTMCell`, beside Keras's."""

    dropout_per_gate: bool
