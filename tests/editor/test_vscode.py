"""The extension for VS Code: its colours by VS Code's own tokenizer and by ours, and its start.

    npm install --prefix FOLDER vscode-tmgrammar-test
    PATH=FOLDER/node_modules/.bin:$PATH python -m pytest tests/editor/test_vscode.py

tests/editor/vscode/run FOLDER starts it in VS Code itself.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.in_editors.textmate import failures, scopes
from tests.support.paths import ROOT

VSCODE = ROOT / "docs" / "editors" / "vscode"
GRAMMAR = VSCODE / "syntaxes" / "rnn.tmLanguage.json"
COLOURS = ROOT / "tests" / "editor" / "vscode" / "colours.rnn"
DRIVE = ROOT / "tests" / "editor" / "vscode" / "drive.js"
MISTAKEN = "cell: M\nn: size\nx: input[n]\nh: state[n]\nh[t] = tahn(x[t]) + h[t-1]\nreturn h[t]\n"

node = pytest.mark.skipif(shutil.which("node") is None, reason="no node")


def grammar() -> Any:
    return json.loads(GRAMMAR.read_text(encoding="utf-8"))


def test_colours_are_as_asserted() -> None:
    made, wrong = failures(grammar(), COLOURS.read_text(encoding="utf-8"))
    assert not wrong
    assert made > 200


def test_a_wrong_colour_is_seen() -> None:
    text = '# SYNTAX TEST "source.rnn" "x"\nz = tanh(v)\n#   ^^^^ keyword.control.rnn\n'
    assert len(failures(grammar(), text)[1]) == 1
    text = '# SYNTAX TEST "source.rnn" "x"\nz = tanh(v)\n#   ^^^^ - support.function.rnn\n'
    assert len(failures(grammar(), text)[1]) == 1


@pytest.mark.skipif(
    shutil.which("vscode-tmgrammar-test") is None, reason="no vscode-tmgrammar-test (npm)"
)
def test_vs_codes_own_tokenizer_colours_so() -> None:
    command = ["vscode-tmgrammar-test", "-g", str(GRAMMAR), str(COLOURS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=VSCODE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "rnncc" / "cells").glob("*.rnn")), ids=str)
def test_every_declaration_of_the_cells_is_coloured(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for line, found in zip(lines, scopes(grammar(), lines), strict=True):
        if line.startswith(("return ", "cell:")) or ": weight" in line or ": state" in line:
            assert found[0], line


# ---- its start -----------------------------------------------------------------------------------


def started(folder: Path, command: Any) -> Any:
    """What a user is told, and the mistakes that arrive."""
    text = folder / "mine.rnn"
    text.write_text(MISTAKEN)
    run = ["node", str(DRIVE), str(VSCODE / "extension.js"), str(text), json.dumps(command)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        run, capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@node
@pytest.mark.skipif(importlib.util.find_spec("pygls") is None, reason="needs pygls 2")
def test_it_starts_the_server_and_mistakes_arrive(tmp_path: Path) -> None:
    found = started(tmp_path, [sys.executable, "-m", "rnncc", "lsp"])
    assert found == {"told": [], "mistakes": [["E302", 5]]}


@node
@pytest.mark.parametrize("command", ["rnncc lsp", [], [1], ["rnncc", ""], None, {"a": 1}])
def test_a_setting_that_is_no_list_of_texts_is_told(tmp_path: Path, command: Any) -> None:
    (told,) = started(tmp_path, command)["told"]
    assert f"rnncc.command is {json.dumps(command, separators=(',', ':'))}: " in told


@node
def test_a_server_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    (told,) = started(tmp_path, ["rnncc-nowhere", "lsp"])["told"]
    assert told.startswith("rnncc-nowhere lsp can't be started: ")
    assert "pip install 'rnncc[lsp]'" in told and "rnncc.command" in told


@node
def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    """As it does without pygls."""
    program = "import sys; sys.stderr.write('needs pygls'); sys.exit(1)"
    (told,) = started(tmp_path, [sys.executable, "-c", program])["told"]
    assert told == "The language server ended with 1. needs pygls"
