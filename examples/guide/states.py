"""States that are returned and given: an encoder reads a sequence, a decoder starts from its end.

KERAS_BACKEND=torch python examples/guide/states.py
"""

import keras
import numpy as np
from keras import layers

from rnncc.keras import GRU, LSTM

encoder_words, decoder_words = 1000, 2000

source = keras.Input((None,), dtype="int32", name="source")
read = layers.Embedding(encoder_words, 64)(source)
# With return_state the last states follow the output: h and c of an LSTM, whose output is h.
output, state_h, state_c = LSTM(64, return_state=True, name="encoder")(read)

target = keras.Input((None,), dtype="int32", name="target")
read = layers.Embedding(decoder_words, 64)(target)
output = LSTM(64, name="decoder")(read, initial_state=[state_h, state_c])
output = layers.Dense(10)(output)

model = keras.Model([source, target], output)
model.summary()
assert model.get_layer("encoder").count_params() == 33_024
assert model.get_layer("decoder").count_params() == 33_024
assert model.count_params() == 258_698

rng = np.random.default_rng(0)
sentences = rng.integers(0, encoder_words, (8, 9)), rng.integers(0, decoder_words, (8, 7))
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(sentences, rng.integers(0, 10, 8), verbose=2)

# A GRU has one state, and it is its output.
x = rng.standard_normal((2, 5, 3)).astype("float32")
y, state = GRU(4, return_state=True)(x)
np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (y, state)))
