"""Code blocks of a page run as they stand, from top to bottom, in an empty folder.

`python` blocks of a page share one namespace; a block with title="NAME" is written to that file;
of `sh` blocks, lines that begin with `rnncc` go through the command line, `python NAME` runs such
a file, and others must be known here.
`text` is what something prints, `c` is compiled where a test says how.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
INSTALL = "python -m pip install . && python examples/quickstart.py"
TEST = "python -m pip install '.[test]' && python -m pytest -n auto"
KNOWN = (  # lines of shells that other tests see to, or that install
    INSTALL,
    TEST,
    "python -m pip install . scikit-learn",
    "python -m pip install -e '.[test,docs]'",
    "mkdocs build --strict",
)


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    name: str  # of the file that it is, or ""
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    found = [
        Block(m[1], m[2] or "", m[3], text.count("\n", 0, m.start(3)) + 1)
        for m in FENCE.finditer(text)
    ]
    fences = len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE))
    assert fences == 2 * len(found), f"{path}: a fence that nobody would run"
    return found


def run_page(path: Path, command_line: Callable[..., object]) -> int:
    """How many blocks and commands ran, in the working directory."""
    namespace: dict[str, object] = {"__name__": "page"}
    ran = 0
    for block in blocks(path):
        if block.language == "rnn" or block.name:
            assert block.name, f"{path}:{block.line}: a cell without a file"
            Path(block.name).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            tree = ast.increment_lineno(ast.parse(block.text), block.line - 1)
            exec(compile(tree, str(path), "exec"), namespace)
            ran += 1
        elif block.language == "sh":
            ran += run_commands(path, block, command_line)
        else:
            assert block.language in ("text", "c"), f"{path}:{block.line}: nobody runs it"
    return ran


def run_commands(path: Path, block: Block, command_line: Callable[..., object]) -> int:
    ran = 0
    for command in block.text.splitlines():
        command = command.partition("  #")[0].rstrip()
        if command.startswith("rnncc "):
            result: object = command_line(*shlex.split(command)[1:])
            code, said = result.code, f"{result.out}{result.err}"  # type: ignore[attr-defined]
            assert code == 0, f"{path}:{block.line}: {command}\n{said}"
            ran += 1
        elif re.fullmatch(r"python \w+\.py", command) and Path(command.split()[1]).exists():
            done = subprocess.run(
                [sys.executable, command.split()[1]],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{path}:{block.line}: {command}\n{done.stderr}"
            ran += 1
        else:
            assert command in KNOWN, f"{path}:{block.line}: nobody runs {command}"
    return ran
