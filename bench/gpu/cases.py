"""What is timed on a GPU, the most wanted first: a run that is cut short has the rest left out.

    bars      LSTM and GRU against cuDNN, at sizes of every kind
    custom    cells that cuDNN doesn't have, against a loop of torch and one of torch.compile
    options   a mask, recurrent dropout: against the same layer without
    tiers     one loop in every tier: is the right one chosen?
    grid      the other sizes

Cells that torch.compile is asked for come behind the tiers: it takes its time.

Non-Goals: timing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

BATCHES = (8, 1, 16, 32, 64, 128)
UNITS = (256, 1024, 64, 512, 128, 768, 1536)
TIMES = (128, 1024)
# (batch, units), at 128 steps.
BARS = ((8, 256), (8, 1024), (32, 512), (1, 256), (64, 1024), (16, 128), (128, 256), (16, 1536))
CUSTOM = ("peephole_lstm", "layer_norm_lstm", "light_gru", "slstm")
COMPILED = ("peephole_lstm", "layer_norm_lstm")  # torch.compile takes its time
CUSTOM_SIZE = (16, 128, 512)
OPTIONS_SIZE = (32, 128, 512)
TIERS_AT = ((8, 1024), (64, 1024), (128, 512), (32, 256), (16, 1536))
GATES = {"LSTM": 4, "GRU": 3}


@dataclass(frozen=True, slots=True)
class Case:
    """kind: bars, custom, options, tiers or grid. option: mask or recurrent_dropout."""

    kind: str
    cell: str
    batch: int
    time: int
    units: int
    training: bool
    option: str = ""
    compiled: bool = False

    @property
    def label(self) -> str:
        mode = "training" if self.training else "forward"
        more = f" {self.option}" if self.option else ""
        more += " in every tier" if self.kind == "tiers" else ""
        return f"{self.cell}{more} {mode} ({self.batch}, {self.time}, {self.units})"

    @property
    def limit(self) -> float:
        """How much longer than cuDNN it may take."""
        return 1.0 if self.batch <= 16 and self.units <= 1024 else 1.3

    def work(self, weights: int) -> float:
        """Floating point operations, of so many numbers in matrices of weights."""
        return 2.0 * weights * self.batch * self.time * (3 if self.training else 1)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def short(self) -> Case:
        """As few steps as compile the same kernels."""
        return replace(self, time=2)


def cases() -> Iterator[Case]:
    """All, the most wanted first, none of them twice."""
    seen: set[tuple[Any, ...]] = set()
    for case in _all():
        key = (case.cell, case.batch, case.time, case.units, case.training, case.option)
        if case.kind == "bars":
            seen.add(key)
        if case.kind != "grid" or key not in seen:
            yield case


def _all() -> Iterator[Case]:
    for batch, units in BARS:
        for cell, training in product(GATES, (False, True)):
            yield Case("bars", cell, batch, 128, units, training)
    custom = [
        Case("custom", cell, *CUSTOM_SIZE, training, compiled=cell in COMPILED and training)
        for cell, training in product(CUSTOM, (True, False))
    ]
    yield from (c for c in custom if not c.compiled)
    for option, training in (("mask", False), ("mask", True), ("recurrent_dropout", True)):
        yield Case("options", "lstm", *OPTIONS_SIZE, training, option)
    for (batch, units), training in product(TIERS_AT, (False, True)):
        yield Case("tiers", "LSTM", batch, 128, units, training)
    yield from (c for c in custom if c.compiled)
    for time, batch, units in product(TIMES, BATCHES, UNITS):
        for cell, training in product(GATES, (False, True)):
            yield Case("grid", cell, batch, time, units, training)
