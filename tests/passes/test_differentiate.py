"""Gradients are slopes: every cell's pullback, and pullbacks of pullbacks, on the interpreter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnncc.common.result_roles import ResultRole, gradient_name
from rnncc.ir.program import Program, Result
from rnncc.lowering.cell_interface import check_text
from rnncc.lowering.lower import lower
from rnncc.passes.differentiate import differentiate
from rnncc.passes.pipeline import gradient, optimise
from rnncc.passes.simplify import simplify
from rnncc.schedule.legalize import legalize
from tests.support import cases
from tests.support.cases import Arrays, Case, distinct, slope_errors, total

LIMIT = 1e-6


def case_of(name: str, variant: str = "plain", **sizes: int) -> Case:
    return Case(cases.lowered(name, variant), cases.sizes_for(cases.spec_of(name), **sizes))


def assert_slopes(case: Case, gradients: Arrays, limit: float = LIMIT) -> None:
    cotangents = case.cotangents()
    rng = np.random.default_rng(5)
    assert set(gradients) == set(case.wrt)
    for name, gradient_of in gradients.items():
        assert gradient_of.shape == case.arguments[name].shape
        errors = slope_errors(
            lambda a, name=name: total(case.run(**{name: a}), cotangents),  # type: ignore[misc]
            case.arguments[name],
            gradient_of,
            rng,
        )
        assert max(errors) <= limit, name


@pytest.mark.parametrize(("name", "variant"), cases.variants(cases.SLOPED))
def test_gradients_are_slopes(name: str, variant: str) -> None:
    case = case_of(name, variant)
    forward, pullback = gradient(case.program, case.wrt)
    # What the schedule gets, with everything before it.
    forward, pullback = legalize(optimise(forward)), legalize(optimise(pullback))
    assert_slopes(case, case.pull(forward, pullback, case.cotangents()))


@pytest.mark.parametrize(("batch", "time"), [(1, 1), (1, 2), (3, 1)])
@pytest.mark.parametrize("name", ["lstm", "gru", "delays", "layer_norm_lstm", "learned_start"])
def test_short_sequences(name: str, batch: int, time: int) -> None:
    case = case_of(name, units=1, features=1)
    case = Case(case.program, case.sizes, batch, time)
    forward, pullback = map(optimise, gradient(case.program, case.wrt))
    assert_slopes(case, case.pull(forward, pullback, case.cotangents()))


@pytest.mark.parametrize("name", cases.SLOPED)
def test_without_residuals_thinned(name: str) -> None:
    """`differentiate` alone is right, whatever `residuals` then recomputes."""
    case = case_of(name)
    forward, pullback = differentiate(simplify(case.program), case.wrt)
    whole = case.pull(forward, pullback, case.cotangents())
    thinned = case.pull(*gradient(case.program, case.wrt), case.cotangents())
    for wrt, array in whole.items():
        assert cases.error(thinned[wrt], array) <= 1e-12, wrt


@pytest.mark.parametrize("wrt", ["x", "kernel", "h"])
def test_only_what_is_asked_for(wrt: str) -> None:
    case = case_of("lstm")
    everything = case.pull(*gradient(case.program, case.wrt), case.cotangents())
    forward, pullback = gradient(case.program, [wrt])
    (result,) = pullback.results
    assert result.name == f"d_{wrt}"
    alone = case.pull(forward, pullback, case.cotangents())
    assert cases.error(alone[wrt], everything[wrt]) <= 1e-14


def test_stopped_gradients_are_as_if_constant() -> None:
    """d/dx of x * stop_gradient(x) is x, not 2 x."""
    text = (
        '"""A product with itself, one factor held."""\ncell: Held\nx: input\nh: state\n'
        "h[t] = h[t-1] + x[t] * stop_gradient(x[t])\nreturn h[t]\n"
    )
    case = Case(lower(check_text(text)), {}, batch=2, time=1)
    found = case.pull(*gradient(case.program, case.wrt), case.cotangents())
    d = case.cotangents()
    whole = d["h"][:, 0] + d["final_h"]
    np.testing.assert_allclose(found["x"][:, 0], whole * case.arguments["x"][:, 0], atol=1e-14)


def test_the_spike_passes_straight_through() -> None:
    """The gradient of stopped_gradient.rnn is that of its smooth half, whatever its values are."""
    case = case_of("stopped_gradient")
    found = case.pull(*gradient(case.program, case.wrt), case.cotangents())
    assert all(np.isfinite(a).all() and a.any() for a in found.values())


SMOOTH = (
    "cell: Smooth\nunits: size\nx: input[units]\nh: state[units]\nU: weight[units, units]\n"
    "w: weight[units]\nv = x[t] + h[t-1] @ U\nh[t] = {} + h[t-1] * w\nreturn h[t]\n"
)


def test_a_surrogate_by_the_true_slope_is_as_smooth_as_what_it_stands_for() -> None:
    """First derivatives and second ones."""
    texts = ("sin(v)", "surrogate(sin(v), cos(v))", "surrogate(stop_gradient(sin(v)), cos(v))")
    found = []
    for text in texts:
        case = Case(lower(check_text(SMOOTH.format(text))), {"units": 3}, batch=2, time=3)
        forward, pullback = gradient(case.program, case.wrt)
        cotangents = case.cotangents()
        first = case.pull(forward, pullback, cotangents)
        rng = np.random.default_rng(3)
        u = {wrt: cases.draw(rng, case.arguments[wrt].shape) for wrt in case.wrt}
        found.append(
            first | {f"second {n}": a for n, a in second(case, forward, pullback, u).items()}
        )
    assert len(found[0]) > 6 and all(a.any() for a in found[0].values())
    for other in found[1:]:
        assert cases.worst(other, found[0])[0] <= 1e-14


def test_a_surrogate_has_the_slope_it_is_given_and_no_other() -> None:
    text = SMOOTH.format("surrogate(heaviside(v - w), exp(v), of=v)").replace("+ h[t-1] * w", "")
    case = Case(lower(check_text(text)), {"units": 3}, batch=2, time=1)
    found = case.pull(*gradient(case.program, case.wrt), case.cotangents())
    d = case.cotangents()
    whole = d["h"][:, 0] + d["final_h"]
    v = case.arguments["x"][:, 0] + case.arguments["h"] @ case.arguments["U"]
    np.testing.assert_allclose(found["x"][:, 0], whole * np.exp(v), atol=1e-14)
    assert not found["w"].any()


# ---- second derivatives ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["simple_rnn", "lstm", "gru"])
def test_pullbacks_have_pullbacks(name: str) -> None:
    """The slope of <gradient, u> along every argument and along the cotangents themselves."""
    case = case_of(name, units=3, features=2)
    rng = np.random.default_rng(3)
    u = {wrt: cases.draw(rng, case.arguments[wrt].shape) for wrt in case.wrt}
    cotangents = case.cotangents()
    forward, pullback = gradient(case.program, case.wrt)
    found = second(case, forward, pullback, u)
    for wrt in [*case.wrt, *(f"d_{r}" for r in cotangents)]:
        held = wrt.removeprefix("d_")
        at = cotangents[held] if wrt.startswith("d_") else case.arguments[wrt]

        def value(array: np.ndarray, wrt: str = wrt, held: str = held) -> float:
            moved = replace(case, arguments=dict(case.arguments))
            given = dict(cotangents)
            if wrt.startswith("d_"):
                given[held] = array
            else:
                moved.arguments[wrt] = array
            return total(moved.pull(forward, pullback, given), u)

        assert max(slope_errors(value, at, found[wrt], rng)) <= 1e-5, wrt


def second(case: Case, forward: Program, pullback: Program, u: Arrays) -> Arrays:
    """Gradients of <pullback(cotangents), u>: through the pullback, then through its residuals."""
    pullback, roles = distinct(pullback)
    brought = {gradient_name(result): d for result, d in case.cotangents().items()}
    saved = [r.name for r in forward.results if r.role.kind == "residual"]
    values = case.run(forward)
    inner, residual_of = Case(pullback, case.sizes, case.batch, case.time), {}
    names = iter(saved)
    for new, (name, role) in roles.items():
        if role == "residual":
            residual_of[new] = next(names)
            inner.arguments[new] = values[residual_of[new]]
        elif role == "cotangent":
            inner.arguments[new] = brought[name]
        else:
            inner.arguments[new] = case.arguments[name]
    again = differentiate(simplify(pullback), list(roles))
    first = inner.pull(*map(optimise, again), {f"d_{wrt}": d for wrt, d in u.items()})
    # What the residuals hand back to the forward that saved them.
    outputs = [Result(ResultRole("output", f"a_{r.name}"), r.value) for r in forward.results]
    as_outputs = replace(forward, results=tuple(outputs))
    back = {f"a_{name}": np.zeros_like(array) for name, array in values.items()}
    found: Arrays = {}
    for new, (name, role) in roles.items():
        if role == "residual":
            back[f"a_{residual_of[new]}"] += first[new]
        else:
            found[name] = first[new]
    outer = differentiate(simplify(as_outputs), case.wrt)
    for name, array in case.pull(*map(optimise, outer), back).items():
        found[name] = found.get(name, 0) + array
    return found
