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
from rnncc.runtime.description import Array, Variant, variant_of
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
    """What the shapes of arguments tell. results: shapes of outputs, then of states as they are
    given and returned. zeros: states to start from, which nobody writes."""

    sizes: dict[str, int]
    batch: int
    time: int
    results: list[tuple[int, ...]]
    zeros: dict[str, np.ndarray]


@dataclass(slots=True)
class Way:
    """One direction of one call: what its backward needs. No engine where nothing ran."""

    engine: Engine | None
    saved: Any
    masks: Masking | None
    steps: int
    variant: Variant | None = None


@dataclass(slots=True, weakref_slot=True)
class Saved:
    """What a call leaves for its backward."""

    ways: list[Way]
    known: Known
    given: bool
    masked: bool
    shapes: list[torch.Size]


@dataclass(frozen=True, slots=True)
class Choice:
    """The gradients one direction is asked for: where they belong among the tensors of a call."""

    arguments: dict[str, int]
    states: dict[str, int]
    trained: dict[str, int]
    begun: tuple[Array, ...]  # states whose gradients belong to weights
    names: frozenset[str]


@dataclass
class Kernels:
    """What all recurrences of a bound cell share."""

    binding: Binding
    weights: WeightSets = field(default_factory=WeightSets)
    engines: dict[tuple[bool, bool, Any], tuple[Engine, Variant]] = field(default_factory=dict)

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
        text = repr((cell, replace(recipe, layer_class=Layer)))
        self.key = f"{cell.name}:{hashlib.sha256(text.encode()).hexdigest()[:32]}"
        self.orders = [Order(recipe.time_major, backwards) for backwards in recipe.directions]
        self.timed = {a.name for a in cell.inputs}
        self.states = [s.name for s in cell.states]
        self.owned = [a.name for a in (*cell.weights, *cell.constants)]
        self.draws = variant_of(cell, self.rates, training=True, mask=False).training
        self.kernels = _kernels.setdefault(id(binding), Kernels(binding))
        self.outputs = [o.name for o in cell.outputs]
        self.results = [*self.outputs, *(f"final_{s}" for s in self.states)]
        # Nobody writes these before the backward: torch refuses one for tensors that were changed.
        self._lent = frozenset([*cell.arguments, *self.states, "valid", "_shown"])
        self.starting = tuple(s for s in cell.states if s.default)
        backwards = recipe.in_place and any(recipe.directions)
        self._lies_plain = not recipe.return_sequences or not (recipe.time_major or backwards)
        self._choices: dict[tuple[bool, ...], list[Choice]] = {}
        self._known: dict[tuple[Any, ...], Known] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return recurrence_of, (self.recipe,)

    def plan(self) -> str:
        """Which kernels ran in the last calls, and why."""
        plans = [engine.plan() for engine, _ in self.kernels.engines.values()]
        return "\n".join(plans) or "has not run"

    # ---- the door -----------------------------------------------------------------------------

    def known(self, arguments: Sequence[Tensor], *, real: bool) -> Known:
        """Sizes and shapes of a call. real: not only shapes, which may be symbols.
        ValueError where they don't fit the cell."""
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
        shapes = {s.name: array_shape(s, bound.sizes) for s in self.cell.states}
        zeros = (
            {n: np.zeros((batch, *shape), self.dtype) for n, shape in shapes.items()}
            if real
            else {}
        )
        states = [(*before, *shape) for shape in shapes.values()]
        return Known(bound.sizes, batch, time, [*outputs, *states], zeros)

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
            found = self._known[key] = self.known(arguments, real=True)
        for name, t, shape in zip(
            self.states, states, found.results[len(self.outputs) :], strict=False
        ):
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
        read = {n: array_of(t) for n, t in zip(cell.arguments, arguments, strict=True)}
        begun = [array_of(t) for t in states]
        targets: list[Tensor | None] = [None] * len(self.results)
        ways: list[Way] = []
        count = len(self.owned)
        for number, order in enumerate(self.orders):
            own = weights[number * count : (number + 1) * count]
            version, values = self.kernels.weights.find(own, self._check_weights)
            arrays: dict[str, Any] = dict(zip(self.owned, values, strict=True))
            arrays.update(read)
            if not order.is_plain:
                arrays.update({n: order.run(read[n]) for n in self.timed})
            self._begin(arrays, begun, number, known)
            masks = self._masking(mask, known, order)
            steps = masks.steps if masks else known.time
            out = self._places(targets, known, number, steps)
            if not (known.batch and steps):
                self._nothing(arrays, out)
                ways.append(Way(None, None, masks, 0))
                continue
            engine, variant = self._engine(training, masks is not None and masks.valid is not None)
            arrays.update(self.rates)
            if variant.training:
                assert seed is not None
                arrays["seed"] = int(seed)
            cut = masks is not None and steps < known.time and recipe.return_sequences
            found, saved = engine.forward(
                masks.cut(arrays, self.timed) if masks else arrays,
                known.sizes,
                known.batch,
                steps,
                version=version,
                save=save,
                last_only=not recipe.return_sequences,
                out=self._cut(out, steps) if cut else out,
                checkpoint_every=recipe.checkpoint_every if save else None,
                lent=self._lent,
            )
            if cut and masks:
                for name in self.outputs:
                    masks.fill(out[name])
            self._wrap(targets, found)
            ways.append(Way(engine, saved, masks, steps, variant))
        kept = Saved(ways, known, given, masked, [t.shape for t in tensors]) if save else None
        return [t for t in targets if t is not None], kept

    def _engine(self, training: bool, masked: bool) -> tuple[Engine, Variant]:
        """The kernels, and which they are."""
        kernels, key = self.kernels, (training, masked, self.recipe.rates)
        found = kernels.engines.get(key)
        if found is None:
            variant = variant_of(self.cell, self.rates, training=training, mask=masked)
            found = kernels.binding.engine(variant), variant
            kernels.engines[key] = found
            found[0].keep(self.kernels.weights.room)
        return found

    def _begin(
        self, arrays: dict[str, Any], begun: Sequence[np.ndarray], number: int, known: Known
    ) -> None:
        """The initial states, into `arrays`: the given ones, what the cell declares, or zeros."""
        if begun:
            for name, array in zip(self.states, begun, strict=True):
                arrays[name] = array[number] if self.recipe.stacked else array
            return
        arrays.update(known.zeros)
        for state in self.starting:
            start = np.broadcast_to(arrays[str(state.default)], known.zeros[state.name].shape)
            arrays[state.name] = np.array(start, order="C")

    def _places(
        self, targets: list[Tensor | None], known: Known, number: int, steps: int
    ) -> dict[str, np.ndarray]:
        """Where results go that have to lie otherwise than kernels lay them, by name, [batch, time,
        ...] as steps run; their tensors into `targets`."""
        several, whole = len(self.orders) > 1, known.batch and steps == known.time
        if not several and self._lies_plain and whole:
            return {}
        out: dict[str, np.ndarray] = {}
        for at, (name, shape) in enumerate(zip(self.results, known.results, strict=True)):
            is_output = name in self.outputs
            if not (is_output or several or steps == 0):
                continue
            target = targets[at]
            if target is None:
                target = targets[at] = torch.empty(shape, dtype=self.torch_dtype)
            view = target.numpy()
            if is_output:
                out[name] = self.part(view, number)
            else:
                out[name] = view[number] if self.recipe.stacked else view
        return out

    def _cut(self, out: Mapping[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
        """Places for the results of a call that runs so many steps."""
        return {n: a[:, :steps] if n in self.outputs else a for n, a in out.items()}

    def _wrap(self, targets: list[Tensor | None], found: Mapping[str, np.ndarray]) -> None:
        """Results that lie as kernels laid them."""
        for at, name in enumerate(self.results):
            if targets[at] is None:
                array = found[name]
                stacked = self.recipe.stacked and name not in self.outputs
                targets[at] = torch.from_numpy(array[None] if stacked else array)

    def part(self, view: np.ndarray, number: int) -> np.ndarray:
        """One direction's part of an output or its cotangent, as its steps run."""
        if len(self.orders) > 1:
            last = view.shape[-1] // len(self.orders)
            view = view[..., number * last : (number + 1) * last]
        if self._lies_plain:
            return view
        order = self.orders[number]
        return order.run(view) if self.recipe.in_place else order.turn(view)

    def _masking(self, mask: Tensor | None, known: Known, order: Order) -> Masking | None:
        if mask is None:
            return None
        values, lengths = array_of(mask), mask.ndim == 1
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
        for name in self.outputs:
            out[name][...] = 0
        for name in self.states:
            out[f"final_{name}"][...] = arrays[name]

    # ---- backward -----------------------------------------------------------------------------

    def backward(
        self, saved: Saved, cotangents: Sequence[Tensor | None], wanted: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of a call's tensors, those wanted. cotangents: of its results; None is zero."""
        key = (*wanted, saved.given, saved.masked)
        choices = self._choices.get(key)
        if choices is None:
            choices = self._choices[key] = [
                self._choose(number, saved, wanted) for number in range(len(self.orders))
            ]
        handed = [None if t is None else array_of(t) for t in cotangents]
        grads: list[Tensor | None] = [None] * len(saved.shapes)
        for number, choice in enumerate(choices):
            self._back(number, saved, handed, choice, grads)
        return grads

    def _choose(self, number: int, saved: Saved, wanted: Sequence[bool]) -> Choice:
        cell = self.cell
        states = len(cell.arguments) + saved.masked
        weights = states + len(self.states) * saved.given + number * len(self.owned)
        arguments = {n: at for at, n in enumerate(cell.arguments) if wanted[at]}
        first = {n: at for at, n in enumerate(self.states, states) if saved.given and wanted[at]}
        trained = {w.name: at for at, w in enumerate(cell.weights, weights) if wanted[at]}
        begun = () if saved.given else tuple(s for s in self.starting if s.default in trained)
        names = frozenset([*arguments, *first, *trained, *(s.name for s in begun)])
        return Choice(arguments, first, trained, begun, names)

    def _back(
        self,
        number: int,
        saved: Saved,
        handed: Sequence[np.ndarray | None],
        choice: Choice,
        grads: list[Tensor | None],
    ) -> None:
        """One direction; what it finds is added to `grads`."""
        way, order = saved.ways[number], self.orders[number]
        given = self._cotangents(number, way, handed)
        out: dict[str, np.ndarray] = {}
        if way.engine is None:  # nothing ran: the last states are the first ones
            found = {n: given[f"final_{n}"] for n in self.states if f"final_{n}" in given}
        else:
            if number == 0 and not (order.is_plain and way.steps == saved.known.time):
                for name in self.timed & choice.arguments.keys():
                    at = choice.arguments[name]
                    made = grads[at] = torch.zeros(saved.shapes[at], dtype=self.torch_dtype)
                    out[name] = order.run(made.numpy())[:, : way.steps]
            found = way.engine.backward(way.saved, given, choice.names, out)
        self._collect(number, saved, choice, found, out, grads)

    def _collect(
        self,
        number: int,
        saved: Saved,
        choice: Choice,
        found: dict[str, np.ndarray],
        out: Mapping[str, np.ndarray],
        grads: list[Tensor | None],
    ) -> None:
        """Gradients by parameter into `grads`; those in `out` are there."""
        for name, at in choice.arguments.items():
            if name not in out:
                grads[at] = self._added(grads[at], found.get(name), saved.shapes[at], name, number)
        for name, at in choice.states.items():
            grads[at] = self._stacked(grads[at], found.get(name), saved.shapes[at], number)
        for state in choice.begun:  # a state that started from a weight hands its gradient on
            if state.name in found:
                name, total = str(state.default), found[state.name].sum(axis=0)
                found[name] = found[name] + total if name in found else total
        for name, at in choice.trained.items():
            grads[at] = self._whole(found.get(name), saved.shapes[at])

    # ---- second derivatives -------------------------------------------------------------------

    def second(
        self,
        saved: Saved,
        cotangents: Sequence[Tensor | None],
        d_grads: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Gradients of sum(d_grads * gradients), of all cotangents and of those tensors wanted.

        d_grads: like the gradients that `backward` returns; None is zero."""
        handed = [None if t is None else array_of(t) for t in cotangents]
        given = [None if t is None else array_of(t) for t in d_grads]
        back = [torch.zeros(shape, dtype=self.torch_dtype) for shape in saved.known.results]
        grads: list[Tensor | None] = [None] * len(saved.shapes)
        for number, way in enumerate(saved.ways):
            everything = self._choose(number, saved, [d is not None for d in given])
            choice = self._choose(number, saved, wanted)
            d = self._d_grads(number, saved, everything, given)
            if way.engine is None:  # nothing ran: gradients of first states are the last ones'
                found = {f"d.final_{n}": d[n] for n in self.states if n in d}
            else:
                assert way.variant is not None
                engine = self.kernels.binding.second_engine(way.variant)
                whole = self._over_time(way, self._cotangents(number, way, handed), saved)
                _, again = engine.gradients(way.saved, whole)
                names = choice.names | {f"d.{r}" for r in self.results}
                found = engine.second(again, d, frozenset(names))
            self._collect(number, saved, choice, found, {}, grads)
            for name, t in zip(self.results, back, strict=True):
                if f"d.{name}" in found:
                    self._put_back(name, number, way, t.numpy(), found[f"d.{name}"])
        return list(back), grads

    def _d_grads(
        self, number: int, saved: Saved, choice: Choice, given: Sequence[np.ndarray | None]
    ) -> dict[str, np.ndarray]:
        """Cotangents of one direction's gradients, by parameter."""
        d: dict[str, np.ndarray] = {}
        steps, order = saved.ways[number].steps, self.orders[number]
        for name, at in {**choice.arguments, **choice.states, **choice.trained}.items():
            array = given[at]
            assert array is not None
            if name in self.timed:
                array = order.run(array)[:, :steps]
            elif name in choice.states and self.recipe.stacked:
                array = array[number]
            d[name] = np.ascontiguousarray(array)
        for state in choice.begun:  # its gradient went to the weight it started from
            shape = (saved.known.batch, *d[str(state.default)].shape)
            d[state.name] = np.array(np.broadcast_to(d[str(state.default)], shape))
        return d

    def _over_time(
        self, way: Way, given: Mapping[str, np.ndarray], saved: Saved
    ) -> dict[str, np.ndarray]:
        """Cotangents of every step."""
        if self.recipe.return_sequences:
            return dict(given)
        whole = dict(given)
        for name in self.outputs:
            if name in given:
                last = given[name]
                whole[name] = np.zeros((len(last), way.steps, *last.shape[1:]), self.dtype)
                whole[name][:, -1] = last
        return whole

    def _put_back(
        self, name: str, number: int, way: Way, target: np.ndarray, found: np.ndarray
    ) -> None:
        """The gradient of a result's cotangent where it belongs."""
        if name not in self.outputs:
            (target[number] if self.recipe.stacked else target)[...] = found
            return
        part = self.part(target, number)
        if not self.recipe.return_sequences:
            part[...] = found[:, -1]
            return
        part[:, : way.steps] = found
        if way.masks and way.steps < part.shape[1]:
            way.masks.fill(part)

    # ---- arrays -------------------------------------------------------------------------------

    def _cotangents(
        self, number: int, way: Way, handed: Sequence[np.ndarray | None]
    ) -> dict[str, np.ndarray]:
        """One direction's, by name of result, [batch, steps, ...] as steps run."""
        given: dict[str, np.ndarray] = {}
        for name, d in zip(self.results, handed, strict=True):
            if d is None:
                continue
            if name not in self.outputs:
                given[name] = d[number] if self.recipe.stacked else d
                continue
            given[name] = self.part(d, number)
            if way.masks and self.recipe.return_sequences and way.steps:
                given[name] = way.masks.fold(given[name])
        return given

    def _whole(self, array: np.ndarray | None, shape: torch.Size) -> Tensor:
        if array is None:
            return torch.zeros(shape, dtype=self.torch_dtype)
        return torch.from_numpy(np.ascontiguousarray(array).reshape(shape))

    def _added(
        self, total: Tensor | None, array: np.ndarray | None, shape: torch.Size, name: str, n: int
    ) -> Tensor:
        """The gradient of an argument, which all directions read."""
        plain = n == 0 and self.orders[0].is_plain
        if total is None and (array is None or (plain and array.shape == shape)):
            return self._whole(array, shape)
        if total is None:
            total = torch.zeros(shape, dtype=self.torch_dtype)
        if array is not None:
            view = total.numpy()
            if name in self.timed:
                view = self.orders[n].run(view)[:, : array.shape[1]]
            view += array
        return total

    def _stacked(
        self, total: Tensor | None, array: np.ndarray | None, shape: torch.Size, number: int
    ) -> Tensor:
        """The gradient of a state, each direction's its own."""
        if len(self.orders) == 1:
            return self._whole(array, shape)
        if total is None:
            total = torch.zeros(shape, dtype=self.torch_dtype)
        if array is not None:
            total.numpy()[number] = array
        return total


# ---- what is shared ------------------------------------------------------------------------------


def array_of(t: Tensor) -> np.ndarray:
    """The tensor's own memory."""
    array: np.ndarray = (t.detach() if t.requires_grad else t).numpy()
    return array


RECURRENCES: dict[str, Recurrence] = {}
_kernels: dict[Any, Kernels] = {}


@cache
def recurrence_of(recipe: Recipe) -> Recurrence:
    """The recurrence of a recipe, from now on found in RECURRENCES by its key."""
    made = Recurrence(recipe)
    return RECURRENCES.setdefault(made.key, made)
