"""The short forms of the attacks: the first attempts of each, from seed 0."""

from __future__ import annotations

import pytest

from tests.attack.__main__ import ATTACKS, attack_of, try_once

SLOW = ("cache", "guard", "threads", "torch")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in ATTACKS]
)
def test_short_form_finds_nothing(name: str) -> None:
    attack = attack_of(name)
    assert attack.name == name and attack.short < attack.count
    findings = [try_once(attack, index, 0) for index in range(attack.short)]
    assert not any(findings), "\n\n".join(filter(None, findings))
