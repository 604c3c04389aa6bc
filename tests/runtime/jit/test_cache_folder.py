"""The cache folder: nothing of it is used that isn't as it was written, in a folder of our own."""

from __future__ import annotations

import errno
import os
import random
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rnncc.common.machine import Misset
from rnncc.runtime.jit import cache_folder
from rnncc.runtime.jit.cache_folder import CacheWarning, Unusable, entry_name, read, write

ABOUT, DATA = "a thing of one rnncc, CPU and vector width", bytes(range(256)) * 20
NAME = entry_name("a thing", ABOUT, "o")


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_folder, "_said", set())
    monkeypatch.setattr(cache_folder, "_bound", cache_folder._Bound())


@pytest.fixture
def kept(fresh_store: Path) -> Path:
    """The file of an entry."""
    write(NAME, ABOUT, DATA)
    assert read(NAME, ABOUT) == DATA
    return fresh_store / NAME


def said(act: Callable[[], Any]) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = act()
    assert all(w.category is CacheWarning for w in found)
    return result, [str(w.message) for w in found]


# ---- damage ----------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def one_byte_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def appended(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def other_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"entry 1", b"entry 2"))


def about_another(path: Path) -> None:
    path.write_bytes(cache_folder.seal("another vector width", DATA))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def huge(path: Path) -> None:
    os.truncate(path, 1 << 40)


def open_to_all(path: Path) -> None:
    path.chmod(0o666)


def closed(path: Path) -> None:
    path.chmod(0)


DAMAGES = (truncated, emptied, one_byte_short, zeroed, appended, other_header, about_another)
ODD = (a_pipe, a_link, a_folder, huge, open_to_all, closed)


@pytest.mark.parametrize("damage", [*DAMAGES, *ODD], ids=lambda d: d.__name__)
def test_what_is_damaged_is_as_good_as_missing(kept: Path, damage: Callable[[Path], None]) -> None:
    damage(kept)
    if damage is closed and os.geteuid() == 0:
        pytest.skip("root reads everything")
    found, words = said(lambda: read(NAME, ABOUT))
    assert found is None
    assert len(words) == 1 and str(kept) in words[0] and "compiled again" in words[0]
    _, words = said(lambda: [read(NAME, ABOUT), write(NAME, ABOUT, DATA)])
    assert not words, "said once"
    assert kept.is_file() and not kept.is_symlink() and stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert read(NAME, ABOUT) == DATA


def test_every_flipped_bit_is_seen(kept: Path) -> None:
    right, rng = kept.read_bytes(), random.Random(0)
    places = {*range(300), *(rng.randrange(len(right)) for _ in range(700))}
    for place in places:
        wrong = bytearray(right)
        wrong[place] ^= 1 << rng.randrange(8)
        with pytest.raises(cache_folder.Damaged):
            cache_folder.unseal(ABOUT, bytes(wrong))


def test_entries_that_were_exchanged(kept: Path) -> None:
    other = entry_name("another", "about another", "o")
    write(other, "about another", b"other")
    beside = kept.with_name(other)
    one, two = kept.read_bytes(), beside.read_bytes()
    kept.write_bytes(two), beside.write_bytes(one)
    assert said(lambda: (read(NAME, ABOUT), read(other, "about another")))[0] == (None, None)


def test_what_a_link_leads_to_is_not_written_over(kept: Path) -> None:
    precious = kept.with_name("precious")
    precious.write_bytes(b"mine")
    kept.unlink()
    kept.symlink_to(precious)
    said(lambda: [read(NAME, ABOUT), write(NAME, ABOUT, DATA)])
    assert precious.read_bytes() == b"mine" and read(NAME, ABOUT) == DATA


def test_a_warning_made_an_error_comes_once(kept: Path) -> None:
    zeroed(kept)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CacheWarning):
            read(NAME, ABOUT)
        assert read(NAME, ABOUT) is None


# ---- folders ---------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o002, 0o022, 0o777], ids=oct)
def test_a_new_folder_is_for_us_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    monkeypatch.setenv("RNNCC_CACHE", str(tmp_path / "a" / "b"))
    before = os.umask(umask)
    try:
        assert said(lambda: write(NAME, ABOUT, DATA))[1] == []
    finally:
        os.umask(before)
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b" / NAME).stat().st_mode) & 0o077 == 0
    assert not list((tmp_path / "a" / "b").glob(".*"))


