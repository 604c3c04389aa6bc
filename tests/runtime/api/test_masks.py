"""Masks through the kernels: against the interpreter, slopes, shorter sequences and torch."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from rnncc import compiler, oracle
from rnncc.runtime.api.layer import Layer
from tests.support import cases
from tests.support.calls.layer_pair import (
    BATCH,
    CELLS,
    FEATURES,
    SINGLE,
    STEPS,
    TIME,
    UNITS,
    arguments,
    arranged,
    assert_near,
    assert_same,
    cleaned,
    cotangents,
    dtype_of,
    layers,
    pulled,
    results,
    value_of,
)
from tests.support.cases import Arrays, error
from tests.support.kernel_pair import GRADIENT_LIMIT, SLOPE_LIMIT

# Cells whose sums of gradients a masked step cuts in two: these are near, not the same bits.
REGROUPED = ("delays", "fast_weights")
ENDS = np.array([[7], [3], [0], [1], [7], [5]])
KINDS = {
    "right": STEPS < ENDS,
    "left": STEPS >= TIME - ENDS,
    "holes": np.random.default_rng(4).random((BATCH, TIME)) < 0.5,
    "short": np.minimum(ENDS, 4) > STEPS,  # steps that no row needs
    "few": (STEPS == 3) & (ENDS == 5),
}


# ---- against the interpreter -------------------------------------------------------------------


@pytest.mark.parametrize("what", CELLS)
def test_kernels_are_the_interpreter(what: str) -> None:
    """Whatever stands in masked inputs: nothing of it arrives."""
    for dtype in ("float64", "float32")[: 1 + (what in SINGLE)]:
        layer, twin = layers(what, dtype)
        for kind, mask in KINDS.items():
            x, start = arguments(layer, mask)
            found = pulled(layer, x, start, mask=mask)
            right = pulled(twin, cleaned(x, mask), start, mask=mask)
            assert_near(dtype, found, right, (dtype, kind))
            for name in x:
                assert not found[1][name][~mask].any(), "gradients of masked inputs are zero"
            assert "masked" in layer.plan()
            assert_same(found[0], results(layer, layer(x, initial_state=start, mask=mask)))


@pytest.mark.parametrize("what", ["lstm", "gru", "learned_start"])
def test_drawn_and_masked(what: str) -> None:
    spec = cases.spec_of(what)
    rates = {r.name: 0.3 for r in spec.rates}
    layer, twin = layers(what, "float64", **rates)
    mask = KINDS["holes"]
    x, start = arguments(layer, mask)
    found, right = (
        pulled(made, given, start, mask=mask, training=True, seed=5)
        for made, given in ((layer, x), (twin, cleaned(x, mask)))
    )
    assert_near("float64", found, right, what)


# ---- slopes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", CELLS)
def test_gradients_are_slopes(what: str) -> None:
    layer, _ = layers(what, "float64")
    rng = np.random.default_rng(3)
    for kind, mask in KINDS.items():
        x, start = arguments(layer)
        gradients = pulled(layer, x, start, mask=mask)[1]
        d = cotangents(layer(x, initial_state=start, mask=mask))
        weights = {name: layer.weights[name].copy() for name in layer.weights}
        given = {**x, **start, **weights}
        for name, gradient in gradients.items():
            moved = partial(value_of, layer, given, {"mask": mask}, results(layer, d), name)
            errors = list(cases.slope_errors(moved, given[name], gradient, rng, directions=1))
            assert max(errors) <= SLOPE_LIMIT, (kind, name)


# ---- what masks mean ---------------------------------------------------------------------------


@pytest.mark.parametrize("what", CELLS)
def test_right_padding_is_a_shorter_sequence_bit_for_bit(what: str) -> None:
    """Gradients where what is repeated has no cotangent, so that both see the same."""
    dtype = dtype_of(what)
    layer, _ = layers(what, dtype)
    mask = KINDS["right"]
    x, start = arguments(layer, mask)
    found, pullback = layer.vjp(x, initial_state=start, mask=mask)
    outputs = [o.name for o in layer.cell.outputs]
    values, d = results(layer, found), results(layer, cotangents(found))
    for name in outputs:
        d[name][~mask] = 0
    grads = pullback(arranged(layer, d))
    for row, n in enumerate(ENDS[:, 0]):
        own = slice(row, row + 1)
        begun = {name: a[own] for name, a in start.items()}
        found, pullback = layer.vjp({k: a[own, :n] for k, a in x.items()}, initial_state=begun)
        for name, array in results(layer, found).items():
            right = values[name][row]
            if name in outputs:
                array = np.concatenate([array, *[array[:, -1:]] * (TIME - n)], axis=1)
                array = array if n else np.zeros_like(right[None])
            np.testing.assert_array_equal(array[0], right, name)
        own_d = {name: a[own, :n] if name in outputs else a[own] for name, a in d.items()}
        alone = pullback(arranged(layer, own_d))
        for name, array in [*alone.inputs.items(), *alone.initial_state.items()]:
            right = grads.inputs[name][row, :n] if name in x else grads.initial_state[name][row]
            limit = GRADIENT_LIMIT[dtype] if what in REGROUPED else 0
            assert error(array[0], right) <= limit, (row, name)
        assert not any(a[row, n:].any() for a in grads.inputs.values())


@pytest.mark.parametrize("what", ["lstm", "fast_weights", "delays"])
def test_rows_don_t_know_each_other(what: str) -> None:
    layer, _ = layers(what, "float32")
    order = np.random.default_rng(2).permutation(BATCH)
    mask = KINDS["holes"]
    x, start = arguments(layer, mask)
    found, pullback = layer.vjp(x, initial_state=start, mask=mask)
    d = results(layer, cotangents(found))
    grads = pullback(arranged(layer, d))
    shuffled = {n: a[order] for n, a in start.items()}
    moved = {n: a[order] for n, a in x.items()}
    again, pullback = layer.vjp(moved, initial_state=shuffled, mask=mask[order])
    others = pullback(arranged(layer, {n: a[order] for n, a in d.items()}))
    assert_same(results(layer, again), {n: a[order] for n, a in results(layer, found).items()})
    assert_same(others.inputs, {n: a[order] for n, a in grads.inputs.items()})
    assert_same(others.initial_state, {n: a[order] for n, a in grads.initial_state.items()})


@pytest.mark.parametrize("what", CELLS)
def test_a_row_without_a_valid_step_stays_where_it_was(what: str) -> None:
    layer, _ = layers(what, dtype_of(what))
    for mask in (KINDS["right"], np.zeros((BATCH, TIME), bool)):
        masked = ~mask.any(axis=1)
        assert masked.any()
        x, start = arguments(layer, mask)
        found, pullback = layer.vjp(x, initial_state=start, mask=mask)
        d = cotangents(found)
        grads = pullback(d)
        values, given = results(layer, found), results(layer, d)
        for name, array in start.items():
            np.testing.assert_array_equal(values[f"final_{name}"][masked], array[masked])
            expected = given[f"final_{name}"][masked]
            np.testing.assert_array_equal(grads.initial_state[name][masked], expected)
        for output in layer.cell.outputs:
            assert not values[output.name][masked].any()


def test_a_full_mask_is_no_mask() -> None:
    layer, _ = layers("lstm", "float32")
    x, start = arguments(layer)
    plain = pulled(layer, x, start)
    for call in ({"mask": np.ones((BATCH, TIME), bool)}, {"lengths": [TIME] * BATCH}):
        for found, right in zip(pulled(layer, x, start, **call), plain, strict=True):
            assert_same(found, right)
        assert "masked" not in layer.plan()


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("what", ["lstm", "learned_start"])
def test_lengths_are_a_mask(what: str, zeros: bool, sequences: bool) -> None:
    layer, _ = layers(what, "float32", zero_output_for_mask=zeros, return_sequences=sequences)
    for lengths in (ENDS[:, 0], np.minimum(ENDS[:, 0], 4), np.full(BATCH, 2), np.zeros(BATCH, int)):
        mask = lengths[:, None] > STEPS
        x, start = arguments(layer, mask)
        right = pulled(layer, x, start, mask=mask)
        for found, expected in zip(pulled(layer, x, start, lengths=lengths), right, strict=True):
            assert_same(found, expected)
        if lengths.max():
            assert f"time {lengths.max()}," in layer.plan(), "no step runs that no row needs"


@pytest.mark.parametrize("what", ["lstm", "delays", "learned_start"])
def test_zero_output_for_mask(what: str) -> None:
    """Zeros in place of what is repeated; as Keras documents, of every step's output alone."""
    plain, twin = layers(what, "float64")
    zeros, zero_twin = layers(what, "float64", zero_output_for_mask=True)
    for kind, mask in KINDS.items():
        x, start = arguments(plain, mask)
        clean = cleaned(x, mask)
        right = results(plain, plain(x, initial_state=start, mask=mask))
        found = pulled(zeros, x, start, mask=mask)
        for output in plain.cell.outputs:
            shown = mask.reshape(*mask.shape, *[1] * len(output.shape))
            np.testing.assert_array_equal(found[0][output.name], right[output.name] * shown)
        assert_near("float64", found, pulled(zero_twin, clean, start, mask=mask), kind)
        # The interpreter's twin, told the same by the cotangents it gets.
        d = results(plain, cotangents(plain(x, initial_state=start, mask=mask)))
        for output in plain.cell.outputs:
            d[output.name] *= mask.reshape(*mask.shape, *[1] * len(output.shape))
        _, pullback = twin.vjp(clean, initial_state=start, mask=mask, training=False)
        expected = pullback(arranged(twin, d))
        assert error(found[1]["x"], expected.inputs["x"]) <= GRADIENT_LIMIT["float64"]
    last, _ = layers(what, "float64", zero_output_for_mask=True, return_sequences=False)
    same, _ = layers(what, "float64", return_sequences=False)
    mask = KINDS["right"]
    x, start = arguments(last, mask)
    for found_, right_ in zip(
        pulled(last, x, start, mask=mask), pulled(same, x, start, mask=mask), strict=True
    ):
        assert_same(found_, right_)


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("what", ["lstm", "learned_start"])
def test_steps_that_do_not_run_mean_what_masked_ones_do(what: str, zeros: bool) -> None:
    """The same rows with and without one more that needs every step."""
    layer, _ = layers(what, "float64", zero_output_for_mask=zeros)
    mask = KINDS["short"]
    x, start = arguments(layer, mask)

    def run(mask: np.ndarray, x: Arrays, start: Arrays, rows: slice) -> tuple[Arrays, Arrays]:
        found, pullback = layer.vjp(x, initial_state=start, mask=mask, training=False)
        values = results(layer, found)
        d = {n: cases.draw(np.random.default_rng(2), a[rows].shape) for n, a in values.items()}
        whole = {n: np.zeros(a.shape) for n, a in values.items()}
        for name, array in d.items():
            whole[name][rows] = array
        grads = pullback(arranged(layer, whole))
        both = {**grads.inputs, **grads.initial_state}
        weights = grads.weights
        return {n: a[rows] for n, a in values.items()}, {
            **{n: a[rows] for n, a in both.items()},
            **weights,
        }

    rows = slice(0, BATCH)
    found, gradients = run(mask, x, start, rows)
    assert "time 4," in layer.plan()
    more = {n: np.concatenate([a, np.ones_like(a[:1])]) for n, a in (x | start).items()}
    longer = np.concatenate([mask, np.ones((1, TIME), bool)])
    right, expected = run(longer, {n: more[n] for n in x}, {n: more[n] for n in start}, rows)
    assert f"time {TIME}," in layer.plan()
    assert_same(found, right)
    assert cases.worst(gradients, expected)[0] <= 1e-13


