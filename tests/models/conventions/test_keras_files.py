"""Files that Keras wrote, all three kinds: weights bit for bit, outputs of layer after layer."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rnncc.layers import GRU, LSTM, Bidirectional
from rnncc.models.conventions import load_weights

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5"])
def test_weights_of_keras(tmp_path: Path, name: str) -> None:
    kl = keras.layers
    both = kl.Bidirectional(kl.GRU(5, return_sequences=True))
    layers = [kl.LSTM(4, return_sequences=True), both, kl.Dense(2)]
    model = keras.Sequential([keras.Input((6, 3)), *layers])
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(w.shape) for w in model.get_weights()])
    (model.save_weights if "weights" in name else model.save)(tmp_path / name)
    x = rng.standard_normal((2, 6, 3)).astype("float32")
    first = LSTM(4, return_sequences=True)
    second = Bidirectional(GRU(5, return_sequences=True))
    for layer, theirs, pattern in (
        (first, layers[0], "*lstm*"),
        (second, layers[1], "*bidirectional*"),
    ):
        report = load_weights(layer, tmp_path / name, names=pattern)
        assert any("dense" in n for n in report.left)
        for own, given in zip(layer.get_weights(), theirs.get_weights()):
            np.testing.assert_array_equal(own, given)
        x, expected = layer(x), keras.ops.convert_to_numpy(theirs(x))
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-6)
