"""A cell on ARM, under emulation: the short form of `tests/arm/run`, where that has made a folder.

tests/arm/run FOLDER setup && RNNCC_ARM=FOLDER python -m pytest tests/test_arm.py
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FOLDER = os.environ.get("RNNCC_ARM", "")
PYTHON = Path(FOLDER).absolute() / "python"

emulated = pytest.mark.skipif(
    not (FOLDER and PYTHON.exists()),
    reason="no emulated ARM: tests/arm/run FOLDER setup makes one, RNNCC_ARM=FOLDER names it",
)


def run(tmp_path: Path, *arguments: str) -> str:
    """Output of the emulated Python; what it compiles is compiled anew."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "RNNCC"))}
    done = subprocess.run(
        [str(PYTHON), *arguments],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(ROOT), "RNNCC_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@emulated
@pytest.mark.slow
def test_a_cell_has_the_same_bits_with_one_thread_and_two(tmp_path: Path) -> None:
    assert "the same bits" in run(tmp_path, "-m", "tests.arm.same_bits", "simple_rnn")


@emulated
@pytest.mark.slow
def test_threads_sleep_and_wake(tmp_path: Path) -> None:
    """And read the fences and the flushing of denormals off ARM's machine code."""
    tests = str(ROOT / "tests" / "runtime" / "cpu" / "threads")
    out = run(
        tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), tests
    )
    assert re.search(r"\d+ passed", out), out
