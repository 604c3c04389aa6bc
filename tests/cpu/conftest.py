"""Tests of simulated CPU kernels need greenlet, for threads."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = []
if find_spec("greenlet") is None:
    collect_ignore += ["simulate.py", "threads.py", "twins.py", "test_cells.py", "test_mutants.py"]
