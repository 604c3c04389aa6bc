"""Keras's backends, and processes that run on one: a process has one for as long as it lives."""

from __future__ import annotations

import importlib.util
import os

from tests.support.paths import ROOT

BACKENDS = ("torch", "jax", "tensorflow")


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def environment(backend: str) -> dict[str, str]:
    """That of a process which runs Keras on it."""
    variables = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_PLATFORMS": "cpu",
    }
    variables.pop("PYTEST_XDIST_WORKER", None)
    return variables
