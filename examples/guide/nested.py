"""A cell with two inputs, two states and two outputs, a vector and a matrix each.

    KERAS_BACKEND=torch python examples/guide/nested.py

Keras's own RNN takes one tensor and states of one axis; here the cell's file says what there is.
"""

import keras
import numpy as np

from rnncc.keras import RNN, Cell

# rnncc cells shows it: s1[t] = s1[t-1] + x1[t] @ kernel_1, and likewise a matrix by einsum.
cell = Cell("nested", unit_1=10, unit_2=20, unit_3=30)
layer = RNN(cell)

batch, steps = 64, 50
vectors = keras.Input((steps, 32))
matrices = keras.Input((steps, 64, 32))
outputs = layer((vectors, matrices))
assert [y.shape for y in outputs] == [(None, 10), (None, 20, 30)]
assert cell.state_size == [10, (20, 30)]

model = keras.Model([vectors, matrices], [*outputs])
model.compile(optimizer="adam", loss=["mse", "mse"])
model.summary()

rng = np.random.default_rng(0)
inputs = [
    rng.random((batch * 10, steps, 32), dtype="float32"),
    rng.random((batch * 10, steps, 64, 32), dtype="float32"),
]
targets = [
    rng.random((batch * 10, 10), dtype="float32"),
    rng.random((batch * 10, 20, 30), dtype="float32"),
]
history = model.fit(inputs, targets, batch_size=batch, epochs=2, verbose=2)
assert history.history["loss"][1] < history.history["loss"][0]
