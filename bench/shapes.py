"""DeepBench's recurrent shapes: rows of (units, batches, times), as its rnn_problems.h lists them.

Its inputs are as wide as the states; its vanilla cell has relu. Training and inference shapes, of
servers and of devices.

Non-Goals: its other kernels.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.case import FORWARD, TRAINING

Row = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
GRU_UNITS, GRU_TIMES = (2816, 2048, 1536, 2560), (1500, 750, 375, 187)
TRAINED: dict[str, tuple[Row, ...]] = {
    "simple_rnn": (((1760, 2048, 2560), (16, 32, 64, 128), (50,)),),
    "lstm": (
        ((512, 1024, 2048, 4096), (16, 32, 64, 128), (25,)),
        ((1536,), (8, 16, 32), (50,)),
        ((256,), (16, 32, 64), (150,)),
    ),
    "gru": (
        (GRU_UNITS, (32,), GRU_TIMES),
        ((512,), (32,), (1,)),
        ((1024,), (32, 64), (1500,)),
    ),
}
INFERRED: dict[str, tuple[Row, ...]] = {
    "simple_rnn": (((32,), (1,), (672,)), ((64,), (1,), (96,))),
    "lstm": (
        ((512, 1024, 2048), (1, 2, 4), (25,)),
        ((1536,), (1, 2, 4), (50,)),
        ((256,), (1, 2, 4), (150,)),
    ),
    "gru": (
        (GRU_UNITS, (1, 2, 4), GRU_TIMES),
        ((512,), (1, 2, 4), (1,)),
        ((1024,), (1, 2, 4), (1500,)),
    ),
}
OPTIONS = {"simple_rnn": (("activation", "relu"),)}


def deepbench() -> Iterator[tuple[str, str, int, int, int, tuple[tuple[str, object], ...]]]:
    """(cell, mode, batch, time, units, options) of every shape."""
    for mode, table in ((FORWARD, INFERRED), (TRAINING, TRAINED)):
        for cell, rows in table.items():
            for all_units, batches, times in rows:
                for units in all_units:
                    for time in times:
                        for batch in batches:
                            yield cell, mode, batch, time, units, OPTIONS.get(cell, ())
