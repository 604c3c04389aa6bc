"""Tells what a step's batch is, reads it, and proves what was read.

    with a batch      the leading length of every leaf, and the step may be traced with another one
    one row           no leaf has a batch; vmap may give it one
    of that length    as with a batch, where closed-over arrays have its length, or the code names
                      it, so that it can't be another one

Non-Goals: calls (`rnncc.jax.scan`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rnncc.common.progress import working
from rnncc.jax.reading.batch import SIZES, Shapes, refuse_row_counts
from rnncc.jax.reading.flat import Flat, RefusedAt, flatten, text_of
from rnncc.jax.reading.inferred import inferred
from rnncc.jax.reading.primitive_call import kind_of
from rnncc.jax.reading.proven import Places, Trial, draws_of
from rnncc.jax.reading.reader import JaxprReader
from rnncc.jax.reading.steps import Step
from rnncc.reading.graph import Unreadable
from rnncc.reading.proof import Disproved, Draw, prove
from rnncc.reading.recorder import Recorder
from rnncc.reading.text import CellText, compiled
from rnncc.reading.traced import BATCH, Length, Traced
from rnncc.runtime.api.layer import Layer

# Numbers of a step that was traced in float32, as gelu's, are rounded to that.
_OFF = {"float32": 1e-6, "float64": 1e-8}
Fixed = dict[int, np.ndarray]  # closed-over whole numbers that are known, by their place


@dataclass(frozen=True, slots=True)
class StepEquations:
    """A step's equations. places: what their names are; carried, timed, shown: which leaves have a
    batch. number: of each leaf of ys, which output it is."""

    text: CellText
    layer: type[Layer]
    places: Places
    carried: tuple[bool, ...]
    timed: tuple[bool, ...]
    shown: tuple[bool, ...]
    number: tuple[int, ...]

    @property
    def has_batch(self) -> bool:
        return any((*self.carried, *self.timed))


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to read a step: which leaves have a batch, the trace, and where its batch is."""

    carried: tuple[bool, ...]
    timed: tuple[bool, ...]
    flat: Flat
    shapes: Shapes
    rows: int | None = None


def read(
    step: Step,
    flat: Flat,
    fixed: Fixed,
    batched: bool | None,
    dtype: np.dtype[Any],
    known: dict[Any, StepEquations],
) -> StepEquations:
    """TypeError where it can't be read, with the primitive and the user's line.

    flat: of the step as it is called. batched: whether leaves have a batch; None: as they seem.
    known: what was read already, by what its trace says."""
    numbers = tuple((i, a.tobytes()) for i, a in sorted(fixed.items()))
    whys: list[str] = []
    for way in _ways(step, flat, batched, whys):
        key = text_of(way.flat), way.rows, way.carried, way.timed, numbers, dtype.name, step.name
        try:
            if key not in known:
                with working(f"reading {step.name}"):
                    known[key] = _read(step, way, fixed, dtype)
            return known[key]
        except RefusedAt as why:
            whys.append(str(why))
    raise TypeError(f"{step.name} can't be compiled: {'; '.join(dict.fromkeys(whys))}")


def _ways(step: Step, flat: Flat, batched: bool | None, whys: list[str]) -> Any:
    carried, timed, size = leading(step)
    if batched is not False and size:
        try:
            one, two = (flatten(step.with_batch(n, carried, timed).jaxpr) for n in SIZES)
        except RefusedAt as why:
            whys.append(str(why))
            return  # what can't be read in any way
        except Exception as error:
            said = str(error).strip().partition("\n")[0]
            whys.append(
                f"read with a batch of {size} rows: its code takes no other number of them ({said})"
            )
            closed = len(flat.inputs) - len(carried) - len(timed)
            rows = [*(False,) * closed, *carried, *timed]
            yield _Way(carried, timed, flat, inferred(flat, rows, size), size)
        else:
            try:
                shapes = Shapes.compared(one, two)
                refuse_row_counts(one, flat, size)
                yield _Way(carried, timed, one, shapes)
            except RefusedAt as why:
                whys.append(str(why))
        if batched or _ranks(step, carried, timed) > 1:  # one row isn't what was meant
            if any("batch" in why for why in whys):
                whys.append("if its arrays have no batch, say batched=False")
            return
    elif batched:
        whys.append("batched=True: its leaves have no leading length in common")
        return
    alone = (False,) * len(step.carry), (False,) * len(step.xs)
    yield _Way(*alone, flat, Shapes.plain(flat))


def leading(step: Step) -> tuple[tuple[bool, ...], tuple[bool, ...], int]:
    """Which leaves have a batch, as they seem, and its size; 0 for none. Leaves of one number are
    counters, and leaves of xs that have another length are the same for all rows."""
    sizes = {a.shape[0] for a in step.carry if a.shape}
    if len(sizes) > 1:
        return _none(step)
    if not sizes:
        sizes = {a.shape[0] for a in step.xs if a.shape}
    if len(sizes) != 1:
        return _none(step)
    (size,) = sizes
    carried = tuple(bool(a.shape) for a in step.carry)
    timed = tuple(a.shape[:1] == (size,) for a in step.xs)
    if step.xs and any(a.shape for a in step.xs) and not any(timed):
        return _none(step)
    return carried, timed, size


