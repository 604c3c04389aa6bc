"""Bidirectional: a layer that runs forwards and one that runs backwards, their outputs merged.

Both directions are one call of kernels, whatever the options.

Non-Goals: what runs when (`rnncc.layers.directions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import keras

from rnncc import layers as native_layers
from rnncc.common.layer_keywords import KerasLayerKeywords, MergeMode
from rnncc.keras.cells import KerasAbstractCell
from rnncc.keras.joins import joined_sizes, joined_variables
from rnncc.keras.recurrent import PACKAGE, as_shapes
from rnncc.keras.rnn import RNN, RecurrentLayer
from rnncc.layers.merges import check_mode

_ALIKE = ("stateful", "return_sequences", "return_state")


@keras.saving.register_keras_serializable(PACKAGE)
class Bidirectional(RecurrentLayer):
    """A layer run in both directions.

    layer: a recurrent layer of this package; the directions are layers of its configuration with
    weights of their own. merge_mode: what becomes of both outputs: "concat", "sum", "mul", "ave",
    or None: both are returned. weights: initial values, those of the forward direction first.
    backward_layer: another layer for the way back, with go_backwards=True.

    Outputs of every step are in the order of time in both directions; states are those of the
    forward direction, then those of the backward one. Outputs of masked steps are zeros.
    TypeError for what is no layer, ValueError for another merge_mode and for layers that can't be
    two directions of one.
    """

    def __init__(
        self,
        layer: RNN,
        merge_mode: MergeMode | None = "concat",
        weights: Sequence[Any] | None = None,
        backward_layer: RNN | None = None,
        **keywords: Unpack[KerasLayerKeywords],
    ) -> None:
        _check("layer", layer)
        if backward_layer is not None:
            _check("backward_layer", backward_layer)
        check_mode(merge_mode)
        for name in _ALIKE if backward_layer is not None else ():
            own, other = getattr(layer, name), getattr(backward_layer, name)
            if own != other:
                raise ValueError(
                    f"layer has {name}={own}, backward_layer {name}={other}: make them agree"
                )
        super().__init__(**{"dtype": layer.dtype_policy, **keywords})
        self.merge_mode = merge_mode
        self.forward_layer = _copy(layer, "forward_")
        if backward_layer is None:
            self.backward_layer = _copy(layer, "backward_", go_backwards=not layer.go_backwards)
        else:
            self.backward_layer = backward_layer
        self.return_sequences, self.return_state = layer.return_sequences, layer.return_state
        self.stateful, self.input_spec = layer.stateful, layer.input_spec
        self._initial = None if weights is None else [*weights]
        if all(way.cell.settled for way in self.ways):
            _ = self.native  # refuses directions that don't fit

    # ---- what `Computed` and `RecurrentLayer` ask for ----

    @property
    def native(self) -> native_layers.Bidirectional:
        if self._native is None:
            ahead, back = (way.native for way in self.ways)
            self._native = native_layers.Bidirectional(
                ahead, merge_mode=self.merge_mode, backward_layer=back, name=self.name
            )
        return self._native

    _native: native_layers.Bidirectional | None = None

    @property
    def ways(self) -> list[RNN]:
        """Both directions."""
        return [self.forward_layer, self.backward_layer]

    def own_sizes(self) -> dict[str, int]:
        """Those that are settled, by their names in `native`."""
        return joined_sizes(self.native, self.ways)

    def own_variables(self) -> dict[str, Any]:
        """Of weights and constants."""
        return joined_variables(self.native, self.ways)

    bound_sizes, named_variables = own_sizes, own_variables

    def generators(self) -> list[Any]:
        return [g for way in self.ways for g in way.generators()]

    @property
    def starts_itself(self) -> bool:
        return any(way.starts_itself for way in self.ways)

    def initial_states(self, batch: int) -> list[Any]:
        return [s for way in self.ways for s in way.initial_states(batch)]

    def arranged(self, outputs: Sequence[Any], states: Sequence[Any]) -> Any:
        """y, y backwards where they aren't merged, states of both directions."""
        count = len(self.forward_layer.description.outputs)
        merged = len(outputs) == count
        shown = [
            part[0] if count == 1 else tuple(part)
            for part in ([outputs] if merged else [outputs[:count], outputs[count:]])
        ]
        if self.return_state:
            at, rest = len(self.forward_layer.description.states), []
            for way, part in zip(self.ways, (states[:at], states[at:]), strict=True):
                rest += way.arranged([None], part)[1:]
            return (*shown, *rest)
        return shown[0] if merged else tuple(shown)

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        """Make the variables of both directions, and of a stateful layer those of its states."""
        for way in self.ways:
            if not way.cell.built:
                way.build(sequences_shape)
        self.made_operation()  # outside of graphs
        if self.stateful:
            shapes = self.spread_inputs(as_shapes(sequences_shape), "shapes")
            self.make_states({n: tuple(s) for n, s in shapes.items()})
        if self._initial is not None:
            self.set_weights(self._initial)
            self._initial = None

    # ---- data ----

    def get_config(self) -> dict[str, Any]:
        """Keywords of the constructor."""
        ahead, back = map(keras.saving.serialize_keras_object, self.ways)
        base = super().get_config()
        return {**base, "merge_mode": self.merge_mode, "layer": ahead, "backward_layer": back}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Bidirectional:
        """A layer out of `get_config()`."""
        config = {**config}
        for name in ("layer", "backward_layer"):
            if config.get(name) is not None:
                config[name] = keras.saving.deserialize_keras_object(
                    config[name], custom_objects=custom_objects
                )
        return cls(**config)


def _copy(layer: RNN, prefix: str, **changed: Any) -> RNN:
    """A layer of the same configuration with weights of its own."""
    data = keras.saving.serialize_keras_object(layer)
    name = prefix + layer.name.removeprefix(prefix)
    data["config"] = {**data["config"], "name": name, **changed}
    duplicate: RNN = keras.saving.deserialize_keras_object(data)
    return duplicate


def _check(what: str, layer: Any) -> None:
    if isinstance(layer, KerasAbstractCell):
        raise TypeError(f"{what} is a layer, not a cell: give RNN({type(layer).__name__}(...))")
    if not isinstance(layer, RNN):
        raise TypeError(
            f"{what} is a recurrent layer of rnncc.keras such as LSTM(64), not {layer!r}"
        )
