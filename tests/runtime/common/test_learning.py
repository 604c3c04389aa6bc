"""Weights that no gradient reaches are known when a cell is bound, and said when it is trained."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import rnncc
from rnncc import oracle
from rnncc.cli import main
from rnncc.lowering.cell_interface import check_text
from rnncc.lowering.describe import describe
from rnncc.lowering.lower import lower
from rnncc.lowering.reach import reached
from rnncc.runtime.common import learning
from tests.support.cases import NAMES, spec_of

TEXT = """cell: Gated
gated: option = True
features: size
units: size
x: input[features]
h: state[units]
W: weight[features, units]
v: weight[units]
h[t] = tanh(x[t] @ W + (0.5 if gated else 0.25) * h[t-1]) * ({})
return h[t]
"""


def unlearned(value: str, **options: object) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
    return describe(check_text(TEXT.format(value)), options).unlearned


@pytest.mark.parametrize(
    "value",
    [
        "where(v > 0, 1., 0.)",
        "sign(v)",
        "where(x[t] @ W <= v, 2, 1)",
        "stop_gradient(tanh(v))",
        "stop_gradient(v * h[t-1])",
        "1 + sign(exp(v)) * where(not (v < 1), 1, 2)",
        "stop_gradient(v) + sign(v)",
        "where(v == 0, 1, 2) if gated else v",
    ],
)
def test_a_weight_that_no_gradient_reaches(value: str) -> None:
    assert unlearned(value) == (("v", 8, (9,)),)


@pytest.mark.parametrize(
    "value",
    [
        "v",
        "stop_gradient(v)",
        "where(v > 0, v, 0)",
        "sign(v) + 0.1 * v",
        "max(v) * x[t][0]",
        "v[0]",
    ],
)
def test_a_weight_that_learns_or_was_told_not_to(value: str) -> None:
    assert unlearned(value) == ()


def test_options_decide() -> None:
    value = "sign(v) if gated else v"
    assert unlearned(value) and not unlearned(value, gated=False)


def test_gradients_reach_through_time_and_starts() -> None:
    lines = "c: state[units] = v\nc[t] = {}\nh[t]"
    through = TEXT.replace("h[t] =", lines.format("0.5 * c[t-1]") + " =").format("c[t]")
    assert describe(check_text(through)).unlearned == ()
    stopped = TEXT.replace("h[t] =", lines.format("sign(c[t-1])") + " =").format("c[t]")
    assert describe(check_text(stopped)).unlearned == (("v", 8, (9,)),)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_reached_is_what_differentiate_makes_gradients_of(name: str) -> None:
    """Against the interpreter: a gradient that isn't zero is of a weight that is reached."""
    spec = spec_of(name)
    found = reached(lower(spec))
    starts = {s.initial.name for s in spec.states if s.initial is not None}
    assert {w for w, *_ in describe(spec).unlearned}.isdisjoint(found | starts)
    assert not describe(spec).unlearned


def test_one_warning_when_it_is_trained(recwarn: pytest.WarningsRecorder) -> None:
    text = TEXT.format("where(v > 0, 1., 0.)") + "# once\n"
    layer = rnncc.compile_text(text, filename="folder/gated.rnn")
    x = np.ones((2, 3, 5), np.float32)
    layer(units=4)(x)
    assert not [w for w in recwarn if w.category is rnncc.NeverLearns]
    grads = [layer(units=4).vjp(x)[1](np.ones((2, 4))) for _ in range(2)]
    (said,) = (w for w in recwarn if w.category is rnncc.NeverLearns)
    assert (said.filename, said.lineno) == ("gated.rnn", 8)
    assert str(said.message) == (
        "weight v of Gated (line 8) never learns: nothing that reads it (line 9) has a gradient "
        "for it"
    )
    assert not grads[0].weights["v"].any()


def test_a_warning_may_be_an_error() -> None:
    cell = describe(check_text(TEXT.format("sign(v)") + "# an error\n"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", rnncc.NeverLearns)
        with pytest.raises(rnncc.NeverLearns, match=r"weight v of Gated \(line 8\)"):
            learning.warn(cell)


def test_check_prints_it(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"{tmp_path}/gated.rnn"
    with open(path, "w", encoding="utf-8") as file:
        file.write(TEXT.format("(1 + where(v > 9, 1., 0.)) if gated else v"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", rnncc.NeverLearns)
        assert main(["check", path]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "weight v of Gated (line 8) never learns: nothing that reads it (line 9)" in shown


def test_the_interpreter_agrees() -> None:
    layer = oracle.layer_class(check_text(TEXT.format("where(v > 0, 1., 0.5)")))(units=4, seed=1)
    _, pullback = layer.vjp(np.ones((2, 3, 5)))
    grads = pullback(np.ones((2, 4)))
    assert not grads.weights["v"].any() and grads.weights["W"].any()
