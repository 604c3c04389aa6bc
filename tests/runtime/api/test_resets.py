"""Rows that start anew: against the interpreter, slopes, and each episode as a call of its own."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rnncc
from rnncc import oracle
from rnncc.artifact.cell import TO_STARTS, TO_ZEROS, Variant, covering, variants_of
from rnncc.driver import Derivation
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.cpu.execution import time_chunks
from tests.support import cases
from tests.support.calls.episodes import Call, alone, episodes
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
    layers,
    pulled,
    results,
    value_of,
)
from tests.support.cases import Arrays, error
from tests.support.kernel_pair import SLOPE_LIMIT

ENDS = np.array([[7], [3], [0], [1], [7], [5]])
MASKS = {
    "none": None,
    "right": STEPS < ENDS,
    "left": STEPS >= TIME - ENDS,
    "holes": np.random.default_rng(4).random((BATCH, TIME)) < 0.6,
    "short": np.minimum(ENDS, 4) > STEPS,
}
RESETS = np.random.default_rng(8).random((BATCH, TIME)) < 0.4
RESETS[0], RESETS[1], RESETS[3, 0] = True, False, True
WAYS = {"forwards": False, "backwards": True}


def kept(mask: np.ndarray | None) -> dict[str, Any]:
    return {} if mask is None else {"mask": mask}


# ---- against the interpreter -------------------------------------------------------------------


@pytest.mark.parametrize("what", CELLS)
@pytest.mark.parametrize("way", WAYS)
def test_kernels_are_the_interpreter(what: str, way: str) -> None:
    for dtype in ("float64", "float32")[: 1 + (what in SINGLE)]:
        layer, twin = layers(what, dtype, go_backwards=WAYS[way])
        for kind, mask in MASKS.items():
            x, start = arguments(layer, mask)
            clean = x if mask is None else cleaned(x, mask)
            for begun in (start, {}):
                call = {"resets": RESETS, **kept(mask)}
                found = pulled(layer, x, begun or None, **call)
                right = pulled(twin, clean, begun or None, **call)
                assert_near(dtype, found, right, (dtype, kind, bool(begun)))
                assert "with resets" in layer.plan()
                values = results(layer, layer(x, initial_state=begun or None, **call))
                assert_same(found[0], values)


@pytest.mark.parametrize("what", ["lstm", "gru", "learned_start"])
def test_drawn(what: str) -> None:
    """Masks of a sequence stay, draws of a step go on."""
    rates = {r.name: 0.3 for r in cases.spec_of(what).rates}
    layer, twin = layers(what, "float64", **rates)
    mask = MASKS["holes"]
    x, start = arguments(layer)
    call = {"mask": mask, "resets": RESETS, "training": True, "seed": 5}
    found, right = (pulled(made, cleaned(x, mask), start, **call) for made in (layer, twin))
    assert_near("float64", found, right, what)


# ---- slopes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", CELLS)
def test_gradients_are_slopes(what: str) -> None:
    layer, _ = layers(what, "float64")
    rng = np.random.default_rng(3)
    for kind, mask in MASKS.items():
        x, start = arguments(layer)
        call = {"resets": RESETS, **kept(mask)}
        gradients = pulled(layer, x, start, **call)[1]
        d = results(layer, cotangents(layer(x, initial_state=start, **call)))
        weights = {name: layer.weights[name].copy() for name in layer.weights}
        given = {**x, **start, **weights}
        for name, gradient in gradients.items():
            moved = partial(value_of, layer, given, call, d, name)
            errors = list(cases.slope_errors(moved, given[name], gradient, rng, directions=1))
            assert max(errors) <= SLOPE_LIMIT, (kind, name)


@pytest.mark.parametrize("kind", ["none", "holes"])
@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
def test_gradients_of_a_start_that_is_learned_are_slopes(
    kind: str, gone: bool, at_once: bool
) -> None:
    """Whether a call begins with it, or goes on from one before and begins anew on the way;
    at_once: some rows before their first step, too."""
    layer, _ = layers("learned_start", "float64", stateful=True)
    x, _ = arguments(layer)
    anew = RESETS.copy()
    anew[:, 0] &= at_once
    call = {"resets": anew, **kept(MASKS[kind])}
    layer(x)
    went = layer._kept if gone else {}
    layer._kept = dict(went)
    found, pullback = layer.vjp(x, **call)
    d = cotangents(found)
    gradients = pullback(d).weights
    name, own = "h0", layer.weights["h0"].copy()

    def moved(array: np.ndarray) -> float:
        layer.weights[name] = array
        layer._kept = dict(went)
        value = cases.total(results(layer, layer(x, **call)), results(layer, d))
        layer.weights[name] = own
        return value

    rng = np.random.default_rng(3)
    errors = list(cases.slope_errors(moved, own, gradients[name], rng, directions=2))
    assert max(errors) <= SLOPE_LIMIT


# ---- what resets mean --------------------------------------------------------------------------


def one_by_one(layer: Layer, given: bool) -> Call:
    """How `alone` calls a layer. given: with initial states."""
    names = [*layer._outputs, *layer._finals]

    def call(x: Arrays, start: Arrays, mask: Any, d: Arrays) -> tuple[Arrays, Arrays]:
        begun = start if given else None
        found, pullback = layer.vjp(x, initial_state=begun, training=False, **kept(mask))
        grads = pullback(arranged(layer, {n: d.get(n) for n in names}))
        gradients = {**grads.inputs, **grads.weights}
        return results(layer, found), gradients | (grads.initial_state if given else {})

    return call


def together(
    layer: Layer, x: Arrays, start: Arrays | None, mask: np.ndarray | None, backwards: bool
) -> tuple[Arrays, Arrays, Arrays]:
    """Values, cotangents and gradients of one call; what a masked step repeats has no cotangent."""
    call = {"resets": RESETS, "training": False, **kept(mask)}
    found, pullback = layer.vjp(x, initial_state=start, **call)
    d = results(layer, cotangents(found))
    if mask is not None:
        for name in layer._outputs:
            d[name][~(mask[:, ::-1] if backwards else mask)] = 0
    grads = pullback(arranged(layer, d))
    gradients = {**grads.inputs, **grads.weights}
    return results(layer, found), d, gradients | (grads.initial_state if start else {})


@pytest.mark.parametrize("what", CELLS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("given", [True, False])
def test_episodes_are_calls_of_their_own(what: str, way: str, given: bool) -> None:
    """Values bit for bit, gradients but for the order of their sums."""
    for dtype in ("float64", "float32")[: 1 + (what in SINGLE)]:
        layer, _ = layers(what, dtype, go_backwards=WAYS[way])
        for kind, mask in MASKS.items():
            x, start = arguments(layer)
            states = start if given else {}
            values, d, gradients = together(layer, x, states or None, mask, WAYS[way])
            right, sums = alone(
                one_by_one(layer, given),
                x,
                states,
                d,
                RESETS,
                mask,
                backwards=WAYS[way],
                outputs=tuple(layer._outputs),
            )
            empty = np.zeros(BATCH, bool) if mask is None else ~mask.any(axis=1)
            for state in layer.cell.states:  # rows that never begin hand on what they start from
                final = f"final_{state.name}"
                right[final][empty] = values[final][empty]
                if given:
                    np.testing.assert_array_equal(values[final][empty], start[state.name][empty])
                    sums[state.name][empty] = d[final][empty]
                elif state.default in sums:
                    sums[state.default] += d[final][empty].sum(0)
            for name, array in values.items():
                expected = np.where(np.isnan(right[name]), array, right[name])
                np.testing.assert_array_equal(array, expected, f"{kind} {name}")
            for name, array in gradients.items():
                limit = 1e-12 if dtype == "float64" else 2e-5
                assert error(array, sums[name]) <= limit, (kind, name)


@pytest.mark.parametrize("what", ["lstm", "gru", "delays", "fast_weights"])
def test_nothing_flows_back_over_a_boundary(what: str) -> None:
    layer, _ = layers(what, "float64")
    x, start = arguments(layer)
    resets = np.zeros((BATCH, TIME), bool)
    resets[:, 4] = True
    found, pullback = layer.vjp(x, initial_state=start, resets=resets)
    d = results(layer, cotangents(found))
    for output in layer.cell.outputs:
        d[output.name][:, :4] = 0
    grads = pullback(arranged(layer, d))
    for array in grads.inputs.values():
        assert not array[:, :4].any() and array[:, 4:].any()
    assert any(a.any() for a in grads.initial_state.values())


@pytest.mark.parametrize("what", ["lstm", "delays", "learned_start"])
def test_no_reset_is_none(what: str) -> None:
    """Nor is one before the first step, where a row begins anyway."""
    layer, _ = layers(what, "float32")
    x, start = arguments(layer)
    right = pulled(layer, x, start)
    first = np.zeros((BATCH, TIME), bool)
    first[::2, 0] = True
    for resets in (np.zeros((BATCH, TIME), bool), first):
        found = pulled(layer, x, start, resets=resets)
        for a, b in zip(found, right, strict=True):
            assert_same(a, b)
        assert "with resets" not in layer.plan()
    # The kernels with resets compute the same bits where there is none.
    some = np.zeros((BATCH, TIME), bool)
    some[1, 3] = True
    found = pulled(layer, x, start, resets=some)
    others = np.arange(BATCH) != 1
    for name, array in found[0].items():
        np.testing.assert_array_equal(array[others], right[0][name][others], name)


@pytest.mark.parametrize("what", ["lstm", "gru", "delays", "learned_start"])
def test_a_stateful_layer_starts_anew_as_it_began(what: str) -> None:
    """Chunks are the whole, wherever boundaries lie: on a chunk's edge, behind its last step."""
    layer, _ = layers(what, "float64", stateful=True)
    whole, _ = layers(what, "float64")
    whole.set_weights(layer.get_weights())
    for kind, mask in MASKS.items():
        x, _ = arguments(layer)
        right = results(whole, whole(x, resets=RESETS, **kept(mask)))
        for cuts in ([0, 3, 7], [0, 1, 2, 5, 7]):
            layer.reset_states()
            parts = []
            for a, b in pairwise(cuts):
                own = {} if mask is None else {"mask": mask[:, a:b]}
                begun = layer._kept
                step = {n: v[:, a:b] for n, v in x.items()}
                parts.append(results(layer, layer(step, resets=RESETS[:, a:b], **own)))
                layer._kept, after = begun, layer._kept  # a pullback's forward is the same
                found, _ = layer.vjp(step, resets=RESETS[:, a:b], training=False, **own)
                assert_same(results(layer, found), parts[-1])
                assert_same(layer._kept, after)
            for output in layer.cell.outputs:
                found = np.concatenate([p[output.name] for p in parts], axis=1)
                valid = np.ones((BATCH, TIME), bool) if mask is None else mask
                np.testing.assert_array_equal(found[valid], right[output.name][valid], kind)
            for name in layer._finals:
                if kind in ("none", "left"):  # elsewhere a boundary may lie behind the last step
                    np.testing.assert_array_equal(parts[-1][name], right[name], kind)


