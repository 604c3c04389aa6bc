"""Keywords of every layer, with their types, for whoever checks scripts before they run.

Non-Goals: checking them when a layer is made (`runtime.api.layer_options`).
"""

from __future__ import annotations

from typing import Any, TypedDict


class CommonKeywords(TypedDict, total=False):
    """Those of layers and of Keras's cells."""

    precision: str | None
    weights: str | None
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
