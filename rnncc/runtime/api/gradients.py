"""What one call of a layer leaves for gradients: which there are, their shapes and arrangement.

Non-Goals: computing them (`pullback`, `second`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnncc.artifact.cell import CellDescription
from rnncc.common.result_roles import final_name
from rnncc.drawing.tables import ArraysShown, named_arrays, shapes_text
from rnncc.runtime.api.call_gradients import AskedGradients
from rnncc.runtime.api.masking import Masking
from rnncc.runtime.api.time_axis import Order
from rnncc.runtime.api.validation import Arrangement, nearest
from rnncc.runtime.common.memory_pool import aligned

WRT = ("inputs", "weights", "initial_state")


@dataclass(slots=True, eq=False)
class Gradients(ArraysShown):
    """inputs: arranged as they were given. weights: by name, in order of declaration.

    What `wrt` left out is None, of weights {}.
    """

    inputs: Any
    weights: dict[str, np.ndarray]
    _initial: Any = field(repr=False)  # or a function that computes it

    @property
    def initial_state(self) -> Any:
        """Arranged as it was given, else a tuple of every state.

        Where no state was given nobody trains what it started from, as a rule: then, of few steps,
        this is computed when it is first read, and until then holds on to what the forward saved.
        """
        initial = self._initial
        if callable(initial):
            initial = self._initial = initial()
        return initial

    def __repr__(self) -> str:
        return f"<gradients {shapes_text(dict(self._shown_arrays()[1]))}>"

    def _shown_arrays(self) -> tuple[str, Iterable[tuple[str, Any]]]:
        """Without the initial state's, which may not have been computed."""
        inputs = named_arrays("inputs", self.inputs)
        return "gradients", [*inputs, *named_arrays("weights", self.weights)]

    def __reduce__(self) -> tuple[Any, ...]:
        return Gradients, (self.inputs, self.weights, self.initial_state)


@dataclass(frozen=True, slots=True)
class CellNames:
    """A cell's arguments, results and weights by what they are. timed: inputs that have steps."""

    timed: frozenset[str]
    outputs: tuple[str, ...]
    finals: tuple[str, ...]
    trained: tuple[str, ...]

    @classmethod
    def of(cls, cell: CellDescription) -> CellNames:
        return cls(
            frozenset(i.name for i in cell.inputs),
            tuple(o.name for o in cell.outputs),
            tuple(final_name(s.name) for s in cell.states),
            tuple(w.name for w in cell.weights),
        )


@dataclass(frozen=True, slots=True)
class Trace:
    """What a call leaves for its pullback, beside what the engine saved."""

    cell: CellDescription
    names: CellNames
    dtype: np.dtype[Any]
    batch: int
    steps: int  # that ran
    # In full: of every argument, state and weight as it ran; of the forward's results by name, as
    # they were given back.
    shapes: Mapping[str, tuple[int, ...]]
    returned: Mapping[str, tuple[int, ...]]
    inputs: Arrangement
    states: Arrangement | None  # None: none were given
    given_states: frozenset[str]
    return_sequences: bool
    return_state: bool
    order: Order
    masking: Masking | None = None
    room: Any = None  # who makes arrays, if they aren't NumPy's
    going_on: Mapping[str, Sequence[int]] = field(default_factory=dict)  # see `CellCall`

    @property
    def runs(self) -> bool:
        """Whether there is a row and a step, so that kernels run."""
        return bool(self.batch and self.steps)

    @property
    def cut(self) -> bool:
        """Whether the last steps didn't run, since no row needs them."""
        return self.masking is not None and self.masking.steps < self.masking.time

    @property
    def restarted(self) -> bool:
        """Whether rows start anew."""
        return bool(self.going_on) or (self.masking is not None and self.masking.behind is not None)

    @property
    def timed(self) -> frozenset[str]:
        """The inputs that have steps."""
        return self.names.timed

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.names.outputs

    @property
    def finals(self) -> tuple[str, ...]:
        """The last states, if the call returned them."""
        return self.names.finals if self.return_state else ()

    def zeros(self, name: str) -> np.ndarray:
        """The gradient of what nothing depends on."""
        shape = self.shapes[name]
        return np.zeros(shape, self.dtype) if self.room is None else self.room.zeros(shape)

    # ---- users' steps and those that ran --------------------------------------------------------

    def place(self, name: str) -> np.ndarray:
        """Where the gradient of an input goes: an array like the user's, as its steps run. It is
        zero where nothing ran."""
        shape = self.as_given(name, np.broadcast_to(np.empty(()), self.shapes[name])).shape
        if self.room is not None:
            return self.order.run(self.room.zeros(shape) if self.cut else self.room.empty(shape))
        return self.order.run(aligned(shape, self.dtype, zero=self.cut))

    def as_given(self, name: str, array: np.ndarray) -> np.ndarray:
        """The gradient of an argument, as the user arranges its steps."""
        return self.order.given(array) if name in self.timed else array

    def spread(self, name: str, array: np.ndarray) -> np.ndarray:
        """The gradient of an argument over all its steps, out of those that ran."""
        if not self.cut or name not in self.timed:
            return array
        every_step = self.place(name)
        every_step[:, : self.steps] = array
        return every_step

    def ran(self, name: str, array: np.ndarray) -> np.ndarray:
        """What a user gives in the shape of an argument, for the steps that ran."""
        return self.order.run(array)[:, : self.steps] if name in self.timed else array

    @property
    def state_layout(self) -> Arrangement:
        """How initial states were given, else a tuple of them all."""
        return self.states or Arrangement("tuple", tuple(s.name for s in self.cell.states))


@dataclass(frozen=True, slots=True)
class GradientChoice:
    """The gradients a caller chose, of "inputs", "weights" and "initial_state"."""

    trace: Trace
    kinds: frozenset[str]

    @property
    def trained(self) -> tuple[str, ...]:
        """The weights among them."""
        return self.trace.names.trained if "weights" in self.kinds else ()

    @property
    def states(self) -> Arrangement:
        """How the gradients of initial states are arranged."""
        return (
            self.trace.state_layout if "initial_state" in self.kinds else Arrangement("tuple", ())
        )

    def asked(self, states: Sequence[str]) -> AskedGradients:
        """What has to be computed for inputs and weights, and those of these states."""
        trace = self.trace
        inputs = trace.cell.arguments if "inputs" in self.kinds else ()
        started = [s for s in trace.cell.states if s.name not in trace.given_states]
        handing = AskedGradients.of(self.trained, started)
        asked = handing._replace(names=handing.names.union(inputs, states))
        return asked.restarting(trace.cell.states, trace.going_on) if trace.restarted else asked

    def inputs(self, found: Mapping[str, np.ndarray]) -> Any:
        return self.trace.inputs.arrange(found) if "inputs" in self.kinds else None

    def weights(self, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: found[name] for name in self.trained}


def chosen(wrt: Sequence[str] | None, kinds: Sequence[str]) -> frozenset[str]:
    """The kinds of gradients that were asked for. TypeError, ValueError: others."""
    if wrt is None:
        return frozenset(kinds)
    if not isinstance(wrt, str | Iterable):
        raise TypeError(f"wrt is one or several of {', '.join(kinds)}, not {wrt!r}")
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    for name in names:
        if name not in kinds:
            raise ValueError(f"wrt has no {name!r}{nearest(str(name), kinds)}")
    return frozenset(names)
