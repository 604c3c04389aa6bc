"""Attacks on rnncc that take longer than a test may: `python -m tests.attack`.

An attack is a module of this package with an `ATTACK`, listed in `__main__.ATTACKS`. It makes one
attempt after another, each from its own number and seed, so that any attempt can be made again
alone. A finding is a text that says what was tried and what came out; a clean attempt is None.
The suite makes the first few attempts of each (`tests/test_attack.py`).

Non-Goals: mending anything, timing anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    """One way to look for faults.

    name: what the command line calls it.
    about: one line on what is tried.
    count: attempts of the long form.
    short: attempts of the short form, which is a test of the suite; 0: none.
    attempt: (index, seed) -> a finding, or None. Every attempt stands alone.
    """

    name: str
    about: str
    count: int
    short: int
    attempt: Callable[[int, int], str | None]
