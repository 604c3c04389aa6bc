"""Where the rows of a buffer are: shapes and axes to strides in bytes.

Non-Goals: memory; which buffers a call has (`bind_memory`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rnncc.runtime.cores import LANE_PAD
from rnncc.runtime.sizes import evaluate
from rnncc.runtime.tables import Buffer, Place

CACHE_LINE = 64
STAGGER = 512
LONG_ROW = 128  # elements from which another vector is at most an eighth more work


def pad(n: int) -> int:
    """Elements of a row: whole vectors, and of a long row that isn't, whole pairs of vectors: tiles
    of one vector reach half the speed of others where rows are few."""
    lanes = 2 * LANE_PAD if n > LONG_ROW and n % LANE_PAD else LANE_PAD
    return -(-n // lanes) * lanes


def needs_padding(shape: Iterable[int]) -> bool:
    """Whether rows of this shape end within a vector."""
    *_, last = (1, *shape)
    return last % LANE_PAD != 0


def is_padded(buffer: Buffer, shape: Sequence[int], sizes: Mapping[str, int]) -> bool:
    """Whether rows of a parameter are copied into ours: the last vector read of them, or of a part
    of them, would end behind them."""
    if not buffer.lanes:
        return False
    return needs_padding(shape) or any(
        evaluate(start, sizes) + pad(evaluate(size, sizes)) > shape[-1]
        for start, size in buffer.parts
    )


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


def row_layout(shape: tuple[int, ...], item: int, dense: bool) -> Layout:
    """A row with its last axis padded, or as the caller has it."""
    padded = list(shape) if dense else ([*shape[:-1], pad(shape[-1])] if shape else [LANE_PAD])
    strides, step = [], item
    for n in reversed(padded):
        strides.append(step)
        step *= n
    return Layout(shape, tuple(reversed(strides))[: len(shape)], step)


def axes_of(place: Place, buffers: Mapping[str, Buffer]) -> str:
    """The axes of a result before its features."""
    kind = place.role.removeprefix("grad_")
    if kind == "cotangent":  # of an output, or of a state
        return "B" if place.source.slot else buffers[place.source.buffer].axes
    return {"output": "BT", "input": "BT", "state": "B", "held": "B", "context": "B"}.get(kind, "")