def test_the_last_output_is_the_last_valid_one() -> None:
    whole, _ = layers("lstm", "float32")
    last, _ = layers("lstm", "float32", return_sequences=False)
    for mask in KINDS.values():
        x, start = arguments(whole, mask)
        y = whole(x, initial_state=start, mask=mask)[0]
        np.testing.assert_array_equal(last(x, initial_state=start, mask=mask)[0], y[:, -1])


def test_inputs_of_several_ranks() -> None:
    """Every input is cleaned, whatever its shape."""
    spec = cases.spec_of("two_inputs")
    sizes = cases.sizes_for(spec, UNITS, FEATURES)
    case = cases.Case(cases.lowered("two_inputs"), sizes, BATCH, TIME)
    mask = KINDS["holes"]
    made = []
    for cls in (compiler.layer_class(spec, "cpu", "float64"), oracle.layer_class(spec)):
        layer = cls(**sizes, return_sequences=True, seed=7)
        given = {n: case.arguments[n].copy() for n in layer.cell.arguments}
        if not made:
            for i in layer.cell.inputs:
                given[i.name][~mask] = np.nan
        found, pullback = layer.vjp(given, mask=mask)
        grads = pullback(cotangents(found))
        made.append((results(layer, found), {**grads.inputs, **grads.weights}))
    assert_near("float64", *made, "two inputs")


