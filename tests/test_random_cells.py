"""Random cells against torch (`tests/attack/cells`): the instrument, and fixed seeds of it."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rnncc.frontend.library import SIGNATURES
from tests.attack import cells
from tests.attack.cells import compare, reference, shrink
from tests.attack.cells.functions import ALONG, MOVES, POINTWISE
from tests.attack.cells.generate import make_case
from tests.attack.cells.text import case_text, read_case, read_cell, text_of
from tests.attack.cells.tree import Call, Case
from tests.support import cases

SEED = 13
FOUND = sorted(cells.FOUND.glob("*.rnn"))
# What may know of rnncc: who calls it, and what is made of it.
CALLERS = ("compare.py", "optimised.py")


def findings(indices: range, engine: str) -> list[str]:
    found = [compare.observe(make_case(i, SEED), engine) for i in indices]
    return [str(f) for f in found if f is not None]


@pytest.mark.slow
@pytest.mark.parametrize("tens", range(10))
def test_random_cells(tens: int) -> None:
    found = findings(range(10 * tens, 10 * tens + 10), cells.ENGINE)
    assert not found, "\n\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(1001, 1006))
def test_random_cells_compiled(index: int) -> None:
    found = findings(range(index, index + 1), "compiled")
    assert not found, found[0]


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_was_found_is_right(path: Path) -> None:
    finding = compare.observe(read_case(path), cells.ENGINE)
    assert finding is None, str(finding)


# ---- the reference ---------------------------------------------------------------------------


def test_the_reference_knows_nothing_of_rnncc() -> None:
    for path in Path(cells.__file__).parent.glob("*.py"):
        if path.name in CALLERS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(n.split(".")[0] == "rnncc" for n in names), (path.name, names)


def test_it_has_every_function() -> None:
    assert {*POINTWISE, *ALONG, *MOVES, "drop", "zoneout"} == set(SIGNATURES)


@pytest.mark.parametrize("name", [n for n in cases.NAMES if n != "running_moments"])
def test_it_agrees_with_the_interpreter_on_every_cell(name: str) -> None:
    cell = read_cell(cases.FILES[name].read_text(encoding="utf-8"))
    sizes = cases.sizes_for(cases.spec_of(name), units=2, features=3)
    rates = {r.name: 0.3 for r in cell.scalars("rate")}
    call = Call(sizes, tuple(sizes), ((2, 3), (2, 3)), rates=rates, return_state=True)
    masked = replace(call, mask="mask", nan=True, training=True, second=True)
    for given in (call, masked):
        finding = compare.observe(Case(cell, given), "oracle")
        assert finding is None, str(finding)


def test_draws_are_those_of_a_counter() -> None:
    drawn = reference.uniform(7, 0, np.arange(3)[:, None], 2, np.arange(400)[None, :])
    assert ((drawn >= 0) & (drawn < 1)).all() and abs(drawn.mean() - 0.5) < 0.05
    assert np.unique(drawn).size > 1100


# ---- the generator ---------------------------------------------------------------------------


def test_cases_are_the_same_for_the_same_seed_and_read_back() -> None:
    for index in range(20):
        case = make_case(index, SEED)
        assert case == make_case(index, SEED)
        assert read_cell(text_of(case.cell)) == case.cell


def test_a_case_is_a_file(tmp_path: Path) -> None:
    case = make_case(3, SEED)
    path = tmp_path / "case.rnn"
    path.write_text(case_text(case), encoding="utf-8")
    assert read_case(path) == case


def test_there_is_every_function_and_every_kind_of_call() -> None:
    made = [make_case(index, SEED) for index in range(300)]
    words = set().union(*(case.cell.words() for case in made))
    assert set(SIGNATURES) <= words
    assert {"+", "-", "*", "/", "**", "@", "<", "<=", ">", ">=", "and", "or", "not"} <= words
    texts = [text_of(case.cell) for case in made]
    for word in (
        "[t-2]", "context", "constant", "option", "rate", "lambda", "if flag", 'mode == "b"',
        "m: state", "state\n", "axis=0", "axis=-1", 'per="step"', "1 - W", "W0, W", "= W0",
        "::-1]", ":units", "[:, ", "::2]", " % ", " // ", "of=",
    ):  # fmt: skip
        assert sum(word in text for text in texts) >= 3, word
    for name in (*set(shrink.PLAIN) - {"arrange"}, "options", "functions", "rates"):
        assert sum(bool(getattr(case.call, name)) for case in made) >= 10, name


# ---- the comparer and the shrinker -----------------------------------------------------------

WRONG = """
cell: Wrong
units: size
x: input[units]
h: state[units]
c: state[units]
W: weight[units, units]
v: weight[units]
s = sigmoid(c[t-1]) + v
c[t] = tanh(x[t] @ W + c[t-1])
h[t] = 0.5 * h[t-1] + silu(s * x[t]) * c[t]
return h[t], c[t]
"""


def test_a_wrong_function_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POINTWISE, "silu", lambda x: x * x)
    call = Call({"units": 5}, ("units",), ((3, 4), (2, 4)), mask="mask", return_state=True)
    finding = compare.observe(Case(read_cell(WRONG), call), "oracle")
    assert finding is not None and finding.kind == "wrong"
    small = shrink.shrink(finding)
    text = str(small)
    assert small.kind == "wrong" and "silu" in text and "is right" in text
    assert len(text_of(small.case.cell)) < len(WRONG) / 2 and not small.case.call.mask


def test_an_exception_is_a_finding() -> None:
    text = WRONG.replace("silu(s", "max(s, 0) * (s")
    call = Call({"units": 2}, ("units",))
    finding = compare.observe(Case(read_cell(text), call), "oracle")
    assert finding is not None and finding.kind == "refused" and "E503" in finding.found
