"""The way back through one call of a layer: cotangents of what it returned -> gradients.

A pullback owns what the forward saved, so it may be called any number of times, and whatever
happens to the layer or its inputs in between changes nothing.

Non-Goals: second derivatives, so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnncc.runtime.description import Cell
from rnncc.runtime.doors import Layout, as_array, check_shape, nearest
from rnncc.runtime.masks import Masking
from rnncc.runtime.memory import aligned
from rnncc.runtime.order import Order

WRT = ("inputs", "weights", "initial_state")


@dataclass(slots=True, eq=False)
class Gradients:
    """inputs: arranged as they were given. weights: by name, in order of declaration.

    What `wrt` left out is None, of weights {}.
    """

    inputs: Any
    weights: dict[str, np.ndarray]
    _initial: Any = field(repr=False)  # or a _Later

    @property
    def initial_state(self) -> Any:
        """Arranged as it was given, else a tuple of every state.

        Where no state was given nobody trains what it started from, as a rule: then this is
        computed when it is first read, and until then holds on to what the forward saved.
        """
        initial = self._initial
        if isinstance(initial, _Later):
            initial = self._initial = initial()
        return initial

    def __reduce__(self) -> tuple[Any, ...]:
        return Gradients, (self.inputs, self.weights, self.initial_state)


@dataclass(frozen=True, slots=True)
class Trace:
    """What a call leaves for its pullback, beside what the engine saved."""

    cell: Cell
    dtype: np.dtype[Any]
    batch: int
    steps: int  # that ran
    # In full: of every argument, state and weight as it ran; of the forward's results by name, as
    # they were given back.
    shapes: Mapping[str, tuple[int, ...]]
    returned: Mapping[str, tuple[int, ...]]
    inputs: Layout
    states: Layout | None  # None: none were given
    given_states: frozenset[str]
    return_sequences: bool
    return_state: bool
    order: Order
    masking: Masking | None = None

    @property
    def cut(self) -> bool:
        """Whether the last steps didn't run, since no row needs them."""
        return self.masking is not None and self.masking.steps < self.masking.time


class Pullback:
    """pullback(dy) -> Gradients. See `Layer.vjp`."""

    def __init__(self, trace: Trace, engine: Any, saved: Any) -> None:
        self._trace, self._engine, self._saved = trace, engine, saved
        self._spent = False

    def __call__(
        self, dy: Any, wrt: Sequence[str] | None = None, *, consume: bool = False
    ) -> Gradients:
        """Gradients of sum(dy * y).

        dy: like what the call returned, states included when it returned them; None, whole or in
        part, is zero. wrt: which gradients to compute, of "inputs", "weights", "initial_state";
        None is all of them. consume: this is the last call, what was saved may be let go.
        RuntimeError after a call that consumed; ValueError and TypeError for a dy unlike y.
        """
        if self._spent:
            raise RuntimeError("this pullback was consumed: call it without consume=True before")
        trace, wanted = self._trace, _chosen(wrt)
        cell, run = trace.cell, _Run(trace, self._engine, self._saved, self._cotangents(dy))
        later = wrt is None and trace.states is None and not consume
        # States that started from a weight hand their gradient on to it.
        trained = [w.name for w in cell.weights] if "weights" in wanted else []
        begun = [
            s for s in cell.states if s.default in trained and s.name not in trace.given_states
        ]
        states = run.states if "initial_state" in wanted else Layout("tuple", ())
        names = [*trained, *(s.name for s in begun)]
        if "inputs" in wanted:
            names += cell.arguments
        if not later:
            names += states.names
        found = run(names)
        if consume:
            self._spent, self._engine, self._saved = True, None, None
        weights = {name: found[name] for name in trained}
        for state in begun:
            assert state.default is not None
            start = found[state.name].sum(axis=0, dtype=trace.dtype)
            weights[state.default] = weights[state.default] + start
        inputs = initial = None
        if "inputs" in wanted:
            inputs = trace.inputs.arrange(found)
        if "initial_state" in wanted:
            known = all(n in found for n in states.names)
            initial = states.arrange(found) if known else _Later(run.owned())
        return Gradients(inputs, weights, initial)

    def vjp(self, dy: Any) -> tuple[Gradients, Pullback]:
        """Second derivatives: NotImplementedError in this version."""
        raise NotImplementedError("second derivatives are not available in this version of rnncc")

    def _cotangents(self, dy: Any) -> dict[str, np.ndarray]:
        """By the name of the forward's result, in the shapes that were returned."""
        trace = self._trace
        outputs = [o.name for o in trace.cell.outputs]
        lead = 2 if trace.return_sequences else 1
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
            array = as_array(label, value, trace.dtype, lead=lead if name in outputs else 1)
            check_shape(label, array, trace.returned[name], "the shape of what was returned,")
            turned = trace.return_sequences and name in outputs
            array = trace.order.turn(array) if turned else array
            if trace.masking and trace.return_sequences and name in outputs:
                array = trace.masking.fold(array)
            found[name] = array
        return found


