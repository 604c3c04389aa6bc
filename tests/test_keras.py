"""rnncc.keras on every backend that is installed: tests/in_keras, a process for each."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BACKENDS = ("torch", "jax", "tensorflow")


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def in_process(backend: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_PLATFORMS": "cpu",
    }
    environment.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend(backend: str) -> None:
    for name in ("keras", backend):
        if not installed(name):
            pytest.skip(f"no {name}")
    files = ("-o", "python_files=check_*.py", "tests/in_keras")
    done = in_process(backend, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


IMPORTED = """
import sys, types
{before}
import rnncc
assert {stub} or "keras" not in sys.modules
try:
    import rnncc.keras
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("sys.modules['keras'] = None", "rnncc.keras needs Keras 3: pip install 'rnncc[keras]'"),
        (
            "sys.modules['keras'] = types.SimpleNamespace(__version__='2.15.0')",
            "rnncc.keras needs Keras 3.5 or later, this is 2.15.0: pip install -U 'keras>=3.5'",
        ),
        (
            "sys.modules['jax'] = None",
            "Keras's backend is not installed (jax): install tensorflow, jax or torch, and name "
            "it in KERAS_BACKEND",
        ),
    ],
    ids=["absent", "old", "backend"],
)
def test_what_import_says(before: str, said: str) -> None:
    if "jax" in before and not installed("keras"):
        pytest.skip("no keras")
    done = in_process(
        "jax", "-c", IMPORTED.format(before=before, stub="'keras' in " + repr(before))
    )
    assert done.stdout.strip() == said, done.stderr[-2000:]


def test_keras_on_numpy_is_refused() -> None:
    if not installed("keras"):
        pytest.skip("no keras")
    done = in_process("numpy", "-c", "import rnncc.keras")
    assert "runs on the backends tensorflow, jax, torch, Keras is on numpy" in done.stderr
