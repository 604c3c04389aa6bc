"""The way back through one call of a cell in one direction, whoever carries its arrays.

    AskedGradients    which gradients are computed for those that a caller wants
    DirectionSaved    what a call leaves, and with it: cotangents -> gradients -> second derivatives

Arrays are as steps ran, [batch, steps, ...] from the first one on. A caller makes cotangents so out
of what its users hand in (their order of steps, directions side by side), and gradients theirs.

    no step ran                    the first states are the last ones, and so are their gradients
    a state began from a weight    the weight's gradient has the sum of the state's over the batch
    outputs of the last step       cotangents of all others are zero

Non-Goals: what users give and get (`pullback`, `rnncc.torch`, `rnncc.keras`); backwards whose
arrays lie like those of one before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from rnncc.artifact.cell import TO_STARTS, Array, CellDescription, Variant, restart_name
from rnncc.common.result_roles import cotangent_name, final_name
from rnncc.runtime.api.call import NO_PLACES, CellCall, Ran
from rnncc.runtime.api.layer_options import Engine, SecondEngine
from rnncc.runtime.api.masking import Masking
from rnncc.runtime.common.allocators import of_every_step


class AskedGradients(NamedTuple):
    """names: parameters whose gradients kernels compute. begun: states among them that began from a
    weight, to which they hand their gradients on; partly: the same of some rows of a state, which
    don't begin with what it was, whether with a weight or with zeros (""). anew: of a call in which
    rows start anew, what they do so from and the state that it is, whose gradient is the sum of
    both."""

    names: frozenset[str]
    begun: tuple[Array, ...]
    anew: tuple[tuple[str, str], ...] = ()
    partly: tuple[tuple[str, str, Sequence[int]], ...] = ()
    is_restarting: bool = False

    @classmethod
    def of(cls, wanted: Collection[str], started: Collection[Array]) -> AskedGradients:
        """Those of the parameters that are wanted. started: states the call wasn't given."""
        if not started:
            return cls(frozenset(wanted), ())
        begun = tuple(s for s in started if s.default in wanted)
        return cls(frozenset([*wanted, *(s.name for s in begun)]), begun)

    def restarting(
        self, states: Collection[Array], going_on: Mapping[str, Sequence[int]]
    ) -> AskedGradients:
        """The same of a call in which rows start anew, asked once or twice. going_on: see
        `CellCall`."""
        if self.is_restarting:
            return self
        anew = tuple((restart_name(s.name), s.name) for s in states if s.name not in going_on)
        kept = [s for s in states if s.name in going_on and s.default in self.names]
        again = tuple(replace(s, name=restart_name(s.name)) for s in kept)
        weights = {s.name: str(s.default) for s in kept}
        partly = tuple((n, weights.get(n, ""), rows) for n, rows in going_on.items() if rows)
        more = [restart for restart, name in anew if name in self.names]
        names = self.names.union(more, (s.name for s in (*kept, *again)))
        return AskedGradients(names, (*self.begun, *again), anew, partly, True)

    def hand_on(self, gradients: dict[str, Any]) -> None:
        """Adds those of states, by parameter, to those of the weights they began from."""

        def add(name: str, total: Any) -> None:
            gradients[name] = gradients[name] + total if name in gradients else total

        for restart, name in self.anew:
            if restart in gradients:
                add(name, gradients.pop(restart))
        for name, weight, rows in self.partly:
            if name in gradients:
                if weight:
                    add(weight, gradients[name][rows].sum(0))
                gradients[name] = _cleared(gradients[name], rows)
        for state in self.begun:
            if state.name in gradients:
                add(str(state.default), gradients[state.name].sum(0))

    def hand_back(self, d: dict[str, Any], batch: int, repeated: Callable[..., Any]) -> None:
        """The transpose: cotangents `d` of weights' gradients go to those of states, too. repeated:
        (array, shape) -> a new array, each row of which is this one."""
        for name, _, rows in self.partly:
            if name in d:
                d[name] = _cleared(d[name], rows)
        every = range(batch)
        begun = [(s.name, str(s.default), every) for s in self.begun]
        for name, weight, own in (*begun, *self.partly):
            start = d.get(weight)
            if start is not None:
                rows = repeated(start, (batch, *start.shape))
                if own is not every:
                    rows[[row for row in every if row not in own]] = 0
                d[name] = d[name] + rows if name in d else rows
        self.start_back(d)

    def start_back(self, d: dict[str, Any]) -> None:
        """Of that, what states do: a sum's cotangent is that of both of its terms."""
        d.update({restart: d[name] for restart, name in self.anew if name in d})


