"""The cache folder: sealed entries in a folder that nobody else can write to.

    write(name, about, data)
    read(name, about)              # data, or None: not there, or not what was written

An entry is a file: who may use it (`about`), a checksum over that and the data, the data. Nothing
of it is handed on before all of it has been checked, so what is damaged, exchanged or of another
rnncc, CPU or vector width is as good as missing; its owner makes it again and writes over it.

The cache is never needed for a right result. Where there is no folder to be had, or one that
others own or may write to, or a disk that is full, everything is made for this process alone, and
one warning says why.

Non-Goals: what entries hold (`module_cache`, `object_cache`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rnncc.common.machine import Misset
from rnncc.common.version import __version__
from rnncc.runtime.common.fork_safety import open_in_children

FOLDER, BYTES = "RNNCC_CACHE", "RNNCC_CACHE_BYTES"
MOST_BYTES = 1 << 30  # of all entries, unless RNNCC_CACHE_BYTES says otherwise
LARGEST = 1 << 26  # of one; what is larger isn't one of ours

_MAGIC = b"rnncc cache entry 1\n"
_SUM_BYTES = 32
_OURS = re.compile(r"\w[\w.]{0,150}\.[0-9a-f]{16}\.(?:module|o|cubin)", re.ASCII)
_UNFINISHED = re.compile(r"\.\w[\w.]{0,180}\.[0-9a-f]{16}\.tmp", re.ASCII)
_ABANDONED = 3600.0  # seconds after which a writer of an unfinished file is surely gone
_RECENT = 60.0  # seconds within which an entry needn't be marked as used again
# No link is followed, no pipe waited for; 0 where a system doesn't have them.
_CAREFULLY = sum(getattr(os, n, 0) for n in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_HAS_FOLDERS = os.open in os.supports_dir_fd and os.scandir in os.supports_fd


class CacheWarning(UserWarning):
    """The cache of modules and machine code can't be used, or part of it was damaged. Results are
    right nonetheless: what isn't found there is made again."""


class Unusable(OSError):
    """Why a folder isn't used, in words for whoever may change that."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Damaged(ValueError):
    """What is wrong with an entry."""


_said: set[str] = set()


def _say(kind: str, text: str) -> None:
    """A warning, once a process for each kind: causes last, and calls are many."""
    if kind not in _said:
        _said.add(kind)
        warnings.warn(text, CacheWarning, stacklevel=2)


# ---- which folder --------------------------------------------------------------------------------


def folder_path() -> Path:
    """$RNNCC_CACHE, else ~/.cache/rnncc. Unusable where there is neither."""
    chosen = os.environ.get(FOLDER)
    if chosen:
        return Path(chosen).absolute()
    try:
        home = Path.home()
    except (RuntimeError, KeyError):  # a user whom the system doesn't know
        home = Path()
    if not home.is_absolute():
        raise Unusable("there is no home folder to keep it in")
    return home / ".cache" / "rnncc"


def most_bytes() -> int:
    """What all entries together may take; 0: nothing is read or written."""
    text = os.environ.get(BYTES, "").strip()
    if not text:
        return MOST_BYTES
    if not (text.isascii() and text.isdecimal()):
        raise Misset(f"environment variable {BYTES} must be a whole number, not {text!r}")
    return int(text)


class Folder:
    """The folder, open: what is done in it happens in the one that was looked at, whatever its
    path leads to by then."""

    def __init__(self, path: Path) -> None:
        self.path, self.handle = path, -1

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, *, make: bool = False) -> Iterator[Folder]:
        """FileNotFoundError where there is none and none is to be made; Unusable for one that
        others own or may write to; OSError."""
        if make and not os.path.lexists(path):
            _make(path)
        folder = cls(path)
        if _HAS_FOLDERS:
            flags = os.O_RDONLY | os.O_DIRECTORY | _CAREFULLY
            try:
                folder.handle = os.open(path, flags)
            except OSError as error:
                if os.path.lexists(path) and not stat.S_ISDIR(os.lstat(path).st_mode):
                    raise Unusable(f"{path} is a link or a file, not a folder") from error
                raise
        try:
            folder._check()
            yield folder
        finally:
            if folder.handle >= 0:
                os.close(folder.handle)

    def _check(self) -> None:
        status = os.stat(self.handle if self.handle >= 0 else self.path)
        if not _is_ours(status):
            raise Unusable(
                f"{self.path} belongs to another user (uid {status.st_uid}): set {FOLDER} to a "
                "folder of your own"
            )
        if _others_write(status):
            raise Unusable(
                f"others may write to {self.path} (mode {stat.S_IMODE(status.st_mode):04o}): empty "
                f"it and chmod 700 it, or set {FOLDER} to another folder"
            )
        for parent in self.path.parents:
            mode = os.stat(parent).st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and hasattr(os, "geteuid"):
                raise Unusable(
                    f"everybody may move folders in {parent} (mode {stat.S_IMODE(mode):04o}), and "
                    f"so {self.path}: chmod o-w {parent}, or set {FOLDER} to another folder"
                )

    # ---- files ----

    def _at(self, name: str) -> tuple[str, int | None]:
        return (name, self.handle) if self.handle >= 0 else (str(self.path / name), None)

    def open(self, name: str, flags: int) -> int:
        path, at = self._at(name)
        return os.open(path, flags | _CAREFULLY, 0o600, dir_fd=at)

    def remove(self, name: str) -> None:
        """The file, or an empty folder in its place; what a link leads to stays."""
        path, at = self._at(name)
        try:
            os.unlink(path, dir_fd=at)
        except (IsADirectoryError, PermissionError):  # the second is what macOS says of a folder
            os.rmdir(path, dir_fd=at)

    def put(self, name: str, data: bytes) -> None:
        """A file written whole or not at all, even where power fails; two may write the same."""
        beside = f".{name}.{os.urandom(8).hex()}.tmp"
        handle = self.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._rename(beside, name)
        except BaseException:
            with contextlib.suppress(OSError):
                self.remove(beside)
            raise
        if self.handle >= 0:
            os.fsync(self.handle)

    def _rename(self, old: str, new: str) -> None:
        (a, at), (b, _) = self._at(old), self._at(new)
        try:
            os.replace(a, b, src_dir_fd=at, dst_dir_fd=at)
        except (IsADirectoryError, PermissionError):
            self.remove(new)
            os.replace(a, b, src_dir_fd=at, dst_dir_fd=at)

    def listing(self) -> Iterator[tuple[str, os.stat_result]]:
        """Files that bear names of ours."""
        with os.scandir(self.handle if self.handle >= 0 else self.path) as entries:
            for each in entries:
                if _OURS.fullmatch(each.name) or _UNFINISHED.fullmatch(each.name):
                    with contextlib.suppress(FileNotFoundError):  # another process removed it
                        yield each.name, each.stat(follow_symlinks=False)


def _make(path: Path) -> None:
    """The folder and those above it, for us alone whatever the umask."""
    for each in reversed([path, *path.parents]):
        if not os.path.lexists(each):
            with contextlib.suppress(FileExistsError):  # made by another process meanwhile
                each.mkdir(mode=0o700)
                each.chmod(0o700)


def _is_ours(found: os.stat_result) -> bool:
    """Ours, or root's, who may do anything anyway: a cache that came with a system image."""
    return not hasattr(os, "geteuid") or found.st_uid in (os.geteuid(), 0)


