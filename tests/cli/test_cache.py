"""`rnncc cache --texts`: what is in the cache, as files that can be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rnncc.cli import main
from rnncc.runtime.jit import cache_folder, module_cache
from tests.support.cases import module_text

NAMES = ("simple_rnn", "gru")


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A cache of two modules: their texts, by the names of their files."""
    monkeypatch.setenv(cache_folder.FOLDER, str(tmp_path / "cache"))
    texts = {}
    for name in NAMES:
        text = module_text(name)
        module = module_cache.keyed_module(f"{name}_cpu", name, lambda text=text: text)
        assert module.__file__ is not None
        texts[module.__file__.removeprefix("rnncc:")] = text
    return texts


def held(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text(encoding="utf-8") for p in folder.iterdir()}


def test_texts_are_written_by_the_names_that_tracebacks_have(
    cached: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "texts"
    for _ in range(2):  # into a new folder, and into one of its own
        assert main(["cache", "--texts", str(folder)]) == 0
        assert held(folder) == cached
    out, err = capsys.readouterr()
    assert out == f"2 texts in {folder}\n" * 2 and not err


def test_what_a_killed_process_left_is_cleared(cached: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / ".gru_cpu_0123456789ab_x1y2z3w4").write_text("half")
    assert main(["cache", "--texts", str(folder)]) == 0
    assert held(folder) == cached


@pytest.mark.parametrize("name", ["notes.txt", "gru_cpu_0123456789ab.py", ".hidden", "folder"])
def test_a_folder_of_others_is_refused(
    cached: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    if name == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).write_text("mine")
    assert main(["cache", "--texts", str(folder)]) == 2
    assert f"holds {name}, which is none of the texts" in capsys.readouterr().err
    assert [p.name for p in folder.iterdir()] == [name]


def test_a_changed_text_is_refused(cached: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    assert main(["cache", "--texts", str(folder)]) == 0
    changed = folder / next(iter(cached))
    changed.write_text("mine")
    assert main(["cache", "--texts", str(folder)]) == 2
    assert changed.read_text() == "mine"


def test_a_link_is_no_text(cached: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    assert main(["cache", "--texts", str(folder)]) == 0
    path = folder / next(iter(cached))
    path.rename(tmp_path / path.name)
    path.symlink_to(tmp_path / path.name)
    assert main(["cache", "--texts", str(folder)]) == 2


def test_a_file_is_no_folder(
    cached: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert main(["cache", "--texts", str(file)]) == 2
    assert capsys.readouterr().err == f"rnncc: {file} is not a folder\n"
    assert main(["cache", "--texts", str(tmp_path / "not" / "there")]) == 1
    assert main(["cache", "--texts", str(file), "--clear"]) == 2


def test_what_is_damaged_is_left_out(
    cached: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (entry,) = (tmp_path / "cache").glob("gru_cpu.*.module")
    entry.write_bytes(entry.read_bytes()[:-1])
    folder = tmp_path / "texts"
    assert main(["cache", "--texts", str(folder)]) == 1
    assert [name.partition("_cpu_")[0] for name in held(folder)] == ["simple_rnn"]
    assert f"left out: {entry.name}: its checksum is wrong" in capsys.readouterr().err


def test_nothing_is_half_written(
    cached: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "texts"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert main(["cache", "--texts", str(folder)]) == 1
    assert not held(folder)


def test_an_empty_cache_has_no_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache_folder.FOLDER, str(tmp_path / "none"))
    assert main(["cache", "--texts", str(tmp_path / "texts")]) == 0
    assert not held(tmp_path / "texts")
