"""examples/char_model.py: a cell written in torch learns a text, and is what torch's loop is."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.support.pages.programs import example

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def char_model() -> ModuleType:
    return example("char_model")


def test_a_text_is_learned(
    char_model: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of four words in any order 2 bits a word are news: 0.4 a character."""
    words = np.random.default_rng(0).choice(["apple ", "cherry ", "fig ", "melon "], 10_000)
    (tmp_path / "text.txt").write_text("".join(words), "utf-8")
    arguments = ["--text", str(tmp_path / "text.txt"), "--picture", str(tmp_path / "char.png")]
    assert 0.3 < char_model.main([*arguments, "--quick"]) < 0.8
    said = capsys.readouterr().out
    apart = re.search(r"logits are (\S+) apart", said)
    assert apart and float(apart[1]) < 1e-4
    assert len(re.findall("apple|cherry|fig|melon", said)) > 30
    assert (tmp_path / "char.png").read_bytes().startswith(b"\x89PNG")


def test_docstrings_are_read_and_nothing_is_imported(
    char_model: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "one.py").write_text(
        '"""Of one."""\nraise SystemExit\ndef f():\n    "Of f."\n    return "not this"\n', "utf-8"
    )
    (tmp_path / "wrong.py").write_text("def f(:\n", "utf-8")
    (tmp_path / "none.py").write_text("", "utf-8")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "two.py").write_text('"""Of a test."""\n', "utf-8")
    found = char_model.docstrings(tmp_path)
    assert found == {"none.py": [], "one.py": ["Of one.", "Of f."]}


def test_what_is_held_out_was_not_trained_on(
    char_model: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A docstring that files of both sides have is trained on, and held out no longer."""
    texts = {f"{n}.py": ["9876543210", f"{n:09}" * 20] for n in range(300)}
    monkeypatch.setattr(char_model, "docstrings", lambda _: texts)
    text = char_model.text_of(None)
    train, held_out = text.written(text.train), text.written(text.held_out)
    assert train.count("9876543210") == 1 and "9876543210" not in held_out
    assert not {*held_out.split()} & {*train.split()} and len(held_out) > 3000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--text", "nothing.txt"], "nothing.txt"),
        (["--text", "short.txt"], "5 characters; at least"),
        (["--text", "binary.txt"], "--text: 'utf-8' codec"),
        (["--units", "0"], "--units is from 1"),
        (["--picture", "/nowhere/x.png"], "no .png in a folder"),
    ],
)
def test_what_is_given_wrong_is_told(
    char_model: ModuleType,
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("short", "utf-8")
    Path("binary.txt").write_bytes(b"\xff\xfe" * 30_000)
    with pytest.raises(SystemExit) as end:
        char_model.main(arguments)
    assert words in f"{end.value}{capsys.readouterr().err}"