def _others_write(found: os.stat_result) -> bool:
    return hasattr(os, "geteuid") and bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


# ---- sealed entries ------------------------------------------------------------------------------


def entry_name(stem: str, about: str, kind: str) -> str:
    """The name of what is about this. stem: for people who look at the folder."""
    plain = re.sub(r"[^\w.]+", "_", stem, flags=re.ASCII).strip("._")[:80]
    return f"{plain or 'entry'}.{hashlib.blake2b(about.encode(), digest_size=8).hexdigest()}.{kind}"


def seal(about: str, data: bytes) -> bytes:
    """What a file holds."""
    head = about.encode()
    rest = len(head).to_bytes(4, "little") + head + data
    return _MAGIC + hashlib.blake2b(rest, digest_size=_SUM_BYTES).digest() + rest


def unseal(about: str, sealed: bytes) -> bytes:
    """The data. Damaged unless all of it is as it was sealed, and about this."""
    said, data = _parts(sealed)
    if said != about.encode():
        raise Damaged("it belongs to another name")
    return bytes(data)


def _parts(sealed: bytes) -> tuple[memoryview, memoryview]:
    """What it is about, and the data. Damaged unless all of it is as it was sealed."""
    start = len(_MAGIC) + _SUM_BYTES
    rest = memoryview(sealed)[start:]
    if len(rest) < 4 or sealed[: len(_MAGIC)] != _MAGIC:
        raise Damaged("it is no entry")
    if hashlib.blake2b(rest, digest_size=_SUM_BYTES).digest() != sealed[len(_MAGIC) : start]:
        raise Damaged("its checksum is wrong")
    size = int.from_bytes(rest[:4], "little")
    return rest[4 : 4 + size], rest[4 + size :]


def read(name: str, about: str) -> bytes | None:
    """The data of an entry; None where there is none, or none that is fit to be used."""
    try:
        if not most_bytes():
            return None
        path = folder_path()
        with Folder.opened(path) as folder:
            try:
                return unseal(about, _content(folder, name))
            except FileNotFoundError:
                return None
            except (Damaged, OSError) as error:
                why = str(error) if isinstance(error, Damaged) else error.strerror
        _say(
            "damaged",
            f"the cache of rnncc is damaged: {path / name}: {why}. It is compiled again, and so is "
            "whatever else is found damaged.",
        )
    except FileNotFoundError:
        pass
    except OSError as error:
        _say_unusable(error)
    return None


