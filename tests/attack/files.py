"""Damaged and hostile files of every format: read, or refused by one FileError.

Files of nine kinds are cut, have bits turned, bytes taken out, put in or doubled, and numbers of
sizes put where they hurt; archives are also damaged inside and packed again, so that checksums are
right. What is still read goes into a layer, too. A finding: another exception, an array that isn't
what its dtype says, half of the weights, more than 2 s of the processor, or more than 300 MB above
the file's own size.
"""

from __future__ import annotations

import functools
import io
import os
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from rnncc.files import FileError, Tensors, read
from rnncc.layers import LSTM
from rnncc.models.conventions import load_weights
from tests.attack import Attack
from tests.support.files.written import ARRAYS, WRITERS

FORMATS = tuple(WRITERS)
SECONDS, BYTES = 2.0, 300 * 2**20
SIZES = [
    n.to_bytes(w, "little", signed=n < 0)
    for w in (2, 4, 8)
    for n in (0, -1, 1, 2 ** (8 * w - 1) - 1, -(2 ** (8 * w - 1)), 2 ** (4 * w), 10 ** (2 * w - 1))
]


@functools.cache
def original(format: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w"
        WRITERS[format](path, ARRAYS)
        return path.read_bytes()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four times."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(max(1, len(found))))
        width = int(rng.integers(1, 64))
        match int(rng.integers(8)):
            case 0:
                del found[at:]
            case 1 | 2 if found:
                found[at] ^= 1 << int(rng.integers(8))
            case 3:
                size = SIZES[int(rng.integers(len(SIZES)))]
                found[at : at + len(size)] = size
            case 4:
                del found[at : at + width]
            case 5:
                found[at:at] = found[at : at + width]
            case 6:
                found[at : at + width] = rng.bytes(width)
            case _:
                other = int(rng.integers(max(1, len(found))))
                found[at : at + width] = found[other : other + width]
    return bytes(found)


def damaged_inside(data: bytes, rng: np.random.Generator) -> bytes:
    """One file of an archive, packed again with the checksum that it then has."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        names = old.namelist()
        # torch's numbers are one file each: the pickle and the configuration are what matters.
        telling = [n for n in names if n.endswith((".pkl", ".json", ".h5"))] or names
        chosen = telling[int(rng.integers(len(telling)))]
        for name in names:
            inner = old.read(name)
            new.writestr(name, damaged(inner, rng) if name == chosen else inner)
    return made.getvalue()


def mutation(index: int, seed: int) -> tuple[str, bytes]:
    """The format, and the file: the first of each are cut at every tenth byte."""
    format = FORMATS[index % len(FORMATS)]
    number = index // len(FORMATS)
    data = original(format)
    rng = np.random.default_rng([seed, index])
    if number % 4 == 0:
        return format, data[: number * 10 // 4 % len(data)]
    if number % 2 and data[:2] == b"PK":
        return format, damaged_inside(data, rng)
    return format, damaged(data, rng)


class Peak:
    """How far memory of this process rose since it was made, in bytes; 0 where nobody says."""

    def __init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._before = _status("VmRSS")

    def risen(self) -> int:
        return _status("VmHWM") - self._before


def _status(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(n.split()[1]) * 1024 for n in lines if n.startswith(name)), 0)


def attempt(index: int, seed: int) -> str | None:
    format, data = mutation(index, seed)
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(data)
    try:
        return judged(format, file.name, len(data))
    finally:
        os.unlink(file.name)


def processor_time() -> float:
    """Of this process and those it has started: others' load is none of a file's faults."""
    return sum(os.times()[:4])


def judged(format: str, path: str, length: int) -> str | None:
    began, peak = processor_time(), Peak()
    try:
        outcome: Tensors | FileError | BaseException = read(path)
    except FileError as error:
        outcome = error
    except BaseException as error:
        return f"{format}: {type(error).__name__}: {error!s:.300}"
    took, risen = processor_time() - began, peak.risen()
    if took > SECONDS:
        return f"{format}: {took:.1f} s for {outcome!s:.200}"
    if risen > BYTES + length:
        return f"{format}: {risen:,} bytes for {outcome!s:.200}"
    if isinstance(outcome, FileError):
        return None if str(outcome).startswith(path) else f"{format}: nameless {outcome!s:.200}"
    for name, array in outcome.items():
        if array.dtype.kind not in "biuf" or not array.dtype.isnative:
            return f"{format}: {name} is {array.dtype}"
        array.tobytes()  # all of it can be read
    return into_a_layer(format, outcome)


def into_a_layer(format: str, tensors: Tensors) -> str | None:
    """Of what is still a file: its weights are a layer's, or aren't."""
    layer = LSTM(3, seed=1)
    layer.build((None, None, 5))
    before = layer.get_weights()
    try:
        load_weights(layer, tensors)
    except FileError:
        if all(a.tobytes() == b.tobytes() for a, b in zip(before, layer.get_weights())):
            return None
        return f"{format}: a layer has half of the weights"
    except Exception as error:
        return f"{format}: load_weights: {type(error).__name__}: {error!s:.300}"
    if not all(np.isfinite(w).all() for w in layer.get_weights()):
        return f"{format}: weights that aren't finite were taken"
    return None


ATTACK = Attack(
    name="files",
    about="damaged and hostile files of nine formats: read or refused, 2 s, 300 MB",
    count=2000 * len(FORMATS),
    short=12 * len(FORMATS),
    attempt=attempt,
)
