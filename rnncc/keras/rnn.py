"""RNN: a recurrent layer of a cell, or of several on top of each other.

    RNN(LSTMCell(64))        RNN([GRUCell(64), LSTMCell(32)])        RNN("peephole.rnn", units=64)

Non-Goals: the layers that Keras has (`built_in`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, overload

import keras
from keras import ops, tree

from rnncc import layers as native_layers
from rnncc.common.layer_keywords import CellKeyword, KerasLayerKeywords, Precision, Storage
from rnncc.keras.arguments import dtype_of, taken
from rnncc.keras.cells import KERAS, KerasAbstractCell
from rnncc.keras.joins import flat_states, grouped, joined_sizes, joined_variables
from rnncc.keras.recurrent import (
    PACKAGE,
    Computed,
    as_shapes,
    first_mask,
    fitting_mask,
    is_shape,
    with_resets,
)
from rnncc.keras.stacked import as_cell
from rnncc.keras.traced import is_python_cell
from rnncc.keras.tracing import CellTrace, traced, with_weights
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.validation import Dims
from rnncc.runtime.common.precision import precision_of

FLAGS = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "zero_output_for_mask",
)


class RecurrentLayer(Computed):
    """What RNN and Bidirectional have in common: calls over sequences, states that stay."""

    return_sequences: bool
    return_state: bool
    stateful: bool

    def arranged(self, outputs: Sequence[Any], states: Sequence[Any]) -> Any:
        """Outputs and last states as a call returns them; shapes, too."""
        raise NotImplementedError

    def initial_states(self, batch: int) -> list[Any]:
        """What a sequence starts from, one after another."""
        raise NotImplementedError

    @property
    def starts_itself(self) -> bool:
        """Whether a cell in Python says what a sequence starts from."""
        raise NotImplementedError

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
        resets: Any = None,
    ) -> Any:
        """The outputs of the last step, or of every step, and the last states if asked for.

        sequences: [batch, time, ...], several as the cell takes them. initial_state: states, one
        after another or in groups. mask: bools [batch, time], False where a step doesn't count.
        resets: bools, or 0 and 1, [batch, time]: before which steps a row starts anew.
        ValueError for shapes that don't fit, and of a stateful layer for another batch size, or for
        resets without initial states.
        """
        arguments = self.spread_inputs(sequences)
        inputs = [*arguments.values()]
        timed = self._first_sequence(arguments)
        mask = fitting_mask(first_mask(mask, sequences), timed)
        if resets is not None:
            if self.stateful and initial_state is None:
                raise ValueError(
                    f"{self.name} is stateful: what a row starts anew from isn't where the call "
                    "before ended, so resets need initial_state="
                )
            mask = with_resets(mask, resets, timed)
        states = self._begin(initial_state, inputs[0])
        outputs, after = self.computed(self.operation(), inputs, states, mask, training)
        if self.stateful:
            for variable, state in zip(tree.flatten(self.states), after, strict=True):
                variable.assign(ops.cast(state, variable.dtype))
        return self.arranged(outputs, after)

    def _first_sequence(self, arguments: dict[str, Any]) -> Any:
        return arguments[self.description.inputs[0].name]

    def _begin(self, initial_state: Any, first: Any) -> list[Any] | None:
        """States that a call starts from; None for those that kernels know by themselves."""
        states = None if initial_state is None else flat_states(self, initial_state)
        if self.stateful:
            self._check_batch(first)
            if states is None:  # copies: torch's variables are written in place
                states = [ops.copy(v.value) for v in tree.flatten(self.states)]
        elif states is None and self.starts_itself:
            states = self.initial_states(ops.shape(first)[0])
        return states

    def trace(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
        resets: Any = None,
    ) -> CellTrace:
        """Every value that the equations name, at every step: a mapping of names to tensors.

        Arguments are those of a call. It shows what the next call computes, outside of graphs and
        on the CPU, and leaves states that stay and what dropout draws next as they are. Outputs
        have the bits of a call. See `rnncc.Layer.trace`.
        """
        sequences = tree.map_structure(ops.convert_to_tensor, sequences)
        if not self.built:
            self.build(tree.map_structure(lambda t: tuple(t.shape), sequences))
        arguments = self.spread_inputs(sequences)
        timed = self._first_sequence(arguments)
        generators = self.generators()
        return traced(
            with_weights(self.native, self.bound_sizes(), self.named_variables()),
            arguments,
            self._begin(initial_state, next(iter(arguments.values()))),
            training=training,
            generator=generators[0] if generators else None,
            dtype=self.compute_dtype,
            mask=fitting_mask(first_mask(mask, sequences), timed),
            resets=resets,
        )

    # ---- shapes ----

    def compute_output_shape(self, sequences_shape: Any, initial_state_shape: Any = None) -> Any:
        """Of what a call returns."""
        shapes = self.spread_inputs(as_shapes(sequences_shape), "shapes")
        return self.arranged(*self.result_shapes({n: tuple(s) for n, s in shapes.items()}))

    def compute_mask(self, _: Any, mask: Any) -> Any:
        """Of what a call returns: outputs of every step keep the inputs' mask."""
        masks = [m for m in tree.flatten(mask) if m is not None]
        own = masks[0] if masks and self.return_sequences else None
        cell = self.description
        shown = self.arranged([own] * len(cell.outputs), [None] * len(cell.states))
        return [*shown] if self.return_state else shown

    # ---- states that stay ----

    _kept: Any = None

    @property
    def states(self) -> Any:
        """Variables that a stateful layer's calls go on from; None of others, and before any."""
        return self._kept

    @states.setter
    def states(self, given: Any) -> None:
        """What they hold. ValueError for others than the layer's; before there are any, too."""
        flat = [] if given is None else tree.flatten(given)
        own = tree.flatten(self._kept or [])
        if given is None:
            self.reset_state()
            return
        if not own or len(flat) != len(own):
            raise ValueError(
                f"{self.name} has {len(own)} states that stay, {len(flat)} are given"
                + ("" if own else ": build a stateful layer first")
            )
        for number, (variable, value) in enumerate(zip(own, flat, strict=True)):
            if tuple(ops.shape(value)) != tuple(variable.shape):
                raise ValueError(
                    f"state {number} of {self.name} has shape {[*ops.shape(value)]}, expected "
                    f"{[*variable.shape]}"
                )
        for variable, value in zip(own, flat, strict=True):
            variable.assign(value)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        # TensorFlow's AutoGraph rewrites a call that a graph is made of, and keeps what it has
        # rewritten, with the layer in it: so it gets this line, and what is Keras's it leaves.
        return self._checked_call(*args, **keywords)

    def _checked_call(self, *args: Any, **keywords: Any) -> Any:
        """A call. ValueError for lists of numbers, which Keras takes for arguments; TypeError for
        `constants`, which Keras 3 has no more."""
        if "constants" in keywords:
            raise TypeError(
                f"{self.name} takes no constants: Keras 3's RNN has none. What is the same at all "
                "steps is a context of a cell of equations (context[...]), or a variable of the "
                "cell; else repeat it along time beside the inputs, call((sequences, repeated))"
            )
        given = args[0] if args else keywords.get("sequences")
        if isinstance(given, list | tuple):
            leaves = tree.flatten(given)
            if leaves and isinstance(leaves[0], int | float):
                raise ValueError(
                    f"{self.name} is given a list of numbers: give an array [batch, time, ...]. If "
                    "rows have different lengths, pad them, and say with mask= which steps count"
                )
        return super().__call__(*args, **keywords)

    # TensorFlow's AutoGraph leaves what is Keras's as it is; what it rewrites keeps the layer.
    _checked_call.__module__ = "keras"

    def make_states(self, shapes: dict[str, Dims]) -> None:
        """Variables for the states. ValueError while the batch size is unknown."""
        if self.states is not None:
            self.reset_state()
            return
        _, state_shapes = self.result_shapes(shapes)
        if state_shapes and state_shapes[0][0] is None:
            raise ValueError(
                f"{self.name} is stateful: its batch size has to be known, give the model "
                "Input(batch_shape=(batch, time, features))"
            )
        variables = [
            keras.Variable(start, trainable=False, dtype=self.variable_dtype, name="rnn_state")
            for start in self.initial_states(int(state_shapes[0][0] or 0))
        ]
        self._hold(variables)

    def _hold(self, made: list[Any]) -> None:
        """States are no weights: they stay out of get_weights and of files, as in Keras. But they
        are variables, so that a jitted step hands them on."""
        object.__setattr__(self, "_kept", made)

    @property
    def variables(self) -> list[Any]:
        """All that is read and may change: weights, seeds, the states that stay."""
        return [*super().variables, *tree.flatten(self.states or [])]

    def _check_batch(self, inputs: Any) -> None:
        kept, batch = tree.flatten(self.states)[0].shape[0], inputs.shape[0]
        if batch is not None and batch != kept:
            raise ValueError(
                f"this call has batch {batch}, {self.name} was built for {kept}: a stateful layer "
                "has one batch size"
            )

    def reset_state(self) -> None:
        """The next call of a stateful layer starts like the first."""
        if self.states is not None:
            flat = tree.flatten(self.states)
            for variable, start in zip(flat, self.initial_states(flat[0].shape[0]), strict=True):
                variable.assign(start)

    def reset_states(self) -> None:
        """`reset_state`, as Keras 2 called it."""
        self.reset_state()


