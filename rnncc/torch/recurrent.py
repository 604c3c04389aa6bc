"""Recurrent: any cell as a torch module.

    layer = Recurrent("peephole.rnn", units=64, return_sequences=True)
    y = layer(x)                                x [batch, time, features] -> y [batch, time, units]

Non-Goals: torch.nn's own three, which have their own parameters (`stack`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, SupportsIndex, Unpack, overload

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from rnncc.artifact.cell import Array, names_of
from rnncc.common import initializers
from rnncc.common.layer_keywords import CellKeyword, ModuleKeywords, Precision, Storage
from rnncc.common.unrolling import unroll_of
from rnncc.compiler import compile as compile_cell
from rnncc.drawing.chosen import ChosenCell
from rnncc.drawing.notebook import PlanText, shown_cell
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.layer_options import LAYER_OPTIONS, read_off, refuse_keywords, sort_keywords
from rnncc.runtime.api.validation import SizeBinder, an, array_shape, nearest, spread, whole_number
from rnncc.runtime.common.precision import precision_of
from rnncc.runtime.common.weight_formats import narrowed
from rnncc.torch.ops import NO_SCRIPT, run
from rnncc.torch.recipe import COMPUTED_IN, DTYPES, KERNELS, Recipe
from rnncc.torch.recurrence import Recurrence, recurrence_of
from rnncc.torch.shown import ShownModule
from rnncc.torch.steps import steps_of
from rnncc.torch.tracing import CellTrace, seed_for, traced_direction

# Keywords of a layer that a module has other means for.
INSTEAD = {
    "seed": "torch.manual_seed fixes initial weights and dropout",
    "stateful": "hand the last states on with return_state=True and initial_state=",
}
# What a module is made with and keeps, beside what its cell declares.
_SETTLED = frozenset(LAYER_OPTIONS) - {"name", "seed", "dtype"}


class Recurrent(ShownModule, torch.nn.Module):
    """A recurrent layer of any cell, its weights parameters and its constants buffers by name.

    spec: the path of a .rnn file, a built-in cell's name, or a class of rnncc.compile; or a torch
        module that computes one step (`rnncc.torch.modules.cell`).
    input_size: the last axis of the first input; where it isn't given, nor by its own name, the
        first call or load_state_dict makes the weights.
    device, dtype: as in torch.nn; the CPU, float32 or float64; bfloat16 and float16 are computed
        in float32.
    Others: sizes, options, functions and rates of the cell, and return_sequences, return_state,
        time_major, go_backwards, zero_output_for_mask, checkpoint_every, unroll, precision,
        weights as in `rnncc.Layer`.

    In training, dropout draws from torch's generator. Initial weights do, too.
    TypeError and ValueError for a wrong keyword or value, SpecError for mistakes in a file.
    """

    _kinds: ClassVar[list[tuple[type, type[Recurrent]]]] = []

    def __init_subclass__(cls, takes: type | None = None, **keywords: Any) -> None:
        """takes: what Recurrent is given where it makes this class."""
        super().__init_subclass__(**keywords)
        if takes is not None:
            Recurrent._kinds.append((takes, cls))

    def __new__(cls, spec: Any = None, /, *_: Any, **__: Any) -> Self:
        if cls is Recurrent:
            cls = next((own for kind, own in Recurrent._kinds if isinstance(spec, kind)), cls)
        return super().__new__(cls)

    @overload  # of a module, whose keywords are all known
    def __init__(
        self,
        spec: torch.nn.Module,
        /,
        *,
        state: Any = None,
        contexts: Collection[str | int] = (),
        input_size: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **keywords: Unpack[ModuleKeywords],
    ) -> None: ...

    @overload  # of equations, whose own are numbers and texts
    def __init__(
        self,
        spec: str | os.PathLike[str] | type[Layer],
        /,
        *sizes: SupportsIndex,
        input_size: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        time_major: bool = False,
        zero_output_for_mask: bool = False,
        unroll: bool | int = False,
        checkpoint_every: int | None = None,
        precision: Precision | None = None,
        weights: Storage | None = None,
        seed: None = None,
        stateful: Literal[False] = False,
        **keywords: CellKeyword,
    ) -> None: ...

    def __init__(
        self,
        spec: str | os.PathLike[str] | type[Layer] | torch.nn.Module,
        /,
        *sizes: SupportsIndex,
        input_size: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__()
        is_class = isinstance(spec, type)
        if is_class and not issubclass(spec, Layer):  # type: ignore[arg-type]
            raise TypeError(f"a cell is a path, a name or a class of rnncc.compile, not {spec!r}")
        layer_class: Any = spec if is_class else compile_cell(spec)  # type: ignore[arg-type]
        cell = layer_class.maker.cell
        refuse_keywords(cell, ("input_size", "device"), "Recurrent")
        if dtype is None:
            dtype = DTYPES[cell.dtype] if is_class else torch.get_default_dtype()
        for name, instead in INSTEAD.items():
            if keywords.pop(name, None) not in (None, False):
                raise TypeError(f"Recurrent has no {name}: {instead}")
        if input_size is not None:
            name = _input_size(cell, sizes, keywords)
            keywords[name] = whole_number("input_size", input_size)
        self._layer_class = layer_class
        self._chosen = chosen = sort_keywords(cell, sizes, {**keywords, "dtype": name_of(dtype)})
        bound = layer_class.maker.bind(chosen.options, chosen.functions, chosen.dtype)
        self._cell = bound.cell
        self._sizes = dict(chosen.sizes)
        self._recurrence: Recurrence | None = None
        factory = {"device": device, "dtype": dtype}
        for array in self._cell.weights:
            self._free(array.name)
            self.register_parameter(array.name, UninitializedParameter(**factory))
        for array in self._cell.constants:
            self._free(array.name)
            self.register_buffer(array.name, UninitializedBuffer(**factory))
        self._owned: list[str] = [a.name for a in (*self._cell.weights, *self._cell.constants)]
        if self._weight_sizes() <= self._bind_unseen().keys():
            self._build({})
        settled = (self._cell.options, self._cell.functions, self._cell.rates, self._cell.sizes)
        self._settled = frozenset(_SETTLED).union(*(map(_name_in, each) for each in settled))

    def __setattr__(self, name: str, value: object) -> None:
        """AttributeError for what was chosen where the module was made: kernels have it from
        there, so setting it would do nothing."""
        if name in self.__dict__.get("_settled", ()):
            raise AttributeError(
                f"{name} is chosen where Recurrent is made: make another one with "
                f"{name}={value!r}, and give it the weights, load_state_dict(module.state_dict())"
            )
        super().__setattr__(name, value)

    def _free(self, name: str) -> None:
        if hasattr(self, name):
            raise ValueError(
                f"weight {name} of {self._cell.name}: torch.nn.Module has an attribute of that "
                "name, call the weight something else"
            )

    @property
    def equations(self) -> str:
        """The text of the .rnn file. RuntimeError of a class that was written without it."""
        chosen = self._chosen
        bound = self._layer_class.maker.bind(chosen.options, chosen.functions, chosen.dtype)
        if bound.spec is None:
            raise RuntimeError(f"this module of {self._cell.name} was written without its text")
        return str(bound.spec().text)

    # ---- weights ------------------------------------------------------------------------------

    @property
    def built(self) -> bool:
        """Whether there are weights."""
        return not any(
            isinstance(t, UninitializedParameter | UninitializedBuffer)
            for t in (*self.parameters(recurse=False), *self.buffers(recurse=False))
        )

    def _weight_sizes(self) -> frozenset[str]:
        arrays = (*self._cell.weights, *self._cell.constants)
        return frozenset().union(*(names_of(text) for a in arrays for text in a.shape))

    def _bind_unseen(self) -> dict[str, int]:
        """The sizes that are known, whatever the data."""
        cell = self._cell
        unseen: dict[str, tuple[None, ...]] = {
            **{a.name: (None,) * (2 + len(a.shape)) for a in cell.inputs},
            **{a.name: (None,) * (1 + len(a.shape)) for a in cell.contexts},
        }
        return SizeBinder(cell, self._sizes, "given to the module").bind(unseen).sizes

    def _build(self, sizes: Mapping[str, int]) -> None:
        """Make the weights, given more sizes."""
        sizes = {**sizes, **self._sizes}
        self._sizes = sizes
        sizes = self._bind_unseen()
        missing = self._weight_sizes() - sizes.keys()
        if missing:
            raise ValueError(
                f"weights of {self._cell.name} need {', '.join(sorted(missing))}: "
                "no shape that was given tells"
            )
        needed = self._weight_sizes()
        self._sizes = {n: v for n, v in sizes.items() if n in needed or n in self._sizes}
        for array in (*self._cell.weights, *self._cell.constants):
            getattr(self, array.name).materialize(array_shape(array, sizes))
        self.reset_parameters()
        self._prepare()

    def reset_parameters(self) -> None:
        """New weights and constants, as their initializers draw them from torch's generator."""
        seed = int(torch.randint(2**63 - 1, ()))
        with torch.no_grad():
            for array in (*self._cell.weights, *self._cell.constants):
                t = getattr(self, array.name)
                if not t.is_meta:
                    t.copy_(torch.from_numpy(self._drawn(array, tuple(t.shape), seed)))

    def _drawn(self, array: Array, shape: tuple[int, ...], seed: int) -> Any:
        default = "zeros" if array in self._cell.constants else "glorot_uniform"
        name, *parameters = array.initializer or (default,)
        rng = initializers.stream(seed, array.name)
        try:
            return initializers.draw(name, tuple(parameters), shape, "float64", rng)
        except ValueError as error:
            raise ValueError(f"weight {array.name} of {self._cell.name}: {error}") from None

    def _prepare(self) -> None:
        """The recurrence, for the dtype that weights have now."""
        chosen = self._chosen
        dtype = self._weights_dtype()
        if dtype not in COMPUTED_IN:
            self._recurrence = None
            return
        recipe = Recipe(
            self._layer_class,
            tuple(self._sizes.items()),
            tuple(chosen.options.items()),
            tuple(chosen.functions.items()),
            tuple(chosen.rates.items()),
            dtype=COMPUTED_IN[dtype],
            directions=(chosen.go_backwards,),
            time_major=chosen.time_major,
            return_sequences=chosen.return_sequences,
            zeros=chosen.zero_output_for_mask and chosen.return_sequences,
            checkpoint_every=chosen.checkpoint_every,
            precision=precision_of(chosen.precision, COMPUTED_IN[dtype]),
            storage=narrowed(chosen.storage),
            unroll=unroll_of(chosen.unroll),
        )
        self._recurrence = recurrence_of(recipe)
        self._recurrence.kernels.serve(self, 1)

    def _weights_dtype(self) -> torch.dtype:
        if not self._owned:
            return DTYPES[self._chosen.dtype]
        return getattr(self, self._owned[0]).dtype  # type: ignore[no-any-return]

    def _weights(self) -> list[Tensor]:
        """What a call reads of weights and constants, in order."""
        return [getattr(self, n) for n in self._owned]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        moved = super()._apply(fn, recurse)
        if self.built:
            self._prepare()
        return moved

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        if not self.built:  # sizes are read off the arrays
            sizes: dict[str, int] = {}
            for array in (*self._cell.weights, *self._cell.constants):
                t = state_dict.get(prefix + array.name)
                if t is not None and t.ndim == len(array.shape):
                    declared = {s.name for s in self._cell.sizes}
                    pairs = zip(array.shape, t.shape, strict=True)
                    sizes |= {text: n for text, n in pairs if text in declared}
            self._build(sizes)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recurrence": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.built:
            self._prepare()

    # ---- calls --------------------------------------------------------------------------------

    def forward(
        self,
        inputs: Any,
        *,
        initial_state: Any = None,
        mask: Tensor | None = None,
        lengths: Any = None,
        resets: Any = None,
    ) -> Any:
        """The outputs of the last step, or of every step, and the last states if asked for.

        inputs: a tensor [batch, time, ...], rank-0 inputs [batch, time], contexts [batch, ...]; of
        several, a tuple in order of declaration or a dict. initial_state: a state [batch, ...], a
        tuple of them in order, or a dict of some. mask: bools [batch, time], False where a step
        doesn't count; lengths: ints [batch], how many steps of each row count. resets: bools
        [batch, time], before which steps a row starts anew. See `rnncc.Layer`.
        TypeError and ValueError for tensors of a wrong kind, dtype, device or shape.
        """
        cell = self._cell
        arguments = spread(f"inputs of {cell.name}", inputs, cell.arguments)[0]
        recurrence = self._recurrence
        if recurrence is None:
            recurrence = self._first(arguments)
        tensors = [_tensor(n, t) for n, t in arguments.items()]
        at = cell.arguments.index((*cell.inputs, *cell.contexts)[0].name)
        lead = 1 if self._chosen.time_major and cell.inputs else 0
        time = tensors[at].shape[1 - lead] if cell.inputs else 0
        steps = steps_of(mask, lengths, resets, time)
        states: list[Tensor] = []
        if initial_state is not None:
            states = self._begin(initial_state, tensors[at].shape[lead], tensors[0])
        extra = [] if steps is None else [steps]
        results = run(
            recurrence,
            [*tensors, *extra, *states, *self._weights()],
            training=self._trains(),
            given=bool(states),
            masked=steps is not None,
        )
        return self._arranged(results)

    def trace(
        self,
        inputs: Any,
        *,
        initial_state: Any = None,
        mask: Tensor | None = None,
        lengths: Any = None,
        resets: Any = None,
    ) -> CellTrace:
        """Every value that the equations name, at every step: a mapping of names to tensors.

        Arguments are those of a call, and so is what dropout draws in training, from torch's
        generator. Computed on the CPU, without gradients; outputs have the bits of a call there.
        See `rnncc.Layer.trace`.
        """
        return self._traced(
            inputs, initial_state=initial_state, mask=mask, lengths=lengths, resets=resets
        )[0]

    def _traced(self, inputs: Any, **given: Any) -> tuple[CellTrace, Any]:
        """A trace, and outputs of every step as a call returns them. given: a call's keywords."""
        cell = self._cell
        arguments = spread(f"inputs of {cell.name}", inputs, cell.arguments)[0]
        recurrence = self._recurrence
        if recurrence is None:
            recurrence = self._first(arguments)
        training = self._trains()
        found, outputs = traced_direction(
            recurrence.recipe,
            0,
            self._weights(),
            {n: _tensor(n, t) for n, t in arguments.items()},
            training=training,
            seed=seed_for(training and recurrence.draws),
            **given,
        )
        return found, self._together([outputs[o.name] for o in cell.outputs])

    def _trains(self) -> bool:
        """Whether a call drops."""
        return self.training

    def _arranged(self, results: Sequence[Tensor]) -> Any:
        """As a call returns it."""
        count = len(self._cell.outputs)
        first = self._together(results[:count])
        return (first, *results[count:]) if self._chosen.return_state else first

    def _together(self, outputs: Sequence[Tensor]) -> Any:
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _first(self, arguments: Mapping[str, Tensor]) -> Recurrence:
        """The recurrence of a module that had none yet."""
        if torch.compiler.is_compiling():
            raise RuntimeError(
                f"{self._cell.name} has no weights yet: call it once before torch.compile, "
                "or give input_size"
            )
        if self.built:
            raise TypeError(f"{self._cell.name} has weights of {self._weights_dtype()}: {KERNELS}")
        shapes = {n: tuple(_tensor(n, t).shape) for n, t in arguments.items()}
        axes = ("time", "batch") if self._chosen.time_major else ("batch", "time")
        binder = SizeBinder(self._cell, self._sizes, "given to the module", axes=axes)
        self._build(binder.bind(shapes).sizes)
        assert self._recurrence is not None
        return self._recurrence

    def _begin(self, given: Any, batch: int, like: Tensor) -> list[Tensor]:
        """All initial states, of which some were given."""
        cell = self._cell
        what, names = f"initial_state of {cell.name}", [s.name for s in cell.states]
        if isinstance(given, Mapping):
            for name in given:
                if name not in names:
                    raise ValueError(f"{what} has no {name!r}{nearest(str(name), names)}")
            named = dict(given)
        else:
            named = spread(what, given, names)[0]
        states = []
        for state in cell.states:
            t = named.get(state.name)
            if t is None:
                shape = (batch, *array_shape(state, self._sizes))
                t = like.new_zeros(shape)
                if state.default is not None:
                    t = getattr(self, state.default).expand(shape)
            states.append(_tensor(f"initial state {state.name}", t))
        return states

    # ---- text ---------------------------------------------------------------------------------

    def __prepare_scriptable__(self) -> None:
        raise TypeError(NO_SCRIPT)

    def plan(self) -> str:
        """Which kernels ran in the last calls, and why."""
        ran = self._recurrence.plan() if self._recurrence else "has not run"
        return PlanText(f"{self!r}\n{ran}")

    def _shown_cells(self) -> Iterable[ChosenCell]:
        chosen = self._chosen
        bound = self._layer_class.maker.bind(chosen.options, chosen.functions, chosen.dtype)
        cell = shown_cell(bound, chosen.rates)
        return [] if cell is None else [cell]

    def extra_repr(self) -> str:
        shown = {**self._chosen.keywords(), **self._sizes}
        return ", ".join([self._cell.name, *(f"{k}={v!r}" for k, v in shown.items())])


def _name_in(entry: Any) -> str:
    """Of an option or a function, (name, value), or of a rate or a size."""
    return str(entry[0] if isinstance(entry, tuple) else entry.name)


def _input_size(cell: Any, sizes: Sequence[object], keywords: Mapping[str, Any]) -> str:
    """The size that input_size stands for."""
    if any(s.name == "input_size" for s in cell.sizes):
        return "input_size"
    first = next((a for a in cell.inputs if a.name == cell.arguments[0]), None)
    name = first.shape[-1] if first and first.shape else ""
    if name not in read_off(cell):
        raise TypeError(
            f"{cell.name} has no size that input_size could give: name sizes as it does"
        )
    if name in keywords:
        raise TypeError(f"{cell.name} is given {name} twice, the other time as input_size")
    return str(name)


def name_of(dtype: Any) -> str:
    if dtype not in COMPUTED_IN:
        raise TypeError(f"dtype is {dtype!r}: {KERNELS}")
    return COMPUTED_IN[dtype]


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is {an(type(value).__name__)}: give a torch tensor")
    return value
