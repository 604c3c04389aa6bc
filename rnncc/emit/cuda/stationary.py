"""A LaneStage whose weights stay on the chip for the whole loop: a team of warps owns lanes.

    before the loop    w: the columns of the team's lanes, of every gate, for the warp's part of k,
                       in turns of 128 over the warp; what registers don't hold, shared memory does
    a level            rows of the operand into shared memory; each thread sums its k for some rows,
                       the team's lanes and all gates; a butterfly of shuffles leaves each total
                       with one thread, which puts it into a tile in shared memory
    behind it          statements, an item (row, lane of the block) a thread, as in any stage

Rows come into shared memory by copies that nobody waits for one by one, four elements each where
rows lie at multiples of 16 bytes.

Numbers in capitals depend on sizes and are built in when the kernel is compiled for them (see
`artifact.stationary_weights`): registers can't be indexed.

Non-Goals: which stages fit (`artifact.stationary_weights`); the statements.
"""

from __future__ import annotations

from collections.abc import Iterable

from rnncc.artifact.stationary_weights import MOST_ROWS, GroupShape
from rnncc.emit.cuda.contractions import acc_name, start_of
from rnncc.emit.shared.addresses import Addresses
from rnncc.schedule.model import Acc, Buffer, Kernel, LaneStage, Segment
from rnncc.schedule.model import written as written_by


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
        self.shapes: list[GroupShape] = []
        self.in_registers: list[str] = []
        self.in_shared: list[str] = []

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
            self.shapes.append(GroupShape(str(stage.shape[0]), len(accs), ks))
            self._load_weights(n, stage, accs)
            lines += self._tile(n, accs)
            for g, acc in enumerate(accs):
                total = f"team_sum(TILE_{n} + item * ACROSS_{n} + {g} * TEAM_{n}, TEAM_{n})"
                if group.start is not None or acc.init is not None:
                    total = f"{start_of(self.at, group, g, [])} + {total}"
                sums[i, g] = total
        return lines, sums

    # ---- before the loop ------------------------------------------------------------------------

    def _load_weights(self, n: int, stage: LaneStage, accs: tuple[Acc, ...]) -> None:
        """Those of registers by way of shared memory, which is free yet: nobody waits for them one
        by one, and their addresses need no registers."""
        place = f"4 * ((i * KEPT_{n} + c) * 32 * WARPS + thread)"
        lines = [f"w{n} = cuda.local.array(WORDS_{n}, F)", "c = anew(0)", f"while c < KEPT_{n}:"]
        lines += ["    " + x for x in self._chunk(n, stage, accs, f"{place} + e")]
        lines += ["    c += 1", "v.copied()", f"for i in range(ACROSS_{n}):"]
        lines += [f"    for c in range(KEPT_{n}):"]
        lines += [f"        x0, x1, x2, x3 = v.shared_load4({place})"]
        lines += [f"        w{n}[(i * KEPT_{n} + c) * 4 + {e}] = x{e}" for e in range(4)]
        self.in_registers += [*lines, "cuda.syncthreads()  # all is read: more comes to the places"]
        lines = [f"c = anew(0) + KEPT_{n}", f"while c < CHUNKS_{n}:"]
        place = f"HELD_{n} + 4 * ({_held(n)})"
        lines += ["    " + x for x in self._chunk(n, stage, accs, f"{place} + e")]
        self.in_shared += [*lines, "    c += 1"]

    @property
    def prologue(self) -> list[str]:
        """What comes before the first step. Weights in shared memory are a thread's own, and are
        waited for with its first rows."""
        arrays = ["p = cuda.local.array(POOL, F)", "u = cuda.local.array(READ, F)"]
        return [*arrays, *self.in_registers, *self.in_shared]

    def _chunk(self, n: int, stage: LaneStage, accs: tuple[Acc, ...], place: str) -> list[str]:
        """Copies chunk c of the warp's part; zeros where there is no such k, or no such lane."""
        at, lanes = self.at, self.at.size(stage.shape[0])
        lines = [f"j = warp % TEAM_{n} * CHUNKS_{n} + c"]
        for g, acc in enumerate(accs):
            for s, segment in enumerate(_own(acc)):
                assignments = [
                    f"w_at = {at.pointer(segment.w)}",
                    f"w_k = {at.view_stride(segment.w, segment.k[0][1])}",
                    f"w_lane = {_lane_stride(at, segment)}",
                    f"w_count = {at.size(segment.k_sizes[0])}",
                    f"w_first = FIRST_{n}_{s}",
                ]
                lines += ["    " + x for x in assignments] if s else assignments
                if s + 1 < len(_own(acc)):
                    lines += [f"if j >= FIRST_{n}_{s + 1}:"]
            lines += [f"for o0 in range(TEAM_{n}):"]
            lines += [f"    own = member * WARPS + warp - warp % TEAM_{n} + o0"]
            lines += [f"    i = o0 * {len(accs)} + {g}", "    for e in range(4):"]
            lines += ["        k = 128 * (j - w_first) + 4 * warp_lane + e"]
            lines += [f"        up = k < w_count and own < {lanes}"]
            lines += [f"        v.copy({place}, w_at + k * w_k + own * w_lane if up else w_at, up)"]
        return lines

    # ---- a tile of rows -------------------------------------------------------------------------

    def _tile(self, n: int, accs: tuple[Acc, ...]) -> list[str]:
        """The tiles' sums, from the first row of a block of them to the last."""
        body = ["cuda.syncthreads()  # nobody reads the last tile any more"]
        for s, segment in enumerate(_own(accs[0])):
            body += self._stage(n, s, segment)
        body += ["v.copied()", "cuda.syncthreads()"]
        body += [f"for i in range(SUMS_{n}):", "    p[i] = v.splat(0.0)"]
        for b in range(MOST_ROWS):
            body += [f"if ROWS_{n} > {b}:", f"    for c in range(KEPT_{n}):"]
            body += ["        " + x for x in self._row(n, b, f"w{n}", f"(i * KEPT_{n} + c)")]
        body += [f"for c in range(KEPT_{n}, CHUNKS_{n}):"]
        body += ["    " + x for x in self._read_held(n)]
        for b in range(MOST_ROWS):
            body += [f"    if ROWS_{n} > {b}:"]
            body += ["        " + x for x in self._row(n, b, "u", "i")]
        body += self._butterfly(n)
        body += [f"if warp_lane % (1 << SHIFT_{n}) == 0:", f"    i = warp_lane >> SHIFT_{n}"]
        body += [f"    e = m - base + i % ROWS_{n}", f"    i = i // ROWS_{n}"]
        body += [f"    if i < ACROSS_{n} and base + e < top:"]
        body += [f"        j = e * WARPS + warp - warp % TEAM_{n} + i // {len(accs)}"]
        place = f"TILE_{n} + j * ACROSS_{n} + i % {len(accs)} * TEAM_{n} + warp % TEAM_{n}"
        body += [f"        v.shared_store({place}, p[0])"]
        return [f"for m in range(base, top, ROWS_{n}):", *("    " + line for line in body)]

    def _stage(self, n: int, s: int, segment: Segment) -> list[str]:
        """Rows of a segment's operand into shared memory: a warp has every so many chunks of them.
        What is behind the last row and the last k is zero."""
        at = self.at
        k_stride = at.view_stride(segment.a, segment.k[0][0])
        count, stride = at.size(segment.k_sizes[0]), at.row_strides(segment.a).get("r", "0")
        one = ["for e in range(4):"]
        one += [f"    up = r < top and k + e < {count}"]
        place = f"a_at + r * {stride} + (k + e) * {k_stride}"
        one += [f"    v.copy(o0 + e, {place} if up else a_at, up)"]
        four = [f"up = r < top and k < {count}"]
        four += [f"v.copy4(o0, a_at + r * {stride} + k * SIZE if up else a_at, up)"]
        lines = [f"a_at = {at.pointer(segment.a)}"]
        if k_stride != "SIZE":
            return [*lines, *self._chunks(n, s, one)]
        lines += [f"if (a_at | {stride} | {count} * SIZE) & 15 == 0:"]
        lines += ["    " + line for line in self._chunks(n, s, four)]
        return [*lines, "else:", *("    " + line for line in self._chunks(n, s, one))]

    def _chunks(self, n: int, s: int, copy: list[str]) -> list[str]:
        count = f"COUNT_{n}_{s}"
        place = f"j // {count} * TEAM_{n} * CHUNKS_{n} + FIRST_{n}_{s} + j % {count}"
        return [
            "i = anew(thread)",
            "j = i // 32",
            f"while j < ROWS_{n} * {count}:",
            f"    r = m + j // {count}",
            f"    k = j % {count} * 128 + i % 32 * 4",
            f"    o0 = STAGED + ({place}) * 128 + i % 32 * 4",
            *("    " + line for line in copy),
            "    j += WARPS",
        ]

    def _row(self, n: int, b: int, weights: str, place: str) -> list[str]:
        """Row b of a tile: a thread's share of chunk c, four k at a time."""
        chunk = f"{b} * TEAM_{n} * CHUNKS_{n} + warp % TEAM_{n} * CHUNKS_{n} + c"
        lines = [f"x0, x1, x2, x3 = v.shared_load4(STAGED + ({chunk}) * 128 + 4 * warp_lane)"]
        lines += [f"for i in range(ACROSS_{n}):", f"    j = i * ROWS_{n} + {b}"]
        for e in range(4):
            lines += [f"    p[j] = v.fma(x{e}, {weights}[{place} * 4 + {e}], p[j])"]
        return lines

    def _read_held(self, n: int) -> list[str]:
        """The weights of chunk c, out of shared memory."""
        lines = [f"for i in range(ACROSS_{n}):"]
        lines += [f"    x0, x1, x2, x3 = v.shared_load4(HELD_{n} + 4 * ({_held(n)}))"]
        return [*lines, *(f"    u[4 * i + {e}] = x{e}" for e in range(4))]

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


def _held(n: int) -> str:
    """Which four of the weights in shared memory are a thread's, of sum i and chunk c."""
    return f"(i * (CHUNKS_{n} - KEPT_{n}) + c - KEPT_{n}) * 32 * WARPS + thread"


def _lane_stride(at: Addresses, segment: Segment) -> str:
    return "0" if segment.lane is None else at.view_stride(segment.w, segment.lane)


def item_lines(sums: dict[tuple[int, int], str]) -> list[str]:
    """The sums an item's statements start from."""
    return [f"{acc_name(i, g)} = {total}" for (i, g), total in sums.items()]
