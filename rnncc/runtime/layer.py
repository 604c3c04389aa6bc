"""Layer: a bound cell with weights, called on NumPy arrays.

    layer = LSTM(units=64, return_sequences=True)
    y = layer(x)                                x [batch, time, features] -> y [batch, time, units]
    y, pullback = layer.vjp(x, training=True)
    grads = pullback(dy)

Non-Goals: optimisers, losses, graphs of layers; masks and stateful layers, so far.
"""

from __future__ import annotations

import inspect
import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rnncc.runtime import checkpoint, initializers
from rnncc.runtime.classes import Engine, Frozen, LayerType, Maker, sort_keywords
from rnncc.runtime.description import Array, Cell, Variant, names_of, variant_of
from rnncc.runtime.doors import (
    Bound,
    Layout,
    SizeBinder,
    array_shape,
    as_array,
    check_shape,
    nearest,
    spread,
    whole_number,
)
from rnncc.runtime.pullback import Pullback, Trace
from rnncc.runtime.weights import Arrays, Store

_MOST_SHAPES = 256  # sets of shapes whose sizes a layer remembers
_building = threading.Lock()


@dataclass(slots=True)
class _Call:
    """One call after the door. version: of the weights among the arrays."""

    arrays: dict[str, Any]
    sizes: dict[str, int]
    batch: int
    time: int
    inputs: Layout
    states: Layout | None
    given_states: frozenset[str]
    version: int


