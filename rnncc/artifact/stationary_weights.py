"""The numbers of a loop whose weights stay on the chip, and whether they fit a device.

A group of accumulators over `lanes`, with `gates` side by side, adds up k in chunks of 128, which
lie one behind the other over all of its segments. A block has as many lanes as warps. A team of
warps has as many lanes as it has warps, and each of them a part of the chunks: so much of it that a
thread has about four sums for each k it reads, for reading takes as long as four multiply-adds.
A thread's weights are 4 * gates * team * chunks; those that registers don't hold, shared memory
does.

    >>> group = GroupShape("units", 4, ("units",))
    >>> h200 = BlockCapacity(shared=227 * 1024)
    >>> found = numbers([group], {"units": 1024}.__getitem__, rows=8, warps=8, room=h200)
    >>> found.constants["KEPT_0"], found.constants["ROWS_0"], found.shared // 1024, found.lanes
    (8, 8, 128, 1024)
    >>> found.where
    'registers'
    >>> found = numbers([group], {"units": 1536}.__getitem__, rows=8, warps=8, room=h200)
    >>> found.constants["CHUNKS_0"], found.constants["KEPT_0"], found.where
    (12, 7, 'registers and 80 KiB of shared memory')
    >>> numbers([group], {"units": 2048}.__getitem__, rows=8, warps=12, room=h200)
    'weights of 12 warps take 384 KiB of a block, more than it has room for'

Non-Goals: the text of such kernels (`emit.cuda.stationary`); how many warps
(`cuda.planning.executable`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rnncc.artifact.literals import literal

MOST_ROWS = 8  # of a tile, a power of two
MOST_SUMS = 32  # a warp's butterfly has a thread for each
TILE = 4_800  # what waiting for a tile's rows takes, in multiply-adds of a warp: 1200 cycles
SUMS_A_READ = 4  # multiply-adds that take as long as reading what they are of
PASS = 32  # rows whose sums wait in shared memory for their statements
WORD = 4  # bytes: this form is float32's
WARP = 32
# Registers of a thread that are neither weights nor sums: addresses, what statements take. There
# are more where a kernel has many words, or stages between its sums.
OTHERS, FEW_WORDS, WORDS_A_REGISTER, OF_STAGES = 94, 70, 3, 8
MOST_WORDS = 144


@dataclass(frozen=True, slots=True)
class GroupShape:
    """What a group's numbers depend on; sizes are text."""

    lanes: str
    gates: int
    ks: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Shape({literal(self.lanes)}, {self.gates}, {literal(self.ks)})"


