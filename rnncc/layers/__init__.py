"""The layers Keras users know, on NumPy arrays: constructor arguments and semantics are Keras 3's.

    from rnncc.layers import LSTM, Bidirectional
    y = Bidirectional(LSTM(64, return_sequences=True))(x)

A layer made of others is a layer: `layer` over the names and engines of its parts.
"""

from rnncc.layers.bidirectional import Bidirectional
from rnncc.layers.built_in import GRU, LSTM, SimpleRNN
from rnncc.layers.cells import Cell, GRUCell, LSTMCell, SimpleRNNCell
from rnncc.layers.config import deserialize, serialize
from rnncc.layers.rnn import RNN, StackedRNNCells

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "Cell",
    "GRUCell",
    "LSTMCell",
    "SimpleRNN",
    "SimpleRNNCell",
    "StackedRNNCells",
    "deserialize",
    "serialize",
]
