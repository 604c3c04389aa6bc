"""What a direction's kernels read and write, as data, and the short texts that modules hold of it.

    h, c [B; units] state                    of the caller's: what they are to the cell
    y=y.0 [B, T; units] residual, lanes      the caller's name, where that is another one
    h_1 [B; units] carry, from h, history    of the kernels' own: carry, work or result
    z [B, T; 4 * units] work, lanes, 2 * units: units

Arrays that differ in their names alone share a text. Results, by their kind:

    state: h = h_1.final, c = c_1.final
    grad_weight: W = d_W, U = d_U[1 0]{0:units}, V = d_a & d_b along 1

where an array may be in a slot, with its axes in another order (`-` for one it hasn't), begin
somewhere along an axis, or be joined of parts.

`array_texts` and `result_texts` are the only ones to write them, `parsed_arrays` and
`parsed_results` the only ones to read them.

Non-Goals: numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rnncc.common.result_roles import ResultRole

Sizes = tuple[str, ...]

LONGEST = 84  # characters of a text
OWN = ("carry", "work", "result")  # storage of what is none of the caller's
FLAGS = {"lanes", "local", "entry", "history"}
SLOTS = ("", "in", "out", "final")


@dataclass(frozen=True, slots=True)
class BufferSpec:
    """storage: param, carry, work or result. lanes: read vector by vector. parts: of a row that are
    read so, and don't begin with it: (where, how many elements). local: its rows are those of the
    block that its kernel is at."""

    name: str
    shape: Sizes
    axes: str
    storage: str
    lanes: bool = False
    parts: tuple[tuple[str, str], ...] = ()
    local: bool = False


@dataclass(frozen=True, slots=True)
class CarrySpec:
    buffer: str
    init: str  # the buffer it starts from; "" for zeros
    entry: bool  # zero after the first step
    history: bool  # a stack aliases its slots


@dataclass(frozen=True, slots=True)
class BufferView:
    """A view of a buffer: its axis behind each axis wanted, and offsets (axis, size)."""

    buffer: str
    axes: tuple[int | None, ...]
    starts: tuple[tuple[int, str], ...] = ()
    slot: str = ""


@dataclass(frozen=True, slots=True)
class ResultSpec:
    """Where a result is: a buffer, and for a carry the slot; or parts joined along an axis.

    kind, of: as `ResultRole` has them.
    """

    kind: str
    of: str
    source: BufferView
    parts: tuple[BufferView, ...] = ()
    axis: int = 0

    @property
    def name(self) -> str:
        """What callers ask for it by: a gradient by its parameter's name."""
        return ResultRole(self.kind, self.of).asked_as


# Buffers; of those of the caller's the buffer, what it is to the cell, the name that callers use;
# carries. Each in the order of the buffers.
Arrays = tuple[list[BufferSpec], list[tuple[str, str, str]], list[CarrySpec]]


# ---- arrays as text ----------------------------------------------------------------------------

_AXES = {", ".join(axes): axes for axes in ("", "B", "T", "BT")}


def array_texts(arrays: Arrays) -> tuple[str, ...]:
    """The arrays in order, as few texts as fit a line each."""
    params = {buffer: (role, called) for buffer, role, called in arrays[1]}
    carries = {c.buffer: c for c in arrays[2]}
    texts: list[tuple[str, str]] = []  # names, and what is said of them
    for buffer in arrays[0]:
        name, role, notes = buffer.name, buffer.storage, []
        if role == "param":
            role, called = params[name]
            name += "" if called == name else f"={called}"
        elif role == "carry":
            notes = _carry_notes(carries[name])
        notes += [flag for flag in ("lanes", "local") if getattr(buffer, flag)]
        notes += map(": ".join, buffer.parts)
        axes = f"{', '.join(buffer.axes)};{' ' if buffer.shape else ''}" if buffer.axes else ""
        about = f"[{axes}{', '.join(buffer.shape)}] {', '.join([role, *notes])}"
        if texts and texts[-1][1] == about and len(", ".join((*texts[-1], name))) < LONGEST:
            texts[-1] = (f"{texts[-1][0]}, {name}", about)
        else:
            texts.append((name, about))
    return tuple(map(" ".join, texts))


def _carry_notes(carry: CarrySpec) -> list[str]:
    notes = (f"from {carry.init}", carry.init), ("entry", carry.entry), ("history", carry.history)
    return [note for note, said in notes if said]


