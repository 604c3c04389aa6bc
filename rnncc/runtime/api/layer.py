"""Layer: a bound cell with weights, called on NumPy arrays.

    layer = LSTM(units=64, return_sequences=True)
    y = layer(x)                                x [batch, time, features] -> y [batch, time, units]
    y, pullback = layer.vjp(x, training=True)
    grads = pullback(dy)

Non-Goals: optimisers, losses, graphs of layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from rnncc.artifact.cell import CellDescription, Variant, covering, restart_name
from rnncc.common.unrolling import unroll_of
from rnncc.runtime.api.call import NO_PLACES, CellKernels, NumpyCall, Ran, kernels_for
from rnncc.runtime.api.call_gradients import DirectionSaved
from rnncc.runtime.api.device_inputs import bring, room_of
from rnncc.runtime.api.layer_base import ATTRIBUTES, CallShapes, LayerBase
from rnncc.runtime.api.layer_options import ChosenRate, Frozen, LayerType, Maker
from rnncc.runtime.api.masking import masking
from rnncc.runtime.api.pullback import Pullback, Trace
from rnncc.runtime.api.stream import Stream
from rnncc.runtime.api.validation import (
    Arrangement,
    array_shape,
    as_array,
    check_shape,
    nearest,
    seed_of_draws,
    spread,
    switch,
)
from rnncc.runtime.common import memory_pool
from rnncc.runtime.profiles.profiled import Profiled
from rnncc.runtime.traces.traced_cell import TracedCell, twin
from rnncc.runtime.traces.traces import CellTrace

NO_NAMES: frozenset[str] = frozenset()
NO_STATES: Mapping[str, Any] = {}
_MOST_SHAPES = 256  # sets of shapes whose sizes a layer remembers


@dataclass(slots=True)
class LayerCall(NumpyCall):
    """One call of a layer. inputs, states: how they were given; given_states: those that don't
    start from what the cell declares; kept: those of them that the call before has left, and where
    rows start anew, those that do so at once."""

    layer: Layer
    known: CallShapes
    inputs: Arrangement
    states: Arrangement | None = None
    given_states: frozenset[str] = NO_NAMES
    kept: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def going_on(self) -> Mapping[str, Sequence[int]]:
        anew = self.masks is not None and self.masks.restarts is not None
        return self.kept if anew else NO_STATES

    def kernels(self, training: bool, masked: bool, resets: str) -> CellKernels:
        layer = self.layer
        key = training, masked, resets
        kernels = layer._engines.get(key) or layer._engine(*key)
        bring(self.arrays, kernels.engine, self.cell.name)
        layer._last = kernels.engine
        return kernels

    def seed(self, given: int | None) -> int:
        return self.layer._next_seed(given)

    def places(self, cut: bool) -> Mapping[str, Any]:
        layer = self.layer
        if not (cut or layer.time_major) or not layer.return_sequences:
            return NO_PLACES
        lead = (self.time, self.batch) if layer.time_major else (self.batch, self.time)
        room = room_of(self.arrays, self.dtype)
        empty = room.empty if room else partial(memory_pool.POOL.array, dtype=self.dtype)
        return {
            o.name: layer._order.turn(empty((*lead, *array_shape(o, self.sizes))))
            for o in self.cell.outputs
        }


class Layer(LayerBase, Profiled):
    """A recurrent layer. Made by `rnncc.compile` or a generated module, never by hand.

    Keywords: the cell's sizes, options, functions and rates, and

    return_sequences: outputs of every step rather than of the last.
    return_state: the last states follow the outputs: y, *states.
    go_backwards: the last step of the inputs runs first; outputs are in the order they run.
    time_major: inputs and outputs of every step are [time, batch, ...]; masks stay [batch, time].
    stateful: a call starts from the last states of the call before: `states`, `reset_states()`.
        Gradients end there. All calls have one batch size.
    zero_output_for_mask: outputs of masked steps are zeros, where every step is returned.
    unroll: how many steps the loops write out a turn, 1 to 16; True: all of them, 16 a turn at
        most, fewer where a step is long. The bits are those of False, one after another.
    checkpoint_every: training saves states every so many steps, and the pullback runs those steps
        again: memory for less speed. None saves what every step needs.
    precision: "float32", or "tf32" or "bfloat16", to which a GPU may round what it multiplies.
    weights: how contractions store them for calls and streams: "bfloat16" (two bytes each) or
        "int8" (one, and a scale for each 64 of a column), which is less to read where batches are
        small; sums are of float32, and `vjp` reads the weights as they are, as do files. None or
        "float32" stores them as they are. On the CPU, of float32.
    seed: an int that fixes initial weights and dropout; None draws one.
    dtype: float32 or float64; inputs of other kinds are cast.
    name: a text.
    """

    def __call__(
        self,
        inputs: Any,
        *,
        initial_state: Any = None,
        training: bool | None = False,
        mask: Any = None,
        lengths: Any = None,
        resets: Any = None,
        seed: int | None = None,
    ) -> Any:
        """The outputs of the last step, or of every step, and the last states if asked for.

        inputs: [batch, time, ...], rank-0 inputs [batch, time], contexts [batch, ...]; of several,
        a tuple in order of declaration or a dict. Views of batch and time are read where they are;
        with time_major they are [time, batch, ...]. initial_state: a state [batch, ...], a tuple
        of them in order, or a dict of some; None is what a stateful layer has kept, else what the
        cell declares, else zeros. training: dropout draws. mask: bools [batch, time], False where
        a step doesn't count: it keeps the states and repeats the output, which is zero before a
        row's first valid step; what its input holds reaches nothing. lengths: ints [batch], how
        many steps of each row count: what is behind the longest doesn't run. resets: bools [batch,
        time], True where a row starts anew before that step (a masked one: before the next valid
        one) from its initial state; a layer that runs backwards does so behind the same boundary.
        seed: what dropout draws from, else the layer's next one.
        Raises TypeError and ValueError for arrays of a wrong kind or shape.
        """
        call = self._enter(inputs, initial_state, mask, lengths, resets)
        return self._leave(self._forward(call, training, seed, False).results)

    def vjp(
        self,
        inputs: Any,
        *,
        initial_state: Any = None,
        training: bool | None = True,
        mask: Any = None,
        lengths: Any = None,
        resets: Any = None,
        seed: int | None = None,
    ) -> tuple[Any, Pullback]:
        """What a call returns, and the pullback from its cotangents to gradients.

        Gradients of masked inputs are zero. None flows over a place where a row starts anew: it
        goes to the initial state.
        """
        call = self._enter(inputs, initial_state, mask, lengths, resets)
        ran = self._forward(call, training, seed, True)
        returned = {n: self._given(n, a).shape for n, a in ran.results.items()}
        trace = Trace(
            self.cell,
            self._names,
            self._dtype,
            call.batch,
            call.steps,
            call.known.shapes,
            returned,
            call.inputs,
            call.states,
            call.given_states,
            self.return_sequences,
            self.return_state,
            self._order,
            call.masks,
            room_of(call.arrays, self._dtype),
            call.going_on(),
        )
        saved = DirectionSaved.of(call, ran)
        return self._leave(ran.results), Pullback(trace, saved, self._binding.second_engine)

    def trace(
        self,
        inputs: Any,
        *,
        initial_state: Any = None,
        training: bool | None = False,
        mask: Any = None,
        lengths: Any = None,
        resets: Any = None,
        seed: int | None = None,
    ) -> CellTrace:
        """Every value that the equations name, at every step: a mapping of names to arrays
        [batch, time, ...], in the order and at masked steps as outputs of every step are.

        Arguments are those of a call. It computes what the next call would, and leaves the layer
        as it is: states that stay and what dropout draws next. Outputs are the call's own, bit for
        bit; other values are of kernels that return them all, compiled at the first trace, whose
        sums may be rounded in another order. Of a layer made of layers, names begin like those
        of its weights (cell_0.f). Raises as a call does; ValueError of a module that was written
        without its cell's text.
        """
        traced = self._traced()
        if not self.built:
            self._enter(inputs, initial_state, mask, lengths, resets)
        own, named = twin(self), twin(self, traced)
        zeros = self.zero_output_for_mask or traced.zeros
        found: list[Mapping[str, np.ndarray]] = []
        for layer in (own, named):
            layer.zero_output_for_mask = zeros
            call = layer._enter(inputs, initial_state, mask, lengths, resets)
            results = layer._forward(call, training, seed, False).results
            found.append({n: layer._given(n, results[n]) for n in layer._outputs})
        arrays = {
            v.name: found[1][v.result].astype(bool) if v.is_flag else found[1][v.result]
            for v in traced.values
        }
        arrays |= {name: found[0][output] for output, name in traced.outputs}
        return CellTrace(self.name, arrays, dict(traced.left_out))

    def _traced(self) -> TracedCell:
        return self._binding.traced()

    def stream(self, example: Any, *, initial_state: Any = None) -> Stream:
        """Calls of one shape with the least in between, for one step or block after the other.

        example: inputs of that shape, as for a call; what they hold is not read. The stream's
        states start like a call's and stay with it. See `Stream`.
        """
        return Stream(self, example, initial_state)

    def _forward(self, call: LayerCall, training: bool | None, seed: int | None, save: bool) -> Ran:
        if training is not True and training is not False:
            training = switch("training", training)
        if seed is not None:
            seed = seed_of_draws(seed)
        ran = call.run(training, seed, save)
        if self.stateful:
            self._keep(ran.results, call)
        return ran

    def _given(self, name: str, array: np.ndarray) -> np.ndarray:
        """A result as it is given back."""
        turned = self.return_sequences and name in self._outputs
        return self._order.turn(array) if turned else array

    def _engine(self, training: bool, mask: bool, resets: str = "") -> CellKernels:
        kernels = self._engines[training, mask, resets] = kernels_for(
            self._binding,
            self._chosen.rates,
            training=training,
            masked=mask,
            resets=resets,
            storage=self.storage,
            precision=self.precision,
            unroll=unroll_of(self.unroll),
        )
        return kernels

    def _leave(self, results: Mapping[str, np.ndarray]) -> Any:
        outputs = [self._given(n, results[n]) for n in self._outputs]
        first = outputs[0] if len(outputs) == 1 else tuple(outputs)
        return (first, *(results[n] for n in self._finals)) if self.return_state else first

    def _keep(self, results: Mapping[str, np.ndarray], call: LayerCall) -> None:
        """The last states, for the next call."""
        kept = {s: results[f].copy() for s, f in zip(self._states, self._finals, strict=True)}
        if call.masks is not None and call.masks.restarts is not None:
            for name in self._states:
                self._start_rows(call, name, kept[name], behind=True)
        for array in kept.values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        self._kept = kept

    def _start_rows(self, call: LayerCall, name: str, state: Any, *, behind: bool) -> list[int]:
        """Of a state that goes on, the rows that start anew before a call's first valid step, or
        behind its last one: they do, and are returned."""
        assert call.masks is not None and call.masks.restarts is not None
        last = behind != self._runs_back(name)
        restarts = call.masks.restarts
        rows: list[int] = np.flatnonzero(restarts.pending if last else restarts.at_once).tolist()
        if rows:
            given = name in call.given_states and name not in call.kept
            state[rows] = (call.arrays[name] if given else self._declared(call, name))[rows]
        return rows

    def _declared(self, call: LayerCall, name: str) -> Any:
        """What the cell declares that a state starts from."""
        state = self.cell.states[self._states.index(name)]
        return call.declared(state, call.known.states[name])

    def _runs_back(self, state: str) -> bool:
        """Whether it is one of a part that runs the other way than the layer."""
        return False

    def _next_seed(self, given: int | None) -> int:
        if given is not None:
            return given
        self._calls += 1
        sequence = np.random.SeedSequence(self.seed, spawn_key=(0, self._calls))
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))

    # ---- the door ----

    def _enter(
        self, inputs: Any, initial_state: Any, mask: Any, lengths: Any, resets: Any = None
    ) -> LayerCall:
        """Arrays, sizes and weights of a call."""
        arrays: dict[str, Any]
        layout = self._alone
        if layout is not None and type(inputs) is np.ndarray:  # nearly every call
            name = layout.names[0]
            arrays = {name: as_array(name, inputs, self._dtype, lead=self._lead[name])}
        else:
            what = f"inputs of {self.cell.name}"
            values, layout = spread(what, inputs, self.cell.arguments)
            arrays = {n: as_array(n, v, self._dtype, lead=self._lead[n]) for n, v in values.items()}
        key = tuple(a.shape for a in arrays.values())
        known = self._known.get(key) or self._first_seen(key, arrays)
        assert self._store is not None
        if not self._order.is_plain:
            arrays = {n: self._as_run(n, a) for n, a in arrays.items()}
        version, weights = self._store.current
        arrays.update(weights)
        call = LayerCall(
            self.cell,
            self,
            arrays,
            known.sizes,
            known.batch,
            known.time,
            version,
            None,
            NO_NAMES,
            self._dtype,
            self,
            known,
            layout,
        )
        if mask is not None or lengths is not None or resets is not None:
            zeros = self.zero_output_for_mask and self.return_sequences
            call.masks = masking(
                mask,
                lengths,
                known.batch,
                known.time,
                zeros=zeros,
                backwards=self.go_backwards,
                resets=resets,
            )
        if initial_state is None and not self._kept:  # nearly every call
            call.start(NO_STATES, known.states)
        else:
            self._begin(call, initial_state)
        return call

    def _first_seen(
        self, key: tuple[tuple[int, ...], ...], arrays: Mapping[str, np.ndarray]
    ) -> CallShapes:
        """The sizes of a call whose shapes are new; the weights, if it is the first."""
        bound = self._bind({n: a.shape for n, a in arrays.items()})
        assert bound.batch is not None and bound.time is not None
        if self._store is None:
            self._build(bound)
        if len(self._known) >= _MOST_SHAPES:
            self._known.clear()
        assert self._store is not None
        states = {s.name: (bound.batch, *array_shape(s, bound.sizes)) for s in self.cell.states}
        argument_shapes = {n: self._as_run(n, a).shape for n, a in arrays.items()}
        shapes = {**argument_shapes, **states, **self._store.shapes}
        known = CallShapes(bound.sizes, bound.batch, bound.time, states, shapes)
        self._known[key] = known
        return known

    def _as_given(self, name: str, array: np.ndarray) -> np.ndarray:
        return self._order.given(array) if name in self._names.timed else array

    def _as_run(self, name: str, array: np.ndarray) -> np.ndarray:
        return self._order.run(array) if name in self._names.timed else array

    def _begin(self, call: LayerCall, initial_state: Any) -> None:
        """The call's initial states, those that a user or the call before has given among them."""
        shapes = call.known.states
        kept = self._kept if self.stateful else {}
        for name, array in kept.items():
            if array.shape != shapes[name]:
                raise ValueError(
                    f"this call has batch {shapes[name][0]}, the one before had {len(array)}: "
                    "calls of a stateful layer have one batch size until reset_states()"
                )
        states: dict[str, Any] = {}
        if initial_state is not None:
            what = f"initial_state of {self.cell.name}"
            names: Sequence[str] = self._states
            if isinstance(initial_state, Mapping):
                names = [n for n in names if n in initial_state]
                unknown = [n for n in initial_state if n not in names]
                if unknown:
                    message = f"{what} has no {unknown[0]!r}"
                    raise ValueError(message + nearest(str(unknown[0]), self._states))
            elif len(names) == 1 and isinstance(initial_state, list) and len(initial_state) == 1:
                initial_state = tuple(initial_state)  # Keras's way of giving one state
            values, call.states = spread(what, initial_state, names)
            for name in self._states:
                if values.get(name) is not None:
                    label = f"initial state {name}"
                    array = states[name] = as_array(label, values[name], self._dtype, lead=1)
                    check_shape(label, array, shapes[name])
        call.kept = {n: () for n in kept if n not in states}
        states = {**kept, **states}
        call.given_states = frozenset(states)
        if call.masks is not None and call.masks.restarts is not None:
            for name in call.kept:
                call.arrays[restart_name(name)] = self._declared(call, name)
                states[name] = states[name].copy()
                rows = self._start_rows(call, name, states[name], behind=False)
                call.kept = {**call.kept, name: rows}
        call.start(states, shapes)
        defaults = any(s.default for s in self.cell.states)
        call.from_zeros = states.keys() == call.kept.keys() and not defaults


