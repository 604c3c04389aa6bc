"""Memory of results, residuals and workspaces: kept, given out again, never shared."""

from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest

import rnncc
from rnncc.runtime.common.memory_pool import KEPT_BYTES, POOLED_BYTES, Pool, address_of

F32 = np.dtype("float32")
LARGE = (POOLED_BYTES // 4, 3)


def test_memory_of_a_dropped_array_serves_the_next() -> None:
    pool = Pool()
    array = pool.array(LARGE, F32)
    where = address_of(array)
    assert type(array) is np.ndarray and where % 64 == 0 and array.flags.writeable
    del array
    gc.collect()
    assert address_of(pool.array(LARGE, F32)) == where


@pytest.mark.parametrize("view", [lambda a: a[1:], lambda a: a.T, lambda a: memoryview(a)])
def test_a_view_keeps_the_memory(view) -> None:
    pool = Pool()
    array = pool.array(LARGE, F32)
    array[...] = 7
    seen = view(array)
    del array
    gc.collect()
    pool.array(LARGE, F32)[...] = 1
    assert (np.asarray(seen) == 7).all()


def test_copies_and_pickles_are_their_own() -> None:
    pool = Pool()
    array = pool.array(LARGE, F32)
    array[...] = 3
    others = [copy.deepcopy(array), pickle.loads(pickle.dumps(array)), array.copy()]
    array[...] = 4
    assert all((other == 3).all() for other in others)


def test_no_more_is_kept_than_allowed() -> None:
    pool = Pool()
    for size in range(KEPT_BYTES // 8, KEPT_BYTES // 4, KEPT_BYTES // 64):
        pool.give(pool.take(size))
    assert pool._kept_bytes <= KEPT_BYTES
    assert pool._kept_bytes == sum(a.nbytes for free in pool._free.values() for a in free)


class Poisoned(Pool):
    """What a kernel reads without having written it is not a number."""

    def take(self, size: int) -> np.ndarray:
        found = super().take(size)
        found[...] = 255
        return found


@pytest.mark.parametrize("cell", ["lstm", "layer_norm_lstm", "fast_weights"])
def test_nothing_depends_on_what_memory_held(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    layer = rnncc.compile(cell)(units=17, return_sequences=True, seed=1)
    x = rng.standard_normal((3, 5, 7)).astype("float32")
    monkeypatch.setattr("rnncc.runtime.common.memory_pool.POOL", Poisoned())
    y, pullback = layer.vjp(x)
    found = pullback(np.ones_like(y))
    for array in (layer(x), y, found.inputs, *found.weights.values()):
        assert np.isfinite(array).all()
