"""Random cells through compiled kernels, where `cells` has them simulated.

Non-Goals: cells of other kinds: they are those of `cells`, of other numbers.
"""

from __future__ import annotations

from functools import partial

from tests.attack import Attack
from tests.attack.cells import attempt

ATTACK = Attack(
    name="compiled",
    about="random cells and calls against torch, by compiled kernels",
    count=200,
    short=0,
    attempt=partial(attempt, engine="compiled"),
)
