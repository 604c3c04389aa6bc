"""Sequences that come in parts: stateful layers, and states handed from layer to layer.

KERAS_BACKEND=torch python examples/guide/stateful.py
"""

import keras
import numpy as np

from rnncc.keras import LSTM

numbers = keras.ops.convert_to_numpy
rng = np.random.default_rng(0)
paragraphs = [rng.standard_normal((20, 10, 50)).astype("float32") for _ in range(3)]

# A stateful layer starts where its last call ended.
layer = LSTM(64, stateful=True)
for paragraph in paragraphs:
    output = layer(paragraph)

plain = LSTM(64)
whole = np.concatenate(paragraphs, axis=1)
plain(whole)
plain.set_weights(layer.get_weights())
np.testing.assert_array_equal(numbers(output), numbers(plain(whole)))  # the parts are the whole

# States are no weights: they are in no file and not in get_weights().
assert len(layer.get_weights()) == 3 and len(layer.states) == 2

# Another layer may start from them.
other = LSTM(64)
continued = other(paragraphs[2], initial_state=layer.states)
assert continued.shape == (20, 64)

layer.reset_states()
np.testing.assert_array_equal(numbers(layer(paragraphs[0])), numbers(plain(paragraphs[0])))

# A long sequence in parts of any length: 1,548 steps, 129 at a time.
layer.reset_states()
long = rng.standard_normal((20, 1548, 50)).astype("float32")
for start in range(0, 1548, 129):
    output = layer(long[:, start : start + 129])
np.testing.assert_array_equal(numbers(output), numbers(plain(long)))
