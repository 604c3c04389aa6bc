"""Checks at the door: what a user gives a layer -> arrays and sizes a kernel may trust.

Every refusal names the argument, what was given, what was expected and what to do.

Non-Goals: checking what the compiler itself hands on.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.artifact.cell import Array, CellDescription, names_of
from rnncc.common.size_expressions import evaluate
from rnncc.common.spelling import nearest_name
from rnncc.common.unrolling import MOST_STEPS
from rnncc.runtime.common.device_arrays import as_gpu_array, is_on_gpu
from rnncc.runtime.common.strides import has_dense_rows
from rnncc.runtime.common.weight_formats import NARROW

Dims = tuple[int | None, ...]


def an(word: str) -> str:
    """The word after its article."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def nearest(name: str, known: Iterable[str]) -> str:
    """`: did you mean ...?` when a known name is near, else all of them."""
    pool = list(known)
    match = nearest_name(name, pool)
    if match:
        return f": did you mean {match}?"
    return f": one of {', '.join(pool)}" if pool else ": there is none to choose from"


# ---- numbers ---------------------------------------------------------------------------------


def whole_number(name: str, value: object, least: int = 1) -> int:
    """An int of at least `least`. TypeError for a bool, float or text; ValueError when smaller."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is a whole number, not the bool {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{name} is a whole number, not {value!r} ({type(value).__name__})"
        ) from None
    if number < least:
        raise ValueError(f"{name} is at least {least}, not {number}")
    return number


def seed_of_draws(value: object) -> int:
    """What dropout draws from. TypeError for what is no whole number, ValueError outside."""
    number = whole_number("seed", value, least=0)
    if number >= 2**63:
        raise ValueError(f"seed is less than 2**63, this one has {number.bit_length()} bits")
    return number


def rate(name: str, value: object) -> float:
    """A float in [0, 1). TypeError for what is no number, ValueError outside."""
    if isinstance(value, bool | np.bool_ | str | bytes):
        raise TypeError(f"rate {name} is a number in [0, 1), not {value!r}")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"rate {name} is a number in [0, 1), not {value!r}") from None
    if not 0 <= number < 1:
        raise ValueError(f"rate {name} is in [0, 1), not {number}: a rate of 1 would drop all")
    return number


def flag(name: str, value: object) -> bool:
    """True or False; TypeError for anything else."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is True or False, not {value!r}")
    return bool(value)


