"""Defects put into kernels on purpose: the simulated grid has to notice each of them."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

import pytest

from rnncc.runtime.cuda.kernels import loop_helpers
from rnncc.runtime.jit.kernel import rebound
from tests.support.gpu_simulator.grid import Deadlock, Simulator
from tests.support.gpu_simulator.memory import Fault, Race
from tests.support.gpu_simulator.mutants import changed
from tests.support.gpu_simulator.twins import Twins
from tests.support.twins import LIMIT

SHAPE = (40, 3, 4, 3)  # more lanes than a block has threads


KERNELS = {
    "a dropped barrier": (r"level_barrier\(.*\)", "pass", Fault),
    "a state's wrong stride": (r"\+ r \* h_1_stride_b", "+ r * (h_1_stride_b + 4)", None),
    "a stale state": (
        r"h_1_in_ptr = h_1_ptr \+ \(t &",
        "h_1_in_ptr = h_1_ptr + (max(t - 1, 0) &",
        None,
    ),
    "a step too few": (r"range\(step_lo, step_hi\)", "range(step_lo, step_hi - 1)", None),
    "time off by one": (r"t = step\n", "t = max(step - 1, 0)\n", None),
    "time off by one, backwards": (r"t = T - 1 - step", "t = T - 2 - step", None),
    "a lane too few": (r"\* units_size:", "* units_size - 1:", None),
    "everybody writes all rows": (r"row_lo, row_hi = share\(.*\)", "row_lo, row_hi = 0, B", Fault),
}


@pytest.mark.parametrize("what", KERNELS)
def test_kernel_mutant_is_caught(what: str) -> None:
    old, new, kind = KERNELS[what]
    simulator = Simulator(seed=1)
    simulator.mutate = changed(old, new)
    twins = Twins.of("lstm", "plain", SHAPE)
    try:
        error, _ = twins.worst(simulator, "grid")
    except (Fault, Deadlock) as found:
        assert kind is None or isinstance(found, kind), found
    else:
        assert kind is None, f"expected {kind.__name__}"
        assert not error <= LIMIT["float32"], f"{what}: nobody noticed"
    assert simulator.mutate.hits, "the text that was to be changed isn't there"


TWINS = {
    "rows are read before they are there": (r"cuda\.syncthreads\(\)(?=\n +for i in)", "pass"),
    "a tile is written over while it is read": (r"cuda\.syncthreads\(\)(?=  # nobody)", "pass"),
    "sums are read before they are there": (r"cuda\.syncthreads\(\)(?=\n +t = anew)", "pass"),
    "rows aren't waited for": (r"v\.copied\(\)(?=\n +cuda)", "pass"),
    "weights aren't waited for": (r"v\.copied\(\)(?=\n +for i)", "pass"),
    "the next weights in shared memory": (r"(HELD_0 \+ 4 \* \(.*\)) \+ e,", r"\1 + (e ^ 1),"),
    "the last part of k is left out": (r"(team_sum\(.*), TEAM_0\)", r"\1, max(TEAM_0 - 1, 1))"),
    "parts of k change places": (r"warp % TEAM_0 \* CHUNKS_0 \+ c\b", "c"),
    "a half goes to the wrong thread": ("low if up else high, 8", "high if up else low, 8"),
    "weights of the next lane": (r"\* WARPS \+ warp\b", "* WARPS + warp + 1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", TWINS)
def test_stationary_mutant_is_caught(what: str) -> None:
    old, new = TWINS[what]
    # One chunk of three in registers.
    held = "shared memory" in what
    # All gates of an LSTM's backward are more k than a warp has at a time: they have them in parts.
    parts = "of k" in what
    shape, blocks = ((40, 3, 2, 3), 12) if parts else ((5, 12, 3, 3), 3)
    registers = 128 * 104 if held else 65_536
    simulator = Simulator(seed=1, multiprocessors=blocks, threads=64, registers=registers)
    simulator.mutate = changed(old, new)
    name = "gru" if held else "lstm"
    try:
        error, _ = Twins.of(name, "plain", shape).worst(simulator, "stationary")
    except Fault:
        error = 1.0
    assert not error <= LIMIT["float32"], f"{what}: nobody noticed"
    assert simulator.mutate.hits, "the text that was to be changed isn't there"


BARRIERS = {
    "nobody arrives": ("add_release(counter, 1)", "pass", Deadlock),
    "one too many is waited for": ("waiting * generation", "waiting * generation + 1", Deadlock),
    "the wait is for the last level": ("waiting * generation", "waiting * (generation - 1)", Race),
    "others don't wait for the one who waits": (
        "if waiting > 0:\n        cuda.syncthreads()",
        "pass",
        Race,
    ),
    "arrives before its block is done": (
        "if waiting > 1:\n        cuda.syncthreads()",
        "if waiting > 1:",
        Race,
    ),
}


@pytest.mark.parametrize("what", BARRIERS)
def test_barrier_mutant_is_caught(what: str) -> None:
    old, new, kind = BARRIERS[what]
    text = textwrap.dedent(inspect.getsource(loop_helpers.level_barrier))
    assert old in text
    simulator = Simulator(seed=1)
    names = simulator._names("float32")
    mutant: dict[str, Any] = {}
    exec(text.replace(old, new), dict(vars(loop_helpers)), mutant)
    names["level_barrier"] = rebound(mutant["level_barrier"], names)
    simulator.names["float32"] = names
    with pytest.raises(Fault if kind is Race else kind):
        Twins.of("lstm", "plain", SHAPE).worst(simulator, "grid")


def test_one_who_never_comes_ends_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU has no deadlock detection: the wait ends by itself."""
    simulator = Simulator(seed=1)
    names = simulator._names("float32")
    barrier = rebound(loop_helpers.level_barrier, {**names, "MOST_POLLS": 2})
    names["level_barrier"] = rebound(barrier, {"add_release": lambda *_: None})
    simulator.names["float32"] = names
    with pytest.raises(Deadlock, match="a GPU gives up"):
        Twins.of("lstm", "plain", SHAPE).worst(simulator, "grid")


def test_unmutated_passes() -> None:
    simulator = Simulator(seed=1)
    assert Twins.of("lstm", "plain", SHAPE).worst(simulator, "grid")[0] <= LIMIT["float32"]
