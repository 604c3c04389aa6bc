"""What is copied around a direction's kernels -> strided copies that one kernel carries out.

    before the kernels    arrays of the caller's that kernels can't read as they are; carries that
                          start from zeros or from the caller's states
    before the loop       carries that start from what kernels made
    after the loop        carries that entered at its first step only, cleared
    at the end            results that no kernel writes where its caller wants them

Non-Goals: when (`executable` of the target); addresses (`run`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Protocol

from rnncc.artifact.array_tables import BufferSpec, CarrySpec, ResultSpec
from rnncc.artifact.kernel_args import CallersArray, Place, ResultArray, ZeroRow
from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.common.machine import ITEMSIZE
from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.layouts import Layout, axes_of, slot_offset

MAX_RANK = 6
Point = str | Place  # what an address may point at: a buffer, by its name, or anything else


@dataclass(frozen=True, slots=True)
class CopyEnd:
    """One end of a copy: what it is in (a `Point`), bytes from there, and strides."""

    point: Point
    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Move:
    shape: tuple[int, ...]
    source: CopyEnd
    target: CopyEnd

    def pieces(self) -> Iterator[Move]:
        """The same elements in copies of few axes: those that lie one in another are one."""
        axes: list[tuple[int, int, int]] = []
        for n, s, t in zip(self.shape, self.source.strides, self.target.strides, strict=True):
            if n == 1:
                continue
            if axes and axes[-1][1:] == (s * n, t * n):
                axes[-1] = (axes[-1][0] * n, s, t)
            else:
                axes.append((n, s, t))
        outer, inner = axes[:-MAX_RANK], axes[-MAX_RANK:] or [(1, 0, 0)]
        shape, source, target = (tuple(a[i] for a in inner) for i in range(3))
        for index in product(*(range(n) for n, _, _ in outer)):
            s_at = sum(i * s for i, (_, s, _) in zip(index, outer, strict=True))
            t_at = sum(i * t for i, (_, _, t) in zip(index, outer, strict=True))
            yield Move(
                shape,
                CopyEnd(self.source.point, self.source.offset + s_at, source),
                CopyEnd(self.target.point, self.target.offset + t_at, target),
            )

    def share(self, part: int, parts: int) -> Iterator[Move]:
        """A part's elements of a piece: a share of its longest axis."""
        axis = self.shape.index(max(self.shape))
        begin, end = (self.shape[axis] * p // parts for p in (part, part + 1))
        if begin < end:
            shape = (*self.shape[:axis], end - begin, *self.shape[axis + 1 :])
            ends = (
                CopyEnd(s.point, s.offset + begin * s.strides[axis], s.strides)
                for s in (self.source, self.target)
            )
            yield Move(shape, *ends)


class PlacedRows(Protocol):
    """Where the rows of a call's buffers are."""

    call: CallKey
    layouts: dict[str, Layout]


class Mover:
    """The moves of one direction and what it was bound to; rows have no padding."""

    def __init__(
        self,
        direction: DirectionSpec,
        binding: PlacedRows,
        buffers: dict[str, BufferSpec],
        dtype: str,
    ) -> None:
        self.d, self.binding, self.buffers = direction, binding, buffers
        self.item = ITEMSIZE[dtype]
        self.call = binding.call
        self.given = {name for name, _, _ in direction.params}
        self.out_strides = {name: strides for name, *strides in self.call.result_strides}

    # ---- parameters -----------------------------------------------------------------------------

    def copies(
        self, buffers: Iterable[BufferSpec], copied: Mapping[str, tuple[int, ...]]
    ) -> list[Move]:
        """Of parameters that are `copied` first, with the caller's strides; axes that repeat one
        row, once."""
        moves = []
        for buffer in buffers:
            strides = copied.get(buffer.name)
            if strides is None:
                continue
            layout = self.binding.layouts[buffer.name]
            counts = {"B": (self.call.batch, layout.b), "T": (self.call.time, layout.t)}
            lead = [counts[a] for a in buffer.axes]
            shape = [n if step else 1 for n, step in lead] + [*layout.shape]
            own = [step for _, step in lead] + [*layout.strides]
            source = CopyEnd(CallersArray(buffer.name), 0, strides)
            moves.append(Move(tuple(shape), source, CopyEnd(buffer.name, 0, tuple(own))))
        return moves

    # ---- carries --------------------------------------------------------------------------------

    def starts(self, *, computed: bool) -> list[Move]:
        """The slot of the first step: zeros, the initial state, or what `before` computed."""
        carries = [
            c for c in self.d.carries if (bool(c.init) and c.init not in self.given) == computed
        ]
        return [self._start(c) for c in carries]

    def _start(self, carry: CarrySpec) -> Move:
        first = self.call.time if self.d.reverse else 0
        if not carry.init:
            return self.cleared(carry.buffer, first)
        layout = self.binding.layouts[carry.init]
        b = layout.b if "B" in self.buffers[carry.init].axes else 0
        target = self.slot(carry.buffer, first)
        shape = (self.call.batch, *(layout.shape or (1,)))
        source = CopyEnd(carry.init, 0, (b, *(layout.strides or (self.item,))))
        return Move(shape, source, target)

    def ends(self) -> list[Move]:
        """A carry that only enters at the first step leaves nothing."""
        last = 0 if self.d.reverse else self.call.time
        return [self.cleared(c.buffer, last) for c in self.d.carries if c.entry]

    def slot(self, buffer: str, step: int) -> CopyEnd:
        layout = self.binding.layouts[buffer]
        offset = (step & layout.ring) * layout.t
        return CopyEnd(buffer, offset, (layout.b, *(layout.strides or (self.item,))))

    def row(self, layout: Layout) -> tuple[int, ...]:
        """The shape of a row, with all that is cleared in it."""
        return layout.shape or (1,)

    def cleared(self, buffer: str, step: int) -> Move:
        row = self.row(self.binding.layouts[buffer])
        zeros = CopyEnd(ZeroRow(), 0, (0,) * (1 + len(row)))
        return Move((self.call.batch, *row), zeros, self.slot(buffer, step))

    # ---- results --------------------------------------------------------------------------------

    def results(self, place: ResultSpec, shape: tuple[int, ...]) -> list[Move]:
        """A result into its own array of that shape; parts side by side."""
        strides = dense_strides(shape, self.item)
        axes = axes_of(place, self.buffers)
        last_only = self.call.last_only and place.kind == "output"
        lead = axes.replace("T", "") if last_only else axes
        for axis, stride in zip("BT", self.out_strides.get(place.name, ()), strict=False):
            if axis in lead:
                at = lead.index(axis)
                strides = (*strides[:at], stride, *strides[at + 1 :])
        moves, begin = [], 0
        for source in place.parts or (place.source,):
            layout = self.binding.layouts[source.buffer]
            own = "B" if place.source.slot else self.buffers[source.buffer].axes
            offset = slot_offset(place.source.slot, layout, self.call.time, self.d.reverse)
            if last_only and "T" in own:
                offset += (self.call.time - 1) * layout.t
            counts = {"B": self.call.batch, "T": self.call.time}
            steps = {"B": layout.b, "T": layout.t}
            part = (*(counts[a] for a in lead), *layout.shape)
            read = (*(steps[a] if a in own else 0 for a in lead), *layout.strides)
            at = 0
            if place.parts:
                joined = len(lead) + place.axis
                at, begin = begin * strides[joined], begin + part[joined]
            target = CopyEnd(ResultArray(place.name), at, strides)
            moves.append(Move(part, CopyEnd(source.buffer, offset, read), target))
        return moves


def dense_strides(shape: tuple[int, ...], item: int) -> tuple[int, ...]:
    strides: list[int] = []
    for n in reversed(shape):
        strides.insert(0, item)
        item *= max(n, 1)
    return tuple(strides)
