"""What a layer is: its choices, its weights, its files and copies. `layer` is what calling it does.

Non-Goals: calling.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, SupportsIndex

import numpy as np

from rnncc.artifact.cell import Array, CellDescription, Variant, names_of, variant_of
from rnncc.common import initializers
from rnncc.common.layer_keywords import CellKeyword, Precision, Storage
from rnncc.common.result_roles import final_name
from rnncc.common.unrolling import MOST_STEPS, unroll_of
from rnncc.drawing.notebook import PlanText, Shown
from rnncc.runtime.api import weight_files
from rnncc.runtime.api.call import CellKernels
from rnncc.runtime.api.gradients import CellNames
from rnncc.runtime.api.layer_options import Engine, LayerType, Maker, sort_keywords
from rnncc.runtime.api.time_axis import Order
from rnncc.runtime.api.validation import (
    Arrangement,
    Bound,
    SizeBinder,
    array_shape,
    as_array,
    spread,
    whole_number,
)
from rnncc.runtime.api.weights import Arrays, WeightStore
from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.common.weight_formats import narrowed

_building = threading.Lock()
open_in_children(sys.modules[__name__], "_building")
# Attributes that are made again rather than pickled.
_MADE = [
    "_binding",
    "cell",
    "_store",
    "_dtype",
    "_states",
    "_finals",
    "_outputs",
    "_names",
    "_starts",
    "_alone",
    "_order",
    "_lead",
    "_known",
    "_engines",
    "_last",
]


# What a layer sets on itself under a public name: a rate of such a name is no attribute.
_ATTRIBUTES = (
    "cell dtype name return_sequences return_state go_backwards time_major stateful unroll "
    "checkpoint_every precision zero_output_for_mask storage seed"
)
ATTRIBUTES = frozenset(_ATTRIBUTES.split())

UNROLLED = f"loops write out so many steps a turn, True up to {MOST_STEPS}; the bits are the same"
STORED = "calls read contractions' weights so; those with gradients (vjp) read them whole"
RENDERED = "rendered on demand: the module was written without these kernels"
CHECKPOINTED = "only carries are saved every so many steps, the rest is computed again"


@dataclass(frozen=True, slots=True)
class CallShapes:
    """What a call's shapes tell. states: their shapes, [batch, ...]. shapes: of arguments as their
    steps run, of states and of weights."""

    sizes: dict[str, int]
    batch: int
    time: int
    states: dict[str, tuple[int, ...]]
    shapes: dict[str, tuple[int, ...]]


class LayerBase(Shown, metaclass=LayerType):
    """Everything of a layer but its calls."""

    maker: ClassVar[Maker]
    _target: str | None = None  # where `to` has moved it

    if TYPE_CHECKING:  # every layer's keywords by their types; a cell's own are numbers and texts

        def __init__(
            self,
            /,
            *sizes: SupportsIndex,
            return_sequences: bool = False,
            return_state: bool = False,
            go_backwards: bool = False,
            stateful: bool = False,
            time_major: bool = False,
            zero_output_for_mask: bool = False,
            unroll: bool | int = False,
            checkpoint_every: int | None = None,
            precision: Precision | None = None,
            weights: Storage | None = None,
            seed: int | None = None,
            dtype: Any = None,
            name: str | None = None,
            **keywords: CellKeyword,
        ) -> None: ...

    else:

        def __init__(self, /, *sizes: int, **keywords: Any) -> None:
            """TypeError: unknown, missing or wrong-kinded keywords. ValueError: wrong values."""
            self._start(sizes, keywords)
            self._build_if_known()

    def _start(self, sizes: tuple[int, ...], keywords: Mapping[str, Any]) -> None:
        maker: Maker | None = getattr(self, "maker", None)
        if maker is None:
            raise TypeError(f"{type(self).__name__} has no cell: rnncc.compile makes layer classes")
        chosen = sort_keywords(maker.cell, sizes, keywords)
        self._chosen = chosen
        self._binding = maker.bind(chosen.options, chosen.functions, chosen.dtype)
        self.cell: CellDescription = self._binding.cell
        self.dtype: str = chosen.dtype
        self.name = chosen.name
        self.return_sequences, self.return_state = chosen.return_sequences, chosen.return_state
        self.go_backwards, self.time_major = chosen.go_backwards, chosen.time_major
        self.stateful, self.unroll = chosen.stateful, chosen.unroll
        self.checkpoint_every = chosen.checkpoint_every
        self.precision = chosen.precision
        self.zero_output_for_mask = chosen.zero_output_for_mask
        self.storage = narrowed(chosen.storage)  # of what contractions read; "": as it is
        self._kept: dict[str, np.ndarray] = {}  # the last states of a stateful layer
        self.seed = secrets.randbits(63) if chosen.seed is None else chosen.seed
        self._fixed = dict(chosen.sizes)  # what every call has to agree with
        self._origin = "given to the layer"
        self._store: WeightStore | None = None
        self._calls = 0
        self._prepare()

    def _prepare(self) -> None:
        """What follows from the cell, and the caches: nothing that is pickled."""
        cell = self.cell
        self._dtype = np.dtype(self.dtype)
        self._states = [s.name for s in cell.states]
        self._finals = [final_name(s) for s in self._states]
        self._outputs = [o.name for o in cell.outputs]
        self._names = CellNames.of(cell)
        self._starts = any(s.default for s in cell.states)
        names = cell.arguments
        self._alone = Arrangement("bare", names) if len(names) == 1 else None
        self._order = Order(self.time_major, self.go_backwards)
        inputs = {i.name for i in cell.inputs}
        self._lead = {n: 2 if n in inputs else 1 for n in names}  # axes that aren't features
        self._known: dict[tuple[tuple[int, ...], ...], CallShapes] = {}
        # By `training`, and whether there is a mask, or rows start anew.
        self._engines: dict[tuple[bool, bool, str], CellKernels] = {}
        self._last: Engine | None = None

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

    def build_with(self, sizes: Mapping[str, int], arrays: Mapping[str, Any]) -> None:
        """Make the weights and constants with these values: nothing is drawn.

        sizes: `sizes` of the layer they are from, or those that its weights' shapes need. arrays:
        all of them, by name. ValueError for other names or shapes, or a layer that has weights.
        """
        if self._store is not None:
            raise ValueError(f"{self.cell.name} has weights already: `weights[name] = array`")
        declared = {s.name for s in self.cell.sizes}
        known = {n: v for n, v in sizes.items() if n in declared}
        bound = self._bind_unseen({**known, **self._fixed}, "given with the weights")
        names = [*self._shapes(bound)]
        if set(names) != arrays.keys():
            raise ValueError(f"weights of {self.cell.name} are {names}, not {[*arrays]}")
        self._build(bound, {n: np.asarray(a) for n, a in arrays.items()})

    def build_in_order(self, shapes: Any, arrays: Sequence[Any]) -> None:
        """As `build`, with these weights in the order of `get_weights`: nothing is drawn.

        ValueError for more or fewer, other shapes, or a layer that has weights.
        """
        if self._store is not None:
            raise ValueError(f"{self.cell.name} has weights already: `set_weights`")
        values, _ = spread(f"shapes of {self.cell.name}", _as_shapes(shapes), self.cell.arguments)
        bound = self._bind({n: _dims(n, shape) for n, shape in values.items()})
        expected, found = self._shapes(bound), [np.shape(a) for a in arrays]
        if [*expected.values()] != found:
            raise ValueError(f"weights of {self.cell.name} are {expected}, not of shapes {found}")
        self._build(bound, {n: np.asarray(a) for n, a in zip(expected, arrays, strict=True)})

    @property
    def sizes(self) -> dict[str, int]:
        """What is known of the cell's sizes: all that weights have, once there are any."""
        return dict(self._fixed)

    def _build_if_known(self) -> None:
        """Weights that depend on no size of the data exist from the start."""
        bound = self._bind_unseen(self._fixed, self._origin)
        if self._weight_sizes() <= bound.sizes.keys():
            self._build(bound)

    def _bind(self, shapes: Mapping[str, tuple[int | None, ...]]) -> Bound:
        origins = dict.fromkeys(self._chosen.sizes, "given to the layer")
        axes = self._order.axes
        return SizeBinder(self.cell, self._fixed, self._origin, origins, axes).bind(shapes)

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
        shapes = self._shapes(bound)
        with _building:
            if self._store is not None:
                return
            arrays = (*self.cell.weights, *self.cell.constants)
            store = WeightStore(self._dtype, shapes)
            store.update(values or {a.name: self._drawn(a, store.shapes[a.name]) for a in arrays})
            self._fixed = {n: v for n, v in sizes.items() if n in needed or n in self._fixed}
            self._origin = "fixed by the layer's weights"
            self._known.clear()
            self._store = store

    def _shapes(self, bound: Bound) -> dict[str, tuple[int, ...]]:
        """Of the weights. ValueError for a size that isn't known."""
        missing = self._weight_sizes() - bound.sizes.keys()
        if missing:
            raise ValueError(
                f"weights of {self.cell.name} need {', '.join(sorted(missing))}: "
                "no shape that was given tells"
            )
        arrays = (*self.cell.weights, *self.cell.constants)
        return {a.name: array_shape(a, bound.sizes) for a in arrays}

    def _drawn(self, array: Array, shape: tuple[int, ...]) -> np.ndarray:
        default = "zeros" if array in self.cell.constants else "glorot_uniform"
        name, *arguments = array.initializer or (default,)
        rng = initializers.stream(self.seed, array.name)
        try:
            return initializers.draw(name, tuple(arguments), shape, self.dtype, rng)
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

    def set_weights(self, weights: Iterable[Any]) -> None:
        """The counterpart of `get_weights`: all arrays are checked before any is taken."""
        store = self._built()
        names = ", ".join(store.shapes)
        if isinstance(weights, str | Mapping) or not isinstance(weights, Iterable):
            raise TypeError(
                f"weights of {self.cell.name} are a list of arrays ({names}), "
                f"not a {type(weights).__name__}: layer.weights takes them by name"
            )
        arrays = list(weights)
        if len(arrays) != len(store.shapes):
            raise ValueError(
                f"{self.cell.name} has {len(store.shapes)} weights ({names}), "
                f"{len(arrays)} were given"
            )
        store.update(dict(zip(store.shapes, arrays, strict=True)))

    def count_params(self) -> int:
        """How many numbers the weights and constants hold."""
        return sum(a.size for a in self._built().arrays.values())

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Print the weights, their shapes and how many numbers they hold. ValueError before any
        exist."""
        from rnncc.runtime.api.summary import summary

        shapes, trained = self._built().shapes, [w.name for w in self.cell.weights]
        weights = {n: shapes[n] for n in trained}
        constants = {n: s for n, s in shapes.items() if n not in weights}
        print_fn(summary(f"{self.name}: {self!r}", weights, constants))

    def _built(self) -> WeightStore:
        if self._store is None:
            raise ValueError(
                f"{self.cell.name} has no weights yet: call it, or build it with the shapes to come"
            )
        return self._store

    # ---- states ----

    @property
    def states(self) -> tuple[np.ndarray, ...] | None:
        """Where a stateful layer's next call starts, read-only, in order; None before the first
        call and after a reset. They are no weights, so `save` and `get_weights` leave them out;
        copies and pickles of the layer go on from them."""
        return tuple(self._kept[n] for n in self._states) if self._kept else None

    @states.setter
    def states(self, given: Any) -> None:
        """All states, in order or by name, [batch, ...] each; None: as after a reset.
        AttributeError where nothing stays, ValueError for others than the layer's."""
        if not self.stateful:
            raise AttributeError(f"{self.name} keeps no states: stateful=True, or initial_state=")
        if given is None:
            self.reset_states()
            return
        values = spread(f"states of {self.name}", given, self._states)[0]
        kept: dict[str, np.ndarray] = {}
        for state in self.cell.states:
            label = f"state {state.name} of {self.name}"
            if values.get(state.name) is None:
                raise ValueError(f"{label} is missing: all of them are set at once")
            array = as_array(label, values[state.name], self._dtype, own=True)
            batch = next(iter(kept.values())).shape[:1] if kept else array.shape[:1]
            unknown = {n for text in state.shape for n in names_of(text)} - self._fixed.keys()
            own = array.shape[1:] if unknown else array_shape(state, self._fixed)
            if array.ndim != 1 + len(state.shape) or array.shape != (*batch, *own):
                expected = ["batch", *(state.shape if unknown else own)]
                raise ValueError(f"{label} has shape {list(array.shape)}, expected {expected}")
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
            kept[state.name] = array
        self._kept = kept

    def reset_states(self) -> None:
        """The next call of a stateful layer starts like the first, with any batch size."""
        self._kept = {}

    reset_state = reset_states  # as Keras 3 calls it

    # ---- files, copies, text ----

    def save(self, path: str | os.PathLike[str]) -> None:
        """Weights and constants into an .npz, or a .safetensors by that ending, whole or not at
        all. ValueError before any exist."""
        weight_files.write(path, self.cell, self._fixed, self._built().arrays)

    def load(self, path: str | os.PathLike[str], *, strict: bool = True) -> None:
        """Weights from a file `save` wrote; nothing changes unless all of them fit.

        ValueError: another cell, other shapes, and unless strict=False another text or options.
        """
        with weight_files.opened(path, self.cell, strict=strict) as file:
            if self._store is not None:
                self._store.update(file.arrays(self._store.shapes))
                return
            for name, value in self._fixed.items():
                if file.sizes.get(name, value) != value:
                    theirs = file.sizes[name]
                    raise ValueError(f"{file.where} has {name}={theirs}, this layer {name}={value}")
            declared = {s.name for s in self.cell.sizes}
            known = {n: v for n, v in file.sizes.items() if n in declared}
            bound = self._bind_unseen({**known, **self._fixed}, f"read from {file.where}")
            self._build(bound, file.arrays(self._shapes(bound)))

    # ---- where it runs ----

    def to(self, target: str) -> Self:
        """Calls run there from now on: "cpu" or "cuda". Weights, states and options stay.

        ValueError: another target, or a layer of a written module, which is for the one it was
        written for. What is missing for a GPU is said when it is first used.
        """
        moved = getattr(self.maker, "moved", None)
        if moved is None:
            raise ValueError(
                f"{self.cell.name} is of a module, or made of layers: rnncc compile --target "
                f"{target} writes a module, rnncc.compile(..., target={target!r}) makes a class"
            )
        self._target = target
        self._bind_again(moved(target))
        return self

    def _bind_again(self, maker: Maker) -> None:
        chosen = self._chosen
        self._binding = maker.bind(chosen.options, chosen.functions, chosen.dtype)
        self._engines, self._last = {}, None

    @property
    def plain_variant(self) -> Variant:
        """What an inference runs that nothing more is asked of."""
        return variant_of(
            self.cell,
            self._chosen.rates,
            training=False,
            mask=False,
            storage=self.storage,
            unroll=unroll_of(self.unroll),
        )

    def plan(self) -> str:
        """Which kernels ran in the last call, or would run in the next, and why."""
        plain = self.plain_variant
        engine = self._last or self._binding.engine(plain)
        ran = (k.variant for k in self._engines.values() if k.engine is engine)
        variant = next(ran, plain)
        lines = [f"{self!r}, {self.dtype}{variant.words}"]
        if self._binding.is_written is not None and not self._binding.is_written(variant):
            lines.append(RENDERED)
        if self.unroll:
            lines.append(f"unroll={self.unroll}: {UNROLLED}")
        if self.checkpoint_every:
            lines.append(f"checkpoint_every={self.checkpoint_every}: {CHECKPOINTED}")
        if self.storage:
            lines.append(f"weights={self.storage!r}: {STORED}")
        return PlanText("\n".join([*lines, engine.plan()]))

    def __repr__(self) -> str:
        keywords = ", ".join(f"{k}={v!r}" for k, v in self._shown().items())
        return f"{type(self).__name__}({keywords})"

    def _shown(self) -> dict[str, Any]:
        defaults = {r.name: r.default for r in self.maker.cell.rates}
        shown = self._chosen.keywords()
        return {k: v for k, v in shown.items() if k not in defaults or v != defaults[k]}

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__}
        for name in _MADE:
            del state[name]
        store = self._store
        state["_arrays"] = None if store is None else dict(store.arrays)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        arrays, chosen = state.pop("_arrays"), state["_chosen"]
        self.__dict__.update(state)
        self._binding = self.maker.bind(chosen.options, chosen.functions, chosen.dtype)
        self.cell, self._store = self._binding.cell, None
        self._prepare()
        if self._target is not None:
            self.to(self._target)
        if arrays is not None:
            store = WeightStore(self._dtype, {n: a.shape for n, a in arrays.items()})
            store.update(arrays)
            self._store = store


def _as_shapes(shapes: Any) -> Any:
    """One shape of a single input is a tuple itself: it must not be taken for several."""
    is_sequence = isinstance(shapes, tuple | list)
    if is_sequence and all(n is None or isinstance(n, int | np.integer) for n in shapes):
        return [*shapes]
    return shapes


def _dims(name: str, shape: Any) -> tuple[int | None, ...]:
    if not isinstance(shape, tuple | list):
        raise TypeError(f"the shape of {name} is a tuple of its own, not {shape!r}")
    return tuple(
        None if n is None else whole_number(f"an axis of {name}", n, least=0) for n in shape
    )