# ---- torch -------------------------------------------------------------------------------------


def torch_twin(name: str, layer: Layer) -> torch.nn.Module:
    cls = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "simple_rnn": torch.nn.RNN}[name]
    twin = cls(FEATURES, UNITS, batch_first=True).double()
    kernel, recurrent, bias = (torch.tensor(layer.weights[n]) for n in layer.weights)
    both = (bias[0], bias[1]) if name == "gru" else (bias, torch.zeros_like(bias))
    if name == "gru":  # torch has the reset gate first
        swap = [*range(UNITS, 2 * UNITS), *range(UNITS), *range(2 * UNITS, 3 * UNITS)]
        kernel, recurrent = kernel[:, swap], recurrent[:, swap]
        both = (bias[0, swap], bias[1, swap])
    with torch.no_grad():
        for parameter, value in zip(twin.parameters(), (kernel.T, recurrent.T, *both), strict=True):
            parameter.copy_(value)
    return twin


@pytest.mark.parametrize("name", ["lstm", "gru", "simple_rnn"])
def test_right_padding_is_torch_s_packed_sequence(name: str) -> None:
    layer, _ = layers(name, "float64", zero_output_for_mask=True)
    lengths = np.array([7, 3, 1, 1, 7, 5])  # torch packs no empty rows
    mask = lengths[:, None] > STEPS
    x, _ = arguments(layer)
    twin = torch_twin(name, layer)
    given = torch.tensor(x["x"], requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        given, torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    y, state = twin(packed)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=TIME)
    states = state if isinstance(state, tuple) else (state,)
    x["x"][~mask] = np.nan
    (found, *finals), pullback = layer.vjp(x, lengths=lengths)
    assert error(found, y.detach().numpy()) <= 1e-12
    for a, b in zip(finals, states, strict=True):
        assert error(a, b[0].detach().numpy()) <= 1e-12
    d = cases.draw(np.random.default_rng(1), found.shape)
    (y * torch.tensor(d)).sum().backward()
    grads = pullback((d, *[None] * len(finals)))
    assert error(grads.inputs["x"], given.grad.numpy()) <= 1e-11
    right = next(iter(twin.parameters())).grad.numpy().T
    gates = right.reshape(FEATURES, -1, UNITS)
    if name == "gru":
        gates = gates[:, [1, 0, 2]]
    assert error(grads.weights["kernel"], gates.reshape(right.shape)) <= 1e-11


