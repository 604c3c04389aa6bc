"""A layer step by step: states stay where they are, and a call is little more than its kernels.

    stream = layer.stream(np.zeros((1, 1, 64), "float32"))     # what its calls look like
    for x in samples:
        y = stream(x)                                           # goes on where the last one stopped

Everything a call of the layer finds out anew is found out once: shapes, addresses, packed weights.
Bits are those of a stateful layer.

Non-Goals: training; masks; other shapes than the first (a stateful layer does all three).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnncc.artifact.cell import RESTART, TO_STARTS, TO_ZEROS, restart_name
from rnncc.common.result_roles import final_name
from rnncc.runtime.api.masking import flags_of
from rnncc.runtime.api.validation import array_shape, as_array, check_shape, spread


class Stream:
    """Made by `Layer.stream`. Not for two threads at once; any number of streams of one layer is.

    inputs: the arrays that calls write into and kernels read, by name; outputs: those that kernels
    write; carried: the states, which they read and write. To save the copies, fill `inputs`, call
    `run()`, read `outputs`. layer: the `Layer`.
    """

    def __init__(self, layer: Any, example: Any, initial_state: Any = None) -> None:
        if layer.go_backwards:
            raise ValueError("a stream runs forwards: this layer has go_backwards=True")
        call = layer._enter(example, initial_state, None, None)
        if not (call.batch and call.steps):
            raise ValueError(
                f"a stream needs a row and a step, not batch {call.batch}, time {call.time}"
            )
        self._layer, self._sizes = layer, call.sizes
        self._batch, self._time = call.batch, call.time
        cell, order, dtype = layer.cell, layer._order, layer._dtype
        names = cell.arguments
        # In the order of the user's axes; kernels read and write views.
        self.inputs = {n: np.array(layer._as_given(n, call.arrays[n])) for n in names}
        self._start = {s: np.array(call.arrays[s]) for s in layer._states}
        # What rows start anew from: where a stateful layer's states go on, what its cell declares.
        self._anew = {
            s: np.array(layer._declared(call, s)) if s in call.kept else self._start[s]
            for s in layer._states
        }
        self._resets = TO_ZEROS if call.from_zeros else TO_STARTS
        self._behind = np.zeros((call.batch, call.time), layer._dtype)
        self.carried = {s: a.copy() for s, a in self._start.items()}
        self.outputs: dict[str, np.ndarray] = {}
        lead = (call.batch, call.time)[: 1 + layer.return_sequences]
        if layer.return_sequences and layer.time_major:
            lead = lead[::-1]
        for output in cell.outputs:
            self.outputs[output.name] = np.zeros((*lead, *array_shape(output, call.sizes)), dtype)
        turned = order.turn if layer.return_sequences else np.asarray
        self._reads = {n: layer._as_run(n, a) for n, a in self.inputs.items()} | self.carried
        self._writes = {n: turned(a) for n, a in self.outputs.items()}
        self._writes |= {final_name(s): a for s, a in self.carried.items()}
        self._alone = next(iter(self.inputs.values())) if len(names) == 1 else None
        self._first = next(iter(self.outputs.values())) if len(self.outputs) == 1 else None
        assert layer._store is not None
        self._store = layer._store
        self._prepare()

    def _prepare(self) -> None:
        """What depends on the weights."""
        self._version, self._weights = self._store.current
        self._again = self._repeated("")
        self._again_anew: Callable[[], None] | None = None  # with rows that start anew on the way

    def _repeated(self, resets: str) -> Callable[[], None]:
        """What runs a call. It runs once to be made: states are put back."""
        layer, reads = self._layer, dict(self._reads)
        if resets:
            reads |= {restart_name(s): a for s, a in self._anew.items()}
            reads[RESTART] = self._behind
        before = {n: a.copy() for n, a in self.carried.items()}
        key = False, False, resets
        engine = (layer._engines.get(key) or layer._engine(*key)).engine
        again = engine.repeat(
            {**self._weights, **layer._chosen.rates, **reads},
            self._sizes,
            self._batch,
            self._time,
            version=self._version,
            last_only=not layer.return_sequences,
            out=self._writes,
        )
        layer._last = engine
        for name, array in before.items():
            self.carried[name][...] = array
        return again

    def __call__(self, inputs: Any, *, resets: Any = None) -> Any:
        """The outputs for these inputs, which are like the first ones; new arrays.

        resets: bools [batch, time], or [batch] of the first step: True where a row starts anew
        before it, from where the stream started.
        Raises TypeError and ValueError for arrays of another kind or shape.
        """
        alone = self._alone
        if (
            alone is not None
            and type(inputs) is np.ndarray
            and inputs.shape == alone.shape
            and inputs.dtype is alone.dtype
        ):
            alone[...] = inputs
        else:
            self._take(inputs)
        self.run(resets)
        first = self._first
        return first.copy() if first is not None else tuple(a.copy() for a in self.outputs.values())

    def _take(self, inputs: Any) -> None:
        layer = self._layer
        values, _ = spread(f"inputs of {layer.cell.name}", inputs, layer.cell.arguments)
        for name, value in values.items():
            own = self.inputs[name]
            array = as_array(name, value, own.dtype, lead=layer._lead[name])
            check_shape(name, array, own.shape, "the shape this stream was made for,")
            own[...] = array

    def run(self, resets: Any = None) -> None:
        """One call on what is in `inputs`."""
        if self._store.current[0] != self._version:
            self._prepare()
        if resets is None or not self._start_rows(resets):
            self._again()
            return
        if self._again_anew is None:
            self._again_anew = self._repeated(self._resets)
        self._again_anew()

    def _start_rows(self, resets: Any) -> bool:
        """Rows that start anew at the first step do; whether others do behind it."""
        batch, time = self._batch, self._time
        given = flags_of(resets, (batch,), (batch, time)).reshape(batch, -1)
        rows = given[:, 0]
        if rows.any():
            for name, array in self.carried.items():
                array[rows] = self._anew[name][rows]
        if not given[:, 1:].any():
            return False
        self._behind[:, :-1] = given[:, 1:]  # numbers: kernels read them where they are
        return True

    @property
    def states(self) -> tuple[np.ndarray, ...]:
        """Copies of the states, in order."""
        return tuple(a.copy() for a in self.carried.values())

    @states.setter
    def states(self, given: Sequence[np.ndarray]) -> None:
        """The next call starts from these, in order. ValueError for others in number or shape."""
        own = list(self.carried.values())
        if len(given) != len(own) or [a.shape for a in given] != [a.shape for a in own]:
            shapes = [[list(a.shape) for a in arrays] for arrays in (given, own)]
            raise ValueError(f"states have shapes {shapes[0]}, the stream's are {shapes[1]}")
        for array, new in zip(own, given, strict=True):
            array[...] = new

    def reset(self) -> None:
        """The next call starts where the first one did."""
        for name, array in self._start.items():
            self.carried[name][...] = array
