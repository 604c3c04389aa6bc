"""Keras's recurrent layers, and rnncc's own in a Keras file -> layers of ours with their weights.

Non-Goals: layers without states (`keras_layers`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnncc.files import FileError
from rnncc.layers import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    GRUCell,
    LSTMCell,
    SimpleRNN,
    SimpleRNNCell,
    deserialize,
)
from rnncc.models.readers.building import LoadWarning
from rnncc.models.readers.keras_functions import as_text, function_of
from rnncc.models.readers.keras_weights import LayerWeights, numbered
from rnncc.models.recurrent import Recurrent
from rnncc.runtime.api.layer import Layer

LAYERS = {"SimpleRNN": SimpleRNN, "GRU": GRU, "LSTM": LSTM}
CELLS = {"SimpleRNNCell": SimpleRNNCell, "GRUCell": GRUCell, "LSTMCell": LSTMCell}
KINDS = (*LAYERS, "RNN", "Bidirectional")
_FLAGS = ("return_sequences", "return_state", "go_backwards", "zero_output_for_mask")


class RecurrentReader:
    """version: of Keras, that wrote the file. dtype: of the layers."""

    def __init__(self, where: str, version: str, dtype: str) -> None:
        self.where, self.version, self.dtype = where, version, dtype

    def read(self, name: str, entry: Mapping[str, Any], weights: LayerWeights) -> Recurrent:
        """One of KINDS. FileError for what it says that can't be, ValueError is none of its own."""
        label = f"{self.where}: {name}"
        try:
            layer, arrays = self._layer(label, entry, weights)
            layer.build_in_order((None, None, len(arrays[0])), arrays)
        except FileError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileError(label, f"it can't be made: {error!s:.500}") from None
        return Recurrent(name, layer)

    def _layer(
        self, label: str, entry: Mapping[str, Any], weights: LayerWeights
    ) -> tuple[Layer, list[np.ndarray]]:
        kind, config = entry["class_name"], entry["config"]
        if kind == "Bidirectional":
            return self._both(label, config, weights)
        if config.get("time_major"):
            raise FileError(label, "time_major=True isn't read")
        if config.get("stateful"):
            warnings.warn(
                f"{label} is stateful in Keras: here a call starts anew, model.stream(x) goes on",
                LoadWarning,
                stacklevel=2,
            )
        flags: dict[str, Any] = {n: bool(config.get(n, False)) for n in _FLAGS}
        if kind in LAYERS:
            options = self._options(label, kind, config)
            layer = LAYERS[kind](**options, **flags, dtype=self.dtype)
            return layer, self._arrays(kind, config, weights.child("cell"))
        cells, arrays = self._cells(label, config["cell"], weights.child("cell"))
        return RNN(cells if len(cells) > 1 else cells[0], **flags), arrays

    def _both(
        self, label: str, config: Mapping[str, Any], weights: LayerWeights
    ) -> tuple[Layer, list[np.ndarray]]:
        ahead, arrays = self._layer(label, config["layer"], weights.child("forward_layer"))
        back_entry = config.get("backward_layer")
        if back_entry is None:  # the same, as Keras makes it
            own = config["layer"]["config"]
            changed = {**own, "go_backwards": not own.get("go_backwards")}
            back_entry = {**config["layer"], "config": changed}
        back, more = self._layer(label, back_entry, weights.child("backward_layer"))
        both = Bidirectional(ahead, config.get("merge_mode", "concat"), backward_layer=back)
        return both, [*arrays, *more]

    def _options(self, label: str, kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """Keywords of a layer or cell."""
        found: dict[str, Any] = {
            "units": config["units"],
            "use_bias": bool(config.get("use_bias", True)),
            "activation": as_text(function_of(label, config.get("activation"), self.version)),
        }
        if not kind.startswith("SimpleRNN"):
            inner = function_of(label, config.get("recurrent_activation"), self.version)
            found["recurrent_activation"] = as_text(inner)
        if kind.startswith("GRU"):
            found["reset_after"] = bool(config.get("reset_after", False))
        return found

    def _arrays(
        self, kind: str, config: Mapping[str, Any], weights: LayerWeights
    ) -> list[np.ndarray]:
        names = ["kernel", "recurrent_kernel"]
        return weights.take("", [*names, "bias"] if config.get("use_bias", True) else names)

    def _cells(
        self, label: str, entry: Mapping[str, Any], weights: LayerWeights
    ) -> tuple[list[Any], list[np.ndarray]]:
        kind, config = entry["class_name"], entry["config"]
        if kind == "StackedRNNCells":
            cells, arrays = [], []
            folders = numbered(c["class_name"] for c in config["cells"])
            for folder, inner in zip(folders, config["cells"], strict=True):
                made, more = self._cells(label, inner, weights.child(f"cells/{folder}"))
                cells += made
                arrays += more
            return cells, arrays
        if kind in CELLS:
            options = self._options(label, kind, config)
            cell = CELLS[kind](**options, dtype=self.dtype)
            return [cell], self._arrays(kind, config, weights)
        if entry.get("registered_name") == "rnncc>Cell":
            layer = deserialize(config["spec"])
            cell = layer.cell
            names = [a.name for a in (*cell.weights, *cell.constants)]
            return [layer], weights.take("", names)
        raise FileError(label, f"a cell of the class {kind!r:.80}, which isn't read")
