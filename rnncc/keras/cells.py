"""Cells as Keras layers: they own the variables, and compute one step when they are called.

    cell = Cell("peephole.rnn", units=64)
    output, states = cell(x, states)            x [batch, features]

Non-Goals: sequences (`rnn`); the three cells of Keras (`built_in`).
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import constraints, initializers, regularizers

from rnncc import layers as native_layers
from rnncc.artifact.cell import Array, names_of
from rnncc.common import initializers as draws
from rnncc.common.layer_keywords import CellKeyword, Precision, Storage
from rnncc.compiler import compile as compile_cell
from rnncc.keras.arguments import by_weight, dtype_of, refuse_sequences, taken
from rnncc.keras.joins import flat_states, grouped, joined_sizes, joined_variables
from rnncc.keras.recurrent import PACKAGE, Computed, as_shapes
from rnncc.layers import deserialize, serialize
from rnncc.layers.composite import Composite
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.layer_options import refuse_keywords
from rnncc.runtime.api.validation import Dims, SizeBinder, array_shape

KERAS = ("name", "dtype", "trainable", "autocast", "activity_regularizer")
BY_WEIGHT = {
    "initializers": initializers,
    "regularizers": regularizers,
    "constraints": constraints,
}


class KerasAbstractCell(Computed):
    """One cell, or several on top of each other."""

    def leaves(self) -> list[Cell]:
        """The cells that own variables, first to last."""
        raise NotImplementedError

    @property
    def settled(self) -> bool:
        """Whether the equations are known: those of cells in Python are when they are built."""
        return all(leaf.settled for leaf in self.leaves())

    @property
    def kernel_dtype(self) -> str:
        """What kernels compute in."""
        return self.leaves()[0].kernel_dtype

    @property
    def starts_itself(self) -> bool:
        """Whether a cell in Python says what a sequence starts from."""
        return any(leaf.starts_itself for leaf in self.leaves())

    # ---- what `Computed` asks for ----

    @property
    def native(self) -> native_layers.RNN:
        """One step of it."""
        if self._native is None:
            self._native = native_layers.RNN([leaf.compiled for leaf in self.leaves()])
        return self._native

    _native: native_layers.RNN | None = None

    def bound_sizes(self) -> dict[str, int]:
        return joined_sizes(self.native, self.leaves())

    def named_variables(self) -> dict[str, Any]:
        return joined_variables(self.native, self.leaves())

    def generators(self) -> list[Any]:
        return [leaf.seed_generator for leaf in self.leaves() if leaf.seed_generator is not None]

    # ---- one step ----

    def call(self, inputs: Any, states: Any = None, training: bool = False) -> tuple[Any, Any]:
        """(output, states): one step of inputs [batch, ...], from states or those a sequence starts
        from. States come back as a list, of stacked cells one for each cell."""
        cell, arguments = self.description, self.spread_inputs(inputs)
        timed = {a.name for a in cell.inputs}
        steps = [keras.ops.expand_dims(t, 1) if n in timed else t for n, t in arguments.items()]
        flat = None if states is None else flat_states(self, states)
        outputs, after = self.computed(self.operation(), steps, flat, None, training)
        groups = grouped(self, after)
        own: Any = groups if len(self.leaves()) > 1 else after
        return outputs[0] if len(outputs) == 1 else tuple(outputs), own

    def step_shapes(self, given: Any) -> dict[str, Dims]:
        """Shapes of one step's inputs -> of a sequence's, by name."""
        shapes = self.spread_inputs(as_shapes(given), "shapes")
        timed = {a.name for a in self.description.inputs}
        return {n: (s[0], None, *s[1:]) if n in timed else tuple(s) for n, s in shapes.items()}

    def compute_output_shape(self, input_shape: Any, states_shape: Any = None) -> Any:
        """Of an output, and of states."""
        outputs, states = self.result_shapes(self.step_shapes(input_shape))
        own: Any = grouped(self, states) if len(self.leaves()) > 1 else states
        return outputs[0] if len(outputs) == 1 else tuple(outputs), own

    @property
    def state_size(self) -> Any:
        """Of one state an int, or a shape if its rank isn't 1; of several a list; of stacked cells
        a list of these."""
        each = [as_sizes(leaf.state_shapes()) for leaf in self.leaves()]
        each = [s[0] if len(s) == 1 else s for s in each]
        return each[0] if len(each) == 1 else each

    @property
    def output_size(self) -> Any:
        """An int, or a shape if the output's rank isn't 1; a tuple of these of several outputs."""
        sizes = as_sizes(self.leaves()[-1].output_shapes())
        return sizes[0] if len(sizes) == 1 else tuple(sizes)

    def get_initial_state(self, batch_size: Any = None) -> Any:
        """The states a sequence starts from: a list, of stacked cells one for each cell."""
        groups = [leaf.starts(batch_size) for leaf in self.leaves()]
        return groups[0] if len(groups) == 1 else groups


@keras.saving.register_keras_serializable(PACKAGE)
class Cell(KerasAbstractCell):
    """A cell from its equations.

    spec: the path of a .rnn file, a built-in cell's name, a class of rnncc.compile or a layer of
    one. keywords: sizes, options, functions and rates of the cell, and name, dtype, trainable as
    in Keras. initializers, regularizers, constraints: dicts by names of weights; initializers are
    otherwise what the file says. seed: of dropout.
    TypeError and ValueError for wrong keywords, SpecError for mistakes in a file.
    """

    if TYPE_CHECKING:  # Keras's keywords by their types; a cell's own are numbers and texts

        def __init__(
            self,
            /,
            spec: str | os.PathLike[str] | type[Layer] | Layer,
            *,
            initializers: Mapping[str, Any] | None = None,
            regularizers: Mapping[str, Any] | None = None,
            constraints: Mapping[str, Any] | None = None,
            seed: int | None = None,
            name: str | None = None,
            dtype: Any = None,
            trainable: bool = True,
            autocast: bool = True,
            activity_regularizer: Any = None,
            precision: Precision | None = None,
            weights: Storage | None = None,
            **keywords: CellKeyword,
        ) -> None: ...

    else:

        def __init__(
            self,
            /,
            spec: Any,
            *,
            initializers: Any = None,
            regularizers: Any = None,
            constraints: Any = None,
            seed: int | None = None,
            **keywords: Any,
        ) -> None:
            self._make_of(spec, initializers, regularizers, constraints, seed, keywords)

    def _make_of(
        self,
        spec: Any,
        initializers: Any,
        regularizers: Any,
        constraints: Any,
        seed: int | None,
        keywords: dict[str, Any],
    ) -> None:
        super().__init__(**taken(keywords, KERAS))
        self._take(compiled_of(spec, keywords, dtype_of(self)), seed)
        names = [a.name for a in (*self.compiled.cell.weights, *self.compiled.cell.constants)]
        choices = {
            "initializers": initializers,
            "regularizers": regularizers,
            "constraints": constraints,
        }
        self._chosen = {
            what: by_weight(what, choices[what], names, module.get)
            for what, module in BY_WEIGHT.items()
        }

    def _take(self, compiled: Layer, seed: int | None) -> None:
        """compiled: what the cell computes."""
        cell = compiled.cell
        for array in (*cell.weights, *cell.constants):
            if hasattr(type(self), array.name):
                raise ValueError(
                    f"weight {array.name} of {cell.name}: Keras's layers have an attribute of that "
                    "name, call the weight something else"
                )
        self.compiled, self.seed = compiled, seed
        draws = bool(cell.rates) or cell.draws
        self.seed_generator = keras.random.SeedGenerator(seed) if draws else None
        self._sizes: dict[str, int] = dict(compiled._fixed)

    def leaves(self) -> list[Cell]:
        return [self]

    @property
    def settled(self) -> bool:
        return True

    @property
    def kernel_dtype(self) -> str:
        return self.compiled.cell.dtype

    @property
    def starts_itself(self) -> bool:
        return False

    # ---- variables ----

    def build(self, input_shape: Any) -> None:
        """Make the variables. ValueError for shapes that don't fit, or don't tell enough."""
        cell = self.compiled.cell
        binder = SizeBinder(cell, self._sizes, "given to the layer")
        sizes = binder.bind(self.step_shapes(input_shape)).sizes
        arrays = (*cell.weights, *cell.constants)
        needed = frozenset().union(*(names_of(t) for a in arrays for t in a.shape))
        if needed - sizes.keys():
            raise ValueError(
                f"weights of {cell.name} need {', '.join(sorted(needed - sizes.keys()))}: no shape "
                "that was given tells"
            )
        self._sizes = {n: v for n, v in sizes.items() if n in needed or n in self._sizes}
        for array in arrays:
            variable = self.add_weight(
                shape=array_shape(array, sizes),
                name=array.name,
                initializer=self.initializer_of(array),
                regularizer=self.chosen("regularizers", array.name),
                constraint=self.chosen("constraints", array.name),
                trainable=array in cell.weights,
                autocast=False,  # of mixed policies, kernels read the whole numbers
            )
            setattr(self, array.name, variable)
        self._operations = {}

    def chosen(self, what: str, name: str) -> Any:
        """The initializer, regularizer or constraint of a weight, or None."""
        return self._chosen[what].get(name)

    def initializer_of(self, array: Array) -> Any:
        """What a weight's initial values come from."""
        return self.chosen("initializers", array.name) or FromFile(self.compiled.cell, array)

    def own_variables(self) -> dict[str, Any]:
        """By name, in order of declaration."""
        cell = self.compiled.cell
        return {a.name: getattr(self, a.name) for a in (*cell.weights, *cell.constants)}

    def own_sizes(self) -> dict[str, int]:
        """Those that are settled."""
        return dict(self._sizes)

    @property
    def state_count(self) -> int:
        return len(self.compiled.cell.states)

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Of one row, in order. ValueError while sizes are unknown."""
        return self._shapes(self.compiled.cell.states)

    def output_shapes(self) -> list[tuple[int, ...]]:
        """Likewise."""
        return self._shapes(self.compiled.cell.outputs)

    def _shapes(self, arrays: Sequence[Array]) -> list[tuple[int, ...]]:
        cell = self.compiled.cell
        unseen: dict[str, Dims] = {
            **{a.name: (None,) * (2 + len(a.shape)) for a in cell.inputs},
            **{a.name: (None,) * (1 + len(a.shape)) for a in cell.contexts},
        }
        sizes = SizeBinder(cell, self._sizes, "the layer's").bind(unseen).sizes
        for array in arrays:
            unknown = {n for t in array.shape for n in names_of(t)} - sizes.keys()
            if unknown:
                raise ValueError(
                    f"the size of {array.name} in {self.name} needs {', '.join(sorted(unknown))}: "
                    "build the cell first"
                )
        return [array_shape(array, sizes) for array in arrays]

    def starts(self, batch_size: Any) -> list[Any]:
        """The states a sequence starts from."""
        states = []
        for state, own in zip(self.compiled.cell.states, self.state_shapes(), strict=True):
            shape = (batch_size, *own)
            if state.default is None:
                states.append(keras.ops.zeros(shape, dtype=self.compute_dtype))
            else:
                start = keras.ops.cast(getattr(self, state.default), self.compute_dtype)
                states.append(keras.ops.broadcast_to(start, shape))
        return states

    # ---- data ----

    def get_config(self) -> dict[str, Any]:
        """Keywords of the constructor; a cell's equations go along."""
        chosen = {
            what: {n: module.serialize(v) for n, v in self._chosen[what].items()} or None
            for what, module in BY_WEIGHT.items()
        }
        return {
            **super().get_config(),
            "spec": serialize(self.compiled),
            **chosen,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Cell:
        """A cell out of `get_config()`."""
        return cls(**{**config, "spec": deserialize(config["spec"])})


def as_sizes(shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """Shapes of one row as Keras gives them: of vectors a number."""
    return [shape[0] if len(shape) == 1 else shape for shape in shapes]


class FromFile:
    """A Keras initializer: what a .rnn file says of a weight, drawn from Python's random numbers,
    which keras.utils.set_random_seed fixes."""

    def __init__(self, cell: Any, array: Array) -> None:
        self.cell, self.array = cell, array

    def __call__(self, shape: Sequence[int], dtype: Any = None, **_: Any) -> Any:
        default = "zeros" if self.array in self.cell.constants else "glorot_uniform"
        name, *parameters = self.array.initializer or (default,)
        rng = np.random.default_rng(random.getrandbits(63))
        dtype = keras.backend.standardize_dtype(dtype)
        try:
            values = draws.draw(name, tuple(parameters), tuple(shape), dtype, rng)
        except ValueError as error:
            raise ValueError(f"weight {self.array.name} of {self.cell.name}: {error}") from None
        return keras.ops.convert_to_tensor(values, dtype=dtype)


def compiled_of(spec: Any, keywords: Mapping[str, Any], dtype: str) -> Layer:
    """The layer of a cell. TypeError for what is none."""
    if isinstance(spec, Layer) and not isinstance(spec, Composite):
        if keywords:
            raise TypeError(f"{next(iter(keywords))} is chosen where {spec!r} is made")
        if spec.dtype != dtype:
            raise ValueError(f"{spec!r} computes in {spec.dtype}, this layer in {dtype}")
        return spec
    refuse_sequences("a cell", keywords)
    if isinstance(spec, str | os.PathLike):
        spec = compile_cell(spec)
    if isinstance(spec, type) and issubclass(spec, Layer):
        if hasattr(spec, "maker"):
            refuse_keywords(spec.maker.cell, ("spec", *KERAS, *BY_WEIGHT), "Keras's layer")
        return spec(dtype=dtype, **keywords)
    raise TypeError(
        f"a cell is a path, a name or a class of rnncc.compile, a cell of rnncc.keras, or a "
        f"keras.layers.Layer with state_size and call(inputs, states), not {spec!r}"
    )
