"""Second derivatives are slopes of gradients: every cell on the interpreter, some on kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from rnncc.ir.interp import interpret
from rnncc.ir.program import Program
from rnncc.passes.pipeline import optimise
from rnncc.passes.second import SecondOrder, second_order
from rnncc.schedule.legalize import legalize
from tests import cases
from tests.cases import Arrays, Case, slope_errors, total

LIMIT = 1e-5


# ---- programs on the interpreter ---------------------------------------------------------------


@dataclass
class Chain:
    """Four programs in a row, run with the arguments of a case."""

    case: Case
    four: SecondOrder

    def step(self, program: Program, known: Arrays) -> Arrays:
        case = self.case
        return interpret(program, known, case.sizes, case.batch, case.time)

    def first(self, arguments: Arrays, cotangents: Arrays) -> Arrays:
        """All that is known when gradients are."""
        known = {**arguments, **{f"d.{n}": a for n, a in cotangents.items()}}
        known |= self.step(self.four.forward, known)
        return known | self.step(self.four.backward, known)

    def second(self, known: Arrays, u: Arrays) -> Arrays:
        """Gradients of <gradients, u> by argument, and of cotangents as `d.<result>`."""
        known = known | {f"d.d_{n}": a for n, a in u.items()}
        given = self.step(self.four.backward_pullback, known)
        found = given | self.step(self.four.forward_pullback, known | given)
        return {n.removeprefix("d_"): a for n, a in found.items() if n.startswith("d_")}


def case_of(name: str, variant: str = "plain") -> Case:
    spec = cases.spec_of(name)
    return Case(cases.lowered(name, variant), cases.sizes_for(spec, 3, 2), batch=2, time=4)


@pytest.mark.parametrize(("name", "variant"), cases.variants(cases.SLOPED))
def test_second_derivatives_are_slopes(name: str, variant: str) -> None:
    """The slope of <gradient, u> along every argument and along the cotangents themselves."""
    case = case_of(name, variant)
    rng = np.random.default_rng(3)
    u = {n: cases.draw(rng, case.arguments[n].shape) for n in case.wrt}
    cotangents = case.cotangents()
    made = second_order(case.program, case.wrt)
    chain = Chain(case, SecondOrder(*(legalize(optimise(p)) for p in made)))
    found = chain.second(chain.first(case.arguments, cotangents), u)
    for wrt in [*case.wrt, *(f"d.{r}" for r in cotangents)]:
        result = wrt.removeprefix("d.")
        at = case.arguments[wrt] if result == wrt else cotangents[result]

        def value(array: np.ndarray, wrt: str = wrt, result: str = result) -> float:
            arguments, given = dict(case.arguments), dict(cotangents)
            (arguments if result == wrt else given)[result] = array
            gradients = chain.first(arguments, given)
            return total({n: gradients[f"d_{n}"] for n in u}, u)

        claimed = found.get(wrt, np.zeros(at.shape))
        assert claimed.shape == at.shape and np.isfinite(claimed).all()
        assert max(slope_errors(value, at, claimed, rng, directions=2)) <= LIMIT, wrt
