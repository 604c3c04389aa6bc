"""Colours: the Pygments lexer and the TextMate grammar know the language, all of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from pygments.token import Error, Keyword, Name, String, Text, Token

from rnncc.editor import words
from rnncc.editor.lexer import RnnLexer
from rnncc.frontend import declarations, library
from rnncc.frontend.parse import _STATEMENTS  # what Python has and the language hasn't
from tests.support.paths import ROOT

VSCODE = ROOT / "docs" / "editors" / "vscode"
CELLS = sorted((ROOT / "rnncc" / "cells").glob("*.rnn"))


def scope(text: str, word: str) -> set[Any]:
    return {kind for kind, value in RnnLexer().get_tokens(text) if value == word}


def test_words_are_those_of_the_language() -> None:
    assert set(words.FUNCTIONS) == set(library.SIGNATURES)
    assert set(words.INITIALIZERS_IN_ORDER) == library.INITIALIZERS
    assert set(words.KIND_MEANINGS) == {"cell", *declarations.KINDS} == set(words.DECLARES)
    assert not set(words.KEYWORDS) & {*_STATEMENTS} - {"if", "else"}


def test_the_lexer_knows_every_word() -> None:
    for name in words.FUNCTIONS:
        assert scope(f"z = {name}(v)\n", name) == {Name.Builtin}
        assert scope(f"f: function = {name}\n", name) == {Name.Builtin}
    for name in words.INITIALIZERS_IN_ORDER:
        assert scope(f"W: weight[3] = {name}\n", name) == {Name.Function}
    for name in declarations.KINDS:
        assert scope(f"a: {name}[2]\n", name) == {Keyword.Type}
    for name in words.KEYWORDS:
        assert scope(f"z = a {name} b\n", name) == {Keyword}
    for name in words.CONSTANTS:
        assert scope(f"z = {name}\n", name) == {Keyword.Constant}


def test_names_are_no_functions_where_none_is_called() -> None:
    assert scope("exp = f * i\n", "exp") == {Name}
    assert scope('"""tanh\nW: weight"""\n', "tanh") == set()
    assert scope("h[t-1]\n", "t") == {Name.Builtin.Pseudo}
    assert scope("b: weight[2] if deep else weight[3]\n", "weight") == {Keyword.Type}


@pytest.mark.parametrize("path", CELLS, ids=lambda p: p.stem)
def test_cells_are_coloured_whole(path: Any) -> None:
    text = path.read_text(encoding="utf-8")
    found = [*RnnLexer().get_tokens(text)]
    assert "".join(value for _, value in found) == text
    assert not {kind for kind, _ in found} & {Error, Text, Token}
    assert found[0][0] is String.Doc


def test_the_lexer_takes_no_time() -> None:
    for text in ('"' * 20_000, "[t" * 10_000, "a" * 50_000, '"""' + "x\n" * 20_000, "\\" * 9_999):
        assert (
            "".join(v for _, v in RnnLexer(ensurenl=False, stripnl=False).get_tokens(text)) == text
        )


def test_the_lexer_is_found_and_light() -> None:
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert entries["pygments.lexers"] == {"rnncc": f"{RnnLexer.__module__}:RnnLexer"}
    program = (
        "import sys, rnncc.editor.lexer; "
        "sys.exit(bool({'numba', 'llvmlite', 'numpy'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


# ---- TextMate ------------------------------------------------------------------------------------


def rules(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for inner in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from rules(inner)


def grammar() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VSCODE / "syntaxes" / "rnn.tmLanguage.json").read_text())
    return found


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("support.function.rnn", words.FUNCTIONS),
        ("support.function.initializer.rnn", words.INITIALIZERS_IN_ORDER),
        ("keyword.control.rnn", words.KEYWORDS),
        ("constant.language.rnn", words.CONSTANTS),
        ("storage.type.rnn", declarations.KINDS),
    ],
)
def test_the_grammar_knows_every_word(name: str, known: tuple[str, ...]) -> None:
    """Those of all rules of a scope, and no others."""
    matched = [r for r in rules(grammar()) if r.get("name") == name and "match" in r]
    if name == "storage.type.rnn":
        matched.append(grammar()["repository"]["declaration"])
    assert matched
    for rule in matched:
        listed = max(re.findall(r"\(([\w|]+)\)", rule["match"]), key=len).split("|")
        assert sorted(listed) == sorted(known)


def test_the_grammar_hangs_together() -> None:
    repository = grammar()["repository"]
    for rule in rules(grammar()):
        for key in ("match", "begin", "end"):
            re.compile(rule.get(key, ""))
        if "include" in rule:
            assert rule["include"][1:] in repository
    package = json.loads((VSCODE / "package.json").read_text())
    offered = package["contributes"]
    for path in (
        package["main"],
        offered["languages"][0]["configuration"],
        offered["grammars"][0]["path"],
    ):
        assert (VSCODE / path).is_file()
    json.loads((VSCODE / "language-configuration.json").read_text())
    assert offered["configuration"]["properties"]["rnncc.command"]["default"] == ["rnncc", "lsp"]
