"""Rows that start anew in Keras's layers: as `rnncc.layers` does it, and in models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from rnncc import keras as own
from rnncc import layers as native
from tests.support.in_keras.helpers import MASK, X, assert_close, numbers, uniform

RESETS = np.random.default_rng(3).random(X.shape[:2]) < 0.4
RESETS[0, 3] = True
MASKS = {"plain": None, "masked": MASK}
OPTIONS: dict[str, dict[str, Any]] = {
    "last": {},
    "sequences": {"return_sequences": True, "return_state": True},
    "backwards": {"return_sequences": True, "go_backwards": True},
}


def pair(kind: str, **options: Any) -> tuple[Any, Any]:
    """Ours in Keras, and the native one with the same weights."""
    made = []
    for package in (own, native):
        if kind == "both":
            inner = package.LSTM(4, return_sequences=True, seed=1, **options)
            made.append(package.Bidirectional(inner))
        elif kind == "stack":
            cells = [package.LSTMCell(4, seed=1), package.GRUCell(3, seed=2)]
            made.append(package.RNN(cells, return_sequences=True, **options))
        else:
            made.append(getattr(package, kind)(4, seed=1, **options))
    layer, twin = made
    layer(X)
    twin.build(X.shape)
    twin.set_weights(numbers(layer.get_weights()))
    return layer, twin


@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("what", OPTIONS)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_layers(kind: str, what: str, masked: str) -> None:
    layer, twin = pair(kind, **OPTIONS[what])
    mask = MASKS[masked]
    right = twin(X, resets=RESETS, mask=mask)
    for resets in (RESETS, RESETS.astype("float32"), RESETS.astype("int32")):
        assert_close(layer(X, resets=resets, mask=mask), right)
    assert "with resets" in twin.plan()
    start = [uniform(len(X), 4, seed=s) for s in range(len(twin.cell.states))]
    begun = tuple(start) if len(start) > 1 else start[0]
    right = twin(X, initial_state=begun, resets=RESETS, mask=mask)
    assert_close(layer(X, initial_state=start, resets=RESETS, mask=mask), right)


@pytest.mark.parametrize("kind", ["both", "stack"])
def test_layers_of_layers(kind: str) -> None:
    layer, twin = pair(kind)
    for mask in MASKS.values():
        assert_close(layer(X, resets=RESETS, mask=mask), twin(X, resets=RESETS, mask=mask))


@pytest.mark.parametrize("kind", ["LSTM", "both"])
def test_models(kind: str, tmp_path: Path) -> None:
    """Resets are an input of a functional model, which is trained, saved and loaded."""
    layer, twin = pair(kind, **({} if kind == "both" else {"return_sequences": True}))
    x, resets = keras.Input(X.shape[1:]), keras.Input(X.shape[1:2], dtype="bool")
    model = keras.Model([x, resets], layer(x, resets=resets))
    given = [X, RESETS]
    right = twin(X, resets=RESETS)
    assert_close(model.predict(given, verbose=0), right)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(again.predict(given, verbose=0), right)
    target = np.zeros_like(right)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = numbers(layer.get_weights())
    model.fit(given, target, batch_size=len(X), verbose=0)
    y, pullback = twin.vjp(X, resets=RESETS)
    gradients = pullback(2 * y / y.size).weights.values()
    for a, b, g in zip(numbers(layer.get_weights()), before, gradients, strict=True):
        np.testing.assert_allclose(a, b - 0.1 * g, atol=1e-5)


def test_a_mask_of_an_embedding_goes_along() -> None:
    tokens = np.array([[1, 2, 0, 3], [4, 0, 0, 0]])
    layer = own.LSTM(3, return_sequences=True)
    embed = keras.layers.Embedding(5, 4, mask_zero=True)
    resets = np.array([[0, 1, 0, 1], [0, 0, 1, 0]])
    x = embed(tokens)
    found = layer(x, resets=resets)
    assert_close(found, layer(x, resets=resets, mask=tokens != 0))
    plain = layer(keras.ops.convert_to_tensor(numbers(x)[0]), resets=resets)
    assert np.abs(numbers(found)[0] - numbers(plain)[0]).max() > 1e-4


WRONG: list[tuple[Any, type[Exception], str]] = [
    (np.ones((3, 6), bool), ValueError, r"resets has shape \[3, 6\], expected"),
    (np.ones(3, bool), ValueError, r"resets has shape \[3\], expected"),
]


@pytest.mark.parametrize(("resets", "kind", "message"), WRONG, ids=[m for *_, m in WRONG])
def test_what_is_no_resets_is_refused(resets: Any, kind: type, message: str) -> None:
    layer = own.LSTM(3)
    with pytest.raises(kind, match=message):
        layer(X, resets=resets)


@pytest.mark.parametrize("number", [0.5, float("nan"), 2.0])
def test_numbers_that_are_no_resets(number: float) -> None:
    layer = own.LSTM(3)
    with pytest.raises(Exception, match=f"resets holds {number}"):
        numbers(layer(X, resets=np.full(X.shape[:2], number, "float32")))


def test_stateful_layers_are_told_what_to_start_from() -> None:
    layer = own.GRU(3, stateful=True)
    layer(X)
    with pytest.raises(ValueError, match=r"is stateful: .* so resets need initial_state="):
        layer(X, resets=RESETS)
    start = uniform(len(X), 3)
    plain = own.GRU(3)
    plain(X)
    plain.set_weights(numbers(layer.get_weights()))
    found = layer(X, initial_state=start, resets=RESETS)
    assert_close(found, plain(X, initial_state=start, resets=RESETS))
