"""torch's own tests of its recurrent modules, on ours (`tests.support.in_torch`).

In a process of their own: torch's testing switches what is global in torch (flags of its backends,
what new memory holds), and every worker would have it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("expecttest")

FILES = sorted(Path(__file__).parents[1].glob("support/in_torch/check_*.py"))


@pytest.mark.slow
def test_torchs_own_tests() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, FILES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr


def test_it_is_loaded_there_alone() -> None:
    """Neither by a test that ran before here, nor while tests were looked for."""
    assert "torch.testing._internal.common_utils" not in sys.modules
