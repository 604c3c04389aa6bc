"""examples/ddp.py: several processes train as one does, and go on after one of them was killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

torch = pytest.importorskip("torch")

SCRIPT = ROOT / "examples" / "ddp.py"
STEPS = 5


def losses(*command: str) -> dict[int, float]:
    """By step, as the first process printed them last."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "RNNCC_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"step (\d+): loss ([\d.]+)", done.stdout)
    return {int(step): float(loss) for step, loss in found}


def torchrun(*arguments: str, restarts: int = 0) -> dict[int, float]:
    return losses(
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("--max-restarts", str(restarts), str(SCRIPT), "--steps", str(STEPS), *arguments),
    )


@pytest.fixture(scope="module")
def alone() -> dict[int, float]:
    """Losses of one process."""
    found = losses(str(SCRIPT), "--steps", str(STEPS))
    assert len(found) == STEPS and found[STEPS - 1] != found[0]
    return found


@pytest.mark.slow
def test_two_processes_train_as_one(alone: dict[int, float]) -> None:
    assert torchrun() == pytest.approx(alone, abs=2e-6)


@pytest.mark.slow
def test_a_killed_worker_is_started_again(alone: dict[int, float], tmp_path: Path) -> None:
    arguments = ("--checkpoint", str(tmp_path / "state.pt"), "--die-at", "3")
    assert torchrun(*arguments, restarts=1) == pytest.approx(alone, abs=2e-6)
    assert torch.load(tmp_path / "state.pt")["step"] == STEPS
