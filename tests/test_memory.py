"""What nobody holds any longer leaves memory; what may still be called doesn't."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.runtime.kernel import Kernel
from rnncc.runtime.layer import Layer
from rnncc.runtime.objects import Loader

ROOT = Path(__file__).parent.parent
TEXT = """cell: Small
units: size
x: input[units]
h: state[units]
w: weight[units] = ones
# {}
h[t] = tanh(w * h[t-1] + x[t])
return h[t]
"""
X = np.linspace(-1, 1, 12, dtype="float32").reshape(2, 2, 3)


def small(comment: object) -> type[Layer]:
    return rnncc.compile_text(TEXT.format(comment))


def held() -> Counter[str]:
    """How many classes, kernels and linkers there are."""
    gc.collect()
    found: Counter[str] = Counter()
    for each in gc.get_objects():
        if isinstance(each, type) and issubclass(each, Layer):
            found["classes"] += 1
        elif isinstance(each, Kernel | Loader):
            found[type(each).__name__] += 1
    return found


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def call(comment: object) -> None:
    y, pullback = small(comment)(units=3, seed=1, return_sequences=True).vjp(X)
    pullback(y)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux says what is resident")
def test_texts_leave_memory() -> None:
    for i in range(8):
        call(i)
    before, bytes_ = held(), resident()
    for i in range(20):
        call(f"another {i}")
    assert held() == before
    assert resident() - bytes_ < 20 * 100_000


def test_a_text_that_is_held_is_one_class() -> None:
    held_ = small("held")
    assert small("held") is held_
    assert small("not held") is not held_


def _through_a_pullback(layer: Layer) -> Callable[[], Any]:
    y, pullback = layer.vjp(X)
    return lambda: pullback(np.ones_like(y)).inputs


def _through_a_stream(layer: Layer) -> Callable[[], Any]:
    stream = layer.stream(X)

    def again() -> Any:
        stream.reset()
        return np.array(stream(X))

    return again


def _through_a_call(layer: Layer) -> Callable[[], Any]:
    layer(X)
    return lambda: layer(X)


def _through_a_copy(layer: Layer) -> Callable[[], Any]:
    layer(X)
    copied = pickle.loads(pickle.dumps(layer))
    return lambda: copied(X)


WAYS = (_through_a_pullback, _through_a_stream, _through_a_call, _through_a_copy)


@pytest.mark.parametrize("way", WAYS, ids=lambda w: w.__name__)
def test_what_may_be_called_stays(way: Callable[[Layer], Callable[[], Any]]) -> None:
    """Its class, its layer and others of its kind are gone by then."""
    right = way(small("right")(units=3, seed=1, return_sequences=True))()
    again = way(small(f"{way.__name__}")(units=3, seed=1, return_sequences=True))
    for i in range(3):
        call(f"meanwhile {i}")
    gc.collect()
    np.testing.assert_array_equal(again(), right)


def test_layers_are_pickled_by_their_text(tmp_path: Path) -> None:
    """Another process has never seen the class, and this one has let it go."""
    layer = small("pickled")(units=3, seed=1)
    right, data = layer(X), pickle.dumps(layer)
    del layer
    gc.collect()
    np.testing.assert_array_equal(pickle.loads(data)(X), right)
    (tmp_path / "layer").write_bytes(data)
    np.save(tmp_path / "x.npy", X)
    code = (
        "import pickle, numpy as np\n"
        "layer = pickle.load(open('layer', 'rb'))\n"
        "np.save('y.npy', layer(np.load('x.npy')))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), right)
