"""One damage of a warm cache, or one folder that a stranger prepared; then a process that uses it.

The process has to come to the right numbers, say so at most once, and leave every entry whole. What
a stranger put there is sealed as ours are and would leave a mark: it must never run.

Non-Goals: entries forged by the user's own hand in a folder that is in order.
"""

from __future__ import annotations

import atexit
import json
import marshal
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from rnncc.runtime.jit import cache_folder
from tests.attack import Attack
from tests.support.paths import ROOT

SCRIPT = """
import json, sys, warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import numpy as np
    import rnncc
    cell = rnncc.compile_text('''cell: Small
units: size
x: input[units]
h: state[units]
w: weight[units] = ones
h[t] = tanh(w * h[t-1] + x[t])
return h[t]
''')
    y = cell(units=3, seed=1)(np.linspace(-1, 1, 12, dtype="float32").reshape(2, 2, 3))
words = [str(w.message) for w in said if w.category is rnncc.CacheWarning]
print(json.dumps([y.tobytes().hex(), words, "numba" in sys.modules]))
"""
STRANGER = 12345  # a user id


def start(folder: Path, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "RNNCC_CACHE": str(folder), "PYTHONPATH": str(ROOT), **more}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, list[str], bool]:
    """(result, warnings, whether it compiled)."""
    out, err = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode}:\n{err}")
    result, words, compiled = json.loads(out)
    return result, words, compiled


@cache
def warm() -> tuple[Path, str, float]:
    """A cache that has all a process needs, what that comes to, and the seconds filling it took."""
    folder = Path(tempfile.mkdtemp(prefix="rnncc-attack-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    began = time.monotonic()
    right, words, _ = finish(start(folder / "cache"))
    seconds = time.monotonic() - began
    again, more, compiled = finish(start(folder / "cache"))
    assert right == again and not words and not more and not compiled
    return folder / "cache", right, seconds


def broken(folder: Path) -> list[str]:
    """Names of ours under which there is no whole entry."""
    found = []
    for path in folder.iterdir():
        if not cache_folder._OURS.fullmatch(path.name):
            continue
        try:
            data = path.read_bytes()
            head = int.from_bytes(data[52:56], "little")
            cache_folder.unseal(data[56 : 56 + head].decode(), data)
        except (cache_folder.Damaged, OSError, UnicodeDecodeError):
            found.append(path.name)
    return found


# ---- damages -------------------------------------------------------------------------------------

Damage = Callable[[Path, random.Random], None]


def rewrite(change: Callable[[bytearray, random.Random], Any]) -> Damage:
    def damage(path: Path, rng: random.Random) -> None:
        data = bytearray(path.read_bytes())
        change(data, rng)
        path.write_bytes(data)

    return damage


def _flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flip_late(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data) * 3 // 4, len(data))] ^= 1 << rng.randrange(8)


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _zero(data: bytearray, rng: random.Random) -> None:
    a = rng.randrange(len(data))
    data[a : a + 64] = bytes(len(data[a : a + 64]))


def _noise(data: bytearray, rng: random.Random) -> None:
    data[:] = rng.randbytes(len(data))


def _noise_inside(data: bytearray, rng: random.Random) -> None:
    a = rng.randrange(56, len(data))
    data[a : a + 16] = rng.randbytes(len(data[a : a + 16]))


def _drop(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data))]


def _header(data: bytearray, rng: random.Random) -> None:
    data[:] = data.replace(b"entry 1", b"entry 9")


def _about(data: bytearray, rng: random.Random) -> None:
    """Whole, but for another vector width."""
    size = int.from_bytes(data[52:56], "little")
    about = bytes(data[56 : 56 + size]).replace(b"vectors of ", b"vectors of 1").decode()
    data[:] = cache_folder.seal(about, bytes(data[56 + size :]))


def _beside(path: Path, rng: random.Random) -> Path:
    others = sorted(p for p in path.parent.iterdir() if p.suffix == path.suffix and p != path)
    return rng.choice(others)


def exchange(path: Path, rng: random.Random) -> None:
    other = _beside(path, rng)
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


def replaced(make: Callable[[Path, random.Random], Any]) -> Damage:
    def damage(path: Path, rng: random.Random) -> None:
        path.unlink()
        make(path, rng)

    return damage


def _socket(path: Path, rng: random.Random) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            made.bind(path.name[:90])
            os.rename(path.name[:90], path.name)
        finally:
            os.chdir(here)


def _full_folder(path: Path, rng: random.Random) -> None:
    path.mkdir()
    (path / "precious").write_text("mine")


