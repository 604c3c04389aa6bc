"""rnncc.keras on every backend that is installed: the checks of tests/support/in_keras, each a test
of its own here, in one process for each backend.

    pytest tests/keras/test_keras.py -k "masks and jax"
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.in_keras.on_request import name_of
from tests.support.keras_backends import BACKENDS, environment, installed
from tests.support.paths import ROOT

CHECKS = ROOT / "tests" / "support" / "in_keras"


def in_process(backend: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(backend),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


# ---- checks --------------------------------------------------------------------------------------


def check_names() -> Iterator[str]:
    """`layers.test_masks`, read off the files: importing them chooses a backend for the process."""
    for path in sorted(CHECKS.glob("check_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield name_of(path, node.name)


NAMES = tuple(check_names())


class OneBackend:
    """A process that runs checks on a backend, one after another."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.in_keras.on_request"],
            env=environment(backend),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        unnamed = {*self._answer()} - {*NAMES}
        if unnamed:
            raise RuntimeError(f"checks that are no functions of their files: {sorted(unnamed)}")

    def run(self, check: str) -> tuple[str, str]:
        """What became of it: "passed", "skipped", "failed", and why."""
        assert self._process.stdin is not None
        self._process.stdin.write(check + "\n")
        self._process.stdin.flush()
        outcome, why = self._answer()
        return outcome, why

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            self._errors.seek(0)
            raise RuntimeError(
                f"checks on {self.backend} have ended: {self._errors.read()[-6000:]}"
            )
        return json.loads(line)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="session")
def on_backend() -> Iterator[Callable[[str], OneBackend]]:
    """The process of a backend. There is one at a time: a backend takes seconds to import, and a
    lot of memory."""
    running: list[OneBackend] = []

    def process(backend: str) -> OneBackend:
        for name in ("keras", backend):
            if not installed(name):
                pytest.skip(f"no {name}")
        if running and not (running[0].backend == backend and running[0].runs):
            running.pop().close()
        if not running:
            running.append(OneBackend(backend))
        return running[0]

    yield process
    for process_left in running:
        process_left.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "check"),
    [pytest.param(b, name, id=f"{b}-{name}") for b in BACKENDS for name in NAMES],
)
def test_check(backend: str, check: str, on_backend: Callable[[str], OneBackend]) -> None:
    """One of tests/support/in_keras, with all its parameters."""
    process = on_backend(backend)
    outcome, why = process.run(check)
    if outcome == "skipped":
        pytest.skip(why)
    if outcome == "failed":
        pytest.fail(why, pytrace=False)


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
