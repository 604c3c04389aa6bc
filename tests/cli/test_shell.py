"""What a shell sees: fmt, new, doctor, completion, --json, exit codes, colours."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rnncc.cli import doctor
from rnncc.cli.settings import builtin_cells
from rnncc.frontend.formatting import formatted
from tests.support.paths import ROOT

Cli = Callable[..., Any]
MESSY = "cell: Tiny\nx: input[3]\nh: state[3]\nh[t]=tanh(x[t]+h[t - 1]) #new\nreturn h[t]\n"
TIDY = "cell: Tiny\nx: input[3]\nh: state[3]\nh[t] = tanh(x[t] + h[t-1])  # new\nreturn h[t]\n"
WRONG = MESSY.replace("tanh(", "tanh((")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {"messy": MESSY, "tidy": TIDY, "wrong": WRONG}.items():
        (tmp_path / f"{name}.rnn").write_text(text)
    return tmp_path


# ---- fmt ---------------------------------------------------------------------------------------


def test_fmt_writes_what_differs(here: Path, rnncc_cli: Cli) -> None:
    Path("messy.rnn").chmod(0o640)
    Path("link.rnn").symlink_to("messy.rnn")
    before = Path("tidy.rnn").stat()
    ran = rnncc_cli("fmt", "link.rnn", "tidy.rnn", "tidy.rnn")
    assert (ran.code, ran.out, ran.err) == (0, "link.rnn: laid out\n", "")
    assert Path("messy.rnn").read_text() == TIDY
    assert Path("messy.rnn").stat().st_mode & 0o777 == 0o640
    assert Path("link.rnn").is_symlink()
    assert Path("tidy.rnn").stat().st_ino == before.st_ino
    assert len(list(here.iterdir())) == 4


def test_fmt_looks_alone(here: Path, rnncc_cli: Cli) -> None:
    for flags, code in ((["--check"], 1), (["--diff"], 0), (["--check", "--diff"], 1)):
        ran = rnncc_cli("fmt", "messy.rnn", "tidy.rnn", *flags)
        assert ran.code == code
        assert "messy.rnn" in ran.out
        assert ("+h[t] = tanh(x[t] + h[t-1])  # new\n" in ran.out) == ("--diff" in flags)
        assert "tidy.rnn" not in ran.out
    assert rnncc_cli("fmt", "tidy.rnn", "--check").code == 0
    assert Path("messy.rnn").read_text() == MESSY


def test_fmt_writes_nothing_where_a_file_is_wrong(here: Path, rnncc_cli: Cli) -> None:
    ran = rnncc_cli("fmt", "messy.rnn", "wrong.rnn", "missing.rnn", "lstm")
    assert ran.code == 1
    assert "wrong.rnn:4:10: error[E104]" in ran.err
    assert "missing.rnn" in ran.err
    assert "lstm is not a .rnn file" in ran.err or "lstm can't be read" in ran.err
    assert Path("messy.rnn").read_text() == MESSY


def test_fmt_of_stdin(rnncc_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for data, code in ((MESSY.encode(), 0), (WRONG.encode(), 1), (b"", 1), (b"\xff", 2)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        ran = rnncc_cli("fmt", "-")
        assert (ran.code, ran.out) == (code, "" if code else TIDY)
        assert ("stdin" in ran.err) == bool(code)


def test_fmt_of_stdin_alone(rnncc_cli: Cli) -> None:
    assert rnncc_cli("fmt", "-", "--check").code == 2
    assert rnncc_cli("fmt", "-", "a.rnn").code == 2


# ---- new ---------------------------------------------------------------------------------------


def test_new_is_right_and_laid_out(here: Path, rnncc_cli: Cli) -> None:
    ran = rnncc_cli("new", "MyCell")
    assert (ran.code, ran.err) == (0, "")
    text = Path("mycell.rnn").read_text()
    assert "cell: MyCell\n" in text
    assert formatted(text) == text
    assert rnncc_cli("explain", "mycell.rnn", "--after", "lower").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["tidy"], 2, "tidy.rnn is there already"),
        (["Other", "-o", "dangling.rnn"], 2, "is there already"),
        (["two words"], 2, "no name of a cell"),
        (["é"], 2, "no name of a cell"),
        (["lambda"], 2, "word of Python"),
        (["_x"], 2, "underscore"),
        (["t"], 2, "t is the time"),
        (["a" * 201, "-o", "a.rnn"], 2, "characters of a name"),
        (["Other", "-o", "other.txt"], 2, "ends in .rnn"),
        (["Other", "-o", "nowhere/other.rnn"], 2, "no folder"),
    ],
)
def test_new_refuses(
    here: Path, rnncc_cli: Cli, arguments: list[str], code: int, words: str
) -> None:
    Path("dangling.rnn").symlink_to("gone.rnn")
    before = sorted(here.iterdir())
    ran = rnncc_cli("new", *arguments)
    assert ran.code == code
    assert words in ran.err
    assert sorted(here.iterdir()) == before
    assert Path("tidy.rnn").read_text() == TIDY


# ---- doctor ------------------------------------------------------------------------------------


def test_doctor_asks_for_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [f"{n}>={v}" for n, v in doctor.NEEDED.items()] == project["dependencies"]
    extras = set(re.findall(r"rnncc\[(\w+)\]", Path(doctor.__file__).read_text()))
    used = {a.missing for a in doctor._abilities()} and {*project["optional-dependencies"]}
    assert extras <= used


def test_doctor_says_what_is_missing(
    rnncc_cli: Cli, monkeypatch: pytest.MonkeyPatch, fresh_store: Path
) -> None:
    have = {"numpy": "1.26.4", "numba": "0.62.0rc1", "llvmlite": "0.45", "jinja2": "3.1.6"}
    monkeypatch.setattr(doctor, "version_of", have.get)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    ran = rnncc_cli("doctor")
    assert ran.code == 1
    for words in (
        "wrong: numpy 1.26.4 is older than 2.0: pip install 'numpy>=2.0'",
        "wrong: rich is not installed",
        "numba-cuda: pip install 'rnncc[cuda]'",
        "pip install 'rnncc[onnx]'",
        "a C99 compiler",
    ):
        assert words in ran.out
    assert "numba 0.62" not in ran.out.partition("wrong")[2]


def test_doctor_in_json(rnncc_cli: Cli, fresh_store: Path) -> None:
    ran = rnncc_cli("doctor", "--json")
    said = json.loads(ran.out)
    assert (ran.code, said["ok"], said["wrong"]) == (0, True, [])
    assert said["cache"] == {
        "folder": str(fresh_store),
        "entries": 0,
        "bytes": 0,
        "most_bytes": 1 << 30,
    }
    assert said["machine"]["vector_bits"] in (128, 256, 512)
    assert said["packages"]["numpy"]


def test_doctor_of_a_cache_that_others_may_write(
    rnncc_cli: Cli, monkeypatch: pytest.MonkeyPatch, fresh_store: Path
) -> None:
    fresh_store.mkdir()
    fresh_store.chmod(0o777)
    ran = rnncc_cli("doctor", "--json")
    said = json.loads(ran.out)
    assert (ran.code, said["ok"], said["cache"]["folder"]) == (1, False, None)
    assert "the cache isn't used" in said["wrong"][0]


# ---- completion --------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told(shell: str, rnncc_cli: Cli) -> None:
    pytest.importorskip("argcomplete")
    ran = rnncc_cli("completion", shell)
    assert ran.code == 0
    assert "rnncc" in ran.out
    assert {"bash": "complete ", "zsh": "compdef", "fish": "complete --command"}[shell] in ran.out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rnncc ch", {"check"}),
        ("rnncc check coupled", {"coupled_lstm"}),
        ("rnncc explain lstm --after hoi", {"hoist"}),
        ("rnncc completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_what_is_completed(line: str, words: set[str], tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    found = tmp_path / "found"
    asked = {
        "_ARGCOMPLETE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": str(found),
        "_ARGCOMPLETE_IFS": "\n",
    }
    program = "from rnncc.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT), **asked},
        cwd=tmp_path,
        check=True,
    )
    completed = {w.strip() for w in found.read_text().split("\n")}
    assert words <= completed
    assert "cache" not in completed


def test_completion_without_its_package(rnncc_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    ran = rnncc_cli("completion", "bash")
    assert (ran.code, ran.out) == (1, "")
    assert "pip install 'rnncc[completion]'" in ran.err


# ---- JSON --------------------------------------------------------------------------------------


def test_json_of_each_command(here: Path, rnncc_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from rnncc.cli import check

    finding = check.Finding("values", "h", 0.0, 1e-5)
    monkeypatch.setattr(check, "check_cell", lambda *_: iter([finding]))

    def said(*arguments: str) -> dict[str, Any]:
        ran = rnncc_cli(*arguments, "--json")
        assert (ran.code, ran.err) == (0, "")
        found = json.loads(ran.out)
        assert (found["command"], found["ok"]) == (arguments[0], True)
        return found

    assert [c["name"] for c in said("cells")["cells"]] == [*builtin_cells()]
    stages = said("explain", "tidy.rnn", "--after", "spec")["stages"]
    assert stages == [{"part": "", "name": "spec", "text": TIDY}]
    made = said("compile", "tidy.rnn", "-o", "tiny.py")
    assert (made["cell"], made["output"], made["states"]) == ("Tiny", "tiny.py", {"h": ["3"]})
    assert Path("tiny.py").is_file()
    assert said("check", "tidy.rnn")["findings"] == [
        {"what": "values", "array": "h", "error": 0.0, "limit": 1e-5, "passed": True}
    ]


def test_what_is_wrong_in_json(here: Path, rnncc_cli: Cli) -> None:
    def errors(code: int, *arguments: str) -> list[dict[str, Any]]:
        ran = rnncc_cli(*arguments, "--json")
        assert (ran.code, ran.err) == (code, "")
        said = json.loads(ran.out)
        assert (said["command"], said["ok"]) == (arguments[0], False)
        return said["errors"]

    Path("wrong.rnn").write_text(TIDY.replace("tanh", "tahn").replace("h[t-1]", "g[t-1]"))
    for command in ("check", "explain", "compile"):
        first, second = errors(1, command, "wrong.rnn")
        assert first == {
            "code": "E302",
            "file": "wrong.rnn",
            "line": 4,
            "column": 8,
            "end_column": 12,
            "message": "no function is called tahn",
            "notes": [],
            "help": "did you mean tanh?",
        }
        assert (second["code"], second["column"]) == ("E301", 20)
    (usage,) = errors(2, "check", "lsm")
    assert (usage["code"], usage["line"]) == ("usage", None)
    assert "did you mean lstm?" in usage["message"]
    (missing,) = errors(1, "check", "gone.rnn")
    assert (missing["code"], missing["file"]) == ("E001", "gone.rnn")


def test_findings_that_are_no_numbers(
    here: Path, rnncc_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rnncc.cli import check

    finding = check.Finding("values", "h", float("nan"), 1e-5)
    monkeypatch.setattr(check, "check_cell", lambda *_: iter([finding]))
    ran = rnncc_cli("check", "tidy.rnn", "--json")
    said = json.loads(ran.out, parse_constant=lambda word: pytest.fail(word))
    assert (ran.code, said["ok"]) == (1, False)
    assert (said["findings"][0]["error"], said["findings"][0]["passed"]) == (None, False)


# ---- colours, and what is written of all this --------------------------------------------------


def test_colours_only_where_they_are_wanted(
    here: Path, rnncc_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rnncc.cli import check

    finding = check.Finding("values", "h", 0.0, 1e-5)
    monkeypatch.setattr(check, "check_cell", lambda *_: iter([finding]))
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9]")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert colour.search(rnncc_cli("check", "tidy.rnn").out)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(rnncc_cli("check", "tidy.rnn").out)
    monkeypatch.delenv("FORCE_COLOR")
    assert "\x1b" not in rnncc_cli("check", "tidy.rnn").out


def test_the_page_names_every_command_and_key(here: Path, rnncc_cli: Cli) -> None:
    """docs/cli.md: what is promised there is what is there."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for arguments in (
        ["cells"],
        ["explain", "tidy.rnn", "--after", "spec"],
        ["compile", "tidy.rnn", "-o", "tiny.py"],
        ["doctor"],
        ["check", "lsm"],
    ):
        said = json.loads(rnncc_cli(*arguments, "--json").out)
        for name, value in said.items():
            assert f"`{name}`" in page, name
            inner = value[0] if isinstance(value, list) and value else value
            names = inner if isinstance(inner, dict) else {}
            if name not in ("weights", "states", "packages", "abilities", "bound"):
                assert all(f"`{n}`" in page for n in names), names
