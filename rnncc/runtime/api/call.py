"""One call of a cell in one direction, whoever carries its arrays.

    arguments, weights   brought by the caller: checked, by name, as their steps run
    start                initial states: those given, what the cell declares, zeros
    run                  variant and engine, rates, seed; the kernels; outputs of masked ends
    left                 results by name, and what the way back needs

A `CellCall` says what differs: who makes arrays (NumPy, torch on a GPU), where results go, what
draws are made from.

Non-Goals: what users give and get (`layer`, `rnncc.torch`, `rnncc.keras`); calls whose arrays lie
like those of one before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from rnncc.artifact.cell import (
    TO_STARTS,
    TO_ZEROS,
    Array,
    CellDescription,
    Variant,
    restart_name,
    variant_of,
)
from rnncc.common.result_roles import final_name
from rnncc.runtime.api.layer_options import BoundCell, Engine
from rnncc.runtime.api.masking import Masking
from rnncc.runtime.api.validation import array_shape
from rnncc.runtime.common.precision import PRECISION, refuse_on_cpu

NO_PLACES: Mapping[str, Any] = {}


class CellKernels(NamedTuple):
    """What calls of one kind run. arguments: what is read beside arrays, the same in each call."""

    variant: Variant
    engine: Engine
    arguments: dict[str, Any]


def kernels_for(
    binding: BoundCell,
    rates: Mapping[str, float],
    *,
    training: bool,
    masked: bool,
    resets: str = "",
    storage: str = "",
    precision: str = "float32",
    unroll: int = 1,
) -> CellKernels:
    """Those of a kind of call: `training`, with a mask that leaves out steps, with rows that start
    anew. ValueError where the CPU is asked for a GPU's precision."""
    cell = binding.cell
    variant = variant_of(
        cell, rates, training=training, mask=masked, resets=resets, storage=storage, unroll=unroll
    )
    engine = binding.engine(variant)
    if not engine.on_gpu:
        refuse_on_cpu(cell.name, precision)
    arguments: dict[str, Any] = dict(rates)
    if precision != "float32":
        arguments[PRECISION] = precision
    return CellKernels(variant, engine, arguments)


def draws(cell: CellDescription, rates: Mapping[str, float]) -> bool:
    """Whether training draws numbers, from a seed."""
    return variant_of(cell, rates, training=True, mask=False).training


class CallOptions(Protocol):
    """What a layer says of all of its calls."""

    @property
    def return_sequences(self) -> bool: ...
    @property
    def checkpoint_every(self) -> int | None: ...


class Ran(NamedTuple):
    """results: outputs [batch, time, ...] as steps ran, or [batch, ...] of the last one, and
    `final_<state>`. variant: the plain one, and no engine and no steps, where nothing ran."""

    results: dict[str, Any]
    saved: Any
    engine: Engine | None
    variant: Variant
    steps: int


