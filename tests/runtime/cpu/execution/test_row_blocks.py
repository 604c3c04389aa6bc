"""Rows that end before others: the blocks that a call falls into, and what comes of them.

Held against the whole call, whose bits values and gradients of inputs and states have, and torch's
own modules in tests/torch/test_packed.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.runtime.cpu.execution import row_blocks, time_chunks

LENGTHS = np.array([11, 11, 9, 6, 5, 5, 2, 0])
CELL = """
cell: Blocks

features: size
units: size

x: input[features]
level: context[units]
h: state[units] = start
kernel: weight[features + units, units] = glorot_uniform
start: weight[units] = uniform(-1, 1)
rate: rate = 0

h[t] = tanh(concat(drop(x[t], rate, per="step"), h[t-1]) @ kernel + level)
return h[t] * level
"""
Ran = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray], Any]


@pytest.fixture(scope="module")
def layers() -> dict[bool, rnncc.Layer]:
    """Of the cell, first step first and last step first."""
    made = rnncc.compile_text(CELL, dtype="float64")
    options = {"units": 3, "return_sequences": True, "return_state": True, "rate": 0.4, "seed": 1}
    return {
        back: made(**options, zero_output_for_mask=True, go_backwards=back)
        for back in (False, True)
    }


def ran(layer: rnncc.Layer, least: int, patch: pytest.MonkeyPatch, **call: Any) -> Ran:
    """Values; gradients of steps and states; of what serves every step, sums; the plan. least: what
    a block has to save."""
    patch.setattr(row_blocks, "BLOCK_WORK", 0 if least else 10**12)
    patch.setattr(row_blocks, "BLOCK_STEPS", least)
    draw = np.random.default_rng(5)
    x, level = draw.standard_normal((8, 11, 2)), draw.standard_normal((8, 3))
    if call.pop("begun", False):
        call["initial_state"] = draw.standard_normal((8, 3))
    values, pullback = layer.vjp((x, level), training=True, seed=7, **call)
    grads = pullback(tuple(draw.standard_normal(v.shape) for v in values))
    x_grad, level_grad = grads.inputs
    sums = [level_grad, *grads.weights.values()]
    begun = grads.initial_state
    begun = [*begun] if isinstance(begun, tuple) else [begun]
    if "resets" in call:  # of every start of a row
        return [*values], [x_grad], [*sums, *begun], layer.plan()
    return [*values], [x_grad, *begun], sums, layer.plan()


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("holes", [False, True])
def test_blocks_are_the_call(
    layers: dict[bool, rnncc.Layer],
    back: bool,
    begun: bool,
    resets: bool,
    holes: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Holes: rows go on after a while, and start anew behind steps that don't count."""
    mask = np.arange(11) < LENGTHS[:, None]
    if holes:
        mask[4:] = False
        mask[4:, [0, 1, 9, 10]] = True
    call: dict[str, Any] = {"mask": mask, "begun": begun}
    if resets:
        call["resets"] = np.random.default_rng(8).random((8, 11)) < 0.3
    values, rows, sums, plan = ran(layers[back], 0, monkeypatch, **call)
    own_values, own_rows, own_sums, own_plan = ran(layers[back], 1, monkeypatch, **call)
    assert (plan.count("time 11 in blocks"), own_plan.count("time 11 in blocks")) == (0, 2)
    for one, other in zip((*values, *rows), (*own_values, *own_rows), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(sums, own_sums, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("back", [False, True])
def test_one_block_of_some_rows(
    layers: dict[bool, rnncc.Layer], back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows without a step: one block, and all has the bits of the whole call."""
    lengths = np.array([11] * 5 + [0] * 3)
    values, rows, sums, plan = ran(layers[back], 0, monkeypatch, lengths=lengths)
    own_values, own_rows, own_sums, own_plan = ran(layers[back], 1, monkeypatch, lengths=lengths)
    assert (plan.count("batch 8, time 11,"), own_plan.count("last one of 5, time 11,")) == (2, 2)
    assert not own_rows[0][5:].any()
    for one, other in zip((*values, *rows), (*own_values, *own_rows), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(sums, own_sums, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def test_second_derivatives_of_blocks(
    layers: dict[bool, rnncc.Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for least in (0, 1):
        monkeypatch.setattr(row_blocks, "BLOCK_WORK", 0 if least else 10**12)
        monkeypatch.setattr(row_blocks, "BLOCK_STEPS", least)
        draw = np.random.default_rng(5)
        x, level = draw.standard_normal((8, 11, 2)), draw.standard_normal((8, 3))
        values, pullback = layers[False].vjp((x, level), lengths=LENGTHS, training=True, seed=3)
        grads, again = pullback.vjp(tuple(np.ones_like(v) for v in values))
        found.append(again({"inputs": tuple(2 * d for d in grads.inputs)}).weights["kernel"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_long_calls_that_save_nothing(
    layers: dict[bool, rnncc.Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of rows fall into blocks of steps."""
    draw = np.random.default_rng(2)
    x, level = draw.standard_normal((8, 150, 2)), draw.standard_normal((8, 3))
    lengths = np.array([150, 141, 100, 80, 70, 65, 3, 1])
    monkeypatch.setattr(row_blocks, "BLOCK_WORK", 10**12)
    whole = layers[False]((x, level), lengths=lengths)
    monkeypatch.setattr(row_blocks, "BLOCK_WORK", 0)
    monkeypatch.setattr(time_chunks, "BLOCK_BYTES", 1)
    for one, other in zip(whole, layers[False]((x, level), lengths=lengths), strict=True):
        np.testing.assert_array_equal(one, other)
    assert "in blocks of rows that go on" in layers[False].plan()


@pytest.mark.parametrize("other", ["repeats", "unsorted", "last", "checkpoints"])
def test_what_runs_whole(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_blocks, "BLOCK_WORK", 0)
    layer = rnncc.compile("simple_rnn")(
        units=2,
        return_sequences=other != "last",
        zero_output_for_mask=other != "repeats",
        checkpoint_every=4 if other == "checkpoints" else None,
    )
    lengths = LENGTHS[::-1] if other == "unsorted" else LENGTHS.clip(1)
    layer.vjp(np.ones((8, 11, 2), np.float32), lengths=lengths)
    assert "of rows that go on" not in layer.plan()


def test_cuts() -> None:
    """Every step in one block, no row left out, and what is too little to save stays together."""
    draw = np.random.default_rng(0)
    for _ in range(200):
        time, batch, least = (int(draw.integers(1, most)) for most in (40, 30, 90))
        rows = draw.integers(0, batch + 1, time).tolist()
        spans = row_blocks.cut(rows, batch, least)
        assert [b for b, _, _ in spans] == [0, *(e for _, e, _ in spans)][:-1]
        assert spans[-1][1] == time
        assert all(max(rows[b:e]) <= n <= batch and n for b, e, n in spans)
    assert row_blocks.cut([8] * 4 + [1] * 4, 8, 28) == [(0, 4, 8), (4, 8, 1)]
    assert row_blocks.cut([8] * 4 + [1] * 4, 8, 29) == [(0, 8, 8)]
