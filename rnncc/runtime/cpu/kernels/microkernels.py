"""A dtype and a machine to contraction cores: C functions that fill a tile of rows x vectors.

    void core(segs, nseg, row, tile, init, init_rs, out, out_rs)

Their text is one rendered module in the store for each storage of weights
(templates/cpu/cores*.py.jinja); each is compiled when its address is first asked for, and cached
beside the module for the next process.

Non-Goals: which tile a stage uses (the schedule's); what happens to the tile (epilogues').
"""

from dataclasses import dataclass

import numpy as np

from rnncc.common.formulas import SUM_BLOCK
from rnncc.common.machine import LANE_PAD, Machine, host
from rnncc.common.template_loader import render
from rnncc.runtime.common.memory_pool import aligned
from rnncc.runtime.common.one_for_all import one_for_all
from rnncc.runtime.common.weight_formats import FULL, INT8, Storage
from rnncc.runtime.jit.module_cache import keyed_module

SEGMENT_WORDS = 7
WIDE = 4  # vectors a tile of several rows has at most
ONE_ROW = 8  # vectors a tile of one row has at most
AHEAD = 4096  # bytes of weights asked for ahead; 1 to 8 KiB take the same time


def max_rows(vectors: int, registers: int) -> int:
    """Rows a tile of that many vectors may have with its accumulators in registers.

    A quarter of the registers is left for weights and operands.
    """
    if not 1 <= vectors <= ONE_ROW:
        raise ValueError(f"a tile has 1 to {ONE_ROW} vectors, not {vectors}")
    if vectors > WIDE:
        return 1
    return min(registers * 3 // 4 // vectors, 6 if vectors == WIDE else 8)


@dataclass(frozen=True, slots=True)
class Tile:
    """What the template says of one core."""

    rows: int
    vectors: int
    row_bytes: int  # of weights that are read for one k, or for a step

    @property
    def name(self) -> str:
        return f"core_{self.rows}x{self.vectors}"


@dataclass(frozen=True, slots=True)
class CoresView:
    """What the template says of the module."""

    dtype: str
    width: int
    tiles: tuple[Tile, ...]
    storage: Storage
    block: int  # k's that are added one after another
    ahead: int  # bytes behind those read that are asked for; 0: none
    segment_bytes: int = SEGMENT_WORDS * 8


class Cores:
    """The cores of one dtype on one machine, for weights of one storage."""

    def __init__(self, dtype: str, machine: Machine, storage: Storage = FULL, far: bool = False):
        self.dtype, self.machine, self.storage = dtype, machine, storage
        row = machine.vector_bytes // (4 if storage is INT8 else 1)
        self.tiles = tuple(
            Tile(rows, vectors, vectors * row)
            for vectors in range(1, ONE_ROW + 1)
            for rows in range(1, max_rows(vectors, machine.registers) + 1)
        )
        width = machine.width(dtype)
        # Narrow cores wait for memory more than for anything, so theirs always do.
        far = far or storage is not FULL
        view = CoresView(dtype, width, self.tiles, storage, SUM_BLOCK, AHEAD if far else 0)
        self.module = keyed_module(
            f"{'far_' if far else ''}cores_{storage.name or dtype}x{width}",
            repr(view),
            lambda: render(storage.template, m=view),
        )
        self._tables: dict[int, np.ndarray] = {}

    def kernel(self, rows: int, vectors: int):
        """The core as a `Kernel`, whose assembly can be read."""
        if not 1 <= rows <= self.max_rows(vectors):
            limit = self.max_rows(vectors)
            raise ValueError(f"{vectors} vectors a row: 1 to {limit} rows, not {rows}")
        return getattr(self.module, f"core_{rows}x{vectors}")

    def address(self, rows: int, vectors: int) -> int:
        return self.kernel(rows, vectors).address

    def max_rows(self, vectors: int) -> int:
        return max_rows(vectors, self.machine.registers)

    def vector_counts(self, gates: int) -> list[int]:
        """Vectors a tile of that many gates may have at one size or another: `tiling` chooses."""
        least = max(LANE_PAD // self.machine.width(self.dtype), 1)
        blocks = [u for u in (1, 2, 4, 8) if u >= least and u * gates <= ONE_ROW]
        return [u * gates for u in blocks] or [gates]

    def row_table(self, vectors: int) -> np.ndarray:
        """Entry [rows] is the address of the core of that many rows; [0] says what a step of
        weights is (`Storage.word`)."""
        table = self._tables.get(vectors)
        if table is None:
            limit = self.max_rows(vectors)
            table = aligned((limit + 1,), np.int64, zero=True)
            table[1:] = [self.address(rows, vectors) for rows in range(1, limit + 1)]
            table[0] = self.storage.word
            table.flags.writeable = False
            # Its address is kept: of those that threads made at once, one is everyone's.
            table = self._tables.setdefault(vectors, table)
        return table


@one_for_all
def cores(
    dtype: str, machine: Machine | None = None, storage: Storage = FULL, far: bool = False
) -> Cores:
    """The cores of that dtype, for the host unless another machine is named. far: they ask for
    weights ahead of their use, which helps where those lie behind the second cache, and costs a
    third of the time where they lie in the first."""
    return Cores(dtype, machine or host(), storage, far)