@dataclass(frozen=True, slots=True)
class _Run:
    """One way back: run(names) are the gradients of these."""

    trace: Trace
    engine: Any
    saved: Any
    cotangents: dict[str, np.ndarray]

    @property
    def states(self) -> Layout:
        """How the gradients of initial states are arranged."""
        return self.trace.states or Layout("tuple", tuple(s.name for s in self.trace.cell.states))

    def __call__(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """By name; zeros for what the program doesn't read."""
        trace, order, found = self.trace, self.trace.order, {}
        timed = [i.name for i in trace.cell.inputs if i.name in names]
        if trace.batch and trace.steps:
            whole = {} if order.is_plain and not trace.cut else {n: self._place(n) for n in timed}
            out = ({n: a[:, : trace.steps] for n, a in whole.items()},) if whole else ()
            found = self.engine.backward(self.saved, self.cotangents, frozenset(names), *out)
            found = {**found, **whole}
        else:  # nothing ran: the last states are the first ones
            finals = {s.name: self.cotangents.get(f"final_{s.name}") for s in trace.cell.states}
            found = {n: d.copy() for n, d in finals.items() if d is not None}
        for name in names:
            if name not in found:
                found[name] = np.zeros(trace.shapes[name], trace.dtype)
        return found if order.is_plain else found | {n: order.given(found[n]) for n in timed}

    def _place(self, name: str) -> np.ndarray:
        """Where the gradient of an input goes: an array like the user's, as its steps run. It is
        zero where nothing ran."""
        order, shape = self.trace.order, self.trace.shapes[name]
        given = order.given(np.broadcast_to(np.empty(()), shape)).shape
        return order.run(aligned(given, self.trace.dtype, zero=self.trace.cut))

    def owned(self) -> _Run:
        """With cotangents that the caller can't change."""
        copied = {n: d.copy() for n, d in self.cotangents.items()}
        return _Run(self.trace, self.engine, self.saved, copied)


@dataclass(frozen=True, slots=True)
class _Later:
    """Gradients of initial states nobody has asked for yet."""

    run: _Run

    def __call__(self) -> Any:
        return self.run.states.arrange(self.run(self.run.states.names))


def _chosen(wrt: Sequence[str] | None) -> frozenset[str]:
    if wrt is None:
        return frozenset(WRT)
    if not isinstance(wrt, str | Iterable):
        raise TypeError(f"wrt is one or several of {', '.join(WRT)}, not {wrt!r}")
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    for name in names:
        if name not in WRT:
            raise ValueError(f"wrt has no {name!r}{nearest(str(name), WRT)}")
    return frozenset(names)


def _parts(what: str, value: Any, count: int) -> list[Any]:
    if value is None:
        return [None] * count
    if not isinstance(value, tuple | list):
        raise TypeError(
            f"{what} is a tuple of {count}, like what was returned, not {type(value).__name__}"
        )
    if len(value) != count:
        raise ValueError(f"{what} has {len(value)} parts, {count} were returned")
    return list(value)
