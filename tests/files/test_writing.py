"""Whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from rnncc.files import folder_whole, write_whole


def test_a_file_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"old")

    def fails(file: object) -> None:
        raise RuntimeError("half")

    with pytest.raises(RuntimeError):
        write_whole(path, fails)
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["w"]
    write_whole(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"


def test_links_lead_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "w")
    write_whole(tmp_path / "link", lambda file: file.write(b"new"))
    assert (tmp_path / "w").read_bytes() == b"new" and (tmp_path / "link").is_symlink()


def test_a_folder_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(RuntimeError), folder_whole(path) as folder:
        (folder / "a").write_text("half")
        raise RuntimeError
    assert not any(tmp_path.iterdir())
    with folder_whole(path) as folder:
        (folder / "a").write_text("first")
    with pytest.raises(FileExistsError), folder_whole(path):
        pass
    with folder_whole(path, replace=True) as folder:
        (folder / "b").write_text("second")
    assert [p.name for p in path.iterdir()] == ["b"] and len([*tmp_path.iterdir()]) == 1


def test_what_no_file_or_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IsADirectoryError, match="only a file can be written there"):
        write_whole(tmp_path, lambda file: None)
    with pytest.raises(NotADirectoryError), folder_whole(tmp_path / "file"):
        pass
    with pytest.raises(FileNotFoundError, match="none/w"):
        write_whole(tmp_path / "none" / "w", lambda file: None)
    with pytest.raises(FileNotFoundError, match="none/w"), folder_whole(tmp_path / "none" / "w"):
        pass