class Layer(metaclass=LayerType):
    """A recurrent layer. Made by `rnncc.compile` or a generated module, never by hand.

    Keywords: the cell's sizes, options, functions and rates, and

    return_sequences: outputs of every step rather than of the last.
    return_state: the last states follow the outputs: y, *states.
    seed: an int that fixes initial weights and dropout; None draws one.
    dtype: float32 or float64; inputs of other kinds are cast.
    name: a text.
    """

    maker: ClassVar[Maker]

    def __init__(self, *sizes: int, **keywords: Any) -> None:
        """TypeError for unknown, missing or wrong-kinded keywords; ValueError for wrong values."""
        self._start(sizes, keywords)
        self._build_if_known()

    def _start(self, sizes: tuple[int, ...], keywords: Mapping[str, Any]) -> None:
        maker = self.maker
        chosen = sort_keywords(maker.cell, sizes, keywords)
        self._chosen = chosen
        self._binding = maker.bind(chosen.options, chosen.functions, chosen.dtype)
        self.cell: Cell = self._binding.cell
        self.dtype: str = chosen.dtype
        self.name = chosen.name
        self.return_sequences, self.return_state = chosen.return_sequences, chosen.return_state
        self.seed = secrets.randbits(63) if chosen.seed is None else chosen.seed
        self._dtype = np.dtype(self.dtype)
        self._states = [s.name for s in self.cell.states]
        self._finals = [f"final_{s}" for s in self._states]
        self._outputs = [o.name for o in self.cell.outputs]
        self._fixed = dict(chosen.sizes)  # what every call has to agree with
        self._origin = "given to the layer"
        self._store: Store | None = None
        self._bounds: dict[tuple[tuple[int, ...], ...], Bound] = {}
        self._calls = 0
        self._last: Engine | None = None

    # ---- calling ----

    def __call__(
        self,
        inputs: Any,
        *,
        initial_state: Any = None,
        training: bool = False,
        mask: Any = None,
        seed: int | None = None,
    ) -> Any:
        """The outputs of the last step, or of every step, and the last states if asked for.

        inputs: [batch, time, ...], rank-0 inputs [batch, time], contexts [batch, ...]; of several,
        a tuple in order of declaration or a dict. initial_state: a state [batch, ...], a tuple of
        them in order, or a dict of some; None is what the cell declares, else zeros. training:
        dropout draws. seed: what it draws from, else the layer's next one.
        Raises TypeError and ValueError for arrays of a wrong kind or shape.
        """
        call = self._enter(inputs, initial_state, mask, own=False)
        return self._leave(self._forward(call, training, seed, save=False)[0])

    def vjp(
        self,
        inputs: Any,
        *,
        initial_state: Any = None,
        training: bool = True,
        mask: Any = None,
        seed: int | None = None,
    ) -> tuple[Any, Pullback]:
        """What a call returns, and the pullback from its cotangents to gradients."""
        call = self._enter(inputs, initial_state, mask, own=True)
        results, saved, engine = self._forward(call, training, seed, save=True)
        shapes = {n: a.shape for n, a in call.arrays.items() if isinstance(a, np.ndarray)}
        returned = {n: a.shape for n, a in results.items()}
        trace = Trace(
            self.cell,
            self._dtype,
            call.batch,
            call.time,
            shapes,
            returned,
            call.inputs,
            call.states,
            call.given_states,
            self.return_sequences,
            self.return_state,
        )
        return self._leave(results), Pullback(trace, engine, saved)

    def _forward(
        self, call: _Call, training: bool, seed: int | None, *, save: bool
    ) -> tuple[dict[str, np.ndarray], Any, Engine | None]:
        if not (call.batch and call.time):
            return self._nothing(call), None, None
        rates = self._chosen.rates
        variant = variant_of(self.cell, rates, training=bool(training), mask=False)
        call.arrays.update(rates)
        if variant.training:
            call.arrays["seed"] = self._next_seed(seed)
        engine = self._last = self._binding.engine(variant)
        results, saved = engine.forward(
            call.arrays,
            call.sizes,
            call.batch,
            call.time,
            version=call.version,
            save=save,
            last_only=not self.return_sequences,
        )
        return results, saved, engine

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
        outputs = tuple(results[n] for n in self._outputs)
        first = outputs[0] if len(outputs) == 1 else outputs
        return (first, *(results[n] for n in self._finals)) if self.return_state else first

    def _next_seed(self, given: int | None) -> int:
        if given is not None:
            return whole_number("seed", given, least=0) & (2**63 - 1)
        self._calls += 1
        sequence = np.random.SeedSequence(self.seed, spawn_key=(0, self._calls))
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))

    # ---- the door ----

    def _enter(self, inputs: Any, initial_state: Any, mask: Any, *, own: bool) -> _Call:
        """Arrays, sizes and weights of a call; `own`: copies that outlive the caller's arrays."""
        if mask is not None:
            raise NotImplementedError("mask= is not available in this version of rnncc")
        values, layout = spread(f"inputs of {self.cell.name}", inputs, self.cell.arguments)
        arrays: dict[str, Any] = {
            n: as_array(n, v, self._dtype, own=own) for n, v in values.items()
        }
        key = tuple(a.shape for a in arrays.values())
        bound = self._bounds.get(key)
        if bound is None:
            bound = self._bind({n: a.shape for n, a in arrays.items()})
            if self._store is None:
                self._build(bound)
            if len(self._bounds) >= _MOST_SHAPES:
                self._bounds.clear()
            self._bounds[key] = bound
        assert self._store is not None and bound.batch is not None and bound.time is not None
        version, weights = self._store.current
        arrays.update(weights)
        states, given = self._begin(arrays, initial_state, bound, own)
        return _Call(arrays, bound.sizes, bound.batch, bound.time, layout, states, given, version)

    def _begin(
        self, arrays: dict[str, Any], initial_state: Any, bound: Bound, own: bool
    ) -> tuple[Layout | None, frozenset[str]]:
        """The initial states, into `arrays`; how they were given, and which."""
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
            shape = (bound.batch or 0, *array_shape(state, bound.sizes))
            if state.name in given:
                label = f"initial state {state.name}"
                array = as_array(label, given[state.name], self._dtype, own=own)
                check_shape(label, array, shape)
            elif state.default is not None:
                array = np.ascontiguousarray(np.broadcast_to(arrays[state.default], shape))
            else:
                array = np.zeros(shape, self._dtype)
            arrays[state.name] = array
        return layout, frozenset(given)

    def _bind(self, shapes: Mapping[str, tuple[int | None, ...]]) -> Bound:
        return SizeBinder(self.cell, self._fixed, self._origin).bind(shapes)

    # ---- weights ----

    def build(self, shapes: Any) -> None:
        """Make the weights for inputs of these shapes, as a call would.

        shapes: like the inputs of a call, a shape for each array; None for what isn't known yet,
        as in (None, None, 3). ValueError when a weight's size can't be known from them.
        """
        values, _ = spread(f"shapes of {self.cell.name}", _as_shapes(shapes), self.cell.arguments)
        checked = {n: _dims(n, shape) for n, shape in values.items()}
        bound = self._bind(checked)
        if self._store is None:
            self._build(bound)

    def _build_if_known(self) -> None:
        """Weights that depend on no size of the data exist from the start."""
        bound = self._bind_unseen(self._fixed, self._origin)
        if self._weight_sizes() <= bound.sizes.keys():
            self._build(bound)

    def _bind_unseen(self, sizes: Mapping[str, int], origin: str) -> Bound:
        """What follows from these sizes, whatever the data."""
        unseen: dict[str, tuple[None, ...]] = {
            **{a.name: (None,) * (2 + len(a.shape)) for a in self.cell.inputs},
            **{a.name: (None,) * (1 + len(a.shape)) for a in self.cell.contexts},
        }
        return SizeBinder(self.cell, sizes, origin).bind(unseen)

    def _weight_sizes(self) -> frozenset[str]:
        arrays = (*self.cell.weights, *self.cell.constants)
        return frozenset().union(*(names_of(text) for a in arrays for text in a.shape))

    def _build(self, bound: Bound, values: Mapping[str, np.ndarray] | None = None) -> None:
        """Make the weights, with these values or else new ones, and fix the sizes they have."""
        sizes, needed = bound.sizes, self._weight_sizes()
        missing = needed - sizes.keys()
        if missing:
            raise ValueError(
                f"weights of {self.cell.name} need {', '.join(sorted(missing))}: "
                "no shape that was given tells"
            )
        with _building:
            if self._store is not None:
                return
            arrays = (*self.cell.weights, *self.cell.constants)
            store = Store(self._dtype, {a.name: array_shape(a, sizes) for a in arrays})
            store.update(values or {a.name: self._drawn(a, store.shapes[a.name]) for a in arrays})
            self._fixed = {n: v for n, v in sizes.items() if n in needed or n in self._fixed}
            self._origin = "fixed by the layer's weights"
            self._bounds.clear()
            self._store = store

    def _drawn(self, array: Array, shape: tuple[int, ...]) -> np.ndarray:
        default = "zeros" if array in self.cell.constants else "glorot_uniform"
        name, *given = array.initializer or (default,)
        rng = initializers.stream(self.seed, array.name)
        try:
            return initializers.draw(name, tuple(given), shape, self.dtype, rng)
        except ValueError as error:
            raise ValueError(f"weight {array.name} of {self.cell.name}: {error}") from None

    @property
    def built(self) -> bool:
        """Whether there are weights."""
        return self._store is not None

    @property
    def weights(self) -> Arrays:
        """What is trained, by name; assign to an item to change it."""
        names = [w.name for w in self.cell.weights]
        return Arrays(self._store, names, self.cell.name, "weight")

    @property
    def constants(self) -> Arrays:
        """What is not trained, by name; assign to an item to change it."""
        names = [c.name for c in self.cell.constants]
        return Arrays(self._store, names, self.cell.name, "constant")

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights, then of all constants, in order of declaration."""
        return [a.copy() for a in self._built().arrays.values()]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """The counterpart of `get_weights`: all arrays are checked before any is taken."""
        store = self._built()
        if len(weights) != len(store.shapes):
            raise ValueError(
                f"{self.cell.name} has {len(store.shapes)} weights "
                f"({', '.join(store.shapes)}), {len(weights)} were given"
            )
        store.update(dict(zip(store.shapes, weights, strict=True)))

    def count_params(self) -> int:
        """How many numbers the weights and constants hold."""
        return sum(a.size for a in self._built().arrays.values())

    def _built(self) -> Store:
        if self._store is None:
            raise ValueError(
                f"{self.cell.name} has no weights yet: call it, or build it with the shapes to come"
            )
        return self._store

    # ---- files, copies, text ----

    def save(self, path: str | os.PathLike[str]) -> None:
        """Weights and constants into an .npz, whole or not at all. ValueError before any exist."""
        checkpoint.write(path, self.cell, self._fixed, self._built().arrays)

    def load(self, path: str | os.PathLike[str], *, strict: bool = True) -> None:
        """Weights from a file `save` wrote; nothing changes unless all of them fit.

        ValueError: another cell, other shapes, and unless strict=False another text or options.
        """
        sizes, arrays = checkpoint.read(path, self.cell, strict=strict)
        if self._store is not None:
            self._store.update(arrays)
            return
        where = os.fspath(path)
        for name, value in self._fixed.items():
            if sizes.get(name, value) != value:
                raise ValueError(f"{where} has {name}={sizes[name]}, this layer {name}={value}")
        declared = {s.name for s in self.cell.sizes}
        known = {n: whole_number(n, v) for n, v in sizes.items() if n in declared}
        self._build(self._bind_unseen({**known, **self._fixed}, f"read from {where}"), arrays)

    def plan(self) -> str:
        """Which kernels ran in the last call, or would run in the next, and why."""
        plain = variant_of(self.cell, self._chosen.rates, training=False, mask=False)
        engine = self._last or self._binding.engine(plain)
        return f"{self!r}, {self.dtype}\n{engine.plan()}"

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v!r}" for k, v in self._shown().items())
        return f"{type(self).__name__}({given})"

    def _shown(self) -> dict[str, Any]:
        defaults = {r.name: r.default for r in self.maker.cell.rates}
        shown = self._chosen.keywords()
        return {k: v for k, v in shown.items() if k not in defaults or v != defaults[k]}

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__}
        for made in ("_binding", "_bounds", "_last", "_store", "cell", "_dtype"):
            del state[made]
        store = self._store
        state["_arrays"] = None if store is None else dict(store.arrays)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        arrays, chosen = state.pop("_arrays"), state["_chosen"]
        self.__dict__.update(state)
        self._binding = self.maker.bind(chosen.options, chosen.functions, chosen.dtype)
        self.cell, self._dtype = self._binding.cell, np.dtype(self.dtype)
        self._bounds, self._last, self._store = {}, None, None
        if arrays is not None:
            store = Store(self._dtype, {n: a.shape for n, a in arrays.items()})
            store.update(arrays)
            self._store = store


def _as_shapes(shapes: Any) -> Any:
    """One shape of a single input is a tuple itself: it must not be taken for several."""
    whole = isinstance(shapes, tuple | list)
    if whole and all(n is None or isinstance(n, int | np.integer) for n in shapes):
        return [*shapes]
    return shapes


def _dims(name: str, shape: Any) -> tuple[int | None, ...]:
    if not isinstance(shape, tuple | list):
        raise TypeError(f"the shape of {name} is a tuple, not {shape!r}")
    return tuple(
        None if n is None else whole_number(f"an axis of {name}", n, least=0) for n in shape
    )


def layer_class(cell: Cell, engines: Callable[[Variant], Engine], module: str) -> type[Layer]:
    """The class of a generated module, its options frozen; pickled by its module and name."""
    return make_class(Frozen(cell, engines), module, None)


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
    members = {"maker": maker, "recipe": recipe, "__module__": module, "__doc__": doc}
    return LayerType(cell.name, (Layer,), members)  # type: ignore[return-value]
