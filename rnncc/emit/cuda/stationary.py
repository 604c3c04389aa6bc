"""A LaneStage whose weights stay in registers for the whole loop: a warp owns a lane.

    before the loop    w: the lane's columns of every gate's weight, k in turns of 128 over the warp
    a level            rows of the operand into shared memory; each thread sums its k for some rows
                       and all gates; a butterfly of shuffles leaves each total with one thread,
                       which puts it into a tile in shared memory
    behind it          statements, an item (row, lane of the block) a thread, as in any stage

Numbers in capitals depend on sizes and are built in when the kernel is compiled for them (see
`schedule.stationary`): registers can't be indexed.

Non-Goals: which stages fit (`schedule.stationary`); the statements.
"""

from __future__ import annotations

from collections.abc import Iterable

from rnncc.emit.addresses import Addresses
from rnncc.emit.cuda.contractions import acc_name, start_of
from rnncc.schedule.model import Acc, Buffer, Kernel, LaneStage, Segment
from rnncc.schedule.model import written as written_by
from rnncc.schedule.stationary import MOST_ROWS, Shape


def fits(stage: object, kernel: Kernel) -> bool:
    """Whether a stage has this form: one axis of lanes, one of k, weights that nobody changes."""
    if not isinstance(stage, LaneStage) or kernel.kind != "scan" or len(stage.shape) != 1:
        return False
    changing = set(written_by(kernel))
    return bool(stage.groups) and all(
        not group.rowwise
        and all(
            len(s.k) == 1 and _is_fixed(s.w.buffer, changing)
            for acc in group.accs
            for s in _own(acc)
        )
        for group in stage.groups
    )


def _is_fixed(buffer: Buffer, changing: Iterable[Buffer]) -> bool:
    return buffer.axes == "" and buffer.storage != "carry" and buffer not in changing


def _own(acc: Acc) -> tuple[Segment, ...]:
    """What the loop adds itself."""
    return acc.segments[acc.ahead :]


