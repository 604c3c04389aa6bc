"""The way back through a pullback: cotangents of gradients -> second derivatives.

A second pullback owns what it needs, as a pullback does, and may be called any number of times.

Non-Goals: third derivatives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.common.result_roles import cotangent_name, final_name
from rnncc.drawing.tables import ArraysShown, named_arrays, shapes_text
from rnncc.runtime.api.call import repeated_rows
from rnncc.runtime.api.gradients import WRT, GradientChoice, Gradients, chosen
from rnncc.runtime.api.layer_options import SecondEngine
from rnncc.runtime.api.validation import as_array, check_shape, nearest, spread

SECOND = ("dy", *WRT)


@dataclass(frozen=True, slots=True, eq=False)
class SecondGradients(ArraysShown):
    """dy: like dy. inputs, weights, initial_state: as in `Gradients`; None, {} if left out."""

    dy: Any
    inputs: Any
    weights: dict[str, np.ndarray]
    initial_state: Any

    def __repr__(self) -> str:
        return f"<second gradients {shapes_text(dict(self._shown_arrays()[1]))}>"

    def _shown_arrays(self) -> tuple[str, Iterable[tuple[str, Any]]]:
        names = ("dy", "inputs", "weights", "initial_state")
        return "second gradients", [a for n in names for a in named_arrays(n, getattr(self, n))]


class SecondPullback:
    """pullback2(d_grads) -> SecondGradients. See `Pullback.vjp`."""

    def __init__(self, choice: GradientChoice, engine: SecondEngine | None, saved: Any) -> None:
        self._choice, self._engine, self._saved = choice, engine, saved

    def __call__(self, d_grads: Any, wrt: Sequence[str] | None = None) -> SecondGradients:
        """Gradients of sum(d_grads * grads).

        d_grads: a Gradients, or a dict with some of "inputs", "weights", "initial_state", each
        like that part of grads; of weights, a dict of some by name. What is missing or None is
        zero. wrt: which gradients to compute, of "dy", "inputs", "weights", "initial_state";
        None is all of them.
        ValueError and TypeError for d_grads unlike grads.
        """
        kinds = chosen(wrt, SECOND)
        trace = self._choice.trace
        choice = GradientChoice(trace, kinds - {"dy"})
        cotangents = self._cotangents(d_grads)
        results = [*trace.outputs, *trace.finals] if "dy" in kinds else []
        asked = choice.asked(choice.states.names)
        names = asked.names
        if self._engine is not None:
            wanted = names.union(map(cotangent_name, results))
            gradients = self._engine.second(self._saved, cotangents, wanted)
        else:  # nothing ran: gradients of the first states are cotangents of the last ones
            gradients = {cotangent_name(final_name(n)): np.array(d) for n, d in cotangents.items()}
        asked.hand_on(gradients)
        arrays = {
            n: trace.spread(n, gradients[n]) if n in gradients else trace.zeros(n)
            for n in trace.shapes.keys() & names
        }
        arrays = {n: trace.as_given(n, a) for n, a in arrays.items()}
        return SecondGradients(
            self._dy(gradients) if "dy" in kinds else None,
            choice.inputs(arrays),
            choice.weights(arrays),
            choice.states.arrange(arrays) if "initial_state" in kinds else None,
        )

    def plan(self) -> str:
        """Which kernels ran, and why."""
        return self._engine.plan() if self._engine is not None else "nothing ran"

    # ---- cotangents -----------------------------------------------------------------------------

    def _cotangents(self, d_grads: Any) -> dict[str, np.ndarray]:
        """By the names of arguments, weights and states."""
        choice = self._choice
        trace = choice.trace
        cotangents: dict[str, np.ndarray] = {}
        for kind, value in _by_kind(d_grads).items():
            if value is None or (kind == "weights" and not value):
                continue
            label = f"{kind} of d_grads"
            if kind not in choice.kinds:
                raise ValueError(f"{label}: wrt left these gradients out, so give None")
            if kind == "weights":
                named = _weights(label, value, choice.trained)
            elif kind == "inputs":
                named = spread(label, value, trace.cell.arguments)[0]
            elif choice.states.names:
                named = spread(label, value, choice.states.names)[0]
            else:
                named = {}
            for name, array in named.items():
                if array is not None:
                    part, like = f"{name} in {label}", "the shape of its gradient,"
                    converted = as_array(part, array, trace.dtype)
                    like_shape = np.broadcast_to(np.empty(()), trace.shapes[name])
                    check_shape(part, converted, trace.as_given(name, like_shape).shape, like)
                    cotangents[name] = trace.ran(name, converted)
        choice.asked(()).hand_back(cotangents, trace.batch, repeated_rows)
        return cotangents

    def _dy(self, found: Mapping[str, np.ndarray]) -> Any:
        """Arranged like what the call returned."""
        trace = self._choice.trace
        parts = {}
        for name in (*trace.outputs, *trace.finals):
            array = found.get(cotangent_name(name))
            if array is None:
                array = np.zeros(trace.returned[name], trace.dtype)
            elif name in trace.outputs and not trace.return_sequences:
                array = array[:, -1].copy()
            elif name in trace.outputs:
                every_step = trace.masking.unfold(array) if trace.masking else array
                array = trace.order.turn(every_step)
            parts[name] = array
        outputs = tuple(parts[n] for n in trace.outputs)
        first = outputs if len(outputs) > 1 else outputs[0]
        return (first, *(parts[n] for n in trace.finals)) if trace.return_state else first


def _by_kind(d_grads: Any) -> dict[str, Any]:
    if d_grads is None:
        return {}
    if isinstance(d_grads, Gradients):
        return {kind: getattr(d_grads, kind) for kind in WRT}
    if not isinstance(d_grads, Mapping):
        raise TypeError(
            f"d_grads is a Gradients or a dict of {', '.join(WRT)}, not {type(d_grads).__name__}"
        )
    for kind in d_grads:
        if kind not in WRT:
            raise ValueError(f"d_grads has no {kind!r}{nearest(str(kind), WRT)}")
    return dict(d_grads)


def _weights(label: str, given: Any, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise TypeError(f"{label} are a dict by name, not {type(given).__name__}")
    for name in given:
        if name not in names:
            raise ValueError(f"{label} have no {name!r}{nearest(str(name), names)}")
    return dict(given)