def _cleared(state: Any, rows: Sequence[int]) -> Any:
    """The same with zeros in some rows; others are asked for what they are."""
    cleared = state + 0
    cleared[rows] = 0
    return cleared


@dataclass(slots=True)
class DirectionSaved:
    """What one direction of a call leaves. No engine and no step where nothing ran. going_on: see
    `CellCall.going_on`."""

    cell: CellDescription
    engine: Engine | None
    saved: Any
    masks: Masking | None
    steps: int
    variant: Variant
    going_on: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, call: CellCall, ran: Ran) -> DirectionSaved:
        """After a call's `run`."""
        going_on = call.going_on()
        return cls(call.cell, ran.engine, ran.saved, call.masks, ran.steps, ran.variant, going_on)

    def restarting(self, asked: AskedGradients) -> AskedGradients:
        """What is asked for, rows that start anew and all."""
        if self.variant.resets == TO_STARTS or self.going_on:
            return asked.restarting(self.cell.states, self.going_on)
        return asked

    def backward(
        self,
        cotangents: Mapping[str, Any],
        asked: AskedGradients,
        out: Mapping[str, Any] = NO_PLACES,
    ) -> dict[str, Any]:
        """Gradients by parameter, of those asked for that the program reads; those of `out` are
        there. Where nothing ran they are the cotangents of the last states, not copied.

        cotangents: by name of result, those of outputs of every step or as they were returned; a
        missing one is zero."""
        if self.engine is None:
            finals = ((s.name, final_name(s.name)) for s in self.cell.states)
            gradients = {name: cotangents[final] for name, final in finals if final in cotangents}
        else:
            asked = self.restarting(asked)
            gradients = self.engine.backward(self.saved, cotangents, asked.names, out)
        if asked.begun or asked.anew or asked.partly:
            asked.hand_on(gradients)
        return gradients

    def second(
        self,
        engines: Callable[[Variant], SecondEngine],
        cotangents: Mapping[str, Any],
        d_grads: Mapping[str, Any],
        asked: AskedGradients,
    ) -> dict[str, Any]:
        """Gradients of sum(d_grads * gradients): of the parameters asked for by their names, of
        every result's cotangent by `d.<result>`; what doesn't depend on them is missing.

        cotangents: those of outputs of every step. d_grads: by parameter; a missing one is zero."""
        if self.engine is None:
            states = (s.name for s in self.cell.states)
            gradients = {cotangent_name(final_name(n)): d_grads[n] for n in states if n in d_grads}
        else:
            engine, asked = engines(self.variant), self.restarting(asked)
            d_grads = dict(d_grads)
            asked.start_back(d_grads)
            _, again = engine.gradients(self.saved, cotangents)
            results = [o.name for o in self.cell.outputs]
            results += [final_name(s.name) for s in self.cell.states]
            gradients = engine.second(
                again, d_grads, asked.names.union(map(cotangent_name, results))
            )
        asked.hand_on(gradients)
        return gradients

    def over_time(
        self, cotangents: Mapping[str, Any], zeros: Callable[[tuple[int, ...]], Any]
    ) -> dict[str, Any]:
        """Cotangents of outputs of every step, where those of the last one were returned alone."""
        outputs = {o.name for o in self.cell.outputs}
        return {
            n: of_every_step(d, self.steps, zeros) if n in outputs else d
            for n, d in cotangents.items()
        }

    def folded(self, d: np.ndarray) -> np.ndarray:
        """The cotangent of an output's steps that ran, out of that of all that were returned."""
        return self.masks.fold(d) if self.masks is not None and self.steps else d

    def unfold(self, found: np.ndarray, target: np.ndarray) -> None:
        """What `folded` is the transpose of, into an array of all steps."""
        target[:, : self.steps] = found
        if self.masks is not None and self.steps < target.shape[1]:
            self.masks.fill(target)
