"""Tests of simulated CPU kernels need greenlet, for threads."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = []
if find_spec("greenlet") is None:
    collect_ignore += ["simulate.py", "threads.py", "twins.py"]
    collect_ignore += [f"test_{n}.py" for n in ("calls", "cells", "mutants", "once_wrong")]