@dataclass(slots=True)
class CellCall(ABC):
    """A call after its checks. arrays: by name, as steps run. version: of the weights among them.
    masks: None where every step counts. lent: arrays by name that nobody will change before the
    backward. from_zeros: whether rows that start anew do so from zeros."""

    cell: CellDescription
    options: CallOptions
    arrays: dict[str, Any]
    sizes: Mapping[str, int]
    batch: int
    time: int
    version: Any
    masks: Masking | None
    lent: frozenset[str]
    from_zeros: bool = field(init=False)

    # ---- who carries arrays -------------------------------------------------------------------

    @abstractmethod
    def kernels(self, training: bool, masked: bool, resets: str) -> CellKernels:
        """Those of such calls, found once."""

    @abstractmethod
    def seed(self, given: Any) -> int:
        """What draws are made from."""

    @abstractmethod
    def zeros(self, shape: tuple[int, ...]) -> Any:
        """A new array."""

    @abstractmethod
    def repeated(self, array: Any, shape: tuple[int, ...]) -> Any:
        """A new array, each row of which is this one."""

    @abstractmethod
    def copy(self, array: Any) -> Any:
        """A new array of the same numbers."""

    def places(self, cut: bool) -> Mapping[str, Any]:
        """Where results go that kernels shouldn't make, as steps run, outputs of all `time` steps.
        cut: the last steps of outputs are filled in afterwards."""
        return NO_PLACES

    def filled(self, results: dict[str, Any], places: Mapping[str, Any]) -> dict[str, Any]:
        """Results of a call that was cut, with outputs of all steps."""
        assert self.masks is not None
        for output in self.cell.outputs:
            self.masks.fill(places[output.name])
        return {**results, **places}

    # ---- the call -----------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """How many steps run."""
        return self.masks.steps if self.masks is not None else self.time

    def start(self, given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """The initial states, into `arrays`. given: some of them; shapes: of all."""
        arrays = self.arrays
        self.from_zeros = not given
        for state in self.cell.states:
            name = state.name
            if name in given:
                arrays[name] = given[name]
            else:
                arrays[name] = self.declared(state, shapes[name])
                self.from_zeros = self.from_zeros and state.default is None

    def declared(self, state: Array, shape: tuple[int, ...]) -> Any:
        """What a state starts from where nobody says, of every row: a new array."""
        if state.default is None:
            return self.zeros(shape)
        return self.repeated(self.arrays[state.default], shape)

    def going_on(self) -> Mapping[str, Sequence[int]]:
        """The states that go on from a call before, and the rows of each that don't: those begin
        with what the cell declares, as all do that start anew later."""
        return NO_PLACES

    def run(self, training: bool, seed: Any, save: bool) -> Ran:
        """The kernels over what the call has brought; with `save`, what the way back needs."""
        arrays, masks, options = self.arrays, self.masks, self.options
        time = steps = self.time
        masked, resets = False, ""
        if masks is not None:
            steps, masked = masks.steps, masks.valid is not None
            if masks.behind is not None:
                resets = TO_ZEROS if self.from_zeros else TO_STARTS
        if not (self.batch and steps):
            return Ran(self._nothing(), None, None, Variant(), 0)
        variant, engine, arguments = self.kernels(training, masked, resets)
        arrays.update(arguments)
        if resets:
            for state in self.cell.states:
                arrays.setdefault(restart_name(state.name), arrays[state.name])
        if variant.training:
            arrays["seed"] = self.seed(seed)
        sequences = options.return_sequences
        cut = sequences and steps < time
        places = out = self.places(cut)
        if cut:
            outputs = {o.name for o in self.cell.outputs}
            out = {n: a[:, :steps] if n in outputs else a for n, a in places.items()}
        results, saved = engine.forward(
            arrays if masks is None else masks.cut(arrays, [i.name for i in self.cell.inputs]),
            self.sizes,
            self.batch,
            steps,
            version=self.version,
            save=save,
            last_only=not sequences,
            out=out,
            checkpoint_every=options.checkpoint_every if save else None,
            lent=self.lent,
        )
        if cut:
            results = self.filled(results, places)
        return Ran(results, saved, engine, variant, steps)

    def _nothing(self) -> dict[str, Any]:
        """No row or no step: outputs are empty or zero, the last states are the first."""
        lead = (self.batch, self.time) if self.options.return_sequences else (self.batch,)
        results = dict(self.places(False))
        for output in self.cell.outputs:
            if output.name in results:
                results[output.name][...] = 0
            else:
                results[output.name] = self.zeros((*lead, *array_shape(output, self.sizes)))
        for state in self.cell.states:
            final, first = final_name(state.name), self.arrays[state.name]
            if final in results:
                results[final][...] = first
            else:
                results[final] = self.copy(first)
        return results


@dataclass(slots=True)
class NumpyCall(CellCall):
    """One whose arrays are NumPy's. dtype: of those made for it."""

    dtype: np.dtype[Any]

    def zeros(self, shape: tuple[int, ...]) -> Any:
        return np.zeros(shape, self.dtype)

    def repeated(self, array: Any, shape: tuple[int, ...]) -> Any:
        return repeated_rows(array, shape)

    def copy(self, array: Any) -> Any:
        return array.copy()


def repeated_rows(row: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A new array, each row of which is this one."""
    return np.array(np.broadcast_to(row, shape), order="C")