class Stationary:
    """The stationary groups of one kernel. shapes: what decides their numbers, group by group."""

    def __init__(self, at: Addresses) -> None:
        self.at = at
        self.shapes: list[Shape] = []
        self.prologue: list[str] = []

    def core_lines(self, stage: LaneStage) -> tuple[list[str], dict[tuple[int, int], str]]:
        """The stage's tiles of rows, up to their sums; and each sum, as an item reads it."""
        lines: list[str] = []
        sums: dict[tuple[int, int], str] = {}
        for i, group in enumerate(stage.groups):
            if not _own(group.accs[0]):  # all of it was added before the loop
                for g in range(len(group.accs)):
                    sums[i, g] = start_of(self.at, group, g, [])
                continue
            n = len(self.shapes)
            accs = group.accs
            ks = tuple(str(s.k_sizes[0]) for s in _own(accs[0]))
            self.shapes.append(Shape(str(stage.shape[0]), len(accs), ks))
            self._load_weights(n, stage, accs)
            lines += self._tile(n, accs)
            for g, acc in enumerate(accs):
                total = f"v.shared_load(TILE_{n} + item * GATES_{n} + {g})"
                if group.start is not None or acc.init is not None:
                    total = f"{start_of(self.at, group, g, [])} + {total}"
                sums[i, g] = total
        return lines, sums

    def _load_weights(self, n: int, stage: LaneStage, accs: tuple[Acc, ...]) -> None:
        at, lanes = self.at, self.at.size(stage.shape[0])
        lines = [f"w{n} = cuda.local.array(WORDS_{n}, F)"]
        for s, first in enumerate(_own(accs[0])):
            lines += [f"for c in range(CHUNKS_{n}_{s}):", "    for e in range(4):"]
            lines += ["        k = 128 * c + 4 * warp_lane + e"]
            for g, acc in enumerate(accs):
                segment = _own(acc)[s]
                address = at.pointer(segment.w) + at.axis_term(segment.w, segment.k[0][1], "k")
                if segment.lane is not None:
                    address += at.axis_term(segment.w, segment.lane, "own")
                place = f"WORDS_{n}_{s} + ({g} * CHUNKS_{n}_{s} + c) * 4 + e"
                lines += [f"        w{n}[{place}] = v.splat(0.0)"]
                lines += [f"        if k < {at.size(first.k_sizes[0])} and own < {lanes}:"]
                lines += [f"            w{n}[{place}] = v.load({address})"]
        self.prologue += lines

    def _tile(self, n: int, accs: tuple[Acc, ...]) -> list[str]:
        """The tiles' sums, from the first row of a block of them to the last."""
        at, segments = self.at, _own(accs[0])
        body = ["cuda.syncthreads()  # nobody reads the last tile any more"]
        for s, segment in enumerate(segments):
            across = f"CHUNKS_{n}_{s} * 128"
            k_stride = at.view_stride(segment.a, segment.k[0][0])
            address = f"{at.pointer(segment.a)}{at.row_terms(segment.a)} + k * {k_stride}"
            body += ["e = anew(thread)", f"while e < ROWS_{n} * {across}:"]
            body += [f"    r = m + e // ({across})", f"    k = e % ({across})"]
            body += ["    x = v.splat(0.0)"]
            body += [f"    if r < top and k < {at.size(segment.k_sizes[0])}:"]
            body += [f"        x = v.load({address})"]
            body += [f"    v.shared_store(STAGED_{n}_{s} + e, x)", "    e += cuda.blockDim.x"]
        body += ["cuda.syncthreads()", f"for i in range(SUMS_{n}):", "    p[i] = v.splat(0.0)"]
        for b in range(MOST_ROWS):
            body += [f"if ROWS_{n} > {b}:"]
            for s in range(len(segments)):
                body += ["    " + line for line in self._row(n, s, b, len(accs))]
        body += self._butterfly(n)
        body += [f"if warp_lane % (1 << SHIFT_{n}) == 0:", f"    i = warp_lane >> SHIFT_{n}"]
        body += [f"    e = m - base + i % ROWS_{n}"]
        body += [f"    if i < ROWS_{n} * {len(accs)} and base + e < top:"]
        place = f"TILE_{n} + (e * WARPS + warp) * GATES_{n} + i // ROWS_{n}"
        body += [f"        v.shared_store({place}, p[0])"]
        return [f"for m in range(base, top, ROWS_{n}):", *("    " + line for line in body)]

    def _row(self, n: int, s: int, b: int, gates: int) -> list[str]:
        """Row b of a tile: a thread's share of k, four at a time."""
        chunks = f"CHUNKS_{n}_{s}"
        lines = [f"for c in range({chunks}):"]
        at = f"STAGED_{n}_{s} + ({b} * {chunks} + c) * 128 + 4 * warp_lane"
        lines += [f"    x0, x1, x2, x3 = v.shared_load4({at})"]
        lines += [f"    for g in range({gates}):"]
        lines += [f"        i = WORDS_{n}_{s} + (g * {chunks} + c) * 4"]
        lines += [f"        j = g * ROWS_{n} + {b}"]
        for e in range(4):
            lines += [f"        p[j] = v.fma(x{e}, w{n}[i + {e}], p[j])"]
        return lines

    def _butterfly(self, n: int) -> list[str]:
        """Each total ends with one thread: halves of the sums change hands while there are any."""
        lines = []
        for s, width in enumerate((16, 8, 4, 2, 1)):
            half = f"HALF_{n}_{s}"
            lines += [f"up = (warp_lane & {width}) != 0", f"for i in range({half}):"]
            lines += ["    low = p[i]", f"    high = p[i + {half}]"]
            lines += [f"    kept = v.shuffle_xor(low if up else high, {width})"]
            lines += ["    p[i] = (high if up else low) + kept"]
            lines += [f"if {half} == 0:", f"    p[0] = p[0] + v.shuffle_xor(p[0], {width})"]
        return lines


def item_lines(sums: dict[tuple[int, int], str]) -> list[str]:
    """The sums an item's statements start from."""
    return [f"{acc_name(i, g)} = {total}" for (i, g), total in sums.items()]
