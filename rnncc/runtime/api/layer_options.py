"""Layer classes: what a constructor's keywords mean, and who makes the kernels they ask for.

A class of `rnncc.compile` has a maker that compiles; a class in a module written by the command
line has one whose options are frozen.

Non-Goals: calling layers (`layer`).
"""

from __future__ import annotations

import copyreg
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol

import numpy as np

from rnncc.artifact.cell import CellDescription, OptionValue, Variant, names_of
from rnncc.runtime.api.validation import (
    dtype_name,
    flag,
    nearest,
    rate,
    storage_name,
    unrolling,
    whole_number,
)
from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.common.precision import precision_of
from rnncc.runtime.common.weight_formats import NARROW
from rnncc.runtime.traces.traced_cell import TracedCell

if TYPE_CHECKING:  # a written module needs no text to be run
    from rnncc.frontend.spec import CellSpec

Tensors = Mapping[str, Any]


class Engine(Protocol):
    """Runs one variant of a bound cell, forwards and backwards."""

    def forward(
        self,
        arrays: Tensors,
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        *,
        version: object,
        save: bool,
        last_only: bool,
        out: Tensors = ...,
        first_step: int = 0,
        checkpoint_every: int | None = None,
        lent: frozenset[str] = ...,
        carry: bool = False,
    ) -> tuple[dict[str, np.ndarray], Any]:
        """(results by name, what `backward` needs: None unless `save`).

        arrays: everything the program may read, by name, and possibly more: inputs [B, T, ...],
        contexts and states [B, ...], weights and constants, rates (float), seed (int), of a masked
        variant `valid` and `_shown`, False where outputs are zero (bool [B, T]), of the layer's
        dtype. B and T are at least 1, with any strides: a view is read where it is.
        version: changes when a weight changes.
        Results: outputs [B, T, ...], or [B, ...] of the last step when `last_only`, and
        `final_<state>` [B, ...]; all owned by the caller. out: arrays of the right shape and dtype
        and any strides to write some of them into, by name. What is saved is the engine's: the
        caller may change arrays and results in place before it calls `backward`.
        first_step: what draws of a step count from, where the steps are a part of a sequence.
        checkpoint_every: save what every so many steps start from, and compute the rest again.
        lent: arrays by name that nobody will change, to be saved without a copy. carry: results
        have every carry's `final_<name>`, of those too that callers don't see: a call that is given
        them by their names goes on where this one stopped, masked steps and all.
        """

    def carried(self, results: Tensors) -> dict[str, Any]:
        """Of what `forward` returned, the last values of carries, by the names under which a call
        that goes on reads them."""

    def repeat(
        self,
        arrays: Tensors,
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        *,
        version: object,
        last_only: bool,
        out: Tensors,
    ) -> Callable[[], None]:
        """Runs one inference on arrays that stay where they are, and returns what runs it again.

        out: an array for every result. Those of last states may be those of initial ones, which
        then go on from run to run. ValueError where steps can't come one block after the other.
        """

    def backward(
        self,
        saved: Any,
        cotangents: Mapping[str, np.ndarray],
        wanted: frozenset[str],
        out: Tensors = ...,
    ) -> dict[str, np.ndarray]:
        """Gradients by parameter, of those wanted that the program reads, owned by the caller.

        cotangents: by name of result, those of outputs [B, T, ...] or as they were returned, with
        any strides; a missing one is zero. out: arrays to write gradients into, by parameter.
        """

    def keep(self, layers: int) -> None:
        """So many layers call in turns: what is made of their weights may be kept for each."""

    def block_steps(self, sizes: Mapping[str, int], batch: int) -> int:
        """How many steps at once need a small workspace, for whoever hands on block by block."""

    @property
    def on_gpu(self) -> bool:
        """Whether its kernels run on a GPU, whose products may be rounded (`precision`)."""

    @property
    def reads_gpu_arrays(self) -> bool:
        """Whether the arrays of a call may lie on a GPU, with their carrier among them."""

    @property
    def last(self) -> Any:
        """What the last calls ran: layers of one class share an engine."""

    def plan(self, last: Any = None) -> str: ...