def refused(why: str) -> None:
    """Neither read nor written, and one warning."""
    before = sorted(p.name for p in cache_folder.folder_path().parent.rglob("*"))
    found, words = said(lambda: (read(NAME, ABOUT), write(NAME, ABOUT, b"new"), read(NAME, ABOUT)))
    assert found == (None, None, None)
    assert len(words) == 1 and why in words[0] and "for itself" in words[0]
    assert before == sorted(p.name for p in cache_folder.folder_path().parent.rglob("*"))


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777], ids=oct)
def test_a_folder_that_others_may_write_to(kept: Path, mode: int) -> None:
    kept.parent.chmod(mode)
    refused("others may write to")
    kept.parent.chmod(0o755)
    assert read(NAME, ABOUT) == DATA


def test_a_folder_in_one_where_everybody_moves_folders(kept: Path) -> None:
    kept.parent.parent.chmod(0o777)
    refused("everybody may move folders in")
    kept.parent.parent.chmod(0o1777)
    assert read(NAME, ABOUT) == DATA


def test_a_folder_or_file_of_another_user(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstat(os.open(kept, os.O_RDONLY)).st_uid
    if real == 0:
        os.chown(kept.parent, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    refused("belongs to another user")
    if real == 0:
        os.chown(kept.parent, 0, -1)
        os.chown(kept, 12345, -1)
        assert said(lambda: read(NAME, ABOUT))[0] is None


@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_what_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / "store"
    monkeypatch.setenv("RNNCC_CACHE", str(path))
    (tmp_path / "real").mkdir(mode=0o700)
    {
        "file": path.touch,
        "link": lambda: path.symlink_to(tmp_path / "real"),
        "pipe": lambda: os.mkfifo(path),
    }[kind]()
    refused("is a link or a file, not a folder")


@pytest.mark.parametrize("home", ["/nonexistent/here", "relative"])
def test_no_home(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.delenv("RNNCC_CACHE", raising=False)
    monkeypatch.setenv("HOME", home)
    real = Path.mkdir

    def mkdir(self: Path, *args: Any, **kwargs: Any) -> None:
        if str(self).startswith(home):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    found, words = said(lambda: (write(NAME, ABOUT, DATA), read(NAME, ABOUT)))
    assert found == (None, None) and len(words) == 1


def test_a_user_the_system_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("RNNCC_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", home)
    found, words = said(lambda: (read(NAME, ABOUT), write(NAME, ABOUT, DATA)))
    assert found == (None, None) and "there is no home folder" in words[0]


def test_the_folder_of_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RNNCC_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    write(NAME, ABOUT, DATA)
    assert (tmp_path / ".cache" / "rnncc" / NAME).is_file()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("function", ["fsync", "replace", "open"])
def test_a_disk_that_cannot_be_written_to(
    kept: Path, monkeypatch: pytest.MonkeyPatch, code: int, function: str
) -> None:
    real = getattr(os, function)

    def fails(*args: Any, **kwargs: Any) -> Any:
        if function != "open" or args[1] & os.O_CREAT:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fails)
        other = entry_name("other", "other", "o")
        _, words = said(lambda: [write(other, "other", DATA) for _ in range(3)])
    assert len(words) == 1 and os.strerror(code) in words[0]
    assert [p.name for p in kept.parent.iterdir()] == [NAME], "nothing is left behind"
    assert read(NAME, ABOUT) == DATA


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir(mode=0o700)
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=16k,mode=700 tmpfs {folder} 2>/dev/null"):
        pytest.skip("no disk to be had")
    yield folder
    os.system(f"umount {folder}")


def test_a_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNCC_CACHE", str(small_disk))
    write(NAME, ABOUT, DATA)
    other = entry_name("other", "other", "o")
    _, words = said(lambda: write(other, "other", DATA * 4))
    assert len(words) == 1 and "No space left" in words[0]
    assert [p.name for p in small_disk.iterdir()] == [NAME]
    assert read(NAME, ABOUT) == DATA


# ---- size ------------------------------------------------------------------------------------


def filled(count: int) -> list[str]:
    names = []
    for i in range(count):
        names.append(entry_name(f"entry {i}", f"about {i}", "o"))
        write(names[-1], f"about {i}", bytes(1000))
    return names


def test_what_was_not_used_for_longest_goes_first(
    fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = filled(10)
    for i, name in enumerate(names):
        os.utime(fresh_store / name, (0, time.time() - 10000 + i))
    for i in (0, 3):
        assert read(names[i], f"about {i}") is not None, "marked as used"
    monkeypatch.setenv("RNNCC_CACHE_BYTES", "7000")
    write(NAME, ABOUT, bytes(1000))
    left = {p.name for p in fresh_store.iterdir()}
    assert {names[0], names[3], NAME} <= left and not {names[1], names[2], names[4]} & left
    assert sum(p.stat().st_size for p in fresh_store.iterdir()) <= 7000


def test_only_files_of_ours_are_removed(fresh_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(3)
    others = [fresh_store / "notes.txt", fresh_store / "model.o", fresh_store / ".hidden.tmp"]
    for path in others:
        path.write_bytes(bytes(5000))
    monkeypatch.setenv("RNNCC_CACHE_BYTES", "1500")
    write(NAME, ABOUT, bytes(1000))
    assert {p.name for p in fresh_store.iterdir()} == {NAME, *(p.name for p in others)}


def test_what_a_killed_process_left_unfinished(fresh_store: Path) -> None:
    fresh_store.mkdir(mode=0o700)
    old, new = (fresh_store / f".a.0123456789abcdef.o.{i:016x}.tmp" for i in (1, 2))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - 7200))
    write(NAME, ABOUT, DATA)
    assert {p.name for p in fresh_store.iterdir()} == {NAME, new.name}


def test_a_large_folder_is_not_looked_at_for_every_entry(
    fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    monkeypatch.setattr(cache_folder, "trim", lambda *_: looked.append(1))
    monkeypatch.setenv("RNNCC_CACHE_BYTES", "400000")
    filled(40)
    assert 2 <= len(looked) <= 6


def test_no_bytes_is_no_cache(fresh_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNCC_CACHE_BYTES", "0")
    assert said(lambda: (write(NAME, ABOUT, DATA), read(NAME, ABOUT))) == ((None, None), [])
    assert not fresh_store.exists()


@pytest.mark.parametrize("text", ["-1", "1e9", "many", "1 GiB", "٣"])
def test_a_bound_that_is_no_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("RNNCC_CACHE_BYTES", text)
    with pytest.raises(Misset, match="RNNCC_CACHE_BYTES must be a whole number"):
        read(NAME, ABOUT)


# ---- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["lstm_cpu", "x" * 400, "Ünïcode", "../../etc", "", "a/b\0c"])
def test_any_stem_makes_a_file_name(fresh_store: Path, stem: str) -> None:
    name = entry_name(stem, ABOUT, "module")
    write(name, ABOUT, DATA)
    assert [p.name for p in fresh_store.iterdir()] == [name] and read(name, ABOUT) == DATA
    assert cache_folder.clear() == (1, [])


# ---- the command ------------------------------------------------------------------------------


def test_rnncc_cache(kept: Path, rnncc_cli: Callable[..., Any]) -> None:
    other = kept.with_name("notes.txt")
    other.write_text("mine")
    shown = rnncc_cli("cache")
    assert shown.code == 0 and str(kept.parent) in shown.out
    assert f"{kept.stat().st_size:,} of at most 1,073,741,824" in shown.out
    cleared = rnncc_cli("cache", "--clear")
    assert (cleared.code, cleared.out) == (0, "1 entry removed\n")
    assert list(kept.parent.iterdir()) == [other]
    assert rnncc_cli("cache", "--clear").out == "0 entries removed\n"


def test_rnncc_cache_of_a_folder_that_is_not_used(
    kept: Path, rnncc_cli: Callable[..., Any]
) -> None:
    kept.parent.chmod(0o777)
    for arguments in ((), ("--clear",)):
        shown = rnncc_cli("cache", *arguments)
        assert shown.code == 1 and "others may write to" in shown.err
    assert kept.exists()
    with pytest.raises(Unusable):
        cache_folder.contents()
