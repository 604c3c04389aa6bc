"""Where the rows of a buffer are: shapes and axes to strides in bytes.

Non-Goals: memory; which buffers a call has (`buffer_layout`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rnncc.artifact.array_tables import BufferSpec, BufferView, ResultSpec
from rnncc.common.machine import LANE_PAD
from rnncc.common.size_expressions import evaluate

CACHE_LINE = 64
STAGGER = 512
# Bytes behind what a forward saves: a pullback's vectors of parts of its rows may end there.
REACH = 2 * LANE_PAD * 8
RESULT_AXES = {
    **dict.fromkeys(("output", "grad_input"), "BT"),
    **dict.fromkeys(("state", "held"), "B"),
    **dict.fromkeys(("grad_state", "grad_held", "grad_restart", "grad_context"), "B"),
}
LONG_ROW = 128  # elements from which another vector is at most an eighth more work


def pad(n: int) -> int:
    """Elements of a row: whole vectors, and of a long row that isn't, whole pairs of vectors: tiles
    of one vector reach half the speed of others where rows are few."""
    lanes = 2 * LANE_PAD if n > LONG_ROW and n % LANE_PAD else LANE_PAD
    return -(-n // lanes) * lanes


def room(buffer: BufferSpec, sizes: Mapping[str, int]) -> int:
    """Elements from row to row along the last axis: no vector that is read ends behind them."""
    last = evaluate(buffer.shape[-1], sizes) if buffer.shape else 1
    ends = [evaluate(start, sizes) + pad(evaluate(n, sizes)) for start, n in buffer.parts]
    return max([pad(last), *(-(-end // LANE_PAD) * LANE_PAD for end in ends)])


def needs_room(buffer: BufferSpec, sizes: Mapping[str, int]) -> bool:
    """Whether vectors end behind a row, where a caller has something else."""
    return room(buffer, sizes) > (evaluate(buffer.shape[-1], sizes) if buffer.shape else 1)


def is_padded(buffer: BufferSpec, sizes: Mapping[str, int]) -> bool:
    """Whether rows of a parameter are copied into longer ones: those read vector by vector."""
    return buffer.lanes and needs_room(buffer, sizes)


def staggered(row: int) -> int:
    """Bytes from row to row: not a multiple of a large power of two, or rows fall into the same
    sets of a cache."""
    return row + CACHE_LINE if row % STAGGER == 0 else row


@dataclass(slots=True)
class Layout:
    """Where rows of a buffer are, in bytes from its base."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]  # of the axes of a row
    row: int  # bytes of a row
    t: int = 0
    b: int = 0
    slots: int = 0  # steps that have their own rows
    ring: int = -1

    @property
    def last(self) -> int:
        return self.shape[-1] if self.shape else 1


def row_layout(shape: tuple[int, ...], item: int, last: int | None = None) -> Layout:
    """A row whose last axis takes so many elements, or lies as a caller has it."""
    padded = list(shape) if last is None else [*shape[:-1], last]
    strides, step = [], item
    for n in reversed(padded):
        strides.append(step)
        step *= n
    return Layout(shape, tuple(reversed(strides))[: len(shape)], step)


def axes_of(place: ResultSpec, buffers: Mapping[str, BufferSpec]) -> str:
    """The axes of a result before its features."""
    if place.kind == "grad_cotangent":  # of an output, or of a state
        return "B" if place.source.slot else buffers[place.source.buffer].axes
    return RESULT_AXES.get(place.kind, "")


def row_axes(source: BufferView, buffer: BufferSpec) -> str:
    """The axes of the rows that are meant: of a carry, every step's, or the last one's alone."""
    if buffer.storage != "carry":
        return buffer.axes
    return "B" if source.slot == "final" else "BT"


def slot_offset(slot: str, layout: Layout, time: int, reverse: bool) -> int:
    """Bytes from a carry's first slot to the one that is meant: "final" is the loop's last, "in"
    and "out" those of its first step; of other buffers ("") 0."""
    if not slot:
        return 0
    if slot == "final":
        return ((0 if reverse else time) & layout.ring) * layout.t
    return layout.t * int((slot == "in") == reverse)
