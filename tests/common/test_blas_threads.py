"""Initial weights are made on one thread of NumPy's BLAS, and nobody else is left with one."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from rnncc.common import blas_threads
from rnncc.common.blas_threads import one_blas_thread
from rnncc.common.initializers import draw, stream


def threads() -> int:
    """As NumPy's BLAS has now; asked by saying one and taking it back."""
    exchange = blas_threads._setter()
    now = exchange(1)
    exchange(now)
    return now


@pytest.fixture
def three() -> None:
    exchange = blas_threads._setter()
    before = exchange(3)
    if threads() != 3:
        pytest.skip("a BLAS that nobody can set")
    yield
    exchange(before)


def test_one_inside_and_as_many_as_before_behind(three: None) -> None:
    with one_blas_thread():
        assert threads() == 1
        with one_blas_thread():
            assert threads() == 1
        assert threads() == 1
    assert threads() == 3
    with pytest.raises(KeyError), one_blas_thread():
        raise KeyError
    assert threads() == 3


def test_orthogonal_weights_take_one(three: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    qr = np.linalg.qr
    monkeypatch.setattr(np.linalg, "qr", lambda a: (seen.append(threads()), qr(a))[1])
    draw("orthogonal", (), (6, 4), "float64", stream(0, "kernel"))
    assert seen == [1] and threads() == 3


SCRIPT = """
import hashlib
from rnncc.common.initializers import draw, stream
values = draw("orthogonal", (), (130, 520), "float64", stream(0, "kernel"))
print(hashlib.sha256(values.tobytes()).hexdigest())
"""


def test_bits_dont_depend_on_how_many_there_are() -> None:
    """Of a shape that OpenBLAS factors otherwise on two threads."""
    found = set()
    for count in ("1", "2"):
        named = {"OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, **named},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1
