"""The README: its code runs, its two commands are those of the wheel and of .ci/run, its figures
are the bench's, and it stays short."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.pages.running import INSTALL, TEST, run_page
from tests.support.paths import ROOT

README = ROOT / "README.md"
MOST_LINES = 150


def test_code_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rnncc_cli: Callable[..., object]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page(README, rnncc_cli) == 2


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_links_lead_somewhere() -> None:
    """Of the README and its neighbours; those of the site are mkdocs's to follow."""
    for path in ROOT.glob("*.md"):
        links = re.findall(r"\]\(([^)#:]+)[^):]*\)", path.read_text(encoding="utf-8"))
        assert not [link for link in links if not (ROOT / link).exists()], path


def test_figures_are_those_of_the_bench() -> None:
    """Each row of the table of speed: ours, the best other, and whose that is."""
    measured = (ROOT / "bench/RESULTS.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (.+?), ([^|]*?)(\(\d[\d, ]*\)) \| ([\d.]+) \| ([\d.]+), (\w+) \|",
        README.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == 8
    for cell, kind, sizes, ours, other, _ in rows:
        what = {"a step": "state kept forward", "inference": "forward"}
        named = what.get(kind.split(",")[0].split(" with")[0], "training")
        cell = cell.replace("layer norm LSTM", "layer_norm_lstm")
        begin = rf"^\| {cell} {named} {re.escape(sizes)} \| {ours} \(.*\*\*{other}\*\*"
        assert re.search(begin, measured, re.MULTILINE), (cell, kind, sizes)


def test_the_install_command_does_the_main_job() -> None:
    """All of it but pip, which the wheel's test and .ci/run see to."""
    command = INSTALL.split(" && ")[1].split()
    assert command[0] == "python"
    run = subprocess.run(
        [sys.executable, *command[1:]],
        cwd=ROOT,
        env=None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "worst error against the interpreter" in run.stdout
    assert re.search(r"forward [\d.]+ ms, forward and backward [\d.]+ ms", run.stdout)


def test_ci_runs_the_test_command() -> None:
    assert TEST in README.read_text(encoding="utf-8").splitlines()
    pattern = re.search(r'grep -m 1 -E "(.*?)" README.md', (ROOT / ".ci/run").read_text())
    assert pattern
    wanted = pattern[1].replace("\\\\", "\\")
    found = [s for s in README.read_text(encoding="utf-8").splitlines() if re.match(wanted, s)]
    assert found == [TEST]
