"""weights="bfloat16" and "int8": a layer of rounded weights, whatever calls it and how."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc import compiler, oracle
from rnncc.layers import GRU, LSTM, RNN, Bidirectional, GRUCell, LSTMCell
from rnncc.runtime.common.weight_formats import NARROW
from rnncc.runtime.cpu.planning.tiling import TileBinder
from tests.support import cases
from tests.support.arrays import normal
from tests.support.cases import error
from tests.support.rounding import rounded

BUILT_IN = sorted(p.stem for p in compiler.CELLS.glob("*.rnn"))
# units, batch, time, features: cores of one row and of several, depths on both sides of a group,
# x @ W in the loop and before it.
SHAPES = ((37, 1, 5, 70), (70, 9, 3, 37), (66, 2, 1, 7), (17, 33, 2, 3))
# What isn't read by a contraction, one number a row among it; and what is summed over another axis
# than the last but one.
WHOLE = ("gain", "bias", "peephole", "input_decay", "recurrent_f", "recurrent_r", "rate_kernel")
AXES = {("nested", "kernel_2_3"): 1}


def weights_of(name: str, layer: Any, storage: str) -> list[np.ndarray]:
    """As a layer has them whose contractions are rounded."""
    found = []
    for weight, array in zip([*layer.weights, *layer.constants], layer.get_weights(), strict=True):
        axis = AXES.get((name, weight), -2)
        whole = array.ndim < -axis or any(part in weight for part in WHOLE)
        found.append(array if whole else rounded(storage, array, axis))
    return found


def trial(name: str, storage: str, shape: tuple[int, int, int, int]) -> tuple[Any, Any, Any]:
    """A layer with narrow weights, the same on the interpreter with rounded ones, its inputs."""
    units, batch, time, features = shape
    spec = cases.spec_of(name)
    given = {**cases.sizes_for(spec, units, features), "return_sequences": True, "seed": 7}
    layer = compiler.layer_class(spec)(**given, weights=storage)
    twin = oracle.layer_class(spec)(**given)
    sizes = cases.sizes_for(spec, units, features)
    case = cases.Case(cases.lowered(name), sizes, batch, time, seed=11)
    x = {n: case.arguments[n].astype("float32") for n in layer.cell.arguments}
    for one in (layer, twin):
        one.build({n: a.shape for n, a in x.items()})
    twin.set_weights(weights_of(name, layer, storage))
    return layer, twin, x


def parts(y: Any) -> tuple[np.ndarray, ...]:
    return y if isinstance(y, tuple) else (y,)


# ---- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"),
    [(n, SHAPES[(i + j) % len(SHAPES)]) for i, n in enumerate(BUILT_IN) for j in (0, 1)],
)
@pytest.mark.parametrize("storage", NARROW)
def test_the_interpreter_with_rounded_weights(
    name: str, shape: tuple[int, int, int, int], storage: str
) -> None:
    layer, twin, x = trial(name, storage, shape)
    right = parts(twin(x))
    far = max(map(error, parts(layer(x)), right))
    assert far <= 1e-5
    twin.set_weights(layer.get_weights())
    assert max(map(error, parts(twin(x)), right)) > 5 * far, "rounding shows"


def test_bfloat16_has_the_bits_of_rounded_float32() -> None:
    """The sums are the same, weight for weight: of one row, of several, in pieces of a panel."""
    for batch, time, features, units in ((1, 3, 300, 70), (40, 2, 300, 70), (5, 40, 7, 33)):
        layer = LSTM(units, seed=1, weights="bfloat16", return_sequences=True)
        plain = LSTM(units, seed=1, return_sequences=True)
        x = normal(batch, time, features)
        plain.build(x.shape)
        layer.build(x.shape)
        plain.set_weights(weights_of("lstm", layer, "bfloat16"))
        np.testing.assert_array_equal(layer(x), plain(x))


@pytest.mark.parametrize("storage", NARROW)
def test_bits_do_not_depend_on_batch_chunks_or_where_weights_lie(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 features: sums of several pieces before the loop, of one in it."""
    layer = LSTM(40, seed=1, weights=storage, return_sequences=True, return_state=True)
    x = normal(33, 4, 300)
    y, h, c = layer(x)
    for row in (0, 14, 32):
        alone = layer(x[row : row + 1])
        for a, b in zip(alone, (y, h, c), strict=True):
            np.testing.assert_array_equal(a[0], b[row])
    first, *states = layer(x[:, :1])
    rest, *_ = layer(x[:, 1:], initial_state=states)
    np.testing.assert_array_equal(np.concatenate([first, rest], axis=1), y)
    monkeypatch.setattr(TileBinder, "choose_starts", lambda *_: None)
    fresh(layer)
    np.testing.assert_array_equal(layer(x)[0], y)
    np.testing.assert_array_equal(layer(x[:1])[0], y[:1])


