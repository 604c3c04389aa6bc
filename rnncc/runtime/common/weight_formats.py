"""How the weights of contractions lie in memory: as they are, or narrower for inference.

    weights="bfloat16"   two k's of a lane in one word, the first in its lower half
    weights="int8"       a row of scales, then the bytes of 64 k's; a scale for each lane

Packing rounds, cores widen in registers and sum in float32: results are those of a layer whose
contractions have rounded weights. Cores read weights step after step; what a step is belongs to
the storage, so loops around cores speak of steps alone.

Non-Goals: packing (`quantized_packing`); cores (`microkernels`, `quantized_tiles`).
"""

from __future__ import annotations

from dataclasses import dataclass

from rnncc.common.formulas import SCALE_GROUP as GROUP
from rnncc.common.formulas import SUM_BLOCK


@dataclass(frozen=True, slots=True)
class Storage:
    """depth: k's of a step. rows: how many rows of vectors it takes. template: of its cores.

    A row is as long as a tile's row of accumulators.
    """

    name: str
    depth: int
    rows: int
    template: str

    def bytes(self, k: int, row: int) -> int:
        """Of so many k's; the last step is whole."""
        return -(-k // self.depth) * self.rows * row

    @property
    def word(self) -> int:
        """What loops around cores are told: see `cpu.loop_helpers.contract_rows`."""
        return self.rows << 32 | self.depth


# Rows of a tile's weights, or of a gradient's terms, that are used at once: whole blocks of a sum,
# and whole steps of every storage of weights.
PANEL_ROWS = 2 * SUM_BLOCK
FULL = Storage("", 1, 1, "cpu/cores.py.jinja")
BFLOAT16 = Storage("bfloat16", 2, 1, "cpu/cores_bfloat16.py.jinja")
INT8 = Storage("int8", GROUP, 1 + GROUP // 4, "cpu/cores_int8.py.jinja")
STORAGES = {s.name: s for s in (FULL, BFLOAT16, INT8)}
NARROW = (BFLOAT16.name, INT8.name)


def narrowed(storage: str | None) -> str:
    """The name of a narrow storage; "" for weights as they are, and where nothing is said."""
    return storage if storage in NARROW else ""
