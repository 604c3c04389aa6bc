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
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from rnncc.artifact.cell import CellDescription, Variant, covering, variant_of
from rnncc.runtime.api.device_inputs import bring, room_of
from rnncc.runtime.api.layer_base import ATTRIBUTES, CallShapes, LayerBase
from rnncc.runtime.api.layer_options import ChosenRate, Engine, Frozen, LayerType, Maker
from rnncc.runtime.api.masking import Masking, masking
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
from rnncc.runtime.common.precision import PRECISION, refuse_on_cpu

_MOST_SHAPES = 256  # sets of shapes whose sizes a layer remembers


@dataclass(slots=True)
class _Call:
    """One call after the door. version: of the weights among the arrays. masking: None where
    every step counts."""

    arrays: dict[str, Any]
    sizes: dict[str, int]
    batch: int
    time: int
    inputs: Arrangement
    states: Arrangement | None
    given_states: frozenset[str]
    version: int
    known: CallShapes
    masking: Masking | None = None

    @property
    def steps(self) -> int:
        """How many steps run."""
        return self.masking.steps if self.masking else self.time


class Layer(LayerBase):
    """A recurrent layer. Made by `rnncc.compile` or a generated module, never by hand.

    Keywords: the cell's sizes, options, functions and rates, and

    return_sequences: outputs of every step rather than of the last.
    return_state: the last states follow the outputs: y, *states.
    go_backwards: the last step of the inputs runs first; outputs are in the order they run.
    time_major: inputs and outputs of every step are [time, batch, ...]; masks stay [batch, time].
    stateful: a call starts from the last states of the call before: `states`, `reset_states()`.
        Gradients end there. All calls have one batch size.
    zero_output_for_mask: outputs of masked steps are zeros, where every step is returned.
    unroll: True, False or a number of steps; the kernels are the same.
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
        many steps of each row count: what is behind the longest doesn't run. seed: what dropout
        draws from, else the layer's next one.
        Raises TypeError and ValueError for arrays of a wrong kind or shape.
        """
        call = self._enter(inputs, initial_state, mask, lengths)
        return self._leave(self._forward(call, training, seed, save=False)[0])

    def vjp(
        self,
        inputs: Any,
        *,
        initial_state: Any = None,
        training: bool | None = True,
        mask: Any = None,
        lengths: Any = None,
        seed: int | None = None,
    ) -> tuple[Any, Pullback]:
        """What a call returns, and the pullback from its cotangents to gradients.

        Gradients of masked inputs are zero.
        """
        call = self._enter(inputs, initial_state, mask, lengths)
        results, saved, engine, variant = self._forward(call, training, seed, save=True)
        returned = {n: self._given(n, a).shape for n, a in results.items()}
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
            call.masking,
            room_of(call.arrays, self._dtype),
        )
        again = partial(self._binding.second_engine, variant)
        return self._leave(results), Pullback(trace, engine, saved, again)

    def stream(self, example: Any, *, initial_state: Any = None) -> Stream:
        """Calls of one shape with the least in between, for one step or block after the other.

        example: inputs of that shape, as for a call; what they hold is not read. The stream's
        states start like a call's and stay with it. See `Stream`.
        """
        return Stream(self, example, initial_state)

    def _forward(
        self, call: _Call, training: bool | None, seed: int | None, *, save: bool
    ) -> tuple[dict[str, np.ndarray], Any, Engine | None, Variant]:
        if training is not True and training is not False:
            training = switch("training", training)
        if seed is not None:
            seed = seed_of_draws(seed)
        if not (call.batch and call.steps):
            return self._nothing(call), None, None, Variant()
        masks = call.masking
        key = training, masks is not None and masks.valid is not None
        variant, engine = self._engines.get(key) or self._engine(*key)
        call.arrays.update(self._chosen.rates)
        if variant.training:
            call.arrays["seed"] = self._next_seed(seed)
        if self.precision != "float32":
            call.arrays[PRECISION] = self.precision
        bring(call.arrays, engine, self.cell.name)
        self._last = engine
        asked: dict[str, Any] = {}
        if save and self.checkpoint_every:
            asked["checkpoint_every"] = self.checkpoint_every
        cut = call.steps < call.time
        whole: dict[str, np.ndarray] = {}
        if self.return_sequences and (self.time_major or cut):
            whole = self._sequences(call)
            asked["out"] = {n: a[:, : call.steps] for n, a in whole.items()}
        results, saved = engine.forward(
            masks.cut(call.arrays, [i.name for i in self.cell.inputs]) if masks else call.arrays,
            call.sizes,
            call.batch,
            call.steps,
            version=call.version,
            save=save,
            last_only=not self.return_sequences,
            **asked,
        )
        if masks and cut:
            for array in whole.values():
                masks.fill(array)
        return {**results, **whole}, saved, engine, variant

    def _sequences(self, call: _Call) -> dict[str, np.ndarray]:
        """New arrays for outputs of every step, [batch, time, ...] as they run."""
        lead = (call.time, call.batch) if self.time_major else (call.batch, call.time)
        room = room_of(call.arrays, self._dtype)
        empty = room.empty if room else partial(memory_pool.POOL.array, dtype=self._dtype)
        return {
            o.name: self._order.turn(empty((*lead, *array_shape(o, call.sizes))))
            for o in self.cell.outputs
        }

    def _given(self, name: str, array: np.ndarray) -> np.ndarray:
        """A result as it is given back."""
        turned = self.return_sequences and name in self._outputs
        return self._order.turn(array) if turned else array

    def _engine(self, training: bool, mask: bool) -> tuple[Variant, Engine]:
        variant = variant_of(
            self.cell, self._chosen.rates, training=training, mask=mask, storage=self.storage
        )
        engine = self._binding.engine(variant)
        if not engine.on_gpu:
            refuse_on_cpu(self.cell.name, self.precision)
        found = self._engines[training, mask] = variant, engine
        return found

    def _nothing(self, call: _Call) -> dict[str, np.ndarray]:
        """No row or no step: outputs are empty or zero, the last states are the first."""
        lead = (call.batch, call.time) if self.return_sequences else (call.batch,)
        results = {
            o.name: np.zeros((*lead, *array_shape(o, call.sizes)), self._dtype)
            for o in self.cell.outputs
        }
        finals = zip(self._finals, self._states, strict=True)
        return results | {final: call.arrays[name].copy() for final, name in finals}

    def _leave(self, results: Mapping[str, np.ndarray]) -> Any:
        if self.stateful:
            self._keep(results)
        outputs = [self._given(n, results[n]) for n in self._outputs]
        first = outputs[0] if len(outputs) == 1 else tuple(outputs)
        return (first, *(results[n] for n in self._finals)) if self.return_state else first

    def _keep(self, results: Mapping[str, np.ndarray]) -> None:
        """The last states, for the next call."""
        kept = {s: results[f].copy() for s, f in zip(self._states, self._finals, strict=True)}
        for array in kept.values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        self._kept = kept

    def _next_seed(self, given: int | None) -> int:
        if given is not None:
            return given
        self._calls += 1
        sequence = np.random.SeedSequence(self.seed, spawn_key=(0, self._calls))
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))

    # ---- the door ----

    def _enter(self, inputs: Any, initial_state: Any, mask: Any, lengths: Any) -> _Call:
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
        states, given = self._begin(arrays, initial_state, known.states)
        masks = None
        if mask is not None or lengths is not None:
            zeros = self.zero_output_for_mask and self.return_sequences
            masks = masking(
                mask,
                lengths,
                known.batch,
                known.time,
                zeros=zeros,
                backwards=self.go_backwards,
            )
        return _Call(
            arrays,
            known.sizes,
            known.batch,
            known.time,
            layout,
            states,
            given,
            version,
            known,
            masks,
        )

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
        given = {n: self._as_run(n, a).shape for n, a in arrays.items()}
        shapes = {**given, **states, **self._store.shapes}
        known = CallShapes(bound.sizes, bound.batch, bound.time, states, shapes)
        self._known[key] = known
        return known

    def _as_given(self, name: str, array: np.ndarray) -> np.ndarray:
        return self._order.given(array) if name in self._names.timed else array

    def _as_run(self, name: str, array: np.ndarray) -> np.ndarray:
        return self._order.run(array) if name in self._names.timed else array

    def _begin(
        self,
        arrays: dict[str, Any],
        initial_state: Any,
        shapes: Mapping[str, tuple[int, ...]],
    ) -> tuple[Arrangement | None, frozenset[str]]:
        """The initial states, into `arrays`; how they were given, and which don't start from what
        the cell declares."""
        kept = self._kept if self.stateful else {}
        for name, array in kept.items():
            if array.shape != shapes[name]:
                raise ValueError(
                    f"this call has batch {shapes[name][0]}, the one before had {len(array)}: "
                    "calls of a stateful layer have one batch size until reset_states()"
                )
        if initial_state is None and not self._starts and not kept:
            for name, shape in shapes.items():
                arrays[name] = np.zeros(shape, self._dtype)
            return None, frozenset()
        given: dict[str, Any] = {}
        layout = None
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
            given, layout = spread(what, initial_state, names)
            given = {n: v for n, v in given.items() if v is not None}
        for state in self.cell.states:
            shape = shapes[state.name]
            if state.name in given:
                label = f"initial state {state.name}"
                array = as_array(label, given[state.name], self._dtype, lead=1)
                check_shape(label, array, shape)
            elif state.name in kept:
                array = kept[state.name]
            elif state.default is not None:
                array = np.ascontiguousarray(np.broadcast_to(arrays[state.default], shape))
            else:
                array = np.zeros(shape, self._dtype)
            arrays[state.name] = array
        return layout, frozenset((*given, *kept))


def frozen_layer_class(
    cell: CellDescription,
    engines: Mapping[Variant, Any],
    module: str,
    rendered: Callable[[Variant], Any] | None = None,
) -> type[Layer]:
    """The class of a generated module, its options frozen; pickled by its module and name.

    rendered: makes the engine of a variant that the module was written without.
    """

    def engine(variant: Variant) -> Any:
        found = covering(variant, engines)
        if found is None and rendered is not None:
            return rendered(variant)
        if found is None and variant.second_order:
            raise ValueError(
                f"this module of {cell.name} was written without second derivatives: run rnncc "
                f"compile {cell.source} --second-order, or use rnncc.compile({cell.source!r})"
            )
        if found is None:
            what = "a mask" if variant.mask else ", ".join(sorted(variant.active_rates))
            raise ValueError(
                f"this module of {cell.name} was written without kernels for {what}: run rnncc "
                f"compile {cell.source} again, or use rnncc.compile({cell.source!r})"
            )
        return engines[found]

    def is_written(variant: Variant) -> bool:
        return covering(replace(variant, storage=""), engines) is not None

    return make_class(Frozen(cell, engine, is_written), module, None)


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
