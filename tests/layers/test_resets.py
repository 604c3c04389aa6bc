"""Rows that start anew in layers made of layers: episodes alone, slopes, streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.layers import GRU, LSTM, RNN, Bidirectional, GRUCell, LSTMCell, SimpleRNN
from rnncc.runtime.cpu.execution import time_chunks
from tests.support.arrays import uniform
from tests.support.calls.episodes import episodes
from tests.support.calls.slopes import check_slopes
from tests.support.cases import error

BATCH, TIME, FEATURES = 4, 6, 3
RESETS = np.random.default_rng(2).random((BATCH, TIME)) < 0.35
RESETS[0, 3] = True
HOLES = np.random.default_rng(4).random((BATCH, TIME)) < 0.7
HOLES[2] = True
MASKS = {"plain": None, "masked": HOLES}


def kept(mask: np.ndarray | None) -> dict[str, Any]:
    return {} if mask is None else {"mask": mask}


def stack(**options: Any) -> RNN:
    cells = [LSTMCell(5, dtype="float64"), GRUCell(4, dtype="float64")]
    return RNN(cells, return_sequences=True, return_state=True, seed=3, **options)


def both(merge: str | None = "concat", **options: Any) -> Bidirectional:
    inner = LSTM(4, return_sequences=True, return_state=True, dtype="float64", seed=3, **options)
    return Bidirectional(inner, merge_mode=merge)


def both_stacks() -> Bidirectional:
    return Bidirectional(stack())


LAYERS = {"stack": stack, "both": both, "both stacks": both_stacks}


def leaves(found: Any) -> list[np.ndarray]:
    return [a for f in found for a in leaves(f)] if isinstance(found, tuple) else [found]


def begun(layer: Any, seed: int = 5) -> Any:
    """Initial states, each row another."""
    return tuple(
        uniform(BATCH, array.shape[1], seed=seed + i)
        for i, array in enumerate(leaves(layer(np.zeros((BATCH, 1, FEATURES))))[1:])
    )


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("what", LAYERS)
def test_episodes_are_calls_of_their_own(what: str, kind: str) -> None:
    """In both directions: a boundary is where it is, whichever way it is crossed."""
    layer, mask = LAYERS[what](), MASKS[kind]
    x = uniform(BATCH, TIME, FEATURES)
    start = begun(layer)
    for given in (None, start):
        flat = given if what != "stack" or given is None else ((given[0], given[1]), given[2])
        y, pullback = layer.vjp(x, initial_state=flat, resets=RESETS, **kept(mask))
        d = uniform(*y[0].shape, seed=9)
        if mask is not None:
            d[~mask] = 0
        blank = (None,) * (len(y) - 1)
        grads = pullback((d, *blank))
        total: dict[str, Any] = dict.fromkeys(grads.weights, 0.0)
        for e in episodes(RESETS, mask):
            one = slice(e.row, e.row + 1)
            own = None if given is None else tuple(a[one] for a in given)
            own = own if what != "stack" or own is None else ((own[0], own[1]), own[2])
            more = {} if mask is None else {"mask": mask[one, e.steps]}
            alone, back = layer.vjp(x[one, e.steps], initial_state=own, **more)
            valid = np.ones(alone[0].shape[1], bool) if mask is None else mask[e.row, e.steps]
            np.testing.assert_array_equal(y[0][e.row, e.steps][valid], alone[0][0][valid])
            parts = back((d[one, e.steps], *blank))
            assert error(grads.inputs[e.row, e.steps], parts.inputs[0]) <= 1e-12
            total = {n: total[n] + parts.weights[n] for n in total}
        for name, array in total.items():
            assert error(grads.weights[name], array) <= 1e-12, name
        np.testing.assert_array_equal(
            layer(x, initial_state=flat, resets=RESETS, **kept(mask))[0], y[0]
        )


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("begin", [False, True])
@pytest.mark.parametrize("what", LAYERS)
def test_second_derivatives_are_slopes(what: str, kind: str, begin: bool) -> None:
    layer = LAYERS[what]()
    x = uniform(BATCH, TIME, FEATURES)
    initial = begun(layer) if begin and what != "stack" else None
    check_slopes(layer, x, initial, MASKS[kind], RESETS)


def test_blocks_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = stack()
    x = uniform(BATCH, 30 * TIME, FEATURES)
    resets = np.tile(RESETS, (1, 30))
    right = leaves(layer(x, resets=resets))
    monkeypatch.setattr(time_chunks, "BLOCK_BYTES", 1)
    for a, b in zip(leaves(layer(x, resets=resets)), right, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("merge", ["sum", "mul", "ave", None])
def test_merges(merge: str | None) -> None:
    x = uniform(BATCH, TIME, FEATURES)
    layer, plain = both(merge), both()
    layer.build(x.shape)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    ahead, back = np.split(plain(x, resets=RESETS)[0], 2, axis=-1)
    means = {"sum": ahead + back, "mul": ahead * back, "ave": (ahead + back) / 2}
    found = layer(x, resets=RESETS)
    if merge is None:
        np.testing.assert_array_equal(np.stack(found[:2]), np.stack([ahead, back]))
    else:
        assert error(found[0], means[merge]) <= 1e-15


@pytest.mark.parametrize("what", ["stack", "both"])
@pytest.mark.parametrize("kind", MASKS)
def test_stateful(what: str, kind: str) -> None:
    """A row that starts anew with a call's first step, in the direction it runs, forgets the call
    before; one whose boundary lies behind its last step starts the next call anew."""
    mask = MASKS[kind]
    layer, fresh = LAYERS[what](stateful=True), LAYERS[what]()
    x = uniform(BATCH, TIME, FEATURES)
    fresh.build(x.shape)
    layer.build(x.shape)
    layer.set_weights(fresh.get_weights())
    layer(x[:, ::-1].copy())
    resets = np.zeros((BATCH, TIME), bool)
    resets[1, 0] = True
    y = layer(x, resets=resets, **kept(mask))[0]
    right = fresh(x, **kept(mask))[0]
    valid = np.ones(TIME, bool) if mask is None else mask[1]
    ahead = 4
    np.testing.assert_array_equal(y[1, valid, :ahead], right[1, valid, :ahead])
    assert (y[0] != right[0]).any()
    if what == "both":  # the other direction has the boundary behind it
        assert (y[1, valid, ahead:] != right[1, valid, ahead:]).any()
        again = layer(x, **kept(mask))[0]
        np.testing.assert_array_equal(again[1, valid, ahead:], right[1, valid, ahead:])


@pytest.mark.parametrize("length", [1, 2])
def test_streams_of_stacks(length: int) -> None:
    layer = stack()
    x = uniform(BATCH, TIME, FEATURES)
    right = layer(x, resets=RESETS)[0]
    stream = layer.stream(x[:, :length])
    for t in range(0, TIME, length):
        own = slice(t, t + length)
        y = stream(x[:, own], resets=RESETS[:, own])
        np.testing.assert_array_equal(y[0] if isinstance(y, tuple) else y, right[:, own])


def test_time_first_and_the_last_output() -> None:
    x = uniform(BATCH, TIME, FEATURES)
    plain = GRU(4, return_sequences=True, dtype="float64", seed=1)
    last = GRU(4, time_major=True, dtype="float64", seed=1) if _takes("time_major") else None
    right = plain(x, resets=RESETS)
    final = GRU(4, dtype="float64", seed=1)(x, resets=RESETS)
    np.testing.assert_array_equal(final, right[:, -1])
    if last is not None:
        np.testing.assert_array_equal(last(x.swapaxes(0, 1).copy(), resets=RESETS), final)


def _takes(keyword: str) -> bool:
    try:
        GRU(4, **{keyword: True})
    except TypeError:
        return False
    return True


def test_a_plan_says_it() -> None:
    layer = SimpleRNN(4)
    layer(uniform(BATCH, TIME, FEATURES), resets=RESETS)
    assert "with resets to zeros" in layer.plan()
    coupled = rnncc.compile("coupled_lstm")(units=3)
    coupled(uniform(BATCH, TIME, FEATURES), resets=RESETS, initial_state=None)
    assert "with resets to zeros" in coupled.plan()
