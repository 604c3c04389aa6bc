"""Which known name somebody meant.

Non-Goals: what is said of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def nearest_name(name: str, known: Sequence[str]) -> str | None:
    """The first of the same letters (tahn is tanh, though tan is nearer), else the one that looks
    most like it, else one that differs in capitals alone."""
    swapped = [k for k in known if sorted(k) == sorted(name)]
    near = swapped or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    near = near or [k for k in known if k.lower() == name.lower()]
    return near[0] if near else None
