"""The first page can be followed line by line; `python -m tests.newcomer` does, in minutes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.newcomer.__main__ import PAGE, follow, main
from tests.newcomer.steps import Command, File, steps
from tests.support.paths import ROOT


def test_the_page_says_what_to_type_and_where_to_save() -> None:
    found = [*steps(PAGE)]
    written = [s.name for s in found if isinstance(s, File)]
    assert written == ["coupled.rnn", "train.py", "coupled.rnn"]
    typed = [s.line for s in found if isinstance(s, Command)]
    assert typed[0].startswith("python -m pip install . ")
    assert typed[1:] == ["rnncc check coupled.rnn", "python train.py"] * 2


def test_a_block_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n")
    with pytest.raises(ValueError, match=r"page\.md:2: where"):
        [*steps(page)]


def test_a_step_that_fails_and_one_too_slow_end_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.newcomer.__main__.venv.create", lambda *_, **__: None)
    page = tmp_path / "page.md"
    monkeypatch.setattr("tests.newcomer.__main__.PAGE", page)
    page.write_text("```sh\necho hello\n```\n")
    assert follow(tmp_path / "a", ".", 100) == 0
    assert follow(tmp_path / "b", ".", 0) == 1
    page.write_text("```sh\nfalse\necho hello\n```\n")
    assert follow(tmp_path / "c", ".", 100) == 1
    said = capsys.readouterr().out
    assert said.count("echo hello") == said.count("echo hello    hello") == 2
    assert "page.md:2: it ended with 1" in said
    with pytest.raises(SystemExit):
        main(["--most", "soon"])


def test_every_extra_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    table = PAGE.read_text("utf-8").split("| extra | for |")[1].split("\n\n")[0]
    named = [w.strip(" `") for row in table.splitlines()[2:] for w in row.split("|")[1].split(",")]
    assert sorted(named) == sorted(project["optional-dependencies"])
