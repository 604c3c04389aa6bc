"""examples/sweep.py: nets of several processes are those of one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytest.importorskip("joblib")
pytest.importorskip("sklearn")

SCRIPT = ROOT / "examples" / "sweep.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def rows(said: str) -> list[str]:
    return re.findall(r"[\d.]+ ± [\d.]+", said)


def test_two_processes_and_one(tmp_path: Path) -> None:
    """The same nets; a cell out of a file, too, and its name, not its text, in the table."""
    path = tmp_path / "sweep.png"
    two = run("--quick", "--jobs", "2", "--picture", str(path))
    assert two.returncode == 0, two.stderr
    assert "8 nets in" in two.stdout and len(rows(two.stdout)) == 4
    assert path.read_bytes().startswith(b"\x89PNG")
    own = tmp_path / "own.rnn"
    own.write_text((ROOT / "rnncc/cells/gru.rnn").read_text("utf-8"), "utf-8")
    arguments = ["--cells", f"{own},light_gru", "--units", "4,8", "--seeds", "2", "--epochs", "1"]
    one = run(*arguments, "--jobs", "1", "--picture", str(path))
    assert one.returncode == 0, one.stderr
    assert "own" in one.stdout and "by 1 workers" in one.stdout
    assert sorted(rows(one.stdout)) == sorted(rows(two.stdout))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--units", "0"], "from 1 to 4096"),
        (["--cells", "nothing.rnn"], "nothing.rnn"),
        (["--seeds", "0"], "at least 1"),
    ],
)
def test_what_is_given_wrong_is_told(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode in (1, 2) and words in done.stderr
    assert "Traceback" not in done.stderr
