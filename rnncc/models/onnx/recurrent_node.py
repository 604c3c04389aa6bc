"""The part that a node RNN, GRU or LSTM of ONNX is: a layer for each direction.

Non-Goals: attributes (`settings`), arrays (`node_weights`), graphs (`reader`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.models.component import (
    Arrays,
    Component,
    Cotangents,
    Given,
    NoGradient,
    NoStream,
    Pullback,
    Stepper,
)
from rnncc.models.onnx.node_streams import SHORT, NodeStream, OnnxStepper, ShortCalls
from rnncc.models.onnx.node_weights import COMPUTED, ArrayError, NodeArrays, layers_of
from rnncc.models.onnx.settings import (
    INPUTS,
    LENGTHS,
    B,
    C,
    H,
    NodeSettings,
    P,
    R,
    W,
    X,
    settings_of,
)
from rnncc.runtime.api.layer import Layer


class OnnxRecurrent(Component, kind="onnx recurrent"):
    """RNN, GRU or LSTM as ONNX's operators are.

    Inputs of its node are the operator's in order: X, W, R, B, sequence_lens, initial_h,
    initial_c, P; None for those that aren't given, or that `layers` hold. Outputs: Y, Y_h, Y_c.
    layers: of each direction; None where the weights are inputs of the node, and a call makes
    layers of them. dtype: of the values. whole: why its graph needs whole sequences; "": a stream
    may run it, beginning with the initial states of its example.
    """

    is_stepwise = False

    def __init__(
        self,
        name: str,
        operator: str,
        attributes: Mapping[str, Any],
        layers: Sequence[Layer] | None,
        dtype: str = "float32",
        whole: str = "",
    ) -> None:
        super().__init__(name)
        self.operator, self.attributes = operator, dict(attributes)
        self.settings = settings_of(operator, attributes)
        self.layers = None if layers is None else tuple(layers)
        self.dtype, self.whole = dtype, whole
        self._short = ShortCalls()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_short": ShortCalls()}

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        pairs = zip(self.settings.directions, self.layers or (), strict=False)
        return {f"{way}.{n}": a for way, layer in pairs for n, a in layer.weights.items()}

    def config(self) -> dict[str, Any]:
        return {
            "operator": self.operator,
            "attributes": self.attributes,
            "dtype": self.dtype,
            "whole": self.whole,
        }

    @classmethod
    def made(
        cls, name: str, config: Mapping[str, Any], weights: Mapping[str, np.ndarray]
    ) -> Component:
        if not weights:
            return cls(name, layers=None, **config)
        settings = settings_of(config["operator"], config["attributes"])
        layers = []
        for i, way in enumerate(settings.directions):
            own = {n.removeprefix(f"{way}."): a for n, a in weights.items() if n.startswith(way)}
            units, features = own["R"].shape[0], own["W"].shape[0]
            dtype = COMPUTED[config["dtype"]]
            layer = settings.layer(i, units, dtype, "B" in own, "P" in own)
            layer.build_with({"features": features, "units": units}, own)
            layers.append(layer)
        return cls(name, layers=layers, **config)

    def plan(self) -> str:
        if self.layers is None:
            return "its weights are inputs: every call makes layers of them"
        named = zip(self.settings.directions, self.layers, strict=True)
        widened = ", of values widened from float16" if self.dtype == "float16" else ""
        return "\n".join(f"{way}{widened}: {layer.plan()}" for way, layer in named)

    # ---- calls -----------------------------------------------------------------------------------

    def __call__(self, *inputs: Given) -> Arrays:
        quick = self._short.again(inputs)
        if quick is not None:
            return quick
        given = _padded(inputs)
        layers = self._layers(given)
        asked = self._asked(given, layers)
        if self._is_short(asked):
            self._short = ShortCalls(layers[0], given, self.settings.batch_first, self.dtype)
        found = [
            layer(asked.x, lengths=asked.lengths, initial_state=asked.states(i))
            for i, layer in enumerate(layers)
        ]
        return self._joined(asked, found)

    def _is_short(self, asked: Asked) -> bool:
        """Whether the next call, if it is like this one, had better run in a stream."""
        forward = self.settings.directions == ("forward",) and self.layers is not None
        steps = asked.x.shape[0] * asked.x.shape[1]
        return forward and asked.lengths is None and 0 < steps <= SHORT

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        given = _padded(inputs)
        if self.layers is None:
            raise NoGradient(f"{self.name} ({self.kind}) gets its weights as inputs")
        asked = self._asked(given, self.layers)
        pairs = [
            layer.vjp(asked.x, lengths=asked.lengths, initial_state=asked.states(i), training=False)
            for i, layer in enumerate(self.layers)
        ]

        def pulled(dy: Cotangents) -> tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]:
            own: dict[str, np.ndarray] = {}
            back = []
            for i, (outputs, pullback) in enumerate(pairs):
                found = pullback(self._split(asked, dy, i, outputs))
                back.append(found)
                way = self.settings.directions[i]
                own |= {f"{way}.{n}": g for n, g in found.weights.items()}
            dx = sum((f.inputs for f in back[1:]), back[0].inputs)
            places: list[np.ndarray | None] = [dx, *(None,) * 7]
            for state, place in zip(self.settings.kind.states, (H, C), strict=False):
                if given[place] is not None:
                    stacked = np.stack([f.initial_state[state] for f in back])
                    places[place] = asked.turned(stacked).astype(self.dtype, copy=False)
            places[X] = dx.astype(self.dtype, copy=False)
            return tuple(places[: len(inputs)]), own

        return self._joined(asked, [outputs for outputs, _ in pairs]), pulled

    def stream(self, *examples: Given) -> Stepper:
        given = _padded(examples)
        if self.settings.directions != ("forward",):
            raise NoStream(f"{self.name} runs backwards, so it needs the whole sequence")
        if given[LENGTHS] is not None:
            raise NoStream(f"{self.name} has sequence_lens, which a stream hasn't")
        if self.layers is None:
            raise NoStream(f"{self.name} gets its weights as inputs: call the model")
        if self.whole:
            raise NoStream(f"{self.name} {self.whole}")
        asked = self._asked(given, self.layers)
        batch_first = self.settings.batch_first
        start = asked.states(0)
        stream = NodeStream(self.layers[0], asked.x, batch_first, self.dtype, start)
        return OnnxStepper(self, stream)

    # ---- arrays ----------------------------------------------------------------------------------

    def _layers(self, given: Sequence[Given]) -> tuple[Layer, ...]:
        if self.layers is not None:
            return self.layers
        w, r = given[W], given[R]
        if w is None or r is None:
            raise ValueError(f"{self.name} has no {'W' if w is None else 'R'}")
        try:
            return layers_of(self.settings, NodeArrays(w, r, given[B], given[P]))
        except ArrayError as e:
            raise ValueError(f"{self.name}: {e}") from None

    def _asked(self, given: Sequence[Given], layers: Sequence[Layer]) -> Asked:
        x, settings = given[X], self.settings
        features, units = layers[0].sizes["features"], layers[0].sizes["units"]
        axes = "[batch, time, {}]" if settings.batch_first else "[time, batch, {}]"
        if x is None or x.ndim != 3 or x.shape[2] != features:
            shape = None if x is None else list(x.shape)
            raise ValueError(f"{self.name}: X has shape {shape}, expected {axes.format(features)}")
        time, batch = x.shape[:2][:: -1 if settings.batch_first else 1]
        ways = len(settings.directions)
        expected = (batch, ways, units) if settings.batch_first else (ways, batch, units)
        states = []
        for name, array in zip(("initial_h", "initial_c"), (given[H], given[C]), strict=True):
            if array is not None and array.shape != expected:
                raise ValueError(
                    f"{self.name}: {name} has shape {list(array.shape)}, expected {list(expected)}"
                )
            states.append(array)
        lengths = self._lengths(given[LENGTHS], time, batch)
        return Asked(x, lengths, states[: len(settings.kind.states)], settings, time, self.dtype)

    def _lengths(self, given: Given, time: int, batch: int) -> np.ndarray | None:
        if given is None:
            return None
        if given.shape != (batch,) or given.dtype.kind not in "iu":
            raise ValueError(
                f"{self.name}: sequence_lens has shape {list(given.shape)} of {given.dtype}, "
                f"expected ints [{batch}]"
            )
        if ((given < 0) | (given > time)).any():
            raise ValueError(f"{self.name}: sequence_lens holds {given}, expected 0 ... {time}")
        return None if (given == time).all() else given

    def _joined(self, asked: Asked, found: Sequence[Arrays]) -> Arrays:
        """Outputs of all directions, as the operator has them."""
        time_axis = 1 if asked.settings.batch_first else 0
        axis = time_axis + 1
        if asked.settings.directions == ("forward",) and asked.dtype == found[0][0].dtype.name:
            y, *states = found[0]
            for state in states if asked.has_empty else ():
                state[asked.empty] = 0
            y = y[:, :, None] if time_axis else y[:, None]
            return y, *(asked.turned(s[None]) for s in states)
        ys = []
        for way, (y, *_) in zip(asked.settings.directions, found, strict=True):
            ys.append(np.flip(y, time_axis) if way == "reverse" else y)
        y = np.stack(ys, axis) if len(ys) > 1 else np.expand_dims(ys[0], axis)
        lasts = [np.stack(s) for s in zip(*(s for _, *s in found), strict=True)]
        for last in lasts:
            last[:, asked.empty] = 0
        outputs = y, *(asked.turned(last) for last in lasts)
        return tuple(o.astype(self.dtype, copy=False) for o in outputs)

    def _split(self, asked: Asked, dy: Cotangents, i: int, outputs: Arrays) -> Arrays:
        """Cotangents of what the i-th layer gave."""
        batch_first, dtype = asked.settings.batch_first, outputs[0].dtype
        whole = [*dy, None, None][: len(outputs)]
        parts = [np.zeros_like(o) for o in outputs]
        if whole[0] is not None:
            part = whole[0][:, :, i] if batch_first else whole[0][:, i]
            if self.settings.directions[i] == "reverse":
                part = np.flip(part, 1 if batch_first else 0)
            parts[0] = np.ascontiguousarray(part, dtype)
        for k, d in enumerate(whole[1:], 1):
            if d is not None:
                parts[k] = np.array(d[:, i] if batch_first else d[i], dtype)
                parts[k][asked.empty] = 0
        return tuple(parts)


class Asked:
    """What one call is asked. given: initial states as the operator has them, or None.

    empty: rows that have no step; their last states are zeros, as in onnxruntime."""

    def __init__(
        self,
        x: np.ndarray,
        lengths: np.ndarray | None,
        given: Sequence[Given],
        settings: NodeSettings,
        time: int,
        dtype: str,
    ) -> None:
        self.x, self.lengths, self.given, self.settings = x, lengths, given, settings
        self.empty = slice(0, 0 if time else None) if lengths is None else lengths == 0
        self.has_empty = lengths is not None or not time
        self.dtype = dtype

    def states(self, i: int) -> dict[str, np.ndarray] | None:
        """Of the i-th direction."""
        names = self.settings.kind.states
        pairs = zip(names, self.given, strict=True)
        return {
            n: a[:, i] if self.settings.batch_first else a[i] for n, a in pairs if a is not None
        } or None

    def turned(self, states: np.ndarray) -> np.ndarray:
        """[directions, batch, units] as `layout` has them, and the other way round."""
        return states.swapaxes(0, 1) if self.settings.batch_first else states


def _padded(inputs: Sequence[Given]) -> list[Given]:
    return [*inputs, *(None,) * (INPUTS - len(inputs))]
