"""One recurrent layer as a function of arrays: arguments, states and weights -> results, gradients.

What a backend's mechanism (`in_tensorflow`, `in_jax`, `in_torch`) wraps: NumPy views of its tensors
in, new arrays out. A call's tensors are the cell's arguments in order, then if `masked` a mask
[batch, time] of bools, then if `given` the initial states, then weights and constants. Its results
are outputs, then last states.

Non-Goals: Keras (`recurrent`); differentiation of the framework (`in_...`).
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.keras.weights import WeightVersions, keep, serve
from rnncc.runtime.classes import Engine
from rnncc.runtime.description import Array, Variant, names_of, variant_of
from rnncc.runtime.doors import Dims, SizeBinder
from rnncc.runtime.layer import Layer
from rnncc.runtime.masks import Masking, masking
from rnncc.runtime.memory import aligned
from rnncc.runtime.order import Order
from rnncc.runtime.sizes import evaluate

_OPTIONS = ("return_sequences", "go_backwards", "checkpoint_every", "zero_output_for_mask", "dtype")
_MOST_SHAPES = 256  # sets of shapes whose sizes an operation remembers
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Request:
    """What is known of a call before there are numbers. given: initial states are among its
    tensors; masked: a mask is."""

    training: bool = False
    given: bool = False
    masked: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What shapes tell, None where they don't. results: shapes of outputs, then of states."""

    sizes: dict[str, int]
    batch: int | None
    time: int | None
    results: list[Dims]
    states: dict[str, Dims]


@dataclass(slots=True, weakref_slot=True)
class Saved:
    """What a call leaves for its backward. No engine where nothing ran."""

    request: Request
    known: Known
    steps: int
    masks: Masking | None
    engine: Engine | None = None
    saved: Any = None
    variant: Variant | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """The arrays of a call, before its kernels run."""

    arrays: dict[str, Any]
    known: Known
    masks: Masking | None
    version: Any
    steps: int


def known_of(native: Layer, sizes: Mapping[str, int], shapes: Sequence[Dims]) -> Known:
    """Of a call with arguments of these shapes, None for what isn't known yet. ValueError where
    they don't fit the cell."""
    cell = native.cell
    bound = SizeBinder(cell, sizes, "the layer's").bind(
        dict(zip(cell.arguments, shapes, strict=True))
    )
    lead: Dims = (bound.batch, bound.time) if native.return_sequences else (bound.batch,)
    states = {s.name: (bound.batch, *_dims(s, bound.sizes)) for s in cell.states}
    outputs = [(*lead, *_dims(o, bound.sizes)) for o in cell.outputs]
    return Known(bound.sizes, bound.batch, bound.time, [*outputs, *states.values()], states)


def _dims(array: Array, sizes: Mapping[str, int]) -> Dims:
    return tuple(evaluate(t, sizes) if names_of(t) <= sizes.keys() else None for t in array.shape)


_alike: Counter[str] = Counter()


def _stable_key(native: Layer, sizes: Mapping[str, int]) -> str:
    """A key that means the same in every process: what is computed, and which of those that compute
    the same it is."""
    options = {n: getattr(native, n) for n in _OPTIONS}
    text = repr((native.cell, native, options, sorted(sizes.items())))
    key = f"{native.cell.name}:{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    _alike[key] += 1
    return f"{key}:{_alike[key]}"


