"""Weights in the order in which sums read them: lane tiles, of each all k's.

    tile            a multiple of 8 lanes wide; a wide sum is several tiles of about one width
    NAME_add_64     sums of one row, in registers
    NAME_rows_64    the same of n rows, four at once

Non-Goals: those functions (templates/c/sums.jinja); the calls (`contractions`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rnncc.emit.c.addresses import CAddresses
from rnncc.emit.c.names import CNames
from rnncc.emit.c.narrow_weights import stored, widened
from rnncc.schedule.model import Acc, Buffer, Segment

LANES = 8  # a tile's width is so many, or a multiple
MOST = {"float": 64, "double": 32}  # lanes of a tile, whose sums registers hold
SHALLOW = 4  # k's of a sum that is written out where it is needed


@dataclass(frozen=True)
class Tiles:
    """pointers: to the tiles, and to those of scales, with how many rows each has. depth: k's."""

    pointers: list[tuple[str, int]]
    widths: list[int]
    depth: int

    def at(self, lane: int | str) -> list[str]:
        """Pointers to the tile that begins at a lane, as arguments of a call."""
        if isinstance(lane, int):
            return [f"{p} + {lane * n}" if lane else p for p, n in self.pointers]
        return [f"{p} + {lane} * {n}" for p, n in self.pointers]


class PackedLanes:
    """named: of arrays. constants: arrays by buffer, of the cell that is being written. storage: of
    what contractions read, see `narrow_weights`. arrays: those that were packed, by name; kinds: of
    their numbers, "real" or "weight". widths: of tiles that are added to one row. narrow: of those
    that are a whole row. tall: of those that are added to many rows. products: multiply-adds of a
    step. loose: whether anything is summed of weights that aren't packed."""

    def __init__(self, prefix: str, named: CNames, real: str, storage: str) -> None:
        self.prefix, self.named, self.most, self.storage = prefix, named, MOST[real], storage
        self.constants: Mapping[Buffer, np.ndarray] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.kinds: dict[str, str] = {}
        self.widths: set[int] = set()
        self.narrow: set[int] = set()
        self.tall: set[int] = set()
        self.products = 0
        self.loose = False
        self._names: dict[tuple[object, ...], str] = {}

    @property
    def shallow(self) -> int:
        """k's of sums that are written out: weights that are stored as they are."""
        return 0 if self.storage else SHALLOW

    def weights(self, at: CAddresses, segment: Segment, lanes: int) -> np.ndarray | None:
        """[k, lane] of so many lanes from the segment's first on; None if they are no constants
        of that form."""
        values = self.constants.get(segment.w.buffer)
        if values is None or segment.lane is None or len(segment.k) != 1:
            return None
        ((_, w_axis),) = segment.k
        depth = at.number(segment.k_sizes[0])
        k_stride, j_stride = (int(at.view_stride(segment.w, n)) for n in (w_axis, segment.lane))
        if j_stride == 0 or depth == 0:
            return None
        _, begin = at.offset(segment.w)
        k, j = np.arange(depth)[:, None], np.arange(lanes)[None, :]
        found: np.ndarray = values.ravel()[begin + k * k_stride + j * j_stride]
        return found

    def in_tiles(self, buffer: Buffer, rows: np.ndarray) -> Tiles:
        """The rows in tiles, stored as weights are."""
        widths = tiles_of(rows.shape[1], self.most)
        rows = np.pad(rows, ((0, 0), (0, sum(widths) - rows.shape[1])))
        written, scales = stored(rows, self.storage)
        name = self.array(f"{buffer.name}_packed", _tiled(written, widths), "weight")
        pointers = [(name, len(written))]
        if scales is not None:
            scale = self.array(f"{buffer.name}_scales", _tiled(scales, widths))
            pointers.append((scale, len(scales)))
        return Tiles(pointers, widths, len(rows))

    def rounded(
        self, at: CAddresses, segment: Segment, lanes: int, outer: Sequence[int]
    ) -> str | None:
        """An array in place of one whose weights lie as they were made, rounded as those in tiles
        are; None if it needs none."""
        values = self.constants.get(segment.w.buffer)
        if values is None or not self.storage:
            return None
        counts = {w: at.number(s) for (_, w), s in zip(segment.k, segment.k_sizes, strict=True)}
        counts |= {w: n for (_, w), n in zip(segment.outer, outer, strict=True) if w is not None}
        if segment.lane is not None:
            counts[segment.lane] = lanes
        axes = range(len(segment.w.axes))
        strides = [int(at.view_stride(segment.w, n)) for n in axes]
        index = np.full([1] * len(strides), at.offset(segment.w)[1])
        for n, stride in enumerate(strides):
            steps = stride * np.arange(counts.get(n, 1))
            index = index + steps.reshape([-1 if n == axis else 1 for axis in axes])
        index = np.moveaxis(index, segment.k[-1][1], 0)
        index = index.reshape(len(index), -1)
        found = values.ravel().astype(np.float64)
        found[index] = widened(found[index], self.storage)
        return self.array(f"{segment.w.buffer.name}_rounded", found)

    def start(self, accs: Sequence[Acc], numbers: np.ndarray, padded: int) -> str:
        """A pointer to what accumulators begin with; 0 for zeros."""
        if not numbers.any():
            return "0"
        named = next(acc.init.buffer.name for acc in accs if acc.init is not None)
        return self.array(f"{named}_row", np.pad(numbers, (0, padded - len(numbers))))

    def array(self, name: str, values: np.ndarray, kind: str = "real") -> str:
        """What an array of those values is called: one of all that are alike."""
        key = (name, values.shape, values.tobytes())
        if key not in self._names:
            self._names[key] = f"{self.prefix}_w_{self.named.fresh_of(name, '')}"
            self.arrays[self._names[key]] = values
            self.kinds[self._names[key]] = kind
        return self._names[key]


def _tiled(rows: np.ndarray, widths: Sequence[int]) -> np.ndarray:
    edges = np.cumsum([0, *widths])
    return np.concatenate([rows[:, a:b].ravel() for a, b in pairwise(edges)])


def whole(lanes: int) -> int:
    """As many lanes in whole vectors.

    >>> whole(28)
    32
    """
    return -(-lanes // LANES) * LANES


def tiles_of(lanes: int, most: int) -> list[int]:
    """Widths of tiles, as equal as can be, wide ones first.

    >>> tiles_of(200, 64), tiles_of(72, 64), tiles_of(20, 64)
    ([56, 48, 48, 48], [40, 32], [24])
    """
    vectors = whole(lanes) // LANES
    count = -(-whole(lanes) // most)
    return [LANES * (vectors // count + (n < vectors % count)) for n in range(count)]