def one_step(shapes: Any) -> Any:
    """Shapes of sequences -> of one step."""
    if is_shape(shapes):
        return (shapes[0], *shapes[2:])
    if isinstance(shapes, dict):
        return {n: one_step(s) for n, s in shapes.items()}
    return tuple(map(one_step, shapes))


@keras.saving.register_keras_serializable(PACKAGE)
class RNN(RecurrentLayer):
    """A recurrent layer.

    cell: a cell of this package, one written in Python as Keras's RNN takes it (`PythonCell`: its
    call is read and compiled), a list of these (stacked), or what `Cell` takes: the path of a .rnn
    file, a name, a class of rnncc.compile; then sizes and options of the cell are keywords here.
    Others as in Keras, and checkpoint_every: training saves states every so many steps and runs
    those steps again in the backward: memory for less speed. unroll: see `rnncc.Layer`.
    precision: "float32", or on a GPU, which is for the torch backend, what the operands of its
    matrix products may be rounded to: "tf32", each product off by at most 2**-10 of itself, or
    "bfloat16", by at most 2**-7; sums, states and gradients stay in float32.
    TypeError for what is no cell and for unknown keywords; ValueError for another precision, and
    in a call on the CPU for one that is for a GPU.
    """

    @overload  # its sizes and options are chosen where it is made
    def __init__(
        self,
        /,
        cell: keras.layers.Layer | Sequence[Any],
        return_sequences: bool = ...,
        return_state: bool = ...,
        go_backwards: bool = ...,
        stateful: bool = ...,
        unroll: bool | int = ...,
        zero_output_for_mask: bool = ...,
        checkpoint_every: int | None = ...,
        precision: Precision | None = ...,
        **keywords: Unpack[KerasLayerKeywords],
    ) -> None: ...

    @overload
    def __init__(
        self,
        /,
        cell: str | os.PathLike[str] | type[Layer] | Layer,
        return_sequences: bool = ...,
        return_state: bool = ...,
        go_backwards: bool = ...,
        stateful: bool = ...,
        unroll: bool | int = ...,
        zero_output_for_mask: bool = ...,
        checkpoint_every: int | None = ...,
        precision: Precision | None = ...,
        *,
        initializers: Mapping[str, Any] | None = ...,
        regularizers: Mapping[str, Any] | None = ...,
        constraints: Mapping[str, Any] | None = ...,
        seed: int | None = ...,
        weights: Storage | None = ...,
        name: str | None = ...,
        dtype: Any = ...,
        trainable: bool = ...,
        autocast: bool = ...,
        activity_regularizer: Any = ...,
        **keywords: CellKeyword,
    ) -> None: ...

    def __init__(
        self,
        /,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool | int = False,
        zero_output_for_mask: bool = False,
        checkpoint_every: int | None = None,
        precision: Precision | None = "float32",
        **keywords: Any,
    ) -> None:
        is_cell = isinstance(cell, KerasAbstractCell | list | tuple) or is_python_cell(cell)
        own = keywords if is_cell else taken(keywords, KERAS)
        super().__init__(**own)
        if not is_cell:
            shared = {n: own[n] for n in ("dtype", "trainable") if n in own}
            cell = as_cell(cell, **shared, **keywords)
        self.cell = as_cell(cell)
        self.return_sequences, self.return_state = bool(return_sequences), bool(return_state)
        self.go_backwards, self.stateful = bool(go_backwards), bool(stateful)
        self.unroll, self.zero_output_for_mask = unroll, bool(zero_output_for_mask)
        self.checkpoint_every = checkpoint_every
        self.precision = precision_of(precision, dtype_of(self))
        if dtype_of(self) != self.cell.kernel_dtype:
            raise ValueError(
                f"{self.name} has dtype {dtype_of(self)}, its cell {self.cell.kernel_dtype}: make "
                "them agree"
            )

    # ---- what `Computed` and `RecurrentLayer` ask for ----

    @property
    def native(self) -> native_layers.RNN:
        if self._native is None:
            self._native = native_layers.RNN(
                [leaf.compiled for leaf in self.cell.leaves()],
                return_sequences=self.return_sequences,
                return_state=self.return_state,
                go_backwards=self.go_backwards,
                zero_output_for_mask=self.zero_output_for_mask,
                checkpoint_every=self.checkpoint_every,
                precision=self.precision,
                unroll=self.unroll,
                name=self.name,
            )
        return self._native

    _native: native_layers.RNN | None = None

    def own_sizes(self) -> dict[str, int]:
        """Those that are settled, by their names in `native`."""
        return joined_sizes(self.native, self.cell.leaves())

    def own_variables(self) -> dict[str, Any]:
        """Of weights and constants."""
        return joined_variables(self.native, self.cell.leaves())

    bound_sizes, named_variables = own_sizes, own_variables

    def generators(self) -> list[Any]:
        return self.cell.generators()

    @property
    def starts_itself(self) -> bool:
        return self.cell.starts_itself

    def initial_states(self, batch: int) -> list[Any]:
        return tree.flatten(self.cell.get_initial_state(batch_size=batch))

    def get_initial_state(self, batch_size: int) -> list[Any]:
        """What a sequence starts from."""
        return [*self.cell.get_initial_state(batch_size=batch_size)]

    def arranged(self, outputs: Sequence[Any], states: Sequence[Any]) -> Any:
        first = outputs[0] if len(outputs) == 1 else tuple(outputs)
        return (first, *grouped(self.cell, states)) if self.return_state else first

    @property
    def state_size(self) -> Any:
        """See `Cell.state_size`."""
        return self.cell.state_size

    @property
    def output_size(self) -> Any:
        """See `Cell.output_size`."""
        return self.cell.output_size

    def compute_output_shape(self, sequences_shape: Any, initial_state_shape: Any = None) -> Any:
        if self.cell.settled:
            return super().compute_output_shape(sequences_shape, initial_state_shape)
        shapes = as_shapes(sequences_shape)
        batch, *time = ([*shapes] if is_shape(shapes) else tree.flatten(shapes))[:2]
        lead = (batch, *time) if self.return_sequences else (batch,)
        leaves = self.cell.leaves()
        outputs = [(*lead, *shape) for shape in leaves[-1].output_shapes()]
        return self.arranged(
            outputs, [(batch, *shape) for leaf in leaves for shape in leaf.state_shapes()]
        )

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        """Make the variables of the cells, and of a stateful layer those of its states."""
        if not self.cell.settled:  # what is in Python has a time axis in all it reads
            self.cell.build(one_step(as_shapes(sequences_shape)))
        shapes = self.spread_inputs(as_shapes(sequences_shape), "shapes")
        timed = {a.name for a in self.description.inputs}
        steps = {n: (s[0], *s[2:]) if n in timed else tuple(s) for n, s in shapes.items()}
        if not self.cell.built:
            self.cell.build(next(iter(steps.values())) if len(steps) == 1 else steps)
        self.made_operation()  # outside of graphs
        if self.stateful:
            self.make_states({n: tuple(s) for n, s in shapes.items()})

    # ---- data ----

    def get_config(self) -> dict[str, Any]:
        """Keywords of the constructor."""
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in FLAGS},
            "checkpoint_every": self.checkpoint_every,
            "precision": self.precision,
            "cell": keras.saving.serialize_keras_object(self.cell),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> RNN:
        """A layer out of `get_config()`."""
        cell = keras.saving.deserialize_keras_object(config["cell"], custom_objects=custom_objects)
        return cls(**{**config, "cell": cell})