def test_holes_are_a_loop_of_torch_cells() -> None:
    """Keras's rule, written out: where a step is masked, states and output stay."""
    layer, _ = layers("lstm", "float64")
    mask = KINDS["holes"]
    x, start = arguments(layer)
    twin = torch.nn.LSTMCell(FEATURES, UNITS).double()
    with torch.no_grad():
        for ours, theirs in zip(torch_twin("lstm", layer).parameters(), twin.parameters()):
            theirs.copy_(ours)
    given = torch.tensor(x["x"], requires_grad=True)
    h, c = torch.tensor(start["h"]), torch.tensor(start["c"])
    y, outputs = torch.zeros_like(h), []
    for t in range(TIME):
        valid = torch.tensor(mask[:, t : t + 1])
        new_h, new_c = twin(given[:, t], (h, c))
        h, c, y = (torch.where(valid, a, b) for a, b in ((new_h, h), (new_c, c), (new_h, y)))
        outputs.append(y)
    x["x"][~mask] = np.nan
    found, pullback = layer.vjp(x, initial_state=start, mask=mask)
    for a, b in zip(found, (torch.stack(outputs, 1), h, c), strict=True):
        assert error(a, b.detach().numpy()) <= 1e-12
    d = cotangents(found)
    sum((a * torch.tensor(b)).sum() for a, b in zip((torch.stack(outputs, 1), h, c), d)).backward()
    assert error(pullback(d).inputs["x"], given.grad.numpy()) <= 1e-11