class OperationBase:
    """What an operation is, and its forward.

    native: the layer that says what is computed; its own weights aren't read. sizes: what every
    call has to agree with.
    """

    def __init__(self, native: Layer, sizes: Mapping[str, int]) -> None:
        self.native, self.cell, self.sizes = native, native.cell, dict(sizes)
        cell = self.cell
        self.dtype = np.dtype(native.dtype)
        self.key = f"{cell.name}:keras:{next(_numbers)}"
        self.stable_key = _stable_key(native, self.sizes)
        self.order = Order(backwards=native.go_backwards)
        self.timed = [a.name for a in cell.inputs]
        self.states = [s.name for s in cell.states]
        self.outputs = [o.name for o in cell.outputs]
        self.owned = [a.name for a in (*cell.weights, *cell.constants)]
        self.results = [*self.outputs, *(f"final_{s}" for s in self.states)]
        self.rates: dict[str, float] = dict(native._chosen.rates)
        self.draws = variant_of(cell, self.rates, training=True, mask=False).training
        self.starting = tuple(s for s in cell.states if s.default)
        self.zeros = native.zero_output_for_mask and native.return_sequences
        self.made: dict[Any, Any] = {}  # what mechanisms make of it
        self._lent = frozenset([*cell.arguments, *self.states, "valid", "_shown"])
        self._weights = WeightVersions()
        self._known: dict[tuple[Dims, ...], Known] = {}
        self._engines: dict[tuple[bool, bool], tuple[Engine, Variant]] = {}
        serve(self, native)

    def known(self, shapes: Iterable[Iterable[int | None]]) -> Known:
        """What the shapes of a call's arguments tell. ValueError where they don't fit the cell."""
        key = tuple([tuple(shape) for shape in shapes])
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MOST_SHAPES:
                self._known.clear()
            found = self._known[key] = known_of(self.native, self.sizes, key)
        return found

    def plan(self) -> str:
        """Which kernels ran in the last calls, and why."""
        plans = [engine.plan() for engine, _ in self._engines.values()]
        return "\n".join(plans) or "has not run"

    # ---- forward ------------------------------------------------------------------------------

    def forward(
        self,
        request: Request,
        tensors: Sequence[np.ndarray],
        seed: int | None,
        *,
        save: bool,
        lent: bool = False,
    ) -> tuple[list[np.ndarray], Saved | None]:
        """Results, owned by the caller; with `save`, what `backward` needs.

        lent: nobody will write the tensors before the backward."""
        begun = self._begin(request, tensors)
        known, masks, arrays = begun.known, begun.masks, begun.arrays
        if not (known.batch and begun.steps):
            found = self._nothing(arrays, known)
            return found, Saved(request, known, 0, masks) if save else None
        engine, variant = self._engine(
            request.training, masks is not None and masks.valid is not None
        )
        arrays.update(self.rates)
        if variant.training:
            assert seed is not None
            arrays["seed"] = seed
        sequences = self.native.return_sequences
        cut = sequences and masks is not None and begun.steps < masks.time
        whole: dict[str, np.ndarray] = {}
        if cut:
            shapes = zip(self.outputs, known.results, strict=False)
            whole = {n: aligned(shape, self.dtype) for n, shape in shapes}
        results, saved = engine.forward(
            masks.cut(arrays, self.timed) if masks else arrays,
            known.sizes,
            known.batch,
            begun.steps,
            version=begun.version,
            save=save,
            last_only=not sequences,
            out={n: a[:, : begun.steps] for n, a in whole.items()},
            checkpoint_every=self.native.checkpoint_every if save else None,
            lent=self._lent if lent else frozenset(() if request.given else self.states),
        )
        for array in whole.values():
            assert masks is not None
            masks.fill(array)
        found = [whole[n] if n in whole else results[n] for n in self.results]
        kept = Saved(request, known, begun.steps, masks, engine, saved, variant) if save else None
        return found, kept

    def _begin(self, request: Request, tensors: Sequence[np.ndarray]) -> Begun:
        cell = self.cell
        at = len(cell.arguments)
        read = dict(zip(cell.arguments, tensors, strict=False))
        known = self.known([a.shape for a in read.values()])
        assert known.batch is not None and known.time is not None
        mask = tensors[at] if request.masked else None
        at += request.masked
        version, weights = self._weights.find(tensors[len(tensors) - len(self.owned) :])
        arrays: dict[str, Any] = dict(zip(self.owned, weights, strict=True))
        arrays.update(read)
        if self.order.backwards:
            arrays.update({n: self.order.run(read[n]) for n in self.timed})
        for name, shape in known.states.items():
            if request.given:
                arrays[name] = tensors[at]
                if tensors[at].shape != shape:
                    raise ValueError(
                        f"initial state {name} of {cell.name} has shape "
                        f"{list(tensors[at].shape)}, expected {list(shape)}"
                    )
                at += 1
            else:
                arrays[name] = np.zeros(tuple(n or 0 for n in shape), self.dtype)
        if not request.given:
            for state in self.starting:
                arrays[state.name][...] = arrays[str(state.default)]
        masks = None
        if mask is not None:
            masks = masking(
                mask,
                None,
                known.batch,
                known.time,
                zeros=self.zeros,
                backwards=self.order.backwards,
            )
        return Begun(arrays, known, masks, version, masks.steps if masks else known.time)

    def _engine(self, training: bool, masked: bool) -> tuple[Engine, Variant]:
        found = self._engines.get((training, masked))
        if found is None:
            variant = variant_of(self.cell, self.rates, training=training, mask=masked)
            found = self.native._binding.engine(variant), variant
            self._engines[training, masked] = found
            keep(found[0], self.native)
        return found

    def _nothing(self, arrays: Mapping[str, Any], known: Known) -> list[np.ndarray]:
        """No row or no step: outputs are empty or zero, the last states are the first."""
        shapes = known.results[: len(self.outputs)]
        zeros = [np.zeros(tuple(n or 0 for n in shape), self.dtype) for shape in shapes]
        return [*zeros, *(np.array(arrays[name]) for name in self.states)]


