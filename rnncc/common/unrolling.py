"""How many steps a loop writes out a turn.

One is a plain loop. `ALL_STEPS` asks for as many as a loop may have: MOST_STEPS, or fewer where a
step is long, since what is written out is compiled each time anew.

Non-Goals: writing them out (`emit`).
"""

from __future__ import annotations

ALL_STEPS = 0
MOST_STEPS = 16
MOST_OPS = 160  # of a turn that ALL_STEPS asks for: about 5 s to compile


def fits_unroll(value: object) -> bool:
    """Whether `unroll` may be this."""
    return isinstance(value, int) and (isinstance(value, bool) or 1 <= value <= MOST_STEPS)


def unroll_of(asked: bool | int) -> int:
    """What a layer's `unroll` asks for: False, True or a number of steps."""
    return (ALL_STEPS if asked else 1) if isinstance(asked, bool) else asked


def steps_of_turn(unroll: int, ops: int) -> int:
    """How many steps of so many ops a turn has: a power of two, where all are asked for."""
    if unroll != ALL_STEPS:
        return unroll
    steps = MOST_STEPS
    while steps > 1 and steps * ops > MOST_OPS:
        steps //= 2
    return steps