def unrolling(value: object) -> bool | int:
    """True, False or how many steps a turn. TypeError and ValueError for anything else."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    try:
        steps = whole_number("unroll", value)
    except TypeError:
        raise TypeError(
            f"unroll is True, False or a whole number of steps, not {value!r}"
        ) from None
    if steps > MOST_STEPS:
        raise ValueError(
            f"unroll is at most {MOST_STEPS} steps a turn, not {steps}: True asks for as many as "
            "the cell's size allows, whatever the sequence"
        )
    return steps


def switch(name: str, value: object) -> bool:
    """A flag as Keras calls it with: None is False, 0 and 1 will do. TypeError for others."""
    if value is None:
        return False
    if isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{name} is True or False, not {value!r}")


def dtype_name(value: object) -> str:
    """`float32` or `float64`; TypeError for what is no dtype, ValueError for another."""
    try:
        name = np.dtype(value).name  # type: ignore[call-overload]
    except TypeError:
        raise TypeError(f"dtype is float32 or float64, not {value!r}") from None
    if value is None or name not in ("float32", "float64"):
        raise ValueError(f"dtype is float32 or float64, not {value!r}")
    return str(name)


def storage_name(value: object) -> str | None:
    """How contractions store weights: "float32", "bfloat16" or "int8", None for what a cell says
    itself. TypeError for what is no text, ValueError for another."""
    known = ("float32", *NARROW)
    if value is None or (isinstance(value, str) and value in known):
        return value
    if not isinstance(value, str):
        raise TypeError(
            f"weights is how they are stored, {' or '.join(map(repr, known))}, not a "
            f"{type(value).__name__}: values are given to set_weights, or by name to layer.weights"
        )
    raise ValueError(f"weights is {', '.join(map(repr, known))}, not {value!r}")


# ---- arrays ----------------------------------------------------------------------------------


def as_array(
    name: str, value: object, dtype: np.dtype[Any], *, own: bool = False, lead: int = 0
) -> np.ndarray:
    """A C-contiguous, aligned array of `dtype`; the value itself when it is one and not `own`.

    lead: so many axes in front may have any strides. Floats of other widths, integers, bools and
    nested lists are cast. TypeError: complex numbers, text, objects, masked arrays; ValueError:
    lists of different lengths.
    """
    if type(value) is np.ndarray and value.dtype == dtype:
        flags = value.flags
        if flags.c_contiguous and flags.aligned:
            return value.copy() if own else value
    if is_on_gpu(value):
        on_gpu: np.ndarray = as_gpu_array(name, value, dtype, own=own)
        return on_gpu
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array: fill it, and say which steps count with mask=")
    try:
        array = np.asarray(value)
    except (ValueError, RuntimeError) as error:  # RuntimeError: a tensor of a graph, of torch
        raise ValueError(f"{name} can't become an array: {_why(error)}") from None
    if array.dtype.kind not in "biuf":
        if not array.ndim and not isinstance(value, np.ndarray | np.generic):
            what = "None" if value is None else an(type(value).__name__)
            raise TypeError(f"{name} is {what}: give an array of real numbers")
        raise TypeError(
            f"{name} holds {array.dtype} values: give real numbers, which become {dtype}"
        )
    # A copy also cures odd strides, foreign byte order and misalignment.
    fit = array.dtype == dtype and array.flags.aligned and has_dense_rows(array, lead)
    if fit and not own:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(array, dtype=dtype, order="C", copy=True, subok=False)


UNEVEN = "its rows have different lengths: pad them, and give lengths"


def _why(error: Exception) -> str:
    return UNEVEN if "inhomogeneous" in str(error) else str(error)


def flag_array(name: str, given: Any, wanted: str) -> np.ndarray:
    """What says something of rows and steps, on the CPU, whatever its dtype and shape. TypeError,
    ValueError for what is no array."""
    if isinstance(given, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array: give {wanted}")
    if is_on_gpu(given):  # what steps run is decided on the CPU
        given = given.get() if hasattr(given, "get") else given.cpu()
    try:
        array = np.asarray(given)
    except (ValueError, RuntimeError) as error:  # RuntimeError: a tensor of a graph, of torch
        raise ValueError(f"{name} can't become an array: {_why(error)}") from None
    if not array.ndim and not isinstance(given, np.ndarray | np.generic):
        raise TypeError(f"{name} is {an(type(given).__name__)}: give an array of {wanted}")
    return array


def check_shape(name: str, array: np.ndarray, expected: tuple[int, ...], what: str = "") -> None:
    """ValueError unless the array has exactly that shape."""
    if array.shape != expected:
        extra = f" {what}" if what else ""
        raise ValueError(f"{name} has shape {list(array.shape)}, expected{extra} {list(expected)}")


# ---- arguments that come one, several or by name ------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How a user arranged several values; `arrange` puts others into the same arrangement."""

    kind: str  # bare tuple list dict
    names: tuple[str, ...]

    def arrange(self, values: Mapping[str, Any]) -> Any:
        if self.kind == "bare":
            return values[self.names[0]]
        if self.kind == "dict":
            return {n: values[n] for n in self.names}
        picked = [values[n] for n in self.names]
        return picked if self.kind == "list" else tuple(picked)


def spread(what: str, given: object, names: Sequence[str]) -> tuple[dict[str, Any], Arrangement]:
    """Values by name out of a bare value (for one name), a tuple or list, or a dict.

    Of one name, a list is the value itself: nested lists are arrays. TypeError and ValueError
    say which values are missing or too many.
    """
    listed = ", ".join(names)
    if isinstance(given, Mapping):
        for key in given:
            if key not in names:
                raise ValueError(f"{what} has no {key!r}{nearest(str(key), names)}")
        missing = [n for n in names if n not in given]
        if missing:
            raise ValueError(f"{what} lacks {', '.join(missing)}: give {listed}")
        return {n: given[n] for n in names}, Arrangement("dict", tuple(names))
    sequence = isinstance(given, tuple) or (isinstance(given, list) and len(names) > 1)
    if len(names) == 1 and not (isinstance(given, tuple) and len(given) == 1):
        return {names[0]: given}, Arrangement("bare", tuple(names))
    if not sequence:
        kind = type(given).__name__
        raise TypeError(f"{what} takes {len(names)} arrays ({listed}): a tuple or dict, not {kind}")
    assert isinstance(given, tuple | list)
    if len(given) != len(names):
        raise ValueError(f"{what} takes {len(names)} arrays ({listed}), {len(given)} were given")
    kind = "list" if isinstance(given, list) else "tuple"
    return dict(zip(names, given, strict=True)), Arrangement(kind, tuple(names))


# ---- sizes -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bound:
    """Sizes of one call. batch and time: None when `build` was not told."""

    sizes: dict[str, int]
    batch: int | None
    time: int | None


