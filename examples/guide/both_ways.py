"""Bidirectional: sequences where what comes later tells something about what came before.

KERAS_BACKEND=torch python examples/guide/both_ways.py
"""

import keras
import numpy as np

from rnncc.keras import LSTM, Bidirectional

model = keras.Sequential(
    [
        keras.Input((5, 10)),
        Bidirectional(LSTM(64, return_sequences=True)),
        Bidirectional(LSTM(32)),
        keras.layers.Dense(10),
    ]
)
model.summary()
assert [layer.output.shape for layer in model.layers[:2]] == [(None, 5, 128), (None, 64)]
assert [layer.count_params() for layer in model.layers] == [38_400, 41_216, 650]
assert model.count_params() == 80_266

# Outputs of the two directions stand side by side, or are merged otherwise.
x = np.random.default_rng(0).standard_normal((4, 5, 10)).astype("float32")
for mode, shape in (("concat", (4, 6)), ("sum", (4, 3)), ("mul", (4, 3)), ("ave", (4, 3))):
    assert Bidirectional(LSTM(3), merge_mode=mode)(x).shape == shape
ahead, back = Bidirectional(LSTM(3), merge_mode=None)(x)
assert ahead.shape == back.shape == (4, 3)
