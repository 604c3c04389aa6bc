"""Cells that once gave wrong numbers: values and gradients of their Programs, after every pass.

Their kernels are in `runtime/cpu/test_simulated_once_wrong`.
"""

from __future__ import annotations

import numpy as np
import pytest

from rnncc.ir.program import Program
from rnncc.lowering.cell_interface import CellInterface, check_text
from rnncc.lowering.lower import lower
from rnncc.passes.pipeline import gradient, stages
from rnncc.passes.second import second_order
from rnncc.schedule.build import schedule
from rnncc.schedule.legalize import legalize
from tests.support import cases
from tests.support.cases import Case
from tests.support.once_wrong import CELLS, SIZES


def case_of(name: str, mask: bool = False) -> Case:
    return Case(lower(check_text(CELLS[name]), mask=mask), SIZES)


def after_each(program: Program) -> list[tuple[str, Program]]:
    made = list(stages(program))
    return [*made, ("legalize", legalize(made[-1][1]))]


@pytest.mark.parametrize("mask", [False, True], ids=["plain", "mask"])
@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients(name: str, mask: bool) -> None:
    case = case_of(name, mask)
    forward, pullback = gradient(case.program, case.wrt)
    cotangents, right = case.cotangents(), case.run()
    for stage, after in after_each(case.program):
        assert cases.worst(case.run(after), right)[0] <= 1e-12, stage
    found = case.pull(forward, pullback, cotangents)
    for stage, after in after_each(pullback):
        again = case.pull(forward, after, cotangents)
        assert cases.worst(again, found)[0] <= 1e-12, stage
    rng = np.random.default_rng(2)
    for parameter in case.wrt:

        def value(a: np.ndarray, parameter: str = parameter) -> float:
            return cases.total(case.run(**{parameter: a}), cotangents)

        if name == "stop_gradient" and parameter == "v":
            assert not found["v"].any()
            continue
        slopes = cases.slope_errors(value, case.arguments[parameter], found[parameter], rng)
        assert max(slopes) < 1e-6, parameter


@pytest.mark.parametrize("name", CELLS)
def test_every_program_has_a_schedule(name: str) -> None:
    """Which is verified when it is made."""
    program = case_of(name).program
    wrt = [p.value.name for p in program.params if p.role in cases.DIFFERENTIABLE]
    for made in (program, *gradient(program, wrt), *second_order(program, wrt)):
        *_, (_, optimised) = stages(made)
        assert schedule(optimised).program.name == made.name


def test_a_state_set_by_a_number_has_its_shape_everywhere() -> None:
    shapes = CellInterface(check_text(CELLS["scalar"])).outputs
    assert [str(s) for shape in shapes.values() for s in shape] == ["3", "3"]