def everywhere(self: TileBinder, kernel: Any) -> None:
    self.out.far |= set(kernel.stages)


def fresh(layer: Any) -> None:
    """An engine that has bound nothing yet."""
    from rnncc.runtime.cpu.execution.engine import CpuEngine

    kernels = layer._engine(False, False)
    engine = kernels.engine
    made = CpuEngine(engine.cell, engine._forward.direction, engine._backward.direction)
    again = made.stored(layer.storage) if layer.storage else made
    layer._engines[False, False, ""] = kernels._replace(engine=again)


def test_weights_asked_for_ahead_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LSTM(40, seed=1)
    x = normal(1, 4, 30)
    y = layer(x)
    monkeypatch.setattr(TileBinder, "choose_far", everywhere)
    fresh(layer)
    np.testing.assert_array_equal(layer(x), y)
    assert "asked for ahead" in layer.plan()


# ---- what calls it -----------------------------------------------------------------------------


@pytest.mark.parametrize("storage", NARROW)
def test_gradients_are_those_of_whole_weights(storage: str) -> None:
    layer, plain = LSTM(9, seed=1, weights=storage), LSTM(9, seed=1)
    x = normal(3, 4, 5)
    layer(x)
    for one, other in ((layer, plain), (layer, plain)):  # also after a call
        y, pullback = one.vjp(x)
        right, expected = other.vjp(x)
        np.testing.assert_array_equal(y, right)
        found = pullback(np.ones_like(y)).weights
        for name, array in expected(np.ones_like(y)).weights.items():
            np.testing.assert_array_equal(found[name], array)
        assert not np.array_equal(layer(x), right)
    _, pullback = layer.vjp(x)
    grads, again = pullback.vjp(np.ones_like(y))
    assert np.isfinite(again({"inputs": grads.inputs}).dy).all()


def test_a_new_version_of_the_weights() -> None:
    layer, other = LSTM(9, seed=1, weights="int8"), LSTM(9, seed=2, weights="int8")
    x = normal(2, 3, 5)
    before = layer(x)
    right = other(x)
    layer.set_weights(other.get_weights())
    np.testing.assert_array_equal(layer(x), right)
    assert not np.array_equal(before, right)


def test_streams_states_and_masks() -> None:
    layer = GRU(19, seed=1, weights="int8", return_sequences=True, stateful=True)
    x = normal(1, 6, 5)
    y = layer(x)
    stream = layer.stream(x[:, :1], initial_state=np.zeros((1, 19), "float32"))
    steps = [stream(x[:, t : t + 1]) for t in range(6)]
    np.testing.assert_array_equal(np.concatenate(steps, axis=1), y)
    layer.set_weights([a * 2 for a in layer.get_weights()])
    layer.reset_states()
    stream.reset()
    np.testing.assert_array_equal(stream(x[:, :1]), layer(x)[:, :1])


def test_masks_and_both_directions() -> None:
    layer = GRU(19, seed=1, weights="bfloat16", return_sequences=True)
    x = normal(2, 6, 5)
    np.testing.assert_array_equal(layer(x, lengths=[4, 6])[0, :4], layer(x)[0, :4])
    both = Bidirectional(layer, seed=1)
    y = both(x)
    ahead, back = both.forward_layer, both.backward_layer
    assert ahead.storage == back.storage == "bfloat16"
    np.testing.assert_array_equal(y[..., :19], ahead(x))
    np.testing.assert_array_equal(y[..., 19:], back(x[:, ::-1])[:, ::-1])
    assert both.plan().count("weights of bfloat16") >= 2
    assert "weights" not in both.get_config()
    same = Bidirectional.from_config(both.get_config())
    same.build(x.shape)
    same.set_weights(both.get_weights())
    np.testing.assert_array_equal(same(x), y)