# ---- the door ----------------------------------------------------------------------------------

X = np.zeros((2, 3, 4))
WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"mask": np.ones((2, 4), bool)},
        ValueError,
        r"mask has shape \[2, 4\], expected",
    ),
    ({"mask": np.ones((3, 2), bool)}, ValueError, r"mask has shape \[3, 2\]"),
    ({"mask": np.ones((2, 3, 1), bool)}, ValueError, r"mask has shape \[2, 3, 1\]"),
    ({"mask": np.ones(3, bool)}, ValueError, r"mask has shape \[3\], expected \[batch=2, time=3\]"),
    ({"mask": np.ones((2, 3))}, TypeError, "mask holds float64 values: give bools"),
    ({"mask": np.full((2, 3), 2)}, ValueError, "mask holds 2: give bools, or 0 and 1"),
    ({"mask": np.full((2, 3), -1)}, ValueError, "mask holds -1"),
    ({"mask": [["a"] * 3] * 2}, TypeError, "mask holds <U1 values"),
    ({"mask": [[True], [True, False]]}, ValueError, "mask can't become an array"),
    ({"mask": True}, TypeError, "mask is a bool: give an array of bools"),
    ({"mask": np.ma.masked_array(np.ones((2, 3), bool))}, TypeError, "mask is a masked array"),
    ({"lengths": [3, 4]}, ValueError, r"lengths\[1\] is 4: a length is in 0 ... 3, the steps"),
    ({"lengths": [-1, 2]}, ValueError, r"lengths\[0\] is -1"),
    ({"lengths": [3.0, 2.0]}, TypeError, "lengths holds float64 values: give ints in 0 ... 3"),
    ({"lengths": [True, False]}, TypeError, "lengths holds bool values"),
    ({"lengths": [3]}, ValueError, r"lengths has shape \[1\], expected \[batch=2\]"),
    ({"lengths": 3}, TypeError, "lengths is an int: give an array of ints"),
    ({"lengths": [3, 3], "mask": np.ones((2, 3), bool)}, TypeError, "both given: give one"),
]


@pytest.mark.parametrize(("call", "kind", "message"), WRONG, ids=[m for *_, m in WRONG])
def test_what_is_no_mask_is_refused(call: dict[str, Any], kind: type, message: str) -> None:
    layer = oracle.layer_class(cases.spec_of("lstm"))(units=2)
    for run in (layer, layer.vjp):
        with pytest.raises(kind, match=message):
            run(X, **call)


def test_whole_numbers_0_and_1_are_a_mask() -> None:
    layer = oracle.layer_class(cases.spec_of("lstm"))(units=2, seed=1)
    mask = np.array([[1, 0, 1], [0, 1, 1]])
    right = layer(X + 1, mask=mask.astype(bool))
    for given in (mask, mask.tolist(), mask.astype(np.uint8)):
        np.testing.assert_array_equal(layer(X + 1, mask=given), right)


def test_nothing_to_run() -> None:
    layer = oracle.layer_class(cases.spec_of("lstm"))(units=2, return_sequences=True)
    assert layer(X[:0], mask=np.ones((0, 3), bool)).shape == (0, 3, 2)
    assert layer(X[:, :0], mask=np.ones((2, 0), bool)).shape == (2, 0, 2)
    y, pullback = layer.vjp(X, lengths=[0, 0])
    assert y.shape == (2, 3, 2) and not y.any()
    grads = pullback(np.ones_like(y))
    assert grads.inputs.shape == X.shape and not grads.inputs.any()
    assert not any(g.any() for g in grads.weights.values())


def test_what_a_call_was_given_may_change_afterwards() -> None:
    layer, _ = layers("lstm", "float32")
    mask = KINDS["holes"].copy()
    x, start = arguments(layer, mask)
    right = pulled(layer, x, start, mask=mask)[1]["x"]
    found, pullback = layer.vjp(x, initial_state=start, mask=mask, training=False)
    d = cotangents(found)
    mask[...], x["x"][...] = False, 0
    np.testing.assert_array_equal(pullback(d).inputs["x"], right)
    found[0][...] = 0
    np.testing.assert_array_equal(pullback(d).inputs["x"], right)