class SizeBinder:
    """Reads sizes off shapes; knows where each came from, for the error that may follow."""

    def __init__(
        self,
        cell: CellDescription,
        given: Mapping[str, int],
        origin: str,
        origins: Mapping[str, str] | None = None,
        axes: tuple[str, str] = ("batch", "time"),
    ) -> None:
        self.cell, self.axes = cell, axes
        self.sizes = dict(given)
        self.origin = {**dict.fromkeys(given, origin), **(origins or {})}
        self.defaults = {s.name: s.default for s in cell.sizes}

    def bind(self, shapes: Mapping[str, Dims]) -> Bound:
        """Every size that can be known, checked against all shapes. ValueError when they differ."""
        cell = self.cell
        arrays = {a.name: a for a in (*cell.inputs, *cell.contexts)}
        timed = {a.name for a in cell.inputs}
        lead: dict[str, tuple[int, str]] = {}
        for name in cell.arguments:
            array, shape = arrays[name], shapes[name]
            axes: tuple[str, ...] = self.axes if name in timed else ("batch",)
            if len(shape) != len(axes) + len(array.shape):
                raise ValueError(self._mismatch(name, shape, axes, array))
            for axis, n in zip(axes, shape, strict=False):
                if n is None:
                    continue
                first, other = lead.setdefault(axis, (n, name))
                if first != n:
                    raise ValueError(f"{name} has {axis} {n}, {other} has {first}: make them agree")
            for text, n in zip(array.shape, shape[len(axes) :], strict=True):
                if n is not None and text in self.defaults:
                    self._read_off(text, n, name, shape, axes, array)
        self._fill_defaults()
        for name in cell.arguments:
            axes = self.axes if name in timed else ("batch",)
            features = shapes[name][len(axes) :]
            for text, n in zip(arrays[name].shape, features, strict=True):
                wanted = self._known(text)
                if None not in (n, wanted) and n != wanted:
                    raise ValueError(self._mismatch(name, shapes[name], axes, arrays[name]))
        self._check()
        batch, time = (lead[a][0] if a in lead else None for a in ("batch", "time"))
        return Bound(self.sizes, batch, time)

    def _read_off(
        self, size: str, n: int, name: str, shape: Dims, axes: tuple[str, ...], array: Array
    ) -> None:
        if n < 1:
            raise ValueError(f"{name} has shape {list(shape)}: {size} is at least 1")
        if self.sizes.setdefault(size, n) != n:
            raise ValueError(self._mismatch(name, shape, axes, array))
        self.origin.setdefault(size, f"read off {name}")

    def _fill_defaults(self) -> None:
        """Sizes nobody gave, from defaults that may read one another in any order."""
        pending = [(n, d) for n, d in self.defaults.items() if d and n not in self.sizes]
        count = -1
        while pending and len(pending) != count:
            count = len(pending)
            for name, text in pending:
                value = self._known(text)
                if value is None:
                    continue
                if value < 1 and not names_of(text):
                    raise ValueError(f"{name} is at least 1, its default is {value}: give another")
                if value < 1:
                    used = ", ".join(f"{n} = {self.sizes[n]}" for n in sorted(names_of(text)))
                    raise ValueError(f"{name} = {text} comes out as {value} with {used}")
                self.sizes[name], self.origin[name] = value, f"the default, {text}"
            pending = [(n, d) for n, d in pending if n not in self.sizes]

    def _known(self, text: str) -> int | None:
        """A size expression's value; None while it reads a size nobody gave."""
        if not names_of(text) <= self.sizes.keys():
            return None
        try:
            return evaluate(text, self.sizes)
        except ZeroDivisionError:
            raise ValueError(f"the size {text} divides by zero") from None

    def _check(self) -> None:
        for c in self.cell.constraints:
            left, right = self._known(c.left), self._known(c.right)
            if None not in (left, right) and left != right:
                used = sorted(names_of(c.left) | names_of(c.right))
                bound = ", ".join(f"{n} = {self.sizes[n]}" for n in used)
                # An index past its axis: that its quotient isn't 0 tells nobody anything.
                sides = "" if c.right == "0" else f": {c.left} is {left} and {c.right} is {right}"
                raise ValueError(f"{c.message}{sides} with {bound}")

    def _mismatch(self, name: str, shape: Dims, axes: tuple[str, ...], array: Array) -> str:
        expected = ", ".join([*axes, *(self._shown(t) for t in array.shape)])
        shown = ", ".join("any" if n is None else str(n) for n in shape)
        message = f"{name} has shape [{shown}], expected [{expected}]"
        known = [n for t in array.shape for n in sorted(names_of(t)) if n in self.origin]
        if known:
            message += "; " + ", ".join(f"{n}: {self.origin[n]}" for n in dict.fromkeys(known))
        return message

    def _shown(self, text: str) -> str:
        value = self._known(text)
        return text if value is None or text.isdigit() else f"{text}={value}"


def array_shape(array: Array, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a declared array, without batch and time."""
    return tuple(evaluate(text, sizes) for text in array.shape)
