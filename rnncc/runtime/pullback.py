"""The way back through one call of a layer: cotangents of what it returned -> gradients.

A pullback owns what the forward saved, so it may be called any number of times, and whatever
happens to the layer or its inputs in between changes nothing.

Non-Goals: second derivatives, so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.runtime.description import Cell
from rnncc.runtime.doors import Layout, as_array, check_shape, nearest

WRT = ("inputs", "weights", "initial_state")


@dataclass(frozen=True, slots=True)
class Gradients:
    """inputs: arranged as they were given; initial_state: likewise, else a tuple of every state.

    weights: by name, in order of declaration. What `wrt` left out is None, of weights {}.
    """

    inputs: Any
    weights: dict[str, np.ndarray]
    initial_state: Any


@dataclass(frozen=True, slots=True)
class Trace:
    """What a call leaves for its pullback, beside what the engine saved."""

    cell: Cell
    dtype: np.dtype[Any]
    batch: int
    time: int
    shapes: Mapping[str, tuple[int, ...]]  # in full, of every argument, state and weight
    returned: Mapping[str, tuple[int, ...]]  # in full, by the names of the forward's results
    inputs: Layout
    states: Layout | None  # None: none were given
    given_states: frozenset[str]
    return_sequences: bool
    return_state: bool


class Pullback:
    """pullback(dy) -> Gradients. See `Layer.vjp`."""

    def __init__(self, trace: Trace, engine: Any, saved: Any) -> None:
        self._trace, self._engine, self._saved = trace, engine, saved
        self._spent = False

    def __call__(self, dy: Any, wrt: Sequence[str] = WRT, *, consume: bool = False) -> Gradients:
        """Gradients of sum(dy * y).

        dy: like what the call returned, states included when it returned them; None, whole or in
        part, is zero. wrt: which gradients to compute. consume: this is the last call, what was
        saved may be let go. RuntimeError after a call that consumed; ValueError and TypeError for
        a dy unlike y.
        """
        if self._spent:
            raise RuntimeError("this pullback was consumed: call it without consume=True before")
        trace, wanted = self._trace, _chosen(wrt)
        cotangents = self._cotangents(dy)
        cell = trace.cell
        states = [s.name for s in cell.states]
        # States that started from a weight hand their gradient on to it.
        trained = {w.name for w in cell.weights}
        begun = [
            s for s in cell.states if s.default in trained and s.name not in trace.given_states
        ]
        names: list[str] = list(cell.arguments) if "inputs" in wanted else []
        if "initial_state" in wanted:
            names += states
        if "weights" in wanted:
            names += [w.name for w in cell.weights] + [s.name for s in begun]
        found = self._run(cotangents, frozenset(names))
        if consume:
            self._spent, self._engine, self._saved = True, None, None
        weights: dict[str, np.ndarray] = {}
        if "weights" in wanted:
            weights = {w.name: self._filled(found, w.name) for w in cell.weights}
            for state in begun:
                assert state.default is not None
                start = self._filled(found, state.name).sum(axis=0, dtype=trace.dtype)
                weights[state.default] = weights[state.default] + start
        inputs = initial = None
        if "inputs" in wanted:
            inputs = trace.inputs.arrange({n: self._filled(found, n) for n in cell.arguments})
        if "initial_state" in wanted:
            layout = trace.states or Layout("tuple", tuple(states))
            initial = layout.arrange({n: self._filled(found, n) for n in states})
        return Gradients(inputs, weights, initial)

    def vjp(self, dy: Any) -> tuple[Gradients, Pullback]:
        """Second derivatives: NotImplementedError in this version."""
        raise NotImplementedError("second derivatives are not available in this version of rnncc")

    def _filled(self, found: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        """A gradient the program computes, or zeros for what it doesn't read."""
        gradient = found.get(name)
        if gradient is None:
            return np.zeros(self._trace.shapes[name], self._trace.dtype)
        return gradient

    def _run(
        self, cotangents: dict[str, np.ndarray], names: frozenset[str]
    ) -> dict[str, np.ndarray]:
        trace = self._trace
        if trace.batch and trace.time:
            found: dict[str, np.ndarray] = self._engine.backward(self._saved, cotangents, names)
            return found
        # Nothing ran: the last states are the first ones.
        finals = {s.name: cotangents.get(f"final_{s.name}") for s in trace.cell.states}
        return {n: d.copy() for n, d in finals.items() if d is not None and n in names}

    def _cotangents(self, dy: Any) -> dict[str, np.ndarray]:
        """By the name of the forward's result; outputs [batch, time, ...], states [batch, ...]."""
        trace = self._trace
        outputs = [o.name for o in trace.cell.outputs]
        states = [f"final_{s.name}" for s in trace.cell.states] if trace.return_state else []
        tops = _parts("dy", dy, 1 + len(states)) if states else [dy]
        leaves = tops[:1]
        if len(outputs) > 1:
            leaves = _parts("dy of the outputs", tops[0], len(outputs))
        named = dict(zip([*outputs, *states], [*leaves, *tops[1:]], strict=True))
        found: dict[str, np.ndarray] = {}
        for name, value in named.items():
            if value is None:
                continue
            label = f"dy of {name.removeprefix('final_')}" if len(named) > 1 else "dy"
            array = as_array(label, value, trace.dtype)
            check_shape(label, array, trace.returned[name], "the shape of what was returned,")
            if name in outputs and not trace.return_sequences:
                array = self._last_step(array)
            found[name] = array
        return found

    def _last_step(self, d: np.ndarray) -> np.ndarray:
        whole = np.zeros((d.shape[0], self._trace.time, *d.shape[1:]), d.dtype)
        if self._trace.time:
            whole[:, -1] = d
        return whole


def _chosen(wrt: Sequence[str]) -> frozenset[str]:
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    for name in names:
        if name not in WRT:
            raise ValueError(f"wrt has no {name!r}{nearest(str(name), WRT)}")
    return frozenset(names)


def _parts(what: str, value: Any, count: int) -> list[Any]:
    if value is None:
        return [None] * count
    if not isinstance(value, tuple | list):
        raise TypeError(f"{what} is a tuple of {count}, like what was returned, not {type(value)}")
    if len(value) != count:
        raise ValueError(f"{what} has {len(value)} parts, {count} were returned")
    return list(value)
