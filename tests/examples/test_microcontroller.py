"""A keyword spotter's table of sizes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PROGRAM = str(ROOT / "examples" / "microcontroller" / "sizes.py")


def test_its_table(tmp_path: Path) -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("no arm-none-eabi-gcc")
    command = [sys.executable, PROGRAM, "-o", str(tmp_path / "word")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [
        list(map(int, r))
        for r in re.findall(r"\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", done.stdout)
    ]
    assert len(rows) == 3
    for code, weights, ram, _ in rows:
        assert code < 6144 and weights < 32768 and ram < 4096
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and "not empty" in again.stderr, "a folder that is there stays"