class Operation(OperationBase):
    """An operation that can go back."""

    def backward(
        self,
        saved: Saved,
        cotangents: Sequence[np.ndarray | None],
        wanted: Sequence[bool],
        shapes: Sequence[tuple[int, ...]],
    ) -> list[np.ndarray | None]:
        """Gradients of a call's tensors, those wanted, owned by the caller.

        cotangents: of its results; None is zero. shapes: of its tensors."""
        names = self.names(saved.request)
        asked = {n: s for n, s, w in zip(names, shapes, wanted, strict=True) if w}
        given = self._cotangents(saved, cotangents)
        out: dict[str, np.ndarray] = {}
        whole: dict[str, np.ndarray] = {}
        if saved.engine is None:  # nothing ran: the last states are the first ones
            finals = {n: given.get(f"final_{n}") for n in self.states}
            found = {n: np.array(d) for n, d in finals.items() if d is not None}
        else:
            if self.order.backwards or saved.steps < (saved.known.time or 0):
                for name in self.timed:
                    if name in asked:
                        whole[name] = np.zeros(asked[name], self.dtype)
                        out[name] = self.order.run(whole[name])[:, : saved.steps]
            found = saved.engine.backward(saved.saved, given, self._wanted(saved, asked), out)
        found = {**found, **whole}
        self._hand_on(saved, asked, found)
        return [self._shaped(found.get(n), asked.get(n)) for n in names]

    def names(self, request: Request) -> list[str]:
        """What a call's tensors are."""
        masks = ["valid"] * request.masked
        return [*self.cell.arguments, *masks, *(self.states if request.given else ()), *self.owned]

    def _wanted(self, saved: Saved, asked: Mapping[str, Any]) -> frozenset[str]:
        """With the states that begin from a weight which is asked for."""
        begun = () if saved.request.given else self.starting
        return frozenset([*asked, *(s.name for s in begun if s.default in asked)])

    def _hand_on(
        self, saved: Saved, asked: Mapping[str, Any], found: dict[str, np.ndarray]
    ) -> None:
        """A state that began from a weight hands its gradient on."""
        for state in () if saved.request.given else self.starting:
            if state.default in asked and state.name in found:
                name, total = str(state.default), found[state.name].sum(axis=0)
                found[name] = found[name] + total if name in found else total

    def _cotangents(
        self, saved: Saved, cotangents: Sequence[np.ndarray | None]
    ) -> dict[str, np.ndarray]:
        """By name of result, as steps ran."""
        given = {n: d for n, d in zip(self.results, cotangents, strict=True) if d is not None}
        if saved.masks and self.native.return_sequences and saved.steps:
            given |= {n: saved.masks.fold(given[n]) for n in self.outputs if n in given}
        return given

    def _shaped(self, array: np.ndarray | None, shape: tuple[int, ...] | None) -> np.ndarray | None:
        if shape is None:
            return None
        if array is None:
            return np.zeros(shape, self.dtype)
        return np.ascontiguousarray(array).reshape(shape)


def seed_of(state: np.ndarray | None) -> int | None:
    """What dropout draws from, of a SeedGenerator's state: (seed, how many were drawn)."""
    if state is None:
        return None
    seed, count = (int(n) for n in np.asarray(state).reshape(-1)[:2])
    return ((seed & 0xFFFFFFFF) << 32 | count & 0xFFFFFFFF) & (2**63 - 1)