def parsed_arrays(texts: Iterable[str]) -> Arrays:
    """What `array_texts` wrote. ValueError if it didn't."""
    buffers: list[BufferSpec] = []
    params: list[tuple[str, str, str]] = []
    carries: list[CarrySpec] = []
    for text in texts:
        names, _, rest = text.partition(" [")
        inside, closing, about = rest.partition("] ")
        varies, _, sizes = inside.rpartition(";")
        role, *notes = about.split(", ")
        init, flags, parts = _notes(notes)
        carried = role == "carry" or not (init or flags & {"entry", "history"})
        carried = carried and (role == "work" or "local" not in flags)
        if not (closing and varies in _AXES and role.isidentifier() and carried and flags <= FLAGS):
            raise ValueError(f"{text!r} is no text of arrays")
        shape = tuple(sizes.strip().split(", ")) if sizes else ()
        storage = role if role in OWN else "param"
        for item in names.split(", "):
            name, _, called = item.partition("=")
            if not f"_{name}".isidentifier():  # what has no name is a number
                raise ValueError(f"{text!r} is no text of arrays")
            said = "lanes" in flags, parts, "local" in flags
            buffers.append(BufferSpec(name, shape, _AXES[varies], storage, *said))
            if storage == "param":
                params.append((name, role, called or name))
            elif storage == "carry":
                carries.append(CarrySpec(name, init, "entry" in flags, "history" in flags))
    return buffers, params, carries


def _notes(notes: Iterable[str]) -> tuple[str, set[str], tuple[tuple[str, str], ...]]:
    """Where a carry starts from, what is so, and parts of rows."""
    init, flags, parts = "", set(), []
    for note in notes:
        start, colon, count = note.partition(": ")
        if colon:
            parts.append((start, count))
        elif note.startswith("from "):
            init = note.removeprefix("from ")
        else:
            flags.add(note)
    return init, flags, tuple(parts)


# ---- results as text ---------------------------------------------------------------------------


def result_texts(results: Iterable[ResultSpec], buffers: Iterable[BufferSpec]) -> tuple[str, ...]:
    """The results in order, as few texts as fit a line each."""
    ranks = {b.name: len(b.shape) for b in buffers}
    texts: list[str] = []
    last = ""
    for result in results:
        views = result.parts or (result.source,)
        text = f"{result.of} = {' & '.join(_view_text(v, ranks) for v in views)}"
        text += f" along {result.axis}" if result.parts else ""
        if result.kind == last and len(texts[-1]) + len(text) < LONGEST:
            texts[-1] += f", {text}"
        else:
            texts.append(f"{result.kind}: {text}")
        last = result.kind
    return tuple(texts)


def _view_text(view: BufferView, ranks: Mapping[str, int]) -> str:
    text = view.buffer + (f".{view.slot}" if view.slot else "")
    if view.axes != tuple(range(ranks[view.buffer])):
        text += f"[{' '.join('-' if a is None else str(a) for a in view.axes)}]"
    starts = ",".join(f"{axis}:{size}" for axis, size in view.starts)
    return f"{text}{{{starts}}}" if starts else text


def parsed_results(texts: Iterable[str], buffers: Iterable[BufferSpec]) -> tuple[ResultSpec, ...]:
    """What `result_texts` wrote of these buffers. ValueError if it didn't."""
    ranks = {b.name: len(b.shape) for b in buffers}
    return tuple(result for text in texts for result in _results(text, ranks))


def _results(text: str, ranks: Mapping[str, int]) -> Iterator[ResultSpec]:
    kind, _, rest = text.partition(": ")
    for item in rest.split(", "):
        of, _, places = item.partition(" = ")
        parts, along, axis = places.rpartition(" along ")
        if not along:
            parts, axis = places, "0"
        views = tuple(_view(place, ranks) for place in parts.split(" & "))
        if bool(along) != (len(views) > 1) or not axis.isdigit():
            raise ValueError(f"{item!r} of {text!r} is no text of a result")
        yield ResultSpec(kind, of, views[0], *((views, int(axis)) if along else ()))


def _view(text: str, ranks: Mapping[str, int]) -> BufferView:
    rest, begins, starts = text.removesuffix("}").partition("{")
    rest, ordered, axes = rest.removesuffix("]").partition("[")
    buffer, _, slot = rest.partition(".")
    try:
        order: tuple[int | None, ...] = tuple(range(ranks[buffer]))
        if ordered:
            order = tuple(None if axis == "-" else int(axis) for axis in axes.split())
        pairs = [start.split(":") for start in starts.split(",")] if begins else []
        view = BufferView(buffer, order, tuple((int(axis), size) for axis, size in pairs), slot)
    except (KeyError, ValueError):
        view = None
    if view is None or slot not in SLOTS:
        raise ValueError(f"{text!r} is no text of a view")
    return view