def frozen_layer_class(
    cell: CellDescription,
    engines: Mapping[Variant, Any],
    module: str,
    rendered: Callable[[Variant], Any] | None = None,
    tracer: Callable[[], TracedCell] | None = None,
    spec: Callable[[], Any] | None = None,
    timer: Callable[[str], Callable[[Variant], Any]] | None = None,
) -> type[Layer]:
    """The class of a generated module, its options frozen; pickled by its module and name.

    rendered: makes the engine of a variant that the module was written without; tracer: the cell
    that a trace runs; spec: the text's; timer: engines of timed kernels.
    """

    def engine(variant: Variant) -> Any:
        covering_variant = covering(variant, engines)
        if covering_variant is None and rendered is not None:
            return rendered(variant)
        if covering_variant is None and variant.second_order:
            raise ValueError(
                f"this module of {cell.name} was written without second derivatives: run rnncc "
                f"compile {cell.source} --second-order, or use rnncc.compile({cell.source!r})"
            )
        if covering_variant is None:
            asked = ["a mask"] * variant.mask + ["resets"] * bool(variant.resets)
            what = " and ".join(asked) or ", ".join(sorted(variant.active_rates))
            if all(m.unroll != variant.unroll for m in engines):
                what = f"unroll={variant.unroll or True}"
            raise ValueError(
                f"this module of {cell.name} was written without kernels for {what}: run rnncc "
                f"compile {cell.source} again, or use rnncc.compile({cell.source!r})"
            )
        return engines[covering_variant]

    def is_written(variant: Variant) -> bool:
        return covering(replace(variant, storage=""), engines) is not None

    return make_class(Frozen(cell, engine, is_written, tracer, spec, timer), module, None)


def make_class(
    maker: Maker,
    module: str,
    recipe: tuple[Callable[..., Any], tuple[Any, ...]] | None,
) -> type[Layer]:
    """A layer class called after its cell. recipe: how another process makes it, if not by name."""
    cell = maker.cell
    needed = [s.name for s in cell.sizes]
    words = (
        ("sizes", ", ".join(needed)),
        ("options", ", ".join(f"{k}={v!r}" for k, v in cell.options)),
        ("functions", ", ".join(f"{k}={v!r}" for k, v in cell.functions)),
        ("rates", ", ".join(f"{r.name}={r.default}" for r in cell.rates)),
    )
    lines = [f"{kind}: {text}" for kind, text in words if text]
    doc = "\n".join([cell.doc or cell.name, "", *lines, "", inspect.cleandoc(Layer.__doc__ or "")])
    members: dict[str, Any] = {
        "maker": maker,
        "recipe": recipe,
        "__module__": module,
        "__doc__": doc,
    }
    rates = [r.name for r in cell.rates if r.name not in ATTRIBUTES and not hasattr(Layer, r.name)]
    members |= {name: ChosenRate(name) for name in rates}
    return LayerType(cell.name, (Layer,), members)  # type: ignore[return-value]
