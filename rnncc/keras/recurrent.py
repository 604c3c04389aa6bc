"""What all layers and cells of this package have in common: a call, its arrays, its kernels.

A layer here is a Keras layer with Keras's variables beside a layer of `rnncc.layers` that says what
is computed: its description, its engine, its options. The weights of the latter are never made.

Non-Goals: arguments and configurations (`cells`, `built_in`, `rnn`, `bidirectional`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops, tree

from rnncc.artifact.cell import CellDescription
from rnncc.drawing.notebook import PlanText
from rnncc.keras.mechanism import HOW, prepare, run
from rnncc.operations.calls import Request, known_of
from rnncc.operations.operation import Operation
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.masking import WANTED
from rnncc.runtime.api.validation import Dims, spread
from rnncc.runtime.common.precision import refuse_on_cpu

PACKAGE = "rnncc"


class Computed(keras.layers.Layer):  # type: ignore[misc]
    """A Keras layer whose call is kernels."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.supports_masking = True
        if keras.backend.backend() == "tensorflow":
            self.supports_jit = False  # XLA can't call out to Python there
        self._operations: dict[str, Operation] = {}
        self._again = False  # of calls: see Request

    # ---- what the classes below say ----

    @property
    def native(self) -> Layer:
        """The layer of `rnncc.layers` that says what is computed."""
        raise NotImplementedError

    def bound_sizes(self) -> dict[str, int]:
        """Sizes that are settled, by their names in `native`."""
        raise NotImplementedError

    def named_variables(self) -> dict[str, Any]:
        """Variables of weights and constants, by their names in `native`."""
        raise NotImplementedError

    def generators(self) -> list[Any]:
        """Of those cells that draw, what they draw from."""
        raise NotImplementedError

    # ---- calls ----

    @property
    def description(self) -> CellDescription:
        return self.native.cell

    def operation(self) -> Operation:
        """The layer as a function of arrays."""
        operation = self._operations.get("sequence")
        return operation if operation is not None else self.made_operation()

    def made_operation(self) -> Operation:
        """A new one, when there are weights."""
        if keras.backend.backend() != "torch":  # whose arrays of a GPU don't get here
            refuse_on_cpu(self.description.name, self.native.precision)
        operation = Operation(self.native, self.bound_sizes())
        prepare(operation)
        self._operations = {"sequence": operation}
        return operation

    def spread_inputs(self, given: Any, what: str = "inputs") -> dict[str, Any]:
        """Inputs or their shapes by name. TypeError and ValueError for too many or too few."""
        cell = self.description
        if isinstance(given, list) and len(cell.arguments) == 1:
            given = tuple(given)
        return spread(f"{what} of {cell.name}", given, cell.arguments)[0]

    def computed(
        self,
        operation: Operation,
        inputs: Sequence[Any],
        states: Sequence[Any] | None,
        mask: Any,
        training: bool | None,
    ) -> tuple[list[Any], list[Any]]:
        """Outputs and last states."""
        dtype = operation.dtype.name
        tensors = [cast(t, dtype) for t in inputs]
        if mask is not None:
            tensors.append(mask if len(mask.shape) == 3 else cast(mask, "bool"))
        if states is not None:
            self._check_states(operation, tensors, states)
            tensors += [cast(t, dtype) for t in states]
        variables = self.named_variables()
        tensors += [cast(variables[n], dtype) for n in operation.owned]
        request = Request(bool(training), states is not None, mask is not None, self._again)
        seed = None
        if training and operation.draws:
            seed = next_seed(self.generators()[0])
        results = [cast(t, self.compute_dtype) for t in run(operation, request, tensors, seed)]
        count = len(operation.outputs)
        return results[:count], results[count:]

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """The call under a RematScope. What Keras makes of it takes no keywords in graphs of
        TensorFlow and JAX, and draws other dropout masks the second time; our backward runs its
        forward again by itself."""
        if self._remat_mode and self._remat_mode.mode == "activations":
            return layer_call  # they are inside kernels, which save what they need
        rematerialized = super().rematerialized_call(layer_call, *args, **kwargs)
        if rematerialized is layer_call or keras.backend.backend() == "torch":
            return rematerialized

        def saving_nothing(*args: Any, **kwargs: Any) -> Any:
            self._again = True
            try:
                return layer_call(*args, **kwargs)
            finally:
                self._again = False

        return saving_nothing

    def _check_states(
        self, operation: Operation, tensors: Sequence[Any], states: Sequence[Any]
    ) -> None:
        """ValueError for an initial state of another shape: kernels would say so in a graph."""
        count = len(operation.cell.arguments)
        expected = operation.known([t.shape for t in tensors[:count]]).states
        for (name, shape), t in zip(expected.items(), states, strict=True):
            actual = tuple(t.shape)
            pairs = zip(actual, shape, strict=False)
            if len(actual) != len(shape) or any(
                isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs
            ):
                raise ValueError(
                    f"initial state {name} of {operation.cell.name} has shape {list(actual)}, "
                    f"expected {list(shape)}"
                )

    def result_shapes(self, shapes: Mapping[str, Dims]) -> tuple[list[Dims], list[Dims]]:
        """Of outputs, and of last states."""
        results = known_of(self.native, self.bound_sizes(), [*shapes.values()]).results
        count = len(self.description.outputs)
        return results[:count], results[count:]

    def plan(self) -> str:
        """Which kernels ran in the last calls and why, and how the backend calls them."""
        operation = self._operations.get("sequence")
        ran = operation.plan() if operation else "has not run"
        return PlanText(f"{self.native!r}\n{HOW}\n{ran}")


