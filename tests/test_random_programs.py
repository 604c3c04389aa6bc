"""Random cells: passes, gradients and kernels mean what the lowered program means."""

from __future__ import annotations

import numpy as np
import pytest

from rnncc import compiler, oracle
from rnncc.frontend.spec import CellSpec
from rnncc.lowering.cell_interface import check_text
from rnncc.lowering.lower import lower
from rnncc.passes.pipeline import gradient, optimise, stages
from rnncc.schedule.build import schedule
from rnncc.schedule.legalize import legalize
from tests.support import cases
from tests.support.cases import Case, slope_errors, total
from tests.support.random_cells import random_cell

SIZES = {"features": 3, "units": 5}
INTERPRETED = range(80)
COMPILED = range(1000, 1005)


def spec_of(seed: int) -> CellSpec:
    return check_text(random_cell(seed), f"random_{seed}.rnn")


def test_there_is_variety() -> None:
    texts = [random_cell(seed) for seed in INTERPRETED]
    assert len(set(texts)) == len(texts) and random_cell(3) == random_cell(3)
    for word in (
        "split",
        "softmax",
        "outer",
        "layer_norm",
        "cumsum",
        "transpose",
        "h0[t-2]",
        "x[t-1]",
        "where",
        "max(",
        "concat",
        "state[units, units]",
        ": state\n",
    ):
        assert sum(word in text for text in texts) >= 3, word


@pytest.mark.parametrize("seed", INTERPRETED)
def test_passes_keep_the_meaning(seed: int) -> None:
    mask = seed % 4 == 3
    program = lower(spec_of(seed), mask=mask)
    case = Case(program, SIZES, batch=3, time=4, seed=seed)
    right, cotangents = case.run(), case.cotangents()
    for stage, after in stages(program):
        assert cases.worst(case.run(after), right)[0] <= 1e-12, stage
    plain = gradient(program, case.wrt)
    final = tuple(legalize(optimise(p)) for p in plain)
    for part in plain:
        schedule(optimise(part))
    expected = case.pull(*plain, cotangents)
    assert cases.worst(case.pull(*final, cotangents), expected)[0] <= 1e-11
    rng = np.random.default_rng(seed)
    for name, found in expected.items():
        # A kink within the step shows in one direction, a wrong gradient in all of them.
        errors = sorted(
            slope_errors(
                lambda a, name=name: total(case.run(**{name: a}), cotangents),  # type: ignore[misc]
                case.arguments[name],
                found,
                rng,
                step=1e-5,
            )
        )
        assert errors[0] <= 1e-6, name


@pytest.mark.slow
@pytest.mark.parametrize("seed", COMPILED)
def test_kernels_are_the_interpreter(seed: int) -> None:
    spec = spec_of(seed)
    for units, features, batch, time in ((5, 3, 4, 6), (18, 7, 33, 3), (1, 1, 1, 2)):
        given = {"units": units, "return_sequences": True, "return_state": True, "seed": 3}
        kernels = compiler.layer_class(spec, "cpu", "float64")(**given)
        reference = oracle.layer_class(spec)(**given)
        rng = np.random.default_rng(seed)
        x = cases.draw(rng, (batch, time, features))
        found, pullback = kernels.vjp(x)
        right, expected = reference.vjp(x)
        flat, wanted = (
            [a for part in parts for a in (part if isinstance(part, tuple) else [part])]
            for parts in (found, right)
        )
        for a, b in zip(flat, wanted):
            assert cases.error(a, b) <= 1e-12
        dy = [
            [cases.draw(rng, a.shape) for a in part]
            if isinstance(part, tuple)
            else cases.draw(rng, part.shape)
            for part in right
        ]
        gradients, slopes = pullback(tuple(map(as_given, dy))), expected(tuple(map(as_given, dy)))
        assert cases.error(gradients.inputs, slopes.inputs) <= 1e-11
        for name, array in slopes.weights.items():
            assert cases.error(gradients.weights[name], array) <= 1e-11, name
        for a, b in zip(gradients.initial_state, slopes.initial_state):
            assert cases.error(a, b) <= 1e-11


def as_given(part: np.ndarray | list[np.ndarray]) -> np.ndarray | tuple[np.ndarray, ...]:
    return tuple(part) if isinstance(part, list) else part
