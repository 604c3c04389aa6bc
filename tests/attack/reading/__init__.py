"""Random steps of torch, JAX and our own Recorder, read and held against their own loops.

A step is read or refused; what is read computes what its loop does, outputs and gradients, in
float64 on the interpreter, on numbers that the reading's own proof has not drawn: one row, zeros,
ties, large ones. `python -m tests.attack.reading COUNT [SEED]` counts what was refused, by reason.

Non-Goals: kernels (`cells`, `compiled`).
"""

from __future__ import annotations

from tests.attack import Attack
from tests.attack.reading import graphs, jax_steps, torch_reading


def outcome(index: int, seed: int) -> tuple[str, str | None]:
    """(what came of it, a finding)."""
    kind = graphs if index % 4 == 3 else jax_steps if index % 8 == 6 else torch_reading
    return kind.outcome(index, seed)


def attempt(index: int, seed: int) -> str | None:
    return outcome(index, seed)[1]


ATTACK = Attack("reading", "random torch modules, JAX steps and graphs, read", 20_000, 24, attempt)
