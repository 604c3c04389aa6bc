"""Tiers, and the shapes and simulated grids to try each on."""

from __future__ import annotations

from tests.support.gpu_simulator.grid import Simulator
from tests.support.twins import Shape

TIERS = ("block", "grid", "launches", "stationary")
# Whose weights can't stay: none in the loop, one a row, heads of their own, or none that are dense.
NO_TWIN = [
    "fast_weights",
    "filled",
    "indrnn",
    "matrix_memory",
    "nested",
    "normalized",
    "queue",
    "slices",
    "slstm",
    "sru",
]
WIDE = ["layer_norm_lstm", "packed_gates"]
SHAPES: tuple[Shape, ...] = ((5, 3, 4, 3), (33, 2, 3, 7), (1, 1, 1, 1), (3, 5, 2, 4))
STATIONARY_SHAPES: tuple[Shape, ...] = ((5, 3, 4, 3), (9, 2, 3, 7), (1, 1, 1, 1))
SLOW_ONES = ("matrix_memory", "fast_weights")  # a row of a state is units * units
FEW = (128 * 96, 128 * 112)  # registers: weights go into shared memory, all or some


def shapes_for(name: str, tier: str) -> tuple[Shape, ...]:
    """What is quick enough, and for weights in registers: few enough lanes for 8 blocks of 2."""
    if tier != "stationary":
        few = SHAPES[:2] if name in WIDE else SHAPES  # one lane alone has no norm
        return SHAPES[:1] if name in SLOW_ONES else few
    return () if name in NO_TWIN else ((3, 5, 2, 4),) if name in WIDE else STATIONARY_SHAPES


def simulator(tier: str, seed: int = 1, registers: int = 65_536) -> Simulator:
    wide = tier == "stationary"
    return Simulator(
        seed,
        multiprocessors=8 if wide else 4,
        threads=64 if wide else 32,
        registers=registers,
    )
