"""The numbers of a loop whose weights stay in registers, and whether they fit a device.

A group of accumulators over `lanes`, with `gates` side by side and one k axis a segment, has for
each of its lanes a warp, whose threads hold 4 * ceil(k / 128) weights of each gate and segment.

    >>> group = Shape("units", 4, ("units",))
    >>> found = numbers([group], {"units": 1024}.__getitem__, rows=8, warps=8, limit=228 * 1024)
    >>> found.constants["WORDS_0"], found.constants["ROWS_0"], found.shared // 1024, found.lanes
    (128, 8, 36, 1024)
    >>> numbers([group], {"units": 2048}.__getitem__, rows=8, warps=8, limit=228 * 1024)
    'weights would take 256 registers of a thread, more than 144'

Non-Goals: the text of such kernels (`emit.cuda.stationary`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rnncc.schedule.description import literal

MOST_ROWS = 8  # of a tile
MOST_SUMS = 32  # a warp's butterfly has a thread for each
MOST_WORDS = 144  # of a thread's 255 registers
PASS = 32  # rows whose sums wait in shared memory for their statements
WORD = 4  # bytes: this form is float32's


@dataclass(frozen=True, slots=True)
class Shape:
    """What a group's numbers depend on; sizes are text."""

    lanes: str
    gates: int
    ks: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Shape({literal(self.lanes)}, {self.gates}, {literal(self.ks)})"


@dataclass(frozen=True, slots=True)
class Numbers:
    constants: Mapping[str, int]
    shared: int  # bytes a block needs
    lanes: int  # of the widest group


def power_of_two(n: int) -> int:
    """The least that is no smaller."""
    return 1 << max(n - 1, 0).bit_length()


def numbers(
    shapes: Sequence[Shape],
    size: Callable[[str], int],
    rows: int,
    warps: int,
    limit: int,
) -> Numbers | str:
    """Constants of a kernel whose blocks have so many rows and warps, and at most `limit` bytes of
    shared memory; or why there are none."""
    chunks = [[-(-size(k) // 128) for k in s.ks] for s in shapes]
    words = [4 * s.gates * sum(c) for s, c in zip(shapes, chunks, strict=True)]
    if sum(words) > MOST_WORDS:
        return f"weights would take {sum(words)} registers of a thread, more than {MOST_WORDS}"
    tile = min(power_of_two(rows), MOST_ROWS)
    while tile:
        found = _with_rows(shapes, chunks, tile, warps)
        if found[1] <= limit:
            lanes = max(size(s.lanes) for s in shapes)
            return Numbers(*found, lanes)
        tile //= 2
    return f"a row of the operands takes more than {limit} bytes of shared memory"


def _with_rows(
    shapes: Sequence[Shape], chunks: Sequence[Sequence[int]], tile: int, warps: int
) -> tuple[dict[str, int], int]:
    found = {"WARPS": warps, "PASS": PASS}
    staged = 0  # elements
    for n, (shape, own) in enumerate(zip(shapes, chunks, strict=True)):
        gates = power_of_two(shape.gates)
        rows = min(tile, MOST_SUMS // gates)
        sums = rows * gates
        found |= {f"ROWS_{n}": rows, f"GATES_{n}": gates, f"SUMS_{n}": sums}
        found[f"SHIFT_{n}"] = 5 - (sums.bit_length() - 1)
        found |= {f"HALF_{n}_{s}": sums >> (s + 1) for s in range(5)}
        at = word = 0
        for s, count in enumerate(own):
            found |= {f"CHUNKS_{n}_{s}": count, f"STAGED_{n}_{s}": at, f"WORDS_{n}_{s}": word}
            at += rows * count * 128
            word += 4 * shape.gates * count
        found[f"WORDS_{n}"] = word
        staged = max(staged, at)
    end = staged
    for n in range(len(shapes)):
        found[f"TILE_{n}"] = end
        end += PASS * warps * found[f"GATES_{n}"]
    return found, end * WORD