def _none(step: Step) -> tuple[tuple[bool, ...], tuple[bool, ...], int]:
    return (False,) * len(step.carry), (False,) * len(step.xs), 0


def _ranks(step: Step, carried: Sequence[bool], timed: Sequence[bool]) -> int:
    """The least rank of leaves with a batch."""
    pairs = (*zip(step.carry, carried, strict=True), *zip(step.xs, timed, strict=True))
    return min(len(a.shape) for a, rows in pairs if rows)


# ---- one way -------------------------------------------------------------------------------------


def _read(step: Step, way: _Way, fixed: Fixed, dtype: np.dtype[Any]) -> StepEquations:
    recorder = Recorder(step.name)
    numbers, places = _leaves(recorder, step, way, fixed)
    found = JaxprReader(recorder, way.shapes).run(way.flat, numbers)
    carries = len(step.carry)
    ys = found[carries:] or found[:1]  # something is returned
    try:
        shown, number = _result(recorder, ys, found[:carries])
    except Unreadable as why:
        raise TypeError(f"{step.name} can't be compiled: it {why}") from None
    layer, text = compiled(recorder.graph, dtype.name, f"<{step.name}>")
    closed = {**text.weights, **text.constants}
    own = Places(
        dict(zip(text.inputs, places.xs.values(), strict=True)),
        dict(zip(text.contexts, places.contexts.values(), strict=True)),
        dict(zip(text.states, places.states.values(), strict=True)),
        {n: leaf.key for n, leaf in closed.items() if leaf.array is None},
    )
    trial = Trial(step, way.carried, way.timed, shown, fixed, way.rows)
    try:
        draws = _once_each(draws_of(trial, text, own), number)
        prove(text, draws, f"<{step.name}>", _OFF[dtype.name])
    except Disproved as why:
        raise TypeError(f"{step.name} can't be compiled: it {why}") from None
    count = len(found) - carries
    return StepEquations(text, layer, own, way.carried, way.timed, shown[:count], number[:count])


def _leaves(recorder: Recorder, step: Step, way: _Way, fixed: Fixed) -> tuple[list[Traced], Places]:
    """What goes into the step, and where it comes from."""
    shapes, arrays, inputs = way.shapes.of(way.flat), way.flat.arrays, way.flat.inputs
    closed = len(inputs) - len(step.carry) - len(step.xs)
    numbers: list[Traced] = []
    places = Places({}, {}, {}, {})

    def named(own: Any, name: str, at: int) -> str:
        own[f"{name} {at}"] = at
        return name

    for at, v in enumerate(inputs):
        shape: tuple[Length, ...] = shapes[v]
        kind = kind_of_leaf(arrays[v].dtype)
        if at < closed and at in fixed:
            numbers.append(recorder.constant(fixed[at]))
        elif at < closed and BATCH in shape:
            name = named(places.contexts, f"context_{at}", at)
            numbers.append(recorder.context(name, shape, kind))
        elif at < closed:
            plain = tuple(int(n) for n in shape if isinstance(n, int))
            numbers.append(recorder.weight(f"w_{at}", plain, at, kind == "float", kind))
        elif at < closed + len(step.carry):
            own = at - closed
            name = named(places.states, step.carry_names[own], own)
            numbers.append(recorder.state(name, shape, kind))
        else:
            own = at - closed - len(step.carry)
            name = named(places.xs, step.x_names[own], own)
            numbers.append(recorder.input(name, shape, kind))
    if not step.xs:
        alone = () if not any(way.carried) else (BATCH,)
        recorder.input(named(places.xs, "step", -1), alone)
    return numbers, places


def kind_of_leaf(dtype: np.dtype[Any]) -> Any:
    """TypeError for dtypes that equations don't count in."""
    try:
        return kind_of(dtype)
    except Unreadable as why:
        raise TypeError(f"an array of the scan {why}") from None


def _result(
    recorder: Recorder, ys: Sequence[Traced], after: Sequence[Traced]
) -> tuple[tuple[bool, ...], tuple[int, ...]]:
    """What the step gives; which of ys have a batch, and which output each is: one that is given
    twice is computed once."""
    unique: list[Traced] = []
    number = []
    for y in ys:
        same = [i for i, u in enumerate(unique) if u.value is y.value]
        number.append(same[0] if same else len(unique))
        if not same:
            unique.append(y)
    recorder.result(unique, after)
    return tuple(y.at is not None for y in ys), tuple(number)


def _once_each(draws: Sequence[Draw], number: Sequence[int]) -> list[Draw]:
    """Of an output that is given twice the cotangents are summed."""
    count = max(number) + 1
    found = []
    for draw in draws:
        outputs: list[Any] = [None] * count
        handed: list[Any] = [0] * count
        for i, y, d in zip(number, draw.outputs, draw.d_outputs, strict=True):
            outputs[i], handed[i] = y, handed[i] + d
        found.append(replace(draw, outputs=outputs, d_outputs=handed))
    return found
