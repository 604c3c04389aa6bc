"""The simulated grid needs greenlet, for threads."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = []
if find_spec("greenlet") is None:
    collect_ignore += [f"{n}.py" for n in ("everything", "fake_cupy", "grid", "library", "twins")]