def test_a_boundary_before_a_masked_step_waits_for_the_next_call() -> None:
    layer, _ = layers("lstm", "float64", stateful=True)
    x, _ = arguments(layer)
    mask, resets = np.ones((BATCH, TIME), bool), np.zeros((BATCH, TIME), bool)
    mask[0, 5:], resets[0, 6] = False, True
    _, h, _ = layer(x, mask=mask, resets=resets)
    assert h[0].any() and not layer.states[0][0].any(), "what is returned is the episode's"
    right = layers("lstm", "float64")[0](x)[0]
    np.testing.assert_array_equal(layer(x)[0][0], right[0])


def test_a_row_that_forgets_at_once_has_no_gradient_of_the_call_before() -> None:
    layer, _ = layers("lstm", "float64", stateful=True)
    x, _ = arguments(layer)
    layer(x)
    first = np.zeros((BATCH, TIME), bool)
    first[2, 0] = True
    for resets in (first, first | RESETS):
        y, pullback = layer.vjp(x, resets=resets)
        for array in pullback(cotangents(y)).initial_state:
            rows = resets[:, 0]
            assert not array[rows].any() and array[~rows].any(axis=1).all()


@pytest.mark.parametrize("what", ["lstm", "delays"])
def test_blocks_of_steps_have_the_bits_of_the_whole(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, _ = layers(what, "float32")
    pieces, _ = layers(what, "float32", checkpoint_every=3)
    x, start = arguments(layer)
    for mask in (None, MASKS["holes"]):
        call = {"resets": RESETS, **kept(mask)}
        found, right = (pulled(made, x, start, **call) for made in (pieces, layer))
        assert_same(found[0], right[0])
        for name in (*x, *start):
            assert error(found[1][name], right[1][name]) <= 1e-5, name
    long = {n: np.tile(a, (1, 20, *[1] * (a.ndim - 2))) for n, a in x.items()}
    resets = np.tile(RESETS, (1, 20))
    right = results(layer, layer(long, resets=resets, initial_state=start))
    monkeypatch.setattr(time_chunks, "BLOCK_BYTES", 1)
    found = results(layer, layer(long, resets=resets, initial_state=start))
    assert_same(found, right)


@pytest.mark.parametrize("what", ["lstm", "gru"])
def test_turns_of_several_steps_and_one_row(what: str) -> None:
    layer, _ = layers(what, "float32")
    turns, _ = layers(what, "float32", unroll=2)
    x, start = arguments(layer)
    for call in ({"resets": RESETS}, {"resets": RESETS, "mask": MASKS["holes"]}):
        right = results(layer, layer(x, initial_state=start, **call))
        assert_same(results(turns, turns(x, initial_state=start, **call)), right)
        for row in range(BATCH):
            own = slice(row, row + 1)
            step = {n: a[own] for n, a in x.items()}
            begun = {n: a[own] for n, a in start.items()}
            found = layer(step, initial_state=begun, **{n: a[own] for n, a in call.items()})
            assert_same(results(layer, found), {n: a[own] for n, a in right.items()})


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_narrow_weights(weights: str) -> None:
    layer = rnncc.compile("lstm")(
        units=UNITS, return_sequences=True, return_state=True, seed=1, weights=weights
    )
    layer.build((None, None, FEATURES))
    x, start = arguments(layer)
    y = results(layer, layer(x, initial_state=start, resets=RESETS))["h"]
    for e in episodes(RESETS):
        one = slice(e.row, e.row + 1)
        begun = {n: a[one] for n, a in start.items()}
        own = results(layer, layer({"x": x["x"][one, e.steps]}, initial_state=begun))["h"]
        np.testing.assert_array_equal(y[e.row, e.steps], own[0])


@pytest.mark.parametrize("what", ["lstm", "gru", "delays", "learned_start"])
@pytest.mark.parametrize("kind", ["none", "holes", "right"])
def test_second_derivatives_are_the_interpreter_s(what: str, kind: str) -> None:
    mask = MASKS[kind]
    for begun in (True, False):
        found = []
        for layer in layers(what, "float64"):
            x, start = arguments(layer)
            state = start if begun else None
            y, pullback = layer.vjp(
                x, initial_state=state, resets=RESETS, training=False, **kept(mask)
            )
            d = cotangents(y)
            grads, pullback2 = pullback.vjp(d)
            plain = pullback(d)
            for name, array in plain.weights.items():
                assert error(grads.weights[name], array) <= 1e-12, name
            second = pullback2(
                {"inputs": plain.inputs, "weights": plain.weights, "initial_state": state}
            )
            found.append([*results(layer, second.dy).values(), *second.inputs.values()])
            found[-1] += [*second.weights.values()]
            if begun:
                for name, array in plain.initial_state.items():
                    assert error(grads.initial_state[name], array) <= 1e-12, name
                found[-1] += [*second.initial_state.values()]
        for a, b in zip(*found, strict=True):
            assert error(a, b) <= 1e-11


@pytest.mark.parametrize("begun", [True, False])
def test_second_derivatives_are_slopes(begun: bool) -> None:
    """Of <gradients, v> by inputs, weights, states and dy."""
    layer, _ = layers("gru", "float64", return_state=False)
    x, start = arguments(layer)
    given: dict[str, Any] = {"inputs": x["x"], "dy": cotangents(layer(x))}
    given |= {"initial_state": start["h"]} if begun else {}
    given |= {n: layer.weights[n].copy() for n in layer.weights}

    def grads_of(now: dict[str, Any]) -> tuple[Any, Any]:
        for name in layer.weights:
            layer.weights[name] = now[name]
        state = now.get("initial_state")
        return layer.vjp(now["inputs"], initial_state=state, resets=RESETS)[1].vjp(now["dy"])

    grads, pullback2 = grads_of(given)
    v = {"inputs": np.cos(x["x"]), "weights": {n: np.sin(g) for n, g in grads.weights.items()}}
    v |= {"initial_state": np.cos(start["h"])} if begun else {}
    second = pullback2(v)

    def value(name: str, array: np.ndarray) -> float:
        found = grads_of({**given, name: array})[0]
        total = (found.inputs * v["inputs"]).sum()
        total += sum((found.weights[n] * a).sum() for n, a in v["weights"].items())
        return float(total + ((found.initial_state * v["initial_state"]).sum() if begun else 0))

    rng = np.random.default_rng(3)
    claimed = {"inputs": second.inputs, "dy": second.dy, **second.weights}
    claimed |= {"initial_state": second.initial_state} if begun else {}
    for name, gradient in claimed.items():
        own = given[name]
        errors = list(cases.slope_errors(partial(value, name), own, gradient, rng, directions=1))
        assert max(errors) <= SLOPE_LIMIT, name


# ---- streams -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["lstm", "delays", "learned_start"])
@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("begun", [True, False])
def test_streams(what: str, length: int, begun: bool) -> None:
    layer, _ = layers(what, "float32")
    x, start = arguments(layer)
    x = {n: a[:, :6] for n, a in x.items()}
    resets = RESETS[:, :6]
    state = start if begun else None
    right = results(layer, layer(x, initial_state=state, resets=resets))
    example = {n: a[:, :length] for n, a in x.items()}
    stream = layer.stream(example, initial_state=state)
    first = layer.cell.outputs[0].name
    for t in range(0, 6, length):
        step = {n: a[:, t : t + length] for n, a in x.items()}
        own: Any = resets[:, t : t + length]
        own = own[:, 0] if length == 1 and t % 2 else own
        y = stream(step, resets=own if own.any() else None)
        y = y[0] if isinstance(y, tuple) else y
        np.testing.assert_array_equal(y, right[first][:, t : t + length])
    for name, found in zip(layer._finals, stream.states, strict=True):
        np.testing.assert_array_equal(found, right[name])
    stream.reset()
    y = stream(example)
    again = results(layer, layer(example, initial_state=state))[first]
    np.testing.assert_array_equal(y[0] if isinstance(y, tuple) else y, again)


def test_a_stream_refuses_what_is_no_resets() -> None:
    layer = oracle.layer_class(cases.spec_of("lstm"))(units=2)
    stream = layer.stream(np.zeros((2, 3, 4)))
    with pytest.raises(
        ValueError, match=r"resets has shape \[3\], expected \[batch=2\] or \[batch"
    ):
        stream(np.zeros((2, 3, 4)), resets=np.zeros(3, bool))


# ---- the door ----------------------------------------------------------------------------------

X = np.zeros((2, 3, 4))
WRONG: list[tuple[Any, type[Exception], str]] = [
    (np.ones((2, 4), bool), ValueError, r"resets has shape \[2, 4\], expected \[batch=2, time=3\]"),
    (np.ones((3, 2), bool), ValueError, r"resets has shape \[3, 2\]"),
    (np.ones((2, 3, 1), bool), ValueError, r"resets has shape \[2, 3, 1\]"),
    (np.ones(2, bool), ValueError, r"resets has shape \[2\], expected"),
    (np.full((2, 3), 0.5), ValueError, "resets holds 0.5: give bools, or 0 and 1"),
    (np.full((2, 3), np.nan), ValueError, "resets holds nan: give bools, or 0 and 1"),
    (np.full((2, 3), 2), ValueError, "resets holds 2: give bools, or 0 and 1"),
    (np.full((2, 3), -1), ValueError, "resets holds -1"),
    (np.full((2, 3), 1j), TypeError, "resets holds complex128 values: give bools"),
    ([["a"] * 3] * 2, TypeError, "resets holds <U1 values"),
    ([[True], [True, False]], ValueError, "resets can't become an array"),
    (True, TypeError, "resets is a bool: give bools|resets is a bool: give an array of bools"),
    (np.ma.masked_array(np.ones((2, 3), bool)), TypeError, "resets is a masked array"),
    (torch.ones(2, 3, requires_grad=True), TypeError, "resets asks for a gradient, but has none"),
]


@pytest.mark.parametrize(("resets", "kind", "message"), WRONG, ids=[m for *_, m in WRONG])
def test_what_is_no_resets_is_refused(resets: Any, kind: type, message: str) -> None:
    layer = oracle.layer_class(cases.spec_of("lstm"))(units=2)
    for run in (layer, layer.vjp):
        with pytest.raises(kind, match=message):
            run(X, resets=resets)


def test_numbers_0_and_1_are_resets() -> None:
    layer = oracle.layer_class(cases.spec_of("lstm"))(units=2, seed=1)
    resets = np.array([[1, 0, 1], [0, 1, 1]])
    right = layer(X + 1, resets=resets.astype(bool))
    for given in (resets, resets.tolist(), resets.astype("float32"), torch.tensor(resets)):
        np.testing.assert_array_equal(layer(X + 1, resets=given), right)


def test_nothing_to_run() -> None:
    layer = oracle.layer_class(cases.spec_of("lstm"))(units=2, return_sequences=True)
    assert layer(X[:0], resets=np.ones((0, 3), bool)).shape == (0, 3, 2)
    assert layer(X[:, :0], resets=np.ones((2, 0), bool)).shape == (2, 0, 2)
    y, pullback = layer.vjp(X, lengths=[0, 0], resets=np.ones((2, 3), bool))
    assert y.shape == (2, 3, 2) and not y.any()
    grads = pullback(np.ones_like(y))
    assert not grads.inputs.any() and not any(g.any() for g in grads.weights.values())


def test_what_a_call_was_given_may_change_afterwards() -> None:
    layer, _ = layers("lstm", "float32")
    resets = RESETS.copy()
    x, start = arguments(layer)
    right = pulled(layer, x, start, resets=resets)[1]
    found, pullback = layer.vjp(x, initial_state=start, resets=resets, training=False)
    d = cotangents(found)
    resets[...], x["x"][...] = False, 0
    for array in start.values():
        array[...] = 7
    grads = pullback(d)
    np.testing.assert_array_equal(grads.inputs["x"], right["x"])
    np.testing.assert_array_equal(grads.initial_state["h"], right["h"])


# ---- modules -----------------------------------------------------------------------------------


def test_variants_of_modules() -> None:
    """Those to starts are whole: resets to zeros are a case of them."""
    cell = Derivation(cases.spec_of("lstm")).cell()
    made = variants_of(cell)
    asked = Variant(resets=TO_ZEROS)
    covers = covering(asked, made)
    assert covers is not None and covers.resets == TO_STARTS
    assert covering(asked, [*made, asked]) == asked
    assert covering(Variant(), made) == Variant()
    assert covering(Variant(resets=TO_STARTS), [asked]) is None


def test_a_module_renders_them_on_demand(tmp_path: Path, rnncc_cli: Any) -> None:
    written = tmp_path / "lstm_module.py"
    rnncc_cli("compile", "lstm", "-o", str(written))
    namespace: dict[str, Any] = {"__name__": "lstm_module"}
    exec(compile(written.read_text(), str(written), "exec"), namespace)
    layer = namespace["LSTM"](units=UNITS, seed=1)
    twin = rnncc.compile("lstm")(units=UNITS, seed=1)
    x = np.random.default_rng(0).standard_normal((BATCH, TIME, FEATURES)).astype("float32")
    layer.build(x.shape)
    twin.build(x.shape)
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(layer(x, resets=RESETS), twin(x, resets=RESETS))
    assert isinstance(layer, Layer) and "rendered on demand" in layer.plan()
