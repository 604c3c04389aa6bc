"""Every cell on the simulated grid against the interpreter: values and all gradients.

Pairwise here: each cell under each variant meets one tier, one shape. `python -m
tests.cuda.everything` runs all of them.
"""

from __future__ import annotations

import pytest

pytest.importorskip("greenlet")

from tests import cases
from tests.cuda.gridsim import Simulator
from tests.cuda.twins import LIMIT, Shape, Twins

TIERS = ("block", "grid", "launches")
SHAPES: tuple[Shape, ...] = ((5, 3, 4, 3), (33, 2, 3, 7), (1, 1, 1, 1), (3, 5, 2, 4))
SLOW_ONES = ("matrix_memory", "fast_weights")  # a row of a state is units * units


def shape_for(name: str, number: int) -> Shape:
    return SHAPES[0] if name in SLOW_ONES else SHAPES[number % len(SHAPES)]


PAIRS = [
    (name, variant, TIERS[i % 3], shape_for(name, i // 3))
    for i, (name, variant) in enumerate(cases.variants(cases.NAMES))
]


@pytest.mark.parametrize(("name", "variant", "tier", "shape"), PAIRS)
def test_cell(name: str, variant: str, tier: str, shape: Shape) -> None:
    error, whose = Twins.of(name, variant, shape).worst(Simulator(seed=1), tier)
    assert error <= LIMIT["float32"], (whose, error)


@pytest.mark.parametrize("name", ["lstm", "layer_norm_lstm", "matrix_memory"])
def test_double_precision(name: str) -> None:
    twins = Twins.of(name, "plain", SHAPES[0], "float64")
    error, whose = twins.worst(Simulator(seed=2), "grid")
    assert error <= LIMIT["float64"], (whose, error)


@pytest.mark.parametrize("seed", range(4))
def test_order_of_threads_changes_nothing(seed: int) -> None:
    twins = Twins.of("gru", "mask", SHAPES[1])
    simulator = Simulator(seed=seed, multiprocessors=6)
    assert twins.worst(simulator, "grid")[0] <= LIMIT["float32"]
    scans = [blocks for name, blocks, _, together in simulator.launches if together]
    assert scans and min(scans) > 1, "no blocks have waited for each other"


@pytest.mark.parametrize(
    "options",
    [
        {"go_backwards": True},
        {"stateful": True},
        {"checkpoint_every": 2},
        {"return_sequences": False},
        {"use_bias": False, "activation": "relu"},
    ],
    ids=lambda o: next(iter(o)),
)
def test_options(options: dict[str, object]) -> None:
    error, whose = Twins.of("lstm", "plain", SHAPES[0], **options).worst(Simulator(seed=3))
    assert error <= LIMIT["float32"], (whose, error)
