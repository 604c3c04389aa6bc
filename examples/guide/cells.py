"""Layers and cells: what one step computes, apart from the sequence it is computed over.

KERAS_BACKEND=torch python examples/guide/cells.py
"""

from pathlib import Path

import keras
import numpy as np

from rnncc.keras import LSTM, RNN, GRUCell, LSTMCell, SimpleRNNCell, StackedRNNCells

x = np.random.default_rng(0).standard_normal((4, 9, 5)).astype("float32")

# A cell is called on one step, and gives back its output and its states.
cell = LSTMCell(10)
y, states = cell(x[:, 0], cell.get_initial_state(batch_size=4))
assert y.shape == (4, 10) and len(states) == 2

# RNN makes a layer of a cell: of LSTMCell(10) the same as LSTM(10), to the last bit, by the same
# kernels.
layer, wrapped = LSTM(10), RNN(LSTMCell(10))
layer(x), wrapped(x)
wrapped.set_weights(layer.get_weights())
np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(f(x)) for f in (layer, wrapped)))

# Several cells on top of each other are one cell.
deep = RNN(StackedRNNCells([GRUCell(16), SimpleRNNCell(12), LSTMCell(10)]), return_state=True)
y, h_gru, h_simple, (h, c) = deep(x)
assert y.shape == (4, 10) and h_simple.shape == (4, 12)


# A cell of your own, as Keras's guide writes it: a layer with state_size that is called with
# (inputs, states). It isn't run step by step: what its call computes is read off it once, as
# equations, and compiled.
class MinimalRNNCell(keras.layers.Layer):
    def __init__(self, units, **keywords):
        super().__init__(**keywords)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(shape=(self.units,) * 2, name="recurrent_kernel")

    def call(self, inputs, states):
        h = keras.ops.matmul(inputs, self.kernel)
        output = h + keras.ops.matmul(states[0], self.recurrent_kernel)
        return output, [output]


minimal = RNN(MinimalRNNCell(32))
assert minimal(x).shape == (4, 32) and minimal.count_params() == 5 * 32 + 32 * 32
print(minimal.cell.equations)
assert "h[t] = x[t] @ kernel + h[t-1] @ recurrent_kernel" in minimal.cell.equations

# Or write the equations into a file. Either way it has gradients, masks, dropout, states and files
# like any other cell, at the speed of the built-in ones.
equations = Path(__file__).parent.parent / "coupled_peephole.rnn"
print(equations.read_text())
own = RNN(equations, units=10, return_sequences=True)
assert own(x).shape == (4, 9, 10)
model = keras.Sequential([keras.Input((9, 5)), own, keras.layers.Dense(1)])
model.compile("adam", "mse")
model.fit(x, x.cumsum(1)[..., :1], epochs=2, verbose=2)
