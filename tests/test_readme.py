"""The README's code runs: as it stands, from top to bottom, in an empty folder.

`python` blocks share one namespace; a block marked `rnn NAME` is written to that file; of `sh`
blocks, lines that begin with `rnncc` go through the command line, and others must be known here.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import ROOT

README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALL = "python -m pip install . && python examples/quickstart.py"
TEST = "python -m pip install '.[test]' && python -m pytest -n auto"


def blocks() -> list[tuple[str, str, str, int]]:
    """(language, file name or nothing, text, line) of every fenced block."""
    text = README.read_text(encoding="utf-8")
    return [
        (m[1], m[2] or "", m[3], text.count("\n", 0, m.start(3)) + 1) for m in FENCE.finditer(text)
    ]


@pytest.mark.slow
def test_code_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rnncc_cli: Callable[..., object]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    namespace: dict[str, object] = {"__name__": "readme"}
    ran = 0
    for language, name, text, line in blocks():
        if language == "rnn":
            Path(name).write_text(text, encoding="utf-8")
        elif language == "python":
            tree = ast.increment_lineno(ast.parse(text), line - 1)
            exec(compile(tree, str(README), "exec"), namespace)
            ran += 1
        elif language == "sh":
            for command in text.splitlines():
                if command.startswith("rnncc "):
                    result = rnncc_cli(*shlex.split(command)[1:])
                    assert result.code == 0, f"line {line}: {command}\n{result.out}{result.err}"
                    ran += 1
                else:
                    assert command in (INSTALL, TEST), f"line {line}: nobody runs {command}"
        else:
            assert language == "mermaid", f"line {line}: nobody runs {language}"
    assert ran >= 8


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


def test_the_house_is_as_described() -> None:
    """Every folder the README lists exists, and every folder of the package is listed."""
    text = README.read_text(encoding="utf-8").split("## The house")[1]
    listed = set(re.findall(r"^ {6}(\w+)/", text, re.MULTILINE))
    folders = {p.parent.name for p in (ROOT / "rnncc").glob("*/__init__.py")} | {"cells"}
    assert folders == listed
    for name in re.findall(r"^ {6}(\w+\.py)", text, re.MULTILINE):
        assert (ROOT / "rnncc" / name).exists()


def test_the_glossary_names_files_that_exist() -> None:
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:rnncc|tests)/[\w/]+\.py)`", text)
    assert len(named) > 30
    assert not [n for n in named if not (ROOT / n).exists()]
