"""SECURITY.md says what is so."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

import rnncc.files.limits
import rnncc.frontend.limits
from tests.attack.__main__ import ATTACKS
from tests.support.paths import ROOT

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("limits", [rnncc.frontend.limits, rnncc.files.limits])
def test_limits_are_those_of_the_code(limits: ModuleType) -> None:
    file = limits.__name__.replace(".", "/")
    table = TEXT.partition(f"constant (`{file}.py`)")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| [^|]+ \| ([\d,]+)[^|]*\| `([A-Z_]+)` \|$", table, flags=re.MULTILINE)
    assert len(rows) >= 12
    said = {name: int(number.replace(",", "")) for number, name in rows}
    assert said == {name: getattr(limits, name) for name in said}


def test_files_and_attacks_exist() -> None:
    for path in re.findall(r"`(rnncc/[\w/]+\.py)`", TEXT):
        assert (ROOT / path).is_file(), path
    (line,) = re.findall(r"^- (`python -m tests.attack .*)$", TEXT, flags=re.MULTILINE)
    named = [n.split()[-1] for n in re.findall(r"`([^`]+)`", line)]
    assert len(named) == 7 and set(named) <= set(ATTACKS)


def test_it_is_in_the_source_distribution() -> None:
    assert '"SECURITY.md"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
