"""Each step from a cell to its module is taken once; one lowering tells all a layer asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import rnncc
from rnncc import cli, compiler, oracle
from rnncc.driver import Derivation
from rnncc.frontend.spec import CellSpec
from rnncc.ir.program import Program
from rnncc.ir.sizes import Size
from rnncc.lowering import lower as lowering
from rnncc.lowering.cell_interface import CellInterface, check_text, foldings
from rnncc.lowering.describe import describe
from rnncc.lowering.lower import elaborate, lower
from rnncc.lowering.reach import reached, read_at
from rnncc.passes import pipeline
from rnncc.schedule import build
from tests.support.cases import NAMES, spec_of

HEAD = """cell: Drawn
units: size
x: input[units]
h: state[units]
W: weight[units, units]
b: weight[units]
half: weight[2 * (units // 2)]
"""
# What `y` is there, and whether its draws may stand aside: then nothing is lowered again.
DRAWN = {
    "drop(x[t] @ W, p) + b + drop(half, q)": True,
    "drop(x[t], 0.1) @ drop(W, p) + b + half": True,
    "zoneout(x[t] @ W, h[t-1] * b, p) + half": True,
    "zoneout(x[t] @ W, half, p) + b": True,  # a draw that asks for a constraint
    "zoneout(x[t] @ W, sign(b), 0.2) + half": True,
    "zoneout(zoneout(x[t] @ W, b, p), half, q)": True,
    "sign(drop(drop(b, p), 0.5)) + sum(half) + x[t] @ W": True,
    "zoneout(sum(b), half, p) + x[t] @ W": False,  # becomes as wide as what it was
    "zoneout(1, h[t-1], p) * b + half + x[t] @ W": False,
    "drop(b > 0, p) * half + x[t] @ W": False,  # truth becomes a number
}


def text_of(value: str) -> str:
    rates = "".join(f"{name}: rate = 0\n" for name in "pq" if f", {name})" in value)
    return f"{HEAD}{rates}y = {value}\nh[t] = y + h[t-1]\nreturn h[t], y\n"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often a cell was lowered, differentiated, scheduled."""
    counts: Counter[str] = Counter()

    def counting(name: str, step: Any, *arguments: Any, **keywords: Any) -> Any:
        counts[name] += 1
        return step(*arguments, **keywords)

    for module, name in ((lowering, "_lowering"), (pipeline, "gradient"), (build, "schedule")):
        monkeypatch.setattr(module, name, partial(counting, name, getattr(module, name)))
    yield counts


# ---- how often -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_lowered_once_when_it_is_described(name: str, taken: Counter[str]) -> None:
    describe(spec_of(name))
    assert taken == {"_lowering": 1}


@pytest.mark.parametrize("value", DRAWN)
def test_draws_that_stand_aside_need_no_second_lowering(value: str, taken: Counter[str]) -> None:
    spec = check_text(text_of(value))
    taken.clear()
    describe(spec)
    assert (taken["_lowering"] == 1) == DRAWN[value]


def test_a_class_is_lowered_once_and_again_where_options_are_bound(taken: Counter[str]) -> None:
    maker = compiler.Compiler(spec_of("lstm"), "float32", oracle.oracle_engine)
    assert taken == {"_lowering": 1}
    maker.bind({}, {}, "float32")
    assert taken == {"_lowering": 1}
    maker.bind({"use_bias": False}, {}, "float32")
    assert taken == {"_lowering": 2}


def test_a_text_is_lowered_once_a_folding_and_once_to_be_described(taken: Counter[str]) -> None:
    spec = spec_of("gru")
    rnncc.compile_text(spec.text, filename="counted.rnn")
    assert taken == {"_lowering": len(list(foldings(spec))) + 1}


def test_compile_takes_each_step_once(taken: Counter[str], tmp_path: Path) -> None:
    """For the module and its summary together; the description and the plain cell are lowered."""
    assert cli.main(["compile", "lstm", "-o", str(tmp_path / "lstm_once.py")]) == 0
    checked = len(list(foldings(spec_of("lstm"))))
    assert taken == {"_lowering": checked + 2, "gradient": 1, "schedule": 2}


def test_explain_takes_each_step_once(taken: Counter[str], capsys: Any) -> None:
    assert cli.main(["explain", "simple_rnn"]) == 0
    checked = len(list(foldings(spec_of("simple_rnn"))))
    assert taken == {"_lowering": checked + 2, "gradient": 1, "schedule": 3}


def test_steps_are_kept() -> None:
    derivation = Derivation(spec_of("gru"))
    programs = derivation.plain
    assert derivation.plain is programs and programs.training is programs.training
    assert programs.pullback.schedule is programs.pullback.schedule
    assert programs.forward.program is programs.forward.passes[-1][1]


# ---- what one lowering tells ---------------------------------------------------------------------


def roles(program: Program, role: str) -> set[str]:
    return {p.value.name for p in program.params if p.role == role}


def asked_for(spec: CellSpec) -> list[tuple[Size, Size]]:
    return list(dict.fromkeys((c.left, c.right) for c in elaborate(spec)[1].constraints))


@pytest.mark.parametrize("text", [*map(text_of, DRAWN), *(spec_of(n).text for n in NAMES)])
def test_one_lowering_tells_what_those_without_draws_would(text: str) -> None:
    spec = check_text(text)
    interface, plain = CellInterface(spec), lower(spec)
    rates = frozenset(r.name for r in spec.rates)
    outputs = {r.name: r.value.type.shape for r in plain.results if r.role.kind == "output"}
    assert interface.outputs == outputs
    assert interface.rates_at_inference == roles(lower(spec, active_rates=rates), "rate")
    assert interface.draws == bool(roles(lower(spec, training=True), "seed"))
    assert [(c.left, c.right) for c in interface.constraints] == asked_for(spec)
    weights = {w.name for w in spec.weights}
    assert reached(interface.still) & weights == reached(plain) & weights
    for name in weights:
        lines = [
            {op.span.line for op in read_at(p, name) if op.span} for p in (interface.still, plain)
        ]
        assert lines[0] == lines[1], name
