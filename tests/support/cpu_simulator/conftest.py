"""Simulated CPU kernels need greenlet, for threads."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("greenlet") else ["simulate.py", "threads.py", "twins.py"]