def next_seed(generator: keras.random.SeedGenerator) -> Any:
    """What dropout draws from in this call. As `generator.next()`, whose NumPy array breaks graphs
    of torch.compile: no two calls and no two seeds have the same pair."""
    state = generator.state
    drawn = ops.copy(state.value)
    state.assign(state.value + 1)
    return drawn


def cast(t: Any, dtype: str) -> Any:
    """The tensor, or one of another dtype."""
    t = ops.convert_to_tensor(t)
    return t if keras.backend.standardize_dtype(t.dtype) == dtype else ops.cast(t, dtype)


def is_shape(given: Any) -> bool:
    """Whether this is the shape of one array."""
    return isinstance(given, tuple | list) and all(n is None or isinstance(n, int) for n in given)


def as_shapes(given: Any) -> Any:
    """A shape as one value where `spread` reads it."""
    if is_shape(given):
        return [*given]
    if isinstance(given, Mapping):
        return {n: tuple(s) for n, s in given.items()}
    return tuple(tuple(s) for s in given)


def fitting_mask(mask: Any, sequences: Any) -> Any:
    """The mask [batch, time] of a call, one [batch, time, 1] as Keras takes it included. ValueError
    for another shape, as far as shapes are known: in a graph kernels would say so."""
    if mask is None:
        return None
    mask = ops.convert_to_tensor(mask)
    shape, lead = tuple(mask.shape), tuple(sequences.shape[:2])
    if len(shape) == 3 and shape[-1] == 1:
        mask, shape = ops.squeeze(mask, -1), shape[:2]
    if len(shape) != 2 or any(
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(shape, lead, strict=True)
    ):
        raise ValueError(
            f"mask has shape {list(mask.shape)}, expected [batch={lead[0]}, time={lead[1]}]"
        )
    return mask


def with_resets(mask: Any, resets: Any, sequences: Any) -> Any:
    """A fitting mask, or none, together with resets: [2, batch, time], bools or numbers, which
    kernels look at. TypeError, ValueError for what can't be resets, as far as that is known."""
    if getattr(resets, "requires_grad", False):
        raise TypeError(f"resets asks for a gradient, but has none: give {WANTED}, or detach it")
    resets = ops.convert_to_tensor(resets)
    lead, dtype = tuple(sequences.shape[:2]), keras.backend.standardize_dtype(resets.dtype)
    shape = tuple(resets.shape)
    if len(shape) != 2 or any(
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(shape, lead, strict=True)
    ):
        raise ValueError(
            f"resets has shape {list(shape)}, expected [batch={lead[0]}, time={lead[1]}]"
        )
    if "complex" in dtype or dtype == "string":
        raise TypeError(f"resets holds {dtype} values: give {WANTED}")
    kind = "bool" if dtype == "bool" else "float32"
    resets = cast(resets, kind)
    valid = ops.ones_like(resets) if mask is None else cast(cast(mask, "bool"), kind)
    return ops.stack([valid, resets])


def first_mask(mask: Any, inputs: Any) -> Any:
    """The one mask of a call. Masks of several inputs are the same steps'; where a call has initial
    states, Keras leaves it to the inputs to carry theirs."""
    masks = [m for m in tree.flatten(mask) if m is not None]
    if not masks:
        carried = (getattr(t, "_keras_mask", None) for t in tree.flatten(inputs))
        masks = [m for m in carried if m is not None]
    return masks[0] if masks else None
