"""Tests of simulated CPU kernels need greenlet, for threads."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("greenlet") else ["test_*.py"]
