"""Which tier LSTM and GRU get on GPUs whose figures are known: no GPU is needed to choose.

`python -m tests.runtime.cuda.planning.test_tiers` prints the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from rnncc import compiler
from rnncc.artifact.cell import Variant
from rnncc.artifact.grid_sync import Gpu
from rnncc.lowering.describe import describe
from rnncc.runtime.cuda.planning.kernel_arguments import CudaArgumentBinder, CudaBoundProgram
from rnncc.runtime.planning.call_key import CallKey
from tests.support import cases

BATCHES, UNITS = (1, 8, 16, 32, 64, 128), (64, 128, 256, 512, 768, 1024, 1536)
GPUS = (
    Gpu("A100", 108, 108, shared=163 * 1024, library="cuBLAS"),
    Gpu("H100", 132, 132, shared=227 * 1024, library="cuBLAS"),  # and an H200
)
VARIANTS = {"plain": Variant(), "mask": Variant(mask=True)}


@cache
def engine(cell: str, variant: str) -> Any:
    spec = cases.spec_of(cell)
    return compiler.cuda_engine(spec, describe(spec), VARIANTS[variant])


def bound(side: Any, cell: str, gpu: Gpu, batch: int, units: int) -> CudaBoundProgram:
    sizes = cases.sizes_for(cases.spec_of(cell), units, units)
    call = CallKey(tuple(sorted(sizes.items())), batch, 128, True, False)
    return CudaArgumentBinder(side.direction, call, "float32", gpu, {}).bind()


def loops() -> Iterator[tuple[str, str, str, Gpu]]:
    for cell in ("lstm", "gru"):
        for variant in VARIANTS:
            for direction in ("_forward", "_backward"):
                for gpu in GPUS:
                    yield cell, variant, direction, gpu


@pytest.mark.parametrize("which", [*loops()], ids=lambda w: f"{w[0]} {w[1]} {w[2]} {w[3].name}")
def test_weights_stay_where_they_have_to(which: tuple[str, str, str, Gpu]) -> None:
    cell, variant, direction, gpu = which
    side = getattr(engine(cell, variant), direction)
    for batch in BATCHES:
        for units in UNITS:
            found = bound(side, cell, gpu, batch, units)
            tier, numbers = found.tier, found.numbers
            assert tier is not None
            if batch <= 16 and units <= 1024:
                assert tier.name in ("block", "stationary"), (batch, units, tier.why)
            if numbers is not None:
                assert tier.blocks <= gpu.multiprocessors and numbers.shared <= gpu.shared
                assert tier.threads == 32 * numbers.warps


def said(found: CudaBoundProgram) -> str:
    """A tier in short: blocks of a group x groups, warps, KiB of weights in shared memory."""
    tier, numbers = found.tier, found.numbers
    assert tier is not None
    if numbers is None:
        return tier.name
    held = f" +{numbers.held >> 10}K" if numbers.held else ""
    return f"{tier.members}x{tier.groups} w{numbers.warps}{held}"


def main() -> None:
    for cell, variant, direction, gpu in loops():
        side = getattr(engine(cell, variant), direction)
        print(f"\n{cell} {variant} {direction[1:]} {gpu.name}")
        print(f"{'units':6}" + "".join(f"{f'batch {b}':>17}" for b in BATCHES))
        for units in UNITS:
            row = (said(bound(side, cell, gpu, batch, units)) for batch in BATCHES)
            print(f"{units:<6}" + "".join(f"{text:>17}" for text in row))


if __name__ == "__main__":
    main()
