"""Every cell on the simulated grid against the interpreter: values and all gradients.

Pairwise here: each cell as it is, every other one with a mask and the rest while it draws meet one
tier, one shape. `python -m tests.support.gpu_simulator.everything` runs all of them.
"""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest

import rnncc
from rnncc.runtime.cuda.driver.current_target import using
from tests.support import cases
from tests.support.gpu_simulator.grid import Simulator
from tests.support.gpu_simulator.tiers import (
    FEW,
    SHAPES,
    TIERS,
    shapes_for,
    simulator,
)
from tests.support.gpu_simulator.twins import Twins
from tests.support.twins import LIMIT, Shape


def pairs() -> list[tuple[str, str, str, Shape]]:
    found = []
    tried = [
        (name, variant)
        for name, variant in cases.variants(cases.NAMES)
        if variant == "plain" or cases.NAMES.index(name) % 2 == (variant == "mask")
    ]
    count = Counter(dict.fromkeys(("plain", "mask", "drawn"), 2))  # each meets each tier
    for name, variant in tried:
        i = count[variant]
        count[variant] += 1
        tier = TIERS[i % 4]
        tier = tier if shapes_for(name, tier) else "grid"
        shapes = shapes_for(name, tier)
        found.append((name, variant, tier, shapes[i // 4 % len(shapes)]))
    return found


@pytest.mark.parametrize(("name", "variant", "tier", "shape"), pairs())
def test_cell(name: str, variant: str, tier: str, shape: Shape) -> None:
    error, whose = Twins.of(name, variant, shape).worst(simulator(tier), tier)
    assert error <= LIMIT["float32"], (whose, error)


@pytest.mark.parametrize("name", ["lstm", "layer_norm_lstm", "matrix_memory"])
def test_double_precision(name: str) -> None:
    twins = Twins.of(name, "plain", SHAPES[0], "float64")
    error, whose = twins.worst(Simulator(seed=2), "grid")
    assert error <= LIMIT["float64"], (whose, error)


@pytest.mark.parametrize("seed", range(4))
def test_order_of_threads_changes_nothing(seed: int) -> None:
    twins = Twins.of("gru", "mask", SHAPES[1])
    grid = Simulator(seed=seed, multiprocessors=6)
    assert twins.worst(grid, "grid")[0] <= LIMIT["float32"]
    scans = [blocks for name, blocks, _, together in grid.launches if together]
    assert scans and min(scans) > 1, "no blocks have waited for each other"


# Registers of a multiprocessor -> where the weights of the backward loop are then. Its chunks of
# k, one a delay, aren't shared out among a team.
HELD = {
    FEW[0]: "stay in 8 KiB of shared memory",
    FEW[1]: "stay in registers and 6 KiB of shared memory",
    65_536: "stay in registers\n",
}


@pytest.mark.parametrize("registers", HELD)
def test_weights_in_shared_memory(registers: int) -> None:
    simulator = Simulator(seed=3, multiprocessors=8, threads=64, registers=registers)
    twins = Twins.of("delays", "mask", (12, 2, 3, 4))  # rows at multiples of 16 bytes
    error, whose = twins.worst(simulator, "stationary")
    assert error <= LIMIT["float32"], (whose, error)
    assert HELD[registers] in twins.layer.plan().split("backward:")[1]


@pytest.mark.parametrize("name", ["simple_rnn", "lstm"])
def test_teams_of_warps(name: str) -> None:
    """Of one gate, or four of a backward loop's k: a team shares them out."""
    simulator = Simulator(seed=3, multiprocessors=3, threads=128)
    error, whose = Twins.of(name, "plain", (12, 3, 2, 3)).worst(simulator, "stationary")
    assert error <= LIMIT["float32"], (whose, error)


def test_tiles_and_passes() -> None:
    """More rows than a tile has, and more than wait in shared memory at a time."""
    few = Simulator(seed=4, multiprocessors=2, threads=64)
    error, whose = Twins.of("gru", "plain", (3, 40, 2, 3)).worst(few, "stationary")
    assert error <= LIMIT["float32"], (whose, error)


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


def test_second_derivatives() -> None:
    twins = Twins.of("gru", "plain", SHAPES[0], return_state=False)
    found = []
    with using(Simulator(seed=8)):
        for layer in (twins.layer, twins.reference):
            y, pullback = layer.vjp(twins.inputs, training=False)
            grads, again = pullback.vjp(np.ones_like(y))
            second = again({"inputs": grads.inputs})
            found.append({**second.weights, **second.inputs, "dy": second.dy})
    error, whose = cases.worst(*found)
    assert error <= LIMIT["float32"], (whose, error)


def test_copies_stay_where_they_run() -> None:
    layer = rnncc.compile("simple_rnn")(units=3, seed=1).to("cuda")
    with using(Simulator(seed=9)) as grid:
        x = np.ones((2, 3, 2), "float32")
        y = layer(x)
        ran = len(grid.launches)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(layer))(x), y)
        assert len(grid.launches) == 2 * ran
