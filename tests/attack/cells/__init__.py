"""Random cells against a reference that shares nothing with rnncc.

    seed -generate-> Case -text-> .rnn -> rnncc's layers ─┐
                       └──reference──> torch, autograd  ──┴compare─> Finding -shrink-> Finding

What failed once is a `.rnn` file of `found/`, its call in the first line; the suite tries them all.

Non-Goals: mending; cells that aren't valid (hostile text has an attack of its own).
"""

from __future__ import annotations

from pathlib import Path

from tests.attack import Attack

FOUND = Path(__file__).parent / "found"
ENGINE = "simulated"


def attempt(index: int, seed: int, engine: str = ENGINE) -> str | None:
    """Case `index` of a seed; a cell that is refused is no valid cell, and a finding, too."""
    # Here, so that naming the attack doesn't import torch.
    from tests.attack.cells.compare import Unfit, observe
    from tests.attack.cells.generate import make_case
    from tests.attack.cells.shrink import shrink

    try:
        finding = observe(make_case(index, seed), engine)
    except Unfit:  # far from numbers that torch itself can tell
        return None
    return None if finding is None else str(shrink(finding))


ATTACK = Attack(
    name="cells",
    about="random cells and calls against torch, by simulated kernels",
    count=5000,
    short=3,
    attempt=attempt,
)