class SecondEngine(Protocol):
    """Runs one variant of a bound cell, and the pullback of its pullback."""

    def gradients(
        self, saved: Any, cotangents: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], Any]:
        """(every gradient by parameter, what `second` needs), owned by the caller.

        saved: what the `forward` of an `Engine` saved. cotangents: as for its `backward`; the
        caller may change them in place afterwards.
        """

    def second(
        self, saved: Any, cotangents: Mapping[str, np.ndarray], wanted: frozenset[str]
    ) -> dict[str, np.ndarray]:
        """Gradients of sum(cotangents * gradients), owned by the caller: of those wanted that it
        depends on, by parameter, and by `d.<result>` with respect to the cotangent of a result.

        saved: what `gradients` returned second; any number of times. cotangents: of gradients, by
        parameter; a missing one is zero.
        """

    def plan(self) -> str: ...


@dataclass
class BoundCell:
    """A cell with its options bound, and its engines, made when first asked for."""

    cell: CellDescription
    engines: Callable[[Variant], Any]  # an Engine, or a SecondEngine of variants that say so
    is_written: Callable[[Variant], bool] | None = None  # in the class's module; None: it has none
    tracer: Callable[[], TracedCell] | None = None  # None: there is no text to make it of
    spec: Callable[[], CellSpec] | None = None  # its text, read; None: there is none
    # The part of a layer that it is -> engines of timed kernels; None: there is no text.
    timer: Callable[[str], Callable[[Variant], Any]] | None = None
    _made: dict[Variant, Any] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)
    _traced: TracedCell | None = field(default=None, repr=False)
    _timed: dict[str, BoundCell] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        open_in_children(self, "_lock")

    def engine(self, variant: Variant) -> Engine:
        return self._find(variant)

    def second_engine(self, variant: Variant) -> SecondEngine:
        """The engine of the variant's second derivatives."""
        return self._find(replace(variant, second_order=True, storage=""))

    def traced(self) -> TracedCell:
        """The cell that returns all that it names. ValueError of a module without its text."""
        if self.tracer is None:
            raise ValueError(
                f"this module of {self.cell.name} was written without the cell's text, which a "
                f"trace is compiled from: run rnncc compile {self.cell.source} without --variants"
            )
        with self._lock:
            self._traced = self._traced or self.tracer()
        return self._traced

    def timed(self, part: str) -> BoundCell:
        """The same cell on timed kernels, which tell that they are of this part of a layer.
        ValueError of a module without its text, and of what doesn't run on kernels for the CPU."""
        if self.timer is None:
            raise ValueError(
                f"this module of {self.cell.name} was written without the cell's text, which "
                f"timed kernels are compiled from: run rnncc compile {self.cell.source} without "
                "--variants"
            )
        with self._lock:
            if part not in self._timed:
                self._timed[part] = BoundCell(self.cell, storing(self.timer(part)))
            return self._timed[part]

    def _find(self, variant: Variant) -> Any:
        engine = self._made.get(variant)
        if engine is None:
            with self._lock:
                engine = self._made.get(variant) or self.engines(variant)
                self._made[variant] = engine
        return engine


def storing(engines: Callable[[Variant], Any]) -> Callable[[Variant], Any]:
    """Engines of variants whose weights are narrow, too, out of those of kernels.

    `engine.stored(storage)` is an engine over the same kernels whose calls that save nothing read
    weights stored so; ValueError where there is none.
    """

    def engine(variant: Variant) -> Any:
        plain = engines(replace(variant, storage=""))
        return plain.stored(variant.storage) if variant.storage else plain

    return engine


class Maker(Protocol):
    """Binds options and functions. `cell`: with every default."""

    cell: CellDescription

    def bind(
        self, options: Mapping[str, object], functions: Mapping[str, object], dtype: str
    ) -> BoundCell: ...


class Frozen:
    """The maker of a generated module: another choice than the written one is refused."""

    def __init__(
        self,
        cell: CellDescription,
        engines: Callable[[Variant], Any],
        is_written: Callable[[Variant], bool],
        tracer: Callable[[], TracedCell] | None = None,
        spec: Callable[[], CellSpec] | None = None,
        timer: Callable[[str], Callable[[Variant], Any]] | None = None,
    ) -> None:
        self.cell = cell
        self.binding = BoundCell(cell, storing(engines), is_written, tracer, spec, timer)

    def bind(
        self, options: Mapping[str, object], functions: Mapping[str, object], dtype: str
    ) -> BoundCell:
        """ValueError names the `--set` that makes the module which is asked for."""
        cell = self.cell
        written: dict[str, object] = {**dict(cell.options), **dict(cell.functions)}
        for name, value in {**options, **functions}.items():
            if not _same(written[name], value):
                raise ValueError(
                    f"{cell.name} was compiled with {name}={written[name]!r}, not {value!r}: "
                    f"run rnncc compile {cell.source} --set {name}={value}"
                )
        if dtype != cell.dtype:
            raise ValueError(
                f"{cell.name} was compiled for {cell.dtype}, not {dtype}: "
                f"run rnncc compile {cell.source} --dtype {dtype}"
            )
        return self.binding


