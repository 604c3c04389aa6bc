"""What runs a node's one layer again on arrays that stay where they are: steps of a stream, and
short calls, of which one like the last has nothing to be found out anew.

Non-Goals: what a node is given (`recurrent_node`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.models.component import Arrays, Component, Given, Stepper
from rnncc.models.onnx.settings import INPUTS, LENGTHS, H, X
from rnncc.runtime.api.layer import Layer

# Calls of at most so many steps and rows take less time than what they'd have to find out; so many
# streams wait for threads.
SHORT, MOST_KEPT = 64, 4


class NodeStream:
    """A layer's stream, its arrays with the axis of directions that the operator has.

    example: X. batch_first: the operator's layout 1. dtype: of what a call returns.
    initial_state: by name, as `Layer.stream` has it.
    """

    def __init__(
        self,
        layer: Layer,
        example: np.ndarray,
        batch_first: bool,
        dtype: str,
        initial_state: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.stream = layer.stream(example, initial_state=initial_state)
        self._dtype = np.dtype(dtype)
        (self._x,), (y,) = self.stream.inputs.values(), self.stream.outputs.values()
        states = self.stream.carried.values()
        self._y = y[:, :, None] if batch_first else y[:, None]
        self.states = [s[:, None] if batch_first else s[None] for s in states]

    def __call__(self, x: np.ndarray) -> Arrays:
        """Y and the last states, which the next call goes on from. ValueError for another shape."""
        if x.shape != self._x.shape:
            expected = list(self._x.shape)
            raise ValueError(f"X has shape {list(x.shape)}, the stream's is {expected}")
        self._x[...] = x
        self.stream.run()
        dtype = self._dtype
        return self._y.astype(dtype), *[s.astype(dtype) for s in self.states]


class ShortCalls:
    """Calls that are alike. Each takes a stream out while it runs, so threads share none.

    given: what the first one was given. layer: of the one direction; None: no call is alike.
    """

    def __init__(
        self,
        layer: Layer | None = None,
        given: Sequence[Given] = (),
        batch_first: bool = False,
        dtype: str = "float32",
    ) -> None:
        self._layer, self._batch_first, self._dtype = layer, batch_first, dtype
        self._states = slice(H, H if layer is None else H + len(layer.cell.states))
        self._alike = [] if layer is None else self._kinds(given)
        self._kept: list[NodeStream] = []

    def _kinds(self, given: Sequence[Given]) -> list[Any]:
        arrays = [given[X], *given[self._states]]
        return [None if a is None else (a.shape, a.dtype) for a in arrays]

    def again(self, given: Sequence[Given]) -> Arrays | None:
        """What the node puts out, if this call is like the first; None if it isn't."""
        if self._layer is None or len(given) < INPUTS or given[LENGTHS] is not None:
            return None
        if self._kinds(given) != self._alike:
            return None
        x = given[X]
        assert x is not None
        try:
            stream = self._kept.pop()
        except IndexError:  # the second call, or others run in other threads
            stream = NodeStream(self._layer, x, self._batch_first, self._dtype)
        for own, state in zip(stream.states, given[self._states], strict=True):
            own[...] = 0 if state is None else state
        found = stream(x)
        if len(self._kept) < MOST_KEPT:
            self._kept.append(stream)
        return found


class OnnxStepper(Stepper):
    """A node in a stream."""

    def __init__(self, part: Component, stream: NodeStream) -> None:
        super().__init__(part)
        self._run, self._stream = stream, stream.stream

    def __call__(self, *inputs: Given) -> Arrays:
        x = inputs[X]
        assert x is not None
        return self._run(x)

    @property
    def states(self) -> Arrays:
        return self._stream.states

    def reset(self) -> None:
        self._stream.reset()