def _content(folder: Folder, name: str) -> bytes:
    handle = folder.open(name, os.O_RDONLY)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise Damaged("it is no file")
        if not _is_ours(status) or _others_write(status):
            raise Damaged("others own it or may write to it")
        if status.st_size > LARGEST:
            raise Damaged(f"it has {status.st_size:,} bytes")
        with os.fdopen(handle, "rb", buffering=0, closefd=False) as file:
            data = file.read(status.st_size)
        if time.time() - status.st_mtime > _RECENT and os.utime in os.supports_fd:
            with contextlib.suppress(OSError):  # a disk that can't be written to
                os.utime(handle)
        return data or b""
    finally:
        os.close(handle)


def write(name: str, about: str, data: bytes) -> None:
    """Keeps an entry for later processes, if that can be."""
    sealed, most = seal(about, data), most_bytes()
    if len(sealed) > min(most, LARGEST):
        return
    try:
        with Folder.opened(folder_path(), make=True) as folder:
            folder.put(name, sealed)
            _bound.wrote(folder, len(sealed), most)
    except OSError as error:
        _say_unusable(error)


def _say_unusable(error: OSError) -> None:
    why = error.why if isinstance(error, Unusable) else f"{folder_path()}: {error.strerror}"
    _say(
        "unusable",
        f"rnncc can't use its cache: {why}. What isn't found there is compiled by each process for "
        "itself.",
    )


# ---- its size ------------------------------------------------------------------------------------


class _Bound:
    """Keeps the folder within its bound without looking at all of it after every write."""

    def __init__(self) -> None:
        self.unseen: dict[Path, int] = {}  # bytes written since the folder was looked at
        self.lock = threading.Lock()
        open_in_children(self, "lock")

    def wrote(self, folder: Folder, size: int, most: int) -> None:
        with self.lock:
            unseen = self.unseen.get(folder.path, most) + size
            self.unseen[folder.path] = unseen
            if unseen * 32 < most:
                return
            self.unseen[folder.path] = 0
        trim(folder, most)


_bound = _Bound()


def trim(folder: Folder, most: int) -> None:
    """Removes what has not been used for longest until the rest takes nine tenths of the bound;
    what was left unfinished, too."""
    entries, now = [], time.time()
    for name, status in folder.listing():
        if _OURS.fullmatch(name):
            entries.append((status.st_mtime, name, _bytes_of(status)))
        elif now - status.st_mtime > _ABANDONED:
            _remove(folder, name)
    total = sum(size for _, _, size in entries)
    if total <= most:
        return
    for _, name, size in sorted(entries):
        if total <= most * 9 // 10:
            break
        if _remove(folder, name):
            total -= size


def _bytes_of(found: os.stat_result) -> int:
    return min(found.st_size, LARGEST)


def _remove(folder: Folder, name: str) -> bool:
    """Whether it is gone, by whomever."""
    try:
        folder.remove(name)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


# ---- for `rnncc cache` ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Contents:
    """What a folder holds: (entries, bytes) by kind."""

    path: Path
    kinds: dict[str, tuple[int, int]]


def contents() -> Contents:
    """Of the folder in use; Unusable says why there is none."""
    path, kinds = folder_path(), {"module": (0, 0), "o": (0, 0), "cubin": (0, 0)}

    def count(folder: Folder) -> None:
        for name, status in folder.listing():
            kind = name.rpartition(".")[2]
            entries, size = kinds.get(kind, (0, 0))
            kinds[kind] = entries + 1, size + _bytes_of(status)

    _in_folder(path, count)
    return Contents(path, kinds)


def sound_entries(kind: str) -> tuple[list[tuple[str, bytes]], list[str]]:
    """The data of entries of one kind, by name and in its order, whoever may use them; and what is
    wrong with those that are damaged."""
    sound: list[tuple[str, bytes]] = []
    damaged: list[str] = []

    def collect(folder: Folder) -> None:
        for name in sorted(n for n, _ in folder.listing() if n.endswith(f".{kind}")):
            try:
                sound.append((name, bytes(_parts(_content(folder, name))[1])))
            except FileNotFoundError:  # another process removed it
                pass
            except (Damaged, OSError) as error:
                damaged.append(f"{name}: {error}")

    _in_folder(folder_path(), collect)
    return sound, damaged


def clear() -> tuple[int, list[str]]:
    """Removes every file that bears a name of ours: (how many, names of those that stay)."""
    gone, left = 0, []

    def empty(folder: Folder) -> None:
        nonlocal gone
        for name in [name for name, _ in folder.listing()]:
            if _remove(folder, name):
                gone += 1
            else:
                left.append(name)

    _in_folder(folder_path(), empty)
    return gone, left


def _in_folder(path: Path, act: Callable[[Folder], None]) -> None:
    with contextlib.suppress(FileNotFoundError), Folder.opened(path) as folder:
        act(folder)


def written_by() -> str:
    """What every entry says of who wrote it."""
    return f"rnncc {__version__}"