DAMAGES: dict[str, Damage] = {
    "a bit": rewrite(_flip),
    "a bit near the end": rewrite(_flip_late),
    "cut": rewrite(_cut),
    "emptied": rewrite(lambda d, _: d.clear()),
    "zeros in it": rewrite(_zero),
    "all zeros": rewrite(lambda d, _: d.__setitem__(slice(None), bytes(len(d)))),
    "noise": rewrite(_noise),
    "noise in it": rewrite(_noise_inside),
    "longer": rewrite(lambda d, rng: d.extend(rng.randbytes(rng.randrange(1, 99)))),
    "a byte less": rewrite(_drop),
    "twice": rewrite(lambda d, _: d.extend(bytes(d))),
    "another format": rewrite(_header),
    "another width": rewrite(_about),
    "exchanged": exchange,
    "another's content": lambda p, rng: p.write_bytes(_beside(p, rng).read_bytes()) and None,
    "gone": lambda p, _: p.unlink(),
    "mode 000": lambda p, _: p.chmod(0),
    "mode 666": lambda p, _: p.chmod(0o666),
    "a huge hole": lambda p, _: os.truncate(p, 1 << 42),
    "a pipe": replaced(lambda p, _: os.mkfifo(p)),
    "a socket": replaced(_socket),
    "a folder": replaced(lambda p, _: p.mkdir()),
    "a full folder": replaced(_full_folder),
    "a link to another": replaced(lambda p, rng: p.symlink_to(_beside(p, rng))),
    "a link to itself": replaced(lambda p, _: p.symlink_to(p.name)),
    "a link to zeros": replaced(lambda p, _: p.symlink_to("/dev/zero")),
    "a link to nothing": replaced(lambda p, _: p.symlink_to("nothing")),
    "another name of another": replaced(lambda p, rng: os.link(_beside(p, rng), p)),
}

# ---- strangers -----------------------------------------------------------------------------------


def forge(path: Path, mark: Path) -> None:
    """The entry, sealed as ours are, with code that leaves a mark."""
    data = path.read_bytes()
    size = int.from_bytes(data[52:56], "little")
    about, rest = data[56 : 56 + size].decode(), data[56 + size :]
    text = int.from_bytes(rest[:8], "little")
    code = compile(f"open({str(mark)!r}, 'w').close()", "forged", "exec")
    path.write_bytes(cache_folder.seal(about, rest[: 8 + text] + marshal.dumps(code)))


def _foreign(path: Path) -> None:
    if os.geteuid():
        path.chmod(0o777)  # only root gives things away
    else:
        os.chown(path, STRANGER, -1)


def _linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _open_above(path: Path) -> None:
    path.parent.chmod(0o777)


def _their_files(path: Path) -> None:
    for each in path.iterdir():
        _foreign(each)


STRANGERS: dict[str, Callable[[Path], None]] = {
    "a stranger's folder": _foreign,
    "mode 777": lambda p: p.chmod(0o777),
    "mode 770": lambda p: p.chmod(0o770),
    "mode 1777": lambda p: p.chmod(0o1777),
    "a link": _linked,
    "everybody's folder above": _open_above,
    "a stranger's files": _their_files,
}


def attempt(index: int, seed: int) -> str | None:
    rng = random.Random(f"cache {seed} {index}")
    source, right, _ = warm()
    names = [*DAMAGES, *STRANGERS]
    # Every kind in turn; every other one is a flipped bit.
    name = "a bit" if index % 2 else names[index // 2 % len(names)]
    with tempfile.TemporaryDirectory(prefix="rnncc-attack-") as above:
        folder, mark = Path(above) / "cache", Path(above) / "mark"
        shutil.copytree(source, folder)
        folder.chmod(0o700)
        before = {p.name for p in folder.iterdir()}
        hit = ""
        if name in DAMAGES:
            path = rng.choice(sorted(folder.iterdir()))
            DAMAGES[name](path, rng)
            hit = path.name
        else:
            for path in sorted(folder.glob("*.module")):
                forge(path, mark)
            STRANGERS[name](folder)
        try:
            result, words, _ = finish(start(folder))
        except Exception as error:
            return f"{name} {hit}: {error}"
        finally:
            Path(above).chmod(0o700)
        if mark.exists():
            return f"{name}: what a stranger wrote was run"
        if result != right:
            return f"{name} {hit}: another result"
        most = 2 if name == "a full folder" else 1
        if len(words) > most or (not words and name not in ("gone", "mode 000")):
            return f"{name} {hit}: {len(words)} warnings: {words}"
        if name in STRANGERS or name == "a full folder":
            return None
        after = {p.name for p in folder.iterdir()}
        if broken(folder) or after != before:
            return f"{name} {hit}: not mended: {broken(folder)} {after ^ before}"
        return None


ATTACK = Attack(
    name="cache",
    about="a damage of the cache, a bit of an entry flipped, or a folder a stranger prepared",
    count=200,
    short=3,
    attempt=attempt,
)
