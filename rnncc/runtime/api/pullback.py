"""The way back through one call of a layer: cotangents of what it returned -> gradients.

A pullback owns what the forward saved, so it may be called any number of times, and whatever
happens to the layer or its inputs in between changes nothing.

Non-Goals: the pullback of a pullback (`second`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from rnncc.artifact.cell import Variant
from rnncc.common.result_roles import final_name
from rnncc.runtime.api.call_gradients import AskedGradients, DirectionSaved
from rnncc.runtime.api.gradients import WRT, GradientChoice, Gradients, Trace, chosen
from rnncc.runtime.api.layer_options import SecondEngine
from rnncc.runtime.api.second_pullback import SecondPullback
from rnncc.runtime.api.validation import as_array, check_shape

# Of more steps, gradients of initial states cost less than a copy of the cotangents for later.
LATER_STEPS = 16

__all__ = ["Gradients", "Pullback", "Trace"]


class Pullback:
    """pullback(dy) -> Gradients. See `Layer.vjp`."""

    def __init__(
        self, trace: Trace, saved: DirectionSaved, engines: Callable[[Variant], SecondEngine]
    ) -> None:
        """engines: make those of second derivatives, when they are first asked for."""
        self._trace, self._engines = trace, engines
        self._saved: DirectionSaved | None = saved

    def __call__(
        self, dy: Any, wrt: Sequence[str] | None = None, *, consume: bool = False
    ) -> Gradients:
        """Gradients of sum(dy * y).

        dy: like what the call returned, states included when it returned them; None, whole or in
        part, is zero. wrt: which gradients to compute, of "inputs", "weights", "initial_state";
        None is all of them. consume: this is the last call, what was saved may be let go.
        RuntimeError after a call that consumed; ValueError and TypeError for a dy unlike y.
        """
        saved = self._unspent()
        trace, choice = self._trace, GradientChoice(self._trace, chosen(wrt, WRT))
        run = _Run(trace, saved, self._cotangents(dy, saved))
        later = wrt is None and trace.states is None and not consume and trace.steps < LATER_STEPS
        states = choice.states
        arrays = run(choice.asked(() if later else states.names))
        if consume:
            self._saved = None
        initial = None
        if "initial_state" in choice.kinds:
            known = all(n in arrays for n in states.names)
            initial = states.arrange(arrays) if known else _Later(run.owned())
        return Gradients(choice.inputs(arrays), choice.weights(arrays), initial)

    def vjp(self, dy: Any, wrt: Sequence[str] | None = None) -> tuple[Gradients, SecondPullback]:
        """What a call returns, and the pullback from its cotangents to second derivatives.

        The first use compiles more kernels; each runs the layer's call and pullback once more.
        dy, wrt: as for a call. ValueError too for a module written without second derivatives.
        """
        saved = self._unspent()
        trace, choice = self._trace, GradientChoice(self._trace, chosen(wrt, WRT))
        run = _Run(trace, saved, self._cotangents(dy, saved))
        asked = choice.asked(choice.states.names)
        engine = again = None
        if saved.engine is not None:
            engine = self._engines(saved.variant)
            gradients, again = engine.gradients(saved.saved, run.whole())
            asked.hand_on(gradients)
            spread = {n: trace.spread(n, a) for n, a in gradients.items() if n in asked.names}
            arrays = run.filled(asked.names, spread)
        else:
            arrays = run(asked)
        initial = None
        if "initial_state" in choice.kinds:
            initial = choice.states.arrange(arrays)
        grads = Gradients(choice.inputs(arrays), choice.weights(arrays), initial)
        return grads, SecondPullback(choice, engine, again)

    def _unspent(self) -> DirectionSaved:
        if self._saved is None:
            raise RuntimeError("this pullback was consumed: call it without consume=True before")
        return self._saved

    def _cotangents(self, dy: Any, saved: DirectionSaved) -> dict[str, np.ndarray]:
        """By the name of the forward's result, in the shapes that were returned."""
        trace = self._trace
        outputs, states = trace.outputs, trace.finals
        lead = 2 if trace.return_sequences else 1
        tops = _parts("dy", dy, 1 + len(states)) if trace.return_state else [dy]
        leaves = tops[:1]
        if len(outputs) > 1:
            leaves = _parts("dy of the outputs", tops[0], len(outputs))
        named = dict(zip([*outputs, *states], [*leaves, *tops[1:]], strict=True))
        cotangents: dict[str, np.ndarray] = {}
        called = {final_name(s.name): s.name for s in trace.cell.states}
        for name, value in named.items():
            if value is None:
                continue
            label = f"dy of {called.get(name, name)}" if len(named) > 1 else "dy"
            array = as_array(label, value, trace.dtype, lead=lead if name in outputs else 1)
            check_shape(label, array, trace.returned[name], "the shape of what was returned,")
            if trace.return_sequences and name in outputs:
                array = saved.folded(trace.order.turn(array))
            cotangents[name] = array
        return cotangents


@dataclass(frozen=True, slots=True)
class _Run:
    """One way back: run(asked) are the gradients of these."""

    trace: Trace
    saved: DirectionSaved
    cotangents: dict[str, np.ndarray]

    def __call__(self, asked: AskedGradients) -> dict[str, np.ndarray]:
        """By name; zeros for what the program doesn't read."""
        trace, names = self.trace, asked.names
        every_step = {}
        if trace.runs and (trace.cut or not trace.order.is_plain):
            every_step = {n: trace.place(n) for n in trace.timed if n in names}
        out = {n: a[:, : trace.steps] for n, a in every_step.items()}
        gradients = self.saved.backward(self.cotangents, asked, out)
        if self.saved.engine is None:  # these are the caller's own cotangents
            gradients = {n: d.copy() for n, d in gradients.items()}
        return self.filled(names, {**gradients, **every_step})

    def filled(
        self, names: Iterable[str], found: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The gradients of these names; zeros where there is none."""
        trace = self.trace
        own = trace.shapes.keys() & names  # but for what rows start anew from
        return {n: trace.as_given(n, found[n] if n in found else trace.zeros(n)) for n in own}

    def whole(self) -> dict[str, np.ndarray]:
        """Cotangents of every step that ran."""
        trace = self.trace
        if trace.return_sequences:
            return self.cotangents
        zeros = partial(np.zeros, dtype=trace.dtype) if trace.room is None else trace.room.zeros
        return self.saved.over_time(self.cotangents, zeros)

    def owned(self) -> _Run:
        """With cotangents that the caller can't change."""
        copied = {n: d.copy() for n, d in self.cotangents.items()}
        return _Run(self.trace, self.saved, copied)


@dataclass(frozen=True, slots=True)
class _Later:
    """Gradients of initial states nobody has asked for yet."""

    run: _Run

    def __call__(self) -> Any:
        layout = self.run.trace.state_layout
        return layout.arrange(self.run(AskedGradients(frozenset(layout.names), ())))


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
