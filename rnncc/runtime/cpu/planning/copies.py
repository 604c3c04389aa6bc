"""What is copied around a direction's kernels -> strided copies that one kernel carries out.

    before the kernels    arrays of the caller's that kernels can't read as they are; carries that
                          start from zeros or from the caller's states
    before the loop       carries that start from what kernels made
    after the loop        carries that entered at its first step only, cleared
    at the end            results that no kernel writes where its caller wants them

Non-Goals: when (`cpu.executable`); addresses (`call`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from rnncc.artifact.kernel_tables import BufferSpec, CarrySpec, DirectionSpec, ResultSpec
from rnncc.common.machine import ITEMSIZE
from rnncc.runtime.cpu.kernels.loop_helpers import DESC_WORDS, copy_pieces
from rnncc.runtime.cpu.kernels.microkernels import LANE_PAD
from rnncc.runtime.cpu.planning.bound_program import BoundProgram
from rnncc.runtime.cpu.planning.layouts import Layout, axes_of, pad
from rnncc.runtime.jit.kernel import kernel
from rnncc.runtime.jit.kernel_namespace import word

MAX_RANK = 6
SHARE_WORDS = 2  # of a part: its pieces, and where their descriptions begin, in bytes

# What an address may point at: a buffer, by its name, or something of ours, by a request. A name is
# never equal to a request, so no buffer takes the place of anything that isn't one.
Point = str | tuple[str, ...]
ZERO_ROW, ONE_ROW, SYNC, SCRATCH = ("zeros",), ("ones",), ("sync",), ("scratch_base",)


@kernel
def move_all(block, part):
    own = block + (1 + part * SHARE_WORDS) * 8
    copy_pieces(word(block, 0), 0, 0, block + word(own, 1), word(own, 0))


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

    def words(self) -> list[int]:
        """One piece's description; its first two words are offsets of addresses."""
        axes = [*self.shape, *self.source.strides, *self.target.strides]
        found = [self.source.offset, self.target.offset, len(self.shape), *axes]
        return found + [0] * (DESC_WORDS - len(found))


def result_point(name: str) -> Point:
    """A result's array."""
    return "result", name


def callers(buffer: str) -> Point:
    """What the caller gave, where a parameter's buffer is a copy of it."""
    return "caller's", buffer


class Mover:
    """The moves of one Direction and its Binding."""

    def __init__(
        self,
        direction: DirectionSpec,
        binding: BoundProgram,
        buffers: dict[str, BufferSpec],
        dtype: str,
    ) -> None:
        self.d, self.binding, self.buffers = direction, binding, buffers
        self.item = ITEMSIZE[dtype]
        self.call = binding.call
        self.given = {name for name, _, _ in direction.params}
        self.out_strides = {name: strides for name, *strides in self.call.result_strides}

    # ---- parameters -----------------------------------------------------------------------------

    def copies(self, buffers: Iterable[BufferSpec]) -> list[Move]:
        """Of parameters that are copied first; axes that repeat one row, once."""
        found = []
        for buffer in buffers:
            given = self.binding.copied.get(buffer.name)
            if given is None:
                continue
            layout = self.binding.layouts[buffer.name]
            counts = {"B": (self.call.batch, layout.b), "T": (self.call.time, layout.t)}
            lead = [counts[a] for a in buffer.axes]
            shape = [n if step else 1 for n, step in lead] + [*layout.shape]
            own = [step for _, step in lead] + [*layout.strides]
            source = CopyEnd(callers(buffer.name), 0, given)
            found.append(Move(tuple(shape), source, CopyEnd(buffer.name, 0, tuple(own))))
        return found

    # ---- carries --------------------------------------------------------------------------------

    def starts(self, *, computed: bool) -> list[Move]:
        """The slot of the first step: zeros, the initial state, or what `before` computed."""
        made = [
            c for c in self.d.carries if (bool(c.init) and c.init not in self.given) == computed
        ]
        return [self._start(c) for c in made]

    def _start(self, carry: CarrySpec) -> Move:
        first = self.call.time if self.d.reverse else 0
        if not carry.init:
            return self._cleared(carry.buffer, first)
        layout = self.binding.layouts[carry.init]
        b = layout.b if "B" in self.buffers[carry.init].axes else 0
        target = self._slot(carry.buffer, first)
        shape = (self.call.batch, *(layout.shape or (1,)))
        source = CopyEnd(carry.init, 0, (b, *(layout.strides or (self.item,))))
        return Move(shape, source, target)

    def ends(self) -> list[Move]:
        """A carry that only enters at the first step leaves nothing."""
        last = 0 if self.d.reverse else self.call.time
        return [self._cleared(c.buffer, last) for c in self.d.carries if c.entry]

    def _slot(self, buffer: str, step: int) -> CopyEnd:
        layout = self.binding.layouts[buffer]
        offset = (step & layout.ring) * layout.t
        return CopyEnd(buffer, offset, (layout.b, *(layout.strides or (self.item,))))

    def _cleared(self, buffer: str, step: int) -> Move:
        """Zeros, in the padding as well."""
        layout = self.binding.layouts[buffer]
        row = (*layout.shape[:-1], pad(layout.last)) if layout.shape else (LANE_PAD,)
        zeros = CopyEnd(ZERO_ROW, 0, (0,) * (1 + len(row)))
        return Move((self.call.batch, *row), zeros, self._slot(buffer, step))

    # ---- results --------------------------------------------------------------------------------

    def results(self, place: ResultSpec, shape: tuple[int, ...]) -> list[Move]:
        """A result into its own array of that shape; parts side by side."""
        strides = dense_strides(shape, self.item)
        axes = axes_of(place, self.buffers)
        last_only = self.call.last_only and place.role == "output"
        lead = axes.replace("T", "") if last_only else axes
        for axis, stride in zip("BT", self.out_strides.get(place.name, ()), strict=False):
            if axis in lead:
                at = lead.index(axis)
                strides = (*strides[:at], stride, *strides[at + 1 :])
        found, begin = [], 0
        for source in place.parts or (place.source,):
            layout = self.binding.layouts[source.buffer]
            own = "B" if place.source.slot else self.buffers[source.buffer].axes
            offset = self._slot_offset(place, layout)
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
            target = CopyEnd(result_point(place.name), at, strides)
            found.append(Move(part, CopyEnd(source.buffer, offset, read), target))
        return found

    def _slot_offset(self, place: ResultSpec, layout: Layout) -> int:
        return slot_offset(place, layout, self.call.time, self.d.reverse)


def slot_offset(place: ResultSpec, layout: Layout, time: int, reverse: bool) -> int:
    """Bytes from a carry's first slot to the one a result means; of other buffers, 0."""
    slot = place.source.slot
    if not slot:
        return 0
    if slot == "final":
        return ((0 if reverse else time) & layout.ring) * layout.t
    return layout.t * int((slot == "in") == reverse)


def dense_strides(shape: tuple[int, ...], item: int) -> tuple[int, ...]:
    strides: list[int] = []
    for n in reversed(shape):
        strides.insert(0, item)
        item *= max(n, 1)
    return tuple(strides)
