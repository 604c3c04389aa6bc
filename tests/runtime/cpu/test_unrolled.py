"""Loops that write out several steps a turn: on simulated memory, the bits of a plain loop."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from rnncc.artifact.cell import Variant
from rnncc.common.unrolling import ALL_STEPS, MOST_OPS, MOST_STEPS, steps_of_turn
from rnncc.compiler import load_spec
from rnncc.driver import Derivation
from rnncc.ir.printer import print_program
from rnncc.ir.reader import read
from tests.support import cases
from tests.support.arrays import uniform
from tests.support.cpu_simulator.simulate import Simulator, Ways, simulated_class
from tests.support.cpu_simulator.twins import Twins
from tests.support.twins import Shape

STEPS = (2, 4, True, 3)  # a turn
SLOW_ONES = ("matrix_memory", "fast_weights")  # a row of a state is units * units
TRIED = [v for v in cases.variants(cases.NAMES) if v[0] not in SLOW_ONES]


@pytest.mark.parametrize(("name", "variant"), TRIED[::3])
def test_bits(name: str, variant: str) -> None:
    """Five steps end within a turn of each; seven lanes and a row alone, which has a loop of its
    own."""
    number = TRIED.index((name, variant))
    shape: Shape = (7, 1 if number % 2 else 3, 5, 3)
    found, right = (
        _results(name, variant, shape, number, unroll=unroll)
        for unroll in (STEPS[number // 3 % len(STEPS)], False)
    )
    assert found.keys() == right.keys()
    for key, array in right.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)


def _results(
    name: str, variant: str, shape: Shape, seed: int, **chosen: Any
) -> dict[str, np.ndarray]:
    """Of a call, and of one that saves nothing."""
    chosen["go_backwards"] = bool(seed & 4)
    twins = Twins.of(name, variant, shape, Simulator(32, 1 + seed % 3, seed=seed), **chosen)
    found = twins.results(twins.layer)
    plain = twins.layer(twins.inputs, initial_state=twins.states or None, **twins.call)
    parts = plain if isinstance(plain, tuple) else (plain,)
    return found | {f"call {i}": a for i, a in enumerate(_flat(parts))}


def _flat(values: tuple[Any, ...]) -> list[np.ndarray]:
    return [a for v in values for a in (_flat(v) if isinstance(v, tuple) else [v])]


@pytest.mark.parametrize("time", [1, 3, 4, 9])
def test_any_number_of_steps(time: int) -> None:
    found, right = (
        _results("gru", "mask", (5, 2, time, 3), 2, unroll=unroll) for unroll in (4, False)
    )
    for key, array in right.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("weights", "units"), [("float32", 18), ("int8", 18), ("float32", 97)])
def test_one_row(weights: str, units: int, fused: bool) -> None:
    """Cores are written out where they only add up in one block, and the plan says so."""
    layers = [_one_row(fused, unroll, weights, units) for unroll in (4, False)]
    found, right = (layer(inputs) for layer, inputs in layers)
    np.testing.assert_array_equal(found, right)
    said = layers[0][0].plan()
    assert "for one row that saves nothing" in said
    assert ("its cores written out" in said) == (weights == "float32" and units < 97)
    assert "its cores written out" not in layers[1][0].plan()


def _one_row(fused: bool, unroll: bool | int, weights: str, units: int) -> tuple[Any, np.ndarray]:
    simulator = Simulator(32, 1, ways=Ways(1 << 19, 1, fused, 1, 0))
    made = simulated_class(cases.spec_of("lstm"), "float32", simulator=simulator)
    layer = made(units=units, seed=3, weights=weights, unroll=unroll, return_sequences=True)
    return layer, uniform(1, 5, 3).astype("float32")


# ---- what asks for it, and what holds it -----------------------------------------------------


def test_text_holds_the_steps() -> None:
    plain, unrolled = (
        Derivation(load_spec("simple_rnn")).module("float32", (variant,))
        for variant in (Variant(), Variant(unroll=4))
    )
    assert "steps a turn" not in plain and "begin" not in plain
    for way in ("range(0, T, 4)", "range(T - 1, -1, -4)"):
        assert way in unrolled
    forward = unrolled[unrolled.index("def ") : unrolled.index("FORWARD")]
    loops = forward.count("# ---- step 1 of 4")
    for n in range(2, 5):
        assert forward.count(f"# ---- step {n} of 4\n") == loops
    assert len(re.findall(r"h_ = v\.tanh", forward)) == 4 * loops


def test_programs_carry_it() -> None:
    programs = Derivation(load_spec("lstm")).programs(Variant(mask=True, unroll=3))
    for optimised in (programs.training, programs.pullback, programs.forward):
        assert optimised.program.unroll == 3
        text = print_program(optimised.program)
        assert ", 3 steps a turn:" in text
        assert print_program(read(text)) == text
        (kernel,) = (k for k in optimised.schedule.kernels if k.kind == "scan")
        assert kernel.unroll == 3
    for program in Derivation(load_spec("gru")).programs(Variant(unroll=2)).second_order:
        assert program.unroll == 2


def test_all_steps_have_a_bound() -> None:
    assert steps_of_turn(ALL_STEPS, 3) == MOST_STEPS
    assert steps_of_turn(ALL_STEPS, MOST_OPS // 5) == 4
    assert steps_of_turn(ALL_STEPS, MOST_OPS) == steps_of_turn(ALL_STEPS, 10 * MOST_OPS) == 1
    assert steps_of_turn(5, 10 * MOST_OPS) == 5  # asked for as it is
    programs = Derivation(load_spec("layer_norm_lstm")).programs(Variant(unroll=ALL_STEPS))
    text = print_program(programs.forward.program)
    assert "all steps a turn" in text and print_program(read(text)) == text
    (kernel,) = (k for k in programs.pullback.schedule.kernels if k.kind == "scan")
    assert kernel.unroll == 1
