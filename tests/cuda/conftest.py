"""Tests of CUDA kernels need greenlet, for threads of the simulated grid; some need torch."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = []
if find_spec("greenlet") is None:
    collect_ignore += [
        f"test_{n}.py"
        for n in (
            "bench",
            "cells",
            "device",
            "interface",
            "keras_tensors",
            "missing",
            "mutants",
            "names",
            "products",
            "ptx",
            "tensors",
            "tiles",
        )
    ]
if find_spec("torch") is None:
    collect_ignore.append("test_tensors.py")
if find_spec("torch") is None or find_spec("keras") is None:
    collect_ignore.append("test_keras_tensors.py")