def test_stacks() -> None:
    """What the stack says goes for every cell that says nothing itself."""
    x = normal(2, 6, 5)
    cells = LSTMCell(9, seed=1, weights="float32"), GRUCell(7, seed=2)
    deep = RNN([*cells], return_sequences=True, weights="int8")
    y = deep(x)
    first = LSTM(9, seed=1, return_sequences=True)
    second = GRU(7, seed=2, weights="int8", return_sequences=True)
    np.testing.assert_array_equal(y, second(first(x)))
    own = RNN([LSTMCell(9, seed=1), GRUCell(7, seed=2, weights="int8")], return_sequences=True)
    np.testing.assert_array_equal(own(x), y)
    plain = RNN([LSTMCell(9, seed=1), GRUCell(7, seed=2)], return_sequences=True)
    np.testing.assert_array_equal(plain.vjp(x)[0], deep.vjp(x)[0])
    assert not np.array_equal(plain(x), y)
    same = RNN.from_config(deep.get_config())
    same.build(x.shape)
    same.set_weights(deep.get_weights())
    np.testing.assert_array_equal(same(x), y)
    alone = RNN(LSTMCell(9, seed=1), weights="int8", return_sequences=True)
    np.testing.assert_array_equal(
        alone(x), LSTM(9, seed=1, weights="int8", return_sequences=True)(x)
    )


def test_files_copies_and_pickles(tmp_path: Path) -> None:
    """Weights stay of float32 wherever they are kept."""
    layer = LSTM(9, seed=1, weights="int8")
    x = normal(2, 3, 5)
    y = layer(x)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(layer))(x), y)
    np.testing.assert_array_equal(copy.deepcopy(layer)(x), y)
    layer.save(tmp_path / "w.npz")
    plain = LSTM(9)
    plain.load(tmp_path / "w.npz")
    for a, b in zip(plain.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(plain(x), y)
    again = LSTM.from_config(layer.get_config())
    again.load(tmp_path / "w.npz")
    np.testing.assert_array_equal(again(x), y)
    assert "weights='int8'" in repr(layer)


def test_a_module_of_the_command_line() -> None:
    from rnncc.runtime.jit.module_cache import text_module
    from tests.support.cases import render_module

    spec = compiler.load_spec("minimal_gated_unit")
    text = render_module(spec, variants=(rnncc.artifact.cell.Variant(),))
    module = text_module("mgu_stored", text)
    frozen = module.MinimalGatedUnit(9, seed=1, weights="bfloat16")
    x = normal(2, 3, 5)
    right = rnncc.compile("minimal_gated_unit")(9, seed=1, weights="bfloat16")
    np.testing.assert_array_equal(frozen(x), right(x))
    assert "weights of bfloat16" in frozen.plan()


def test_what_a_plan_says() -> None:
    layer = LSTM(9, weights="bfloat16", seed=1)
    x = normal(1, 2, 3)
    layer(x)
    text = layer.plan()
    assert "weights='bfloat16': calls read contractions' weights so" in text
    assert "weights of bfloat16" in text and "vjp" in text
    layer.vjp(x)
    assert "weights of bfloat16" not in layer.plan()  # that call read them whole
    assert "bfloat16" not in LSTM(9).plan()


# ---- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "kind", "message"),
    [
        ({"weights": "float16"}, ValueError, "weights is 'float32', 'bfloat16', 'int8', not"),
        ({"weights": [np.zeros(3)]}, TypeError, "set_weights"),
        ({"weights": "int8", "dtype": "float64"}, ValueError, "narrows weights of float32"),
    ],
)
def test_mistakes(keywords: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        LSTM(4, **keywords)
    with pytest.raises(kind, match=message):
        rnncc.compile("gru")(4, **keywords)


def test_a_gpu_refuses() -> None:
    layer = rnncc.compile("gru")(4, weights="int8", seed=1)
    layer(normal(1, 2, 3))
    with pytest.raises(ValueError, match=r"weights='int8' is for calls on the CPU"):
        layer.to("cuda").plan()
    with pytest.raises(ValueError, match=r"weights='int8' is for calls on the CPU"):
        rnncc.compile("gru", target="cuda")(4, weights="int8", seed=1)(normal(1, 2, 3))
