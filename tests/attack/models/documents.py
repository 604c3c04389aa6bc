"""Documents that say what a model is, and arrays for them: right ones, to be damaged."""

from __future__ import annotations

from typing import Any

import numpy as np


def numbers(*shape: int) -> Any:
    return (np.arange(np.prod(shape)).reshape(shape) % 7 / 10).tolist()


def entry(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}, "registered_name": None}


CELL = {"units": 3, "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
GRU = {**CELL, "reset_after": True}


def tensor(name: str, index: int = 0) -> dict[str, Any]:
    history = {"shape": [None, None, 3], "dtype": "float32", "keras_history": [name, 0, index]}
    return {"class_name": "__keras_tensor__", "config": history}


def called(layer: dict[str, Any], *inputs: Any, **keywords: Any) -> dict[str, Any]:
    nodes = [{"args": list(inputs), "kwargs": keywords}] if inputs else []
    return {**layer, "name": layer["config"]["name"], "inbound_nodes": nodes}


CHAIN = {
    "class_name": "Sequential",
    "config": {
        "name": "chain",
        "layers": [
            entry("InputLayer", "words", batch_shape=[None, None], dtype="int32"),
            entry("Embedding", "embedding", mask_zero=True),
            entry(
                "Bidirectional",
                "both",
                merge_mode="sum",
                layer=entry("LSTM", "forward_lstm", return_sequences=True, **CELL),
                backward_layer=entry(
                    "LSTM", "backward_lstm", return_sequences=True, go_backwards=True, **CELL
                ),
            ),
            entry("BatchNormalization", "norm", axis=-1, epsilon=1e-3, center=True, scale=True),
            entry(
                "RNN",
                "rnn",
                return_sequences=True,
                cell=entry(
                    "StackedRNNCells",
                    "cells",
                    cells=[entry("LSTMCell", "a", **CELL), entry("GRUCell", "b", **GRU)],
                ),
            ),
            entry(
                "TimeDistributed",
                "each",
                layer=entry("Dense", "d", activation="relu", use_bias=True),
            ),
            entry("LayerNormalization", "layer_norm", axis=[-1], epsilon=1e-3),
            entry("Reshape", "reshape", target_shape=[-1, 3]),
        ],
    },
}
GRAPH = {
    "class_name": "Functional",
    "config": {
        "name": "graph",
        "layers": [
            called(entry("InputLayer", "x", batch_shape=[None, None, 3], dtype="float32")),
            called(
                entry("GRU", "gru", return_state=True, return_sequences=True, **GRU), tensor("x")
            ),
            called(entry("GRU", "again", **GRU), tensor("gru"), initial_state=[tensor("gru", 1)]),
            called(entry("Concatenate", "join", axis=-1), [tensor("again"), tensor("gru", 1)]),
        ],
        "input_layers": [["x", 0, 0]],
        "output_layers": [["join", 0, 0]],
    },
}
LSTM_ARRAYS = [(3, 12), (3, 12), (12,)]
GRU_ARRAYS = [(3, 9), (3, 9), (2, 9)]
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "embedding": [(9, 3)],
    "bidirectional/forward_layer/cell": LSTM_ARRAYS,
    "bidirectional/backward_layer/cell": LSTM_ARRAYS,
    "batch_normalization": [(3,)] * 4,
    "rnn/cell/cells/lstm_cell": LSTM_ARRAYS,
    "rnn/cell/cells/gru_cell": GRU_ARRAYS,
    "time_distributed/layer": [(3, 3), (3,)],
    "layer_normalization": [(3,)] * 2,
}
GRAPH_SHAPES = {"gru/cell": GRU_ARRAYS, "gru_1/cell": GRU_ARRAYS}


def arrays(shapes: dict[str, list[tuple[int, ...]]]) -> dict[str, np.ndarray]:
    return {
        f"layers/{folder}/vars/{i}": np.full(shape, 0.1, "f")
        for folder, several in shapes.items()
        for i, shape in enumerate(several)
    }


NAM = {
    "version": "0.5.4",
    "architecture": "LSTM",
    "config": {"input_size": 1, "hidden_size": 2, "num_layers": 2},
    "weights": numbers(83),
    "sample_rate": 48000,
}
RTNEURAL = {
    "in_shape": [None, None, 1],
    "in_skip": 1,
    "in_gain": 3.0,
    "layers": [
        {"type": "dense", "activation": "tanh", "weights": [numbers(1, 3), numbers(3)]},
        {"type": "lstm", "activation": "tanh", "weights": [numbers(*s) for s in LSTM_ARRAYS]},
        {"type": "gru", "activation": "tanh", "weights": [numbers(*s) for s in GRU_ARRAYS]},
        {"type": "prelu", "weights": [numbers(1, 3)]},
        {"type": "dense", "activation": "", "weights": [numbers(3, 1), numbers(1)]},
    ],
}
PROTEUS = {
    "model_data": {"input_size": 1, "hidden_size": 3, "unit_type": "LSTM", "num_layers": 1}
    | {"output_size": 1, "skip": 1},
    "state_dict": {
        "rec.weight_ih_l0": numbers(12, 1),
        "rec.weight_hh_l0": numbers(12, 3),
        "rec.bias_ih_l0": numbers(12),
        "rec.bias_hh_l0": numbers(12),
        "lin.weight": numbers(1, 3),
        "lin.bias": numbers(1),
    },
}
