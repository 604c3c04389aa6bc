"""Loops that write out several steps a turn: on a simulated grid, the bits of a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from rnncc.runtime.cuda.driver.current_target import using
from tests.support.gpu_simulator.tiers import TIERS, simulator
from tests.support.gpu_simulator.twins import Twins
from tests.support.twins import Shape

SHAPE: Shape = (5, 3, 5, 3)  # five steps end within a turn of each
CELLS = (("lstm", "mask"), ("gru", "plain"), ("delays", "drawn"), ("lstm", "drawn"))


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("number", range(len(CELLS)))
def test_bits(number: int, tier: str) -> None:
    name, variant = CELLS[number]
    unroll = (2, 4, True, 3)[(number + TIERS.index(tier)) % 4]
    found, right = (_results(name, variant, tier, chosen) for chosen in (unroll, False))
    for key, array in right.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)


def _results(name: str, variant: str, tier: str, unroll: bool | int) -> dict[str, np.ndarray]:
    twins = Twins.of(name, variant, SHAPE, unroll=unroll)
    with using(simulator(tier)):
        engine = twins.layer._engine(bool(twins.call["training"]), "mask" in twins.call)[1]
        engine.use_tier(tier)
        try:
            found = twins.results(twins.layer)
            said = twins.layer.plan()
        finally:
            engine.use_tier(None)
    assert (" steps a turn; tier" in said) == bool(unroll)
    return found
