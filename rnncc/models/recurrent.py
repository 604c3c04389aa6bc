"""The part that a layer of rnncc is: kernels, forward and backward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.layers.config import deserialize, serialize
from rnncc.models.component import Arrays, Component, Cotangents, Given, NoStream, Pullback, Stepper
from rnncc.runtime.api.layer import Layer


class Recurrent(Component, kind="recurrent"):
    """A layer. Inputs of its node: x, a mask or None, then initial states or None; outputs: y, and
    the last states if the layer has return_state.

    initial_state: what a call that is given no states starts from, rows of one; zeros if None.
    """

    is_stepwise = False

    def __init__(
        self, name: str, layer: Layer, initial_state: Sequence[np.ndarray] | None = None
    ) -> None:
        super().__init__(name)
        self.layer = layer
        self.initial_state = None if initial_state is None else tuple(initial_state)

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        arrays = {**self.layer.weights, **self.layer.constants}
        starts = self.initial_state or ()
        return arrays | {f"initial_state.{i}": s for i, s in enumerate(starts)}

    def __call__(self, *inputs: Given) -> Arrays:
        x, keywords = self._arguments(inputs)
        return _several(self.layer(x, **keywords))

    def vjp(self, *inputs: Given) -> tuple[Arrays, Pullback]:
        x, keywords = self._arguments(inputs)
        outputs, pullback = self.layer.vjp(x, training=False, **keywords)
        shapes = [o.shape for o in _several(outputs)]

        def pulled(dy: Cotangents) -> tuple[tuple[np.ndarray | None, ...], dict[str, np.ndarray]]:
            whole = [
                np.zeros(s, self.layer.dtype) if d is None else d
                for d, s in zip(dy, shapes, strict=False)
            ]
            found = pullback(tuple(whole) if len(whole) > 1 else whole[0])
            states = _several(found.initial_state) if len(inputs) > 2 else ()
            given = (found.inputs, None, *states)[: len(inputs)]
            return given, dict(found.weights)

        return _several(outputs), pulled

    def stream(self, *examples: Given) -> Stepper:
        if len(examples) > 1 and examples[1] is not None:
            raise NoStream(f"{self.name} has a mask, which a stream hasn't: call the model")
        if self.layer.go_backwards or hasattr(self.layer, "backward_layer"):
            raise NoStream(f"{self.name} runs backwards, so it needs the whole sequence")
        return RecurrentStepper(self, examples)

    def plan(self) -> str:
        return self.layer.plan()

    def config(self) -> dict[str, Any]:
        return {"layer": serialize(self.layer), "sizes": self.layer.sizes}

    @classmethod
    def made(
        cls, name: str, config: Mapping[str, Any], weights: Mapping[str, np.ndarray]
    ) -> Component:
        layer = deserialize(config["layer"])
        own = {n: a for n, a in weights.items() if not n.startswith("initial_state.")}
        starts = [weights[f"initial_state.{i}"] for i in range(len(weights) - len(own))]
        layer.build_with(config["sizes"], own)
        return cls(name, layer, starts or None)

    def _arguments(self, inputs: Sequence[Given]) -> tuple[np.ndarray, dict[str, Any]]:
        x, mask, *states = (*inputs, None)[: max(len(inputs), 2)]
        assert x is not None
        keywords: dict[str, Any] = {} if mask is None else {"mask": mask.astype(bool)}
        if any(s is not None for s in states):
            pairs = zip(self._states, states, strict=True)
            keywords["initial_state"] = {n: s for n, s in pairs if s is not None}
        elif self.initial_state is not None:
            rows = x.shape[1 if self.layer.time_major else 0]
            starts = (np.repeat(s, rows, 0) for s in self.initial_state)
            keywords["initial_state"] = dict(zip(self._states, starts, strict=True))
        return x, keywords

    @property
    def _states(self) -> list[str]:
        return [s.name for s in self.layer.cell.states]


class RecurrentStepper(Stepper):
    """A stream of the layer."""

    def __init__(self, part: Recurrent, examples: Sequence[Given]) -> None:
        super().__init__(part)
        x, keywords = part._arguments(examples)
        self._stream = part.layer.stream(x, **keywords)
        self._with_states = part.layer.return_state

    def __call__(self, *inputs: Given) -> Arrays:
        y = self._stream(inputs[0])
        outputs = y if type(y) is tuple else (y,)
        if not self._with_states:
            return outputs
        return (*outputs, *(s.copy() for s in self._stream.states))

    @property
    def states(self) -> Arrays:
        return self._stream.states

    def reset(self) -> None:
        self._stream.reset()


def _several(found: Any) -> Arrays:
    """One after another: the states of stacked cells come in groups."""
    if not isinstance(found, tuple | list):
        return (found,)
    return tuple(a for each in found for a in _several(each))