def _same(written: object, given: object) -> bool:
    if isinstance(written, str):
        text = "linear" if given is None else given
        if written.startswith("lambda") and isinstance(text, str):
            return "".join(written.split()) == "".join(text.split())
        return written == text
    return isinstance(written, bool) == isinstance(given, bool) and written == given


# ---- classes ---------------------------------------------------------------------------------


class LayerType(type):
    """The type of layer classes: one that has a recipe is pickled by it, others by name."""

    recipe: tuple[Callable[..., Any], tuple[Any, ...]] | None


def _reduce(cls: LayerType) -> str | tuple[Callable[..., Any], tuple[Any, ...]]:
    recipe: tuple[Callable[..., Any], tuple[Any, ...]] | None = cls.__dict__.get("recipe")
    return recipe or cls.__qualname__


copyreg.pickle(LayerType, _reduce)  # type: ignore[arg-type]


class ChosenRate:
    """A rate as an attribute of a layer: to be read. Kernels, graphs and layers made of the layer
    have it from where the layer was made, so setting it is refused rather than half done."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, cls: type | None = None) -> Any:
        return self if layer is None else layer._chosen.rates[self.name]

    def __set__(self, layer: Any, value: object) -> None:
        refuse_rate(type(layer).__name__, self.name, value)


def refuse_rate(what: str, name: str, value: object) -> NoReturn:
    """AttributeError: rates are chosen where a layer or cell is made."""
    raise AttributeError(
        f"{name} is chosen where {what} is made: make another one with {name}={value!r}, and give "
        "it the weights, set_weights(layer.get_weights())"
    )


# ---- keywords --------------------------------------------------------------------------------

_FLAGS = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "time_major",
    "zero_output_for_mask",
)
LAYER_OPTIONS = (
    *(*_FLAGS, "unroll", "checkpoint_every", "precision", "weights"),
    *("seed", "name", "dtype"),
)


@dataclass
class Choices:
    """A constructor's keywords, sorted and checked."""

    sizes: dict[str, int] = field(default_factory=dict)
    options: dict[str, OptionValue] = field(default_factory=dict)
    functions: dict[str, object] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    dtype: str = "float32"
    name: str = ""
    seed: int | None = None
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    time_major: bool = False
    zero_output_for_mask: bool = False
    unroll: bool | int = False
    checkpoint_every: int | None = None
    precision: str = "float32"
    storage: str | None = None  # of weights; None is the cells' own

    fields_: ClassVar[tuple[str, ...]] = ("sizes", "options", "functions", "rates")

    def keywords(self) -> dict[str, object]:
        """What was chosen, as keywords of a constructor."""
        shown: dict[str, object] = {}
        for kind in self.fields_:
            shown.update(getattr(self, kind))
        for name in (*_FLAGS, "unroll", "checkpoint_every"):
            if getattr(self, name):
                shown[name] = getattr(self, name)
        if self.precision != "float32":
            shown["precision"] = self.precision
        if self.storage is not None:
            shown["weights"] = self.storage
        return shown


def refuse_keywords(cell: CellDescription, taken: Iterable[str], whose: str) -> None:
    """ValueError for a keyword of the cell's that another class takes for one of its own."""
    names = [*(s.name for s in cell.sizes), *(r.name for r in cell.rates)]
    names += [name for name, _ in (*cell.options, *cell.functions)]
    for name in names:
        if name in taken and name not in LAYER_OPTIONS:
            raise ValueError(
                f"{whose} takes {name} for itself, so {cell.name} can't: call it something else "
                "in the cell"
            )


def read_off(cell: CellDescription) -> frozenset[str]:
    """The sizes a call's arrays tell: those that stand alone in the shape of one."""
    shapes = [text for a in (*cell.inputs, *cell.contexts) for text in a.shape]
    return frozenset(s.name for s in cell.sizes if s.name in shapes)