@dataclass(frozen=True, slots=True)
class BlockCapacity:
    """What a block may have. shared: bytes; registers: 32-bit ones of a multiprocessor."""

    shared: int
    registers: int = 65_536

    def of_a_thread(self, warps: int) -> int:
        """Registers: the four parts of a multiprocessor have an equal number of them."""
        return min(self.registers // (-(-warps // 4) * 4 * WARP) // 8 * 8, 255)


@dataclass(frozen=True, slots=True)
class Numbers:
    """constants: of the kernel; shared: bytes a block needs; lanes: of the widest group; held:
    bytes of weights in shared memory; cost: of a row of a block, in multiply-adds of a warp."""

    constants: Mapping[str, int]
    shared: int
    lanes: int
    warps: int
    held: int
    cost: int

    @property
    def where(self) -> str:
        """Where the weights stay."""
        kept = any(n for name, n in self.constants.items() if name.startswith("KEPT_"))
        places = ["registers"] * kept
        places += [f"{self.held / 1024:.0f} KiB of shared memory"] * bool(self.held)
        return " and ".join(places)


@dataclass(frozen=True, slots=True)
class _Group:
    lanes: int
    gates: int
    segments: tuple[int, ...]  # chunks of each
    team: int
    chunks: int  # of a warp
    kept: int  # of them, in registers

    @property
    def across(self) -> int:
        """Sums of a thread for each row."""
        return self.gates * self.team


def power_of_two(n: int) -> int:
    """The least that is no smaller."""
    return 1 << max(n - 1, 0).bit_length()


def numbers(
    shapes: Sequence[GroupShape],
    size: Callable[[str], int],
    rows: int,
    warps: int,
    room: BlockCapacity,
    words: int = 64,
    levels: int = 1,
) -> Numbers | str:
    """Constants of a kernel of so many words and levels whose blocks have so many rows and warps;
    or why there are none."""
    groups = [_group(shape, size, warps) for shape in shapes]
    others = OTHERS + max(words - FEW_WORDS, 0) // WORDS_A_REGISTER + OF_STAGES * (levels > 1)
    most = min(power_of_two(rows), MOST_ROWS)
    tiles = [most >> n for n in range(most.bit_length())]
    candidates = [(tile, _with_rows(groups, tile, warps, room, others)) for tile in tiles]
    fitting = [
        (f.cost + TILE // (warps * tile), f) for tile, f in candidates if f.shared <= room.shared
    ]
    if not fitting:
        weight_bytes = sum(4 * g.across * g.chunks for g in groups) * warps * WARP * WORD
        take = f"weights of {warps} warps take {weight_bytes >> 10} KiB of a block"
        return f"{take}, more than it has room for"
    return min(fitting, key=lambda f: f[0])[1]


def _group(shape: GroupShape, size: Callable[[str], int], warps: int) -> _Group:
    segments = [-(-size(k) // 128) for k in shape.ks]
    total, team = sum(segments), SUMS_A_READ // min(power_of_two(shape.gates), SUMS_A_READ)
    while team > 1 and (warps % team or -(-total // team) * team * 8 > total * 9):
        team //= 2
    chunks = -(-total // team)
    segments[-1] += chunks * team - total  # zeros
    return _Group(size(shape.lanes), shape.gates, tuple(segments), team, chunks, chunks)


def _keeping(groups: Sequence[_Group], words: int) -> list[_Group]:
    """As many chunks in registers as there are words of a thread for, evenly."""
    across, kept = [g.across for g in groups], [g.chunks for g in groups]
    taken = sum(4 * a * k for a, k in zip(across, kept, strict=True))
    if taken > words:
        words -= 4 * max(across)  # what is read of the others at a time
    while taken > max(words, 0):
        most = max(range(len(groups)), key=lambda n: across[n] * kept[n])
        kept[most] -= 1
        taken -= 4 * across[most]
    return [replace(g, kept=k) for g, k in zip(groups, kept, strict=True)]


def _with_rows(
    groups: Sequence[_Group], tile: int, warps: int, room: BlockCapacity, others: int
) -> Numbers:
    rows = [min(tile, max(MOST_SUMS // power_of_two(g.across), 1)) for g in groups]
    pool = max(r * power_of_two(g.across) for r, g in zip(rows, groups, strict=True))
    by_way = room.shared // (warps * WARP * WORD)  # they come by way of shared memory
    groups = _keeping(groups, min(room.of_a_thread(warps) - others - pool, MOST_WORDS, by_way))
    constants = {"WARPS": warps, "PASS": PASS, "POOL": pool}
    constants["READ"] = 4 * max(g.across for g in groups)
    at = cost = 0
    for n, g in enumerate(groups):
        constants[f"HELD_{n}"] = at
        at += 4 * g.across * (g.chunks - g.kept) * warps * WARP
    held_words = at
    constants["STAGED"] = at
    staged = [r * g.team * g.chunks * 128 for r, g in zip(rows, groups, strict=True)]
    at += max(staged)
    for n, (r, g) in enumerate(zip(rows, groups, strict=True)):
        sums = r * power_of_two(g.across)
        constants |= {f"TEAM_{n}": g.team, f"CHUNKS_{n}": g.chunks, f"KEPT_{n}": g.kept}
        constants |= {f"ROWS_{n}": r, f"ACROSS_{n}": g.across, f"SUMS_{n}": sums}
        constants |= {f"WORDS_{n}": max(4 * g.across * g.kept, 1)}
        constants[f"SHIFT_{n}"] = 5 - (sums.bit_length() - 1)
        constants |= {f"HALF_{n}_{s}": sums >> (s + 1) for s in range(5)}
        first = 0
        for s, count in enumerate(g.segments):
            constants |= {f"FIRST_{n}_{s}": first, f"COUNT_{n}_{s}": count}
            first += count
        constants[f"TILE_{n}"] = at
        at += PASS * warps * g.across
        # Reads of operands and, once a tile, of weights; multiply-adds; both go on at once.
        reads = g.chunks + -(-(g.chunks - g.kept) * g.across // r)
        cost += 4 * max(g.chunks * g.across, SUMS_A_READ * reads)
    lanes = max(g.lanes for g in groups)
    at = max(at, *(constants[f"WORDS_{n}"] * warps * WARP for n in range(len(groups))))
    return Numbers(constants, at * WORD, lanes, warps, held_words * WORD, cost)
