"""A cell over tensors: arguments, states and weights -> outputs and last states, and gradients.

Kernels read and write torch's memory where it is: nothing here copies an array but to join the
halves of a bidirectional gradient.

Non-Goals: autograd and torch.compile (`ops`); modules and their parameters (`recurrent`, `stack`).
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnncc.runtime.classes import Binding, Engine
from rnncc.runtime.description import variant_of
from rnncc.runtime.doors import SizeBinder, array_shape
from rnncc.runtime.layer import Layer
from rnncc.runtime.masks import Masking, masking
from rnncc.runtime.order import Order
from rnncc.torch.weights import WeightSets

DTYPES = {"float32": torch.float32, "float64": torch.float64}
_MOST_SHAPES = 256  # sets of shapes whose sizes a recurrence remembers


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that tells one recurrence from another; hashable, and pickled in its stead.

    directions: of each, whether its last step runs first; outputs of several stand side by side.
    in_place: outputs of a direction that runs backwards stand at the steps of their inputs, where
    Keras leaves them in the order they ran. stacked: states are [directions, batch, ...].
    """

    layer_class: type[Layer]
    sizes: tuple[tuple[str, int], ...]
    options: tuple[tuple[str, Any], ...] = ()
    functions: tuple[tuple[str, Any], ...] = ()
    rates: tuple[tuple[str, float], ...] = ()
    dtype: str = "float32"
    directions: tuple[bool, ...] = (False,)
    in_place: bool = False
    stacked: bool = False
    time_major: bool = False
    return_sequences: bool = True
    zeros: bool = False
    checkpoint_every: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What the shapes of arguments tell. outputs, states: shapes of what is returned."""

    sizes: dict[str, int]
    batch: int
    time: int
    outputs: list[tuple[int, ...]]
    states: list[tuple[int, ...]]


@dataclass(slots=True)
class Way:
    """One direction of one call: what its backward needs. No engine where nothing ran."""

    engine: Engine | None
    saved: Any
    masks: Masking | None
    steps: int


@dataclass(slots=True, weakref_slot=True)
class Saved:
    """What a call leaves for its backward."""

    ways: list[Way]
    known: Known
    given: bool
    masked: bool
    shapes: list[torch.Size]


@dataclass
class _Kernels:
    """What all recurrences of a bound cell share."""

    binding: Binding
    weights: WeightSets = field(default_factory=WeightSets)
    engines: dict[tuple[bool, bool, Any], tuple[Engine, bool]] = field(default_factory=dict)

    def serve(self, user: object, layers: int) -> None:
        """So many layers more use them in turns, for as long as their user lives."""
        self._grow(layers)
        weakref.finalize(user, self._grow, -layers).atexit = False

    def _grow(self, layers: int) -> None:
        self.weights.grow(layers)
        for engine, _ in self.engines.values():
            engine.keep(self.weights.room)


class Recurrence:
    """Made by `recurrence_of`. key: how an op names it; the same in every process.

    A call's tensors are the cell's arguments in order, then if `masked` a mask [batch, time] of
    bools or lengths [batch], then if `given` the states, then weights and constants of each
    direction. Its results are outputs, then last states.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        binding = recipe.layer_class.maker.bind(
            dict(recipe.options), dict(recipe.functions), recipe.dtype
        )
        self.cell = cell = binding.cell
        self.dtype, self.torch_dtype = np.dtype(recipe.dtype), DTYPES[recipe.dtype]
        self.sizes, self.rates = dict(recipe.sizes), dict(recipe.rates)
        text = repr((cell, replace(recipe, layer_class=type(None))))
        self.key = f"{cell.name}:{hashlib.sha256(text.encode()).hexdigest()[:32]}"
        self.orders = [Order(recipe.time_major, backwards) for backwards in recipe.directions]
        self.timed = {a.name for a in cell.inputs}
        self.states = [s.name for s in cell.states]
        self.owned = [a.name for a in (*cell.weights, *cell.constants)]
        self.draws = variant_of(cell, self.rates, training=True, mask=False).training
        self.kernels = _kernels.setdefault(id(binding), _Kernels(binding))
        self._starts = any(s.default for s in cell.states)
        self._known: dict[tuple[Any, ...], Known] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return recurrence_of, (self.recipe,)

    def plan(self) -> str:
        """Which kernels ran in the last calls, and why."""
        plans = [engine.plan() for engine, _ in self.kernels.engines.values()]
        return "\n".join(plans) or "has not run"

    # ---- the door -----------------------------------------------------------------------------

    def known(self, arguments: Sequence[Tensor]) -> Known:
        """Sizes and shapes of a call. ValueError where they don't fit the cell."""
        recipe = self.recipe
        axes = ("time", "batch") if recipe.time_major else ("batch", "time")
        origin = "the module's"
        bound = SizeBinder(self.cell, self.sizes, origin, axes=axes).bind(
            {n: tuple(t.shape) for n, t in zip(self.cell.arguments, arguments, strict=True)}
        )
        batch, time = bound.batch, bound.time
        assert batch is not None and time is not None
        lead: tuple[int, ...] = (batch,)
        if recipe.return_sequences:
            lead = (time, batch) if recipe.time_major else (batch, time)
        ways = len(self.orders)
        outputs = []
        for array in self.cell.outputs:
            *outer, last = (1, *array_shape(array, bound.sizes))
            whole = (*outer[1:], last * ways) if array.shape else ()
            outputs.append((*lead, *whole))
        before = (ways, batch) if recipe.stacked else (batch,)
        states = [(*before, *array_shape(s, bound.sizes)) for s in self.cell.states]
        return Known(bound.sizes, batch, time, outputs, states)

    def _enter(self, arguments: Sequence[Tensor], states: Sequence[Tensor]) -> Known:
        """What is known of a call whose tensors were checked."""
        key = tuple([t.shape for t in arguments])
        found = self._known.get(key)
        for t in (*arguments, *states):
            if t.dtype is not self.torch_dtype or not t.is_cpu:
                self._refuse([*self.cell.arguments, *self.states], (*arguments, *states))
        if found is None:
            if len(self._known) >= _MOST_SHAPES:
                self._known.clear()
            found = self._known[key] = self.known(arguments)
        for name, t, shape in zip(self.states, states, found.states, strict=False):
            if t.shape != shape:
                raise ValueError(
                    f"initial state {name} has shape {list(t.shape)}, expected {list(shape)}"
                )
        return found

    def _refuse(self, names: Sequence[str], tensors: Sequence[Tensor]) -> None:
        """TypeError for the first tensor that kernels can't read."""
        for name, t in zip(names, tensors, strict=True):
            if not t.is_cpu:
                raise TypeError(
                    f"{name} of {self.cell.name} is on {t.device}: rnncc has kernels for the CPU"
                )
            if t.dtype is not self.torch_dtype:
                raise TypeError(
                    f"{name} of {self.cell.name} is {t.dtype}, the module's weights are "
                    f"{self.torch_dtype}: make them agree"
                )

    def _check_weights(self, tensors: Sequence[Tensor]) -> None:
        self._refuse(self.owned, tensors)
        arrays = (*self.cell.weights, *self.cell.constants)
        for array, t in zip(arrays, tensors, strict=True):
            shape = array_shape(array, self.sizes)
            if t.shape != shape:
                raise ValueError(
                    f"weight {array.name} of {self.cell.name} has shape {list(t.shape)}, "
                    f"expected {list(shape)}"
                )

    # ---- forward ------------------------------------------------------------------------------

    def forward(
        self,
        tensors: Sequence[Tensor],
        seed: Tensor | None,
        training: bool,
        given: bool,
        masked: bool,
        save: bool,
    ) -> tuple[list[Tensor], Saved | None]:
        """Outputs and last states; with `save`, what `backward` needs."""
        cell, recipe = self.cell, self.recipe
        at = len(cell.arguments)
        arguments = tensors[:at]
        mask = tensors[at] if masked else None
        at += masked
        states = tensors[at : at + len(self.states)] if given else ()
        weights = tensors[at + len(states) :]
        known = self._enter(arguments, states)
        results = [
            torch.empty(shape, dtype=self.torch_dtype) for shape in (*known.outputs, *known.states)
        ]
        views = [t.numpy() for t in results]
        read = {n: _array(t) for n, t in zip(cell.arguments, arguments, strict=True)}
        begun = [_array(t) for t in states]
        made: list[Way] = []
        for way, order in enumerate(self.orders):
            count = len(self.owned)
            version, own = self.kernels.weights.find(
                weights[way * count : (way + 1) * count], self._check_weights
            )
            arrays: dict[str, Any] = dict(zip(self.owned, own, strict=True))
            arrays |= read
            if not order.is_plain:
                arrays |= {n: order.run(read[n]) for n in self.timed}
            self._begin(arrays, begun, way, known)
            out = self._places(views, way, order)
            masks = self._masking(mask, known, order)
            steps = masks.steps if masks else known.time
            if not (known.batch and steps):
                self._nothing(arrays, out)
                made.append(Way(None, None, masks, 0))
                continue
            engine, drawn = self._engine(training, masks is not None and masks.valid is not None)
            arrays |= self.rates
            if drawn:
                assert seed is not None
                arrays["seed"] = int(seed)
            outputs = [o.name for o in cell.outputs]
            if masks:
                arrays = masks.cut(arrays, self.timed)
            sequences = {n: out[n] for n in outputs} if recipe.return_sequences else {}
            if steps < known.time:
                out = {**out, **{n: a[:, :steps] for n, a in sequences.items()}}
            _, saved = engine.forward(
                arrays,
                known.sizes,
                known.batch,
                steps,
                version=version,
                save=save,
                last_only=not recipe.return_sequences,
                out=out,
                checkpoint_every=recipe.checkpoint_every if save else None,
            )
            if masks and steps < known.time:
                for array in sequences.values():
                    masks.fill(array)
            made.append(Way(engine, saved, masks, steps))
        kept = Saved(made, known, given, masked, [t.shape for t in tensors]) if save else None
        return results, kept

    def _engine(self, training: bool, masked: bool) -> tuple[Engine, bool]:
        """The kernels, and whether they draw."""
        kernels, key = self.kernels, (training, masked, self.recipe.rates)
        found = kernels.engines.get(key)
        if found is None:
            variant = variant_of(self.cell, self.rates, training=training, mask=masked)
            found = kernels.binding.engine(variant), variant.training
            kernels.engines[key] = found
            found[0].keep(self.kernels.weights.room)
        return found

    def _begin(
        self, arrays: dict[str, Any], begun: Sequence[np.ndarray], way: int, known: Known
    ) -> None:
        """The initial states, into `arrays`: the given ones, what the cell declares, or zeros."""
        stacked = self.recipe.stacked
        if begun:
            for name, array in zip(self.states, begun, strict=True):
                arrays[name] = array[way] if stacked else array
            return
        for state, shape in zip(self.cell.states, known.states, strict=True):
            start = arrays[state.default] if state.default else np.zeros((), self.dtype)
            shape = shape[1:] if stacked else shape
            arrays[state.name] = np.array(np.broadcast_to(start, shape), order="C")

    def _places(self, views: Sequence[np.ndarray], way: int, order: Order) -> dict[str, np.ndarray]:
        """Where one direction's results go, [batch, time, ...] as its steps run."""
        cell, recipe = self.cell, self.recipe
        out: dict[str, np.ndarray] = {}
        for array, view in zip(cell.outputs, views, strict=False):
            out[array.name] = self.part(view, way, order)
        for name, view in zip(self.states, views[len(cell.outputs) :], strict=True):
            out[f"final_{name}"] = view[way] if recipe.stacked else view
        return out

    def part(self, view: np.ndarray, way: int, order: Order) -> np.ndarray:
        """One direction's part of an output or its cotangent, as its steps run."""
        ways = len(self.orders)
        if ways > 1:
            last = view.shape[-1] // ways
            view = view[..., way * last : (way + 1) * last]
        if not self.recipe.return_sequences:
            return view
        return order.run(view) if self.recipe.in_place else order.turn(view)

    def _masking(self, mask: Tensor | None, known: Known, order: Order) -> Masking | None:
        if mask is None:
            return None
        values, lengths = _array(mask), mask.ndim == 1
        return masking(
            None if lengths else values,
            values if lengths else None,
            known.batch,
            known.time,
            zeros=self.recipe.zeros,
            backwards=order.backwards,
        )

    def _nothing(self, arrays: Mapping[str, Any], out: Mapping[str, np.ndarray]) -> None:
        """No row or no step: outputs are empty or zero, the last states are the first."""
        for o in self.cell.outputs:
            out[o.name][...] = 0
        for name in self.states:
            out[f"final_{name}"][...] = arrays[name]

    # ---- backward -----------------------------------------------------------------------------

    def backward(
        self, saved: Saved, cotangents: Sequence[Tensor | None], wanted: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of a call's tensors, those wanted. cotangents: of its results; None is zero."""
        back = Back(self, saved, cotangents, wanted)
        for number in range(len(self.orders)):
            back.run(number)
        return back.grads


class Back:
    """One way back through all directions of a call; each adds to `grads`, like the tensors."""

    def __init__(
        self,
        recurrence: Recurrence,
        saved: Saved,
        cotangents: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> None:
        self.recurrence, self.saved, self.wanted = recurrence, saved, wanted
        self.cotangents = [None if t is None else _array(t) for t in cotangents]
        self.grads: list[Tensor | None] = [None] * len(saved.shapes)

    def run(self, number: int) -> None:
        """One direction."""
        saved, recurrence = self.saved, self.recurrence
        cell, wanted, way = recurrence.cell, self.wanted, saved.ways[number]
        states = len(cell.arguments) + saved.masked
        weights = states + len(recurrence.states) * saved.given + number * len(recurrence.owned)
        places = {n: at for at, n in enumerate(cell.arguments) if wanted[at]}
        if saved.given:
            places |= {n: at for at, n in enumerate(recurrence.states, states) if wanted[at]}
        trained = {w.name: at for at, w in enumerate(cell.weights, weights) if wanted[at]}
        begun = [] if saved.given else [s for s in cell.states if s.default in trained]
        out = self._places(number, places) if number == 0 else {}
        found = self._gradients(number, [*places, *trained, *(s.name for s in begun)], out)
        for name, at in places.items():
            self._add(name, at, number, found.get(name), way.steps)
        for state in begun:  # a state that started from a weight hands its gradient on
            if state.name in found:
                name, total = str(state.default), found[state.name].sum(axis=0)
                found[name] = found[name] + total if name in found else total
        for name, at in trained.items():
            if name in found:
                self.grads[at] = torch.from_numpy(np.ascontiguousarray(found[name]))
            else:
                self.grads[at] = self._zeros(at)

    def _places(self, number: int, places: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Where the gradients of inputs go, [batch, steps, ...] as steps run."""
        recurrence, way = self.recurrence, self.saved.ways[number]
        out = {}
        for name, at in places.items():
            if name in recurrence.timed and way.engine is not None:
                whole = way.steps == self.saved.known.time
                made = self._empty(at) if whole else self._zeros(at)
                self.grads[at] = made
                out[name] = recurrence.orders[number].run(made.numpy())[:, : way.steps]
        return out

    def _gradients(
        self, number: int, names: Sequence[str], out: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """By name; those of inputs are in `out`, if it has them."""
        recurrence, way = self.recurrence, self.saved.ways[number]
        order, outputs = recurrence.orders[number], recurrence.cell.outputs
        handed: dict[str, np.ndarray] = {}
        for output, d in zip(outputs, self.cotangents, strict=False):
            if d is not None:
                part = recurrence.part(d, number, order)
                fold = way.masks is not None and recurrence.recipe.return_sequences
                handed[output.name] = way.masks.fold(part) if fold and way.masks else part
        for state, d in zip(recurrence.states, self.cotangents[len(outputs) :], strict=True):
            if d is not None:
                handed[f"final_{state}"] = d[number] if recurrence.recipe.stacked else d
        if way.engine is not None:
            return way.engine.backward(way.saved, handed, frozenset(names), out)
        # Nothing ran: the last states are the first ones.
        return {n: handed[f"final_{n}"] for n in recurrence.states if f"final_{n}" in handed}

    def _add(self, name: str, at: int, number: int, found: np.ndarray | None, steps: int) -> None:
        """One direction's gradient of an argument or a state."""
        recurrence = self.recurrence
        target = self.grads[at]
        if name in recurrence.states:
            if target is None:
                target = self.grads[at] = self._zeros(at)
            if found is not None:
                view = target.numpy()
                (view[number] if recurrence.recipe.stacked else view)[...] = found
            return
        if number == 0 and name in recurrence.timed and target is not None and found is not None:
            return  # it was written there
        if target is None or number == 0:
            target = self.grads[at] = self._zeros(at)
        if found is not None:
            view = target.numpy()
            if name in recurrence.timed:
                view = recurrence.orders[number].run(view)[:, :steps]
            view += found

    def _empty(self, at: int) -> Tensor:
        return torch.empty(self.saved.shapes[at], dtype=self.recurrence.torch_dtype)

    def _zeros(self, at: int) -> Tensor:
        return torch.zeros(self.saved.shapes[at], dtype=self.recurrence.torch_dtype)


# ---- what is shared ------------------------------------------------------------------------------


def _array(t: Tensor) -> np.ndarray:
    """The tensor's own memory."""
    array: np.ndarray = (t.detach() if t.requires_grad else t).numpy()
    return array


RECURRENCES: dict[str, Recurrence] = {}
_kernels: dict[Any, _Kernels] = {}


@cache
def recurrence_of(recipe: Recipe) -> Recurrence:
    """The recurrence of a recipe, from now on found in RECURRENCES by its key."""
    made = Recurrence(recipe)
    return RECURRENCES.setdefault(made.key, made)