def sort_keywords(
    cell: CellDescription, positional: tuple[object, ...], given: Mapping[str, Any]
) -> Choices:
    """TypeError for an unknown or missing keyword or a wrong kind, ValueError for a wrong value."""
    inferred = read_off(cell)
    needed = [s.name for s in cell.sizes if s.default is None and s.name not in inferred]
    if len(positional) > len(needed):
        takes = ", ".join(needed) or "none"
        raise TypeError(
            f"{cell.name} takes {len(needed)} sizes without a keyword ({takes}), "
            f"{len(positional)} were given"
        )
    for name, value in zip(needed, positional, strict=False):
        if name in given:
            raise TypeError(f"{cell.name} is given {name} twice, by position and by keyword")
        given = {**given, name: value}
    kinds = {
        "sizes": {s.name for s in cell.sizes},
        "options": {name for name, _ in cell.options},
        "functions": {name for name, _ in cell.functions},
        "rates": {r.name for r in cell.rates},
    }
    chosen = Choices(dtype=cell.dtype, rates={r.name: r.default for r in cell.rates})
    chosen.unroll = unrolling(dict(cell.options).get("unroll", False))
    for name, value in given.items():
        kind = next((k for k, names in kinds.items() if name in names), None)
        if name == "unroll":  # the same numbers whatever it is, so no option to bind
            chosen.unroll = unrolling(value)
        elif kind == "sizes":
            chosen.sizes[name] = whole_number(name, value)
        elif kind == "rates":
            chosen.rates[name] = rate(name, value)
        elif kind is not None:
            plain = value.item() if isinstance(value, np.generic) else value
            getattr(chosen, kind)[name] = plain
        else:
            _layer_option(cell, chosen, name, value, kinds)
    for option, decisive in cell.rated_options:
        if chosen.rates[decisive]:
            chosen.options.setdefault(option, True)
    if chosen.storage in NARROW and chosen.dtype != "float32":
        raise ValueError(
            f"weights={chosen.storage!r} narrows weights of float32, this layer's are "
            f"{chosen.dtype}: leave weights= or dtype={chosen.dtype!r} out"
        )
    chosen.name = chosen.name or cell.name.lower()
    chosen.precision = precision_of(given.get("precision"), chosen.dtype)
    _demand(cell, chosen.sizes, inferred)
    return chosen


def _layer_option(
    cell: CellDescription, chosen: Choices, name: str, value: Any, kinds: Mapping[str, set[str]]
) -> None:
    if name in _FLAGS:
        setattr(chosen, name, flag(name, value))
    elif name == "checkpoint_every":
        chosen.checkpoint_every = None if value is None else whole_number(name, value)
    elif name == "precision":
        pass  # checked when the dtype is known
    elif name == "weights":
        chosen.storage = storage_name(value)
    elif name == "dtype":
        chosen.dtype = cell.dtype if value is None else dtype_name(value)
    elif name == "seed":
        chosen.seed = None if value is None else whole_number("seed", value, least=0)
    elif name == "name":
        if value is not None and not isinstance(value, str):
            raise TypeError(f"name is a text, not {value!r}")
        chosen.name = value or ""
    else:
        arrays = (*cell.weights, *cell.states, *cell.constants, *cell.inputs, *cell.contexts)
        if name in {a.name for a in arrays}:
            raise TypeError(f"{cell.name}: {name} is an array, not a keyword of the layer")
        known = [*(n for names in kinds.values() for n in sorted(names)), *LAYER_OPTIONS]
        raise TypeError(f"{cell.name} has no keyword {name}{nearest(name, known)}")


def _demand(cell: CellDescription, sizes: Mapping[str, int], told: frozenset[str]) -> None:
    """Every size must be given, told by the data, or follow from others by default."""
    known = {*sizes, *told}
    count = -1
    while count != len(known):
        count = len(known)
        known |= {s.name for s in cell.sizes if s.default and names_of(s.default) <= known}
    missing = [s.name for s in cell.sizes if s.name not in known and s.default is None]
    if missing:
        example = ", ".join(f"{n}=..." for n in missing)
        raise TypeError(f"{cell.name} needs {' and '.join(missing)}: {cell.name}({example})")
