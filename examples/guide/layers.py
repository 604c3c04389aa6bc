"""Recurrent layers in a Sequential model: the last output, every output, options.

KERAS_BACKEND=torch python examples/guide/layers.py
"""

import keras
import numpy as np
from keras import layers

from rnncc.keras import GRU, LSTM, SimpleRNN

# A sequence of words, each a number below 1000, becomes a sequence of vectors; the LSTM reads them
# one after another and hands on what it holds after the last: one vector for each sequence.
model = keras.Sequential(
    [
        keras.Input((None,), dtype="int32"),
        layers.Embedding(1000, 64),
        LSTM(128),
        layers.Dense(10),
    ]
)
model.summary()
assert model.layers[1].output.shape == (None, 128)
assert model.layers[1].count_params() == 98_816
assert model.count_params() == 164_106

# A layer above wants a sequence: return_sequences gives the output after every word. This GRU has
# two rows of bias, one for its inputs and one for its states (reset_after=True).
model = keras.Sequential(
    [
        keras.Input((None,), dtype="int32"),
        layers.Embedding(1000, 64),
        GRU(256, return_sequences=True),
        SimpleRNN(128),
        layers.Dense(10),
    ]
)
model.summary()
assert model.layers[1].output.shape == (None, None, 256)
assert model.layers[1].count_params() == 247_296
assert model.layers[2].count_params() == 49_280
assert model.count_params() == 361_866

words = np.random.default_rng(0).integers(0, 1000, (4, 12))
assert model.predict(words, verbose=0).shape == (4, 10)

# Dropout of inputs and of states, steps in reverse order. unroll writes out several steps a turn of
# the loop, with the same bits.
layer = LSTM(16, dropout=0.2, recurrent_dropout=0.2, go_backwards=True, unroll=True)
x = np.random.default_rng(1).standard_normal((4, 12, 8)).astype("float32")
first, second = layer(x, training=True), layer(x, training=True)
first, second = map(keras.ops.convert_to_numpy, (first, second))
assert not np.allclose(first, second)  # other masks in every call, and none without training

# Which kernels ran, and why.
print(layer.plan())
