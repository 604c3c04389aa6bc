"""Recurrent cells as Keras 3 layers, on its TensorFlow, JAX and torch backends.

    from rnncc.keras import GRU, LSTM, RNN, Bidirectional, SimpleRNN

    LSTM(64)                                in place of keras.layers.LSTM: the same weights
    RNN("peephole.rnn", units=64)           any cell, from its equations
    RNN(MinimalRNNCell(32))                 a cell written in Python: its equations are read off it

Real layers: Keras builds, saves, regularizes and trains them. Files of models with these layers
are loaded after `import rnncc.keras`.

Needs Keras 3.5 or later, on one of these backends: pip install 'rnncc[keras]'.

Non-Goals: other devices than the CPU; weights of other kinds than float32 and float64.
"""

_OLDEST = (3, 5)

try:
    import keras as _keras
except ModuleNotFoundError as error:
    if error.name == "keras":
        raise ImportError("rnncc.keras needs Keras 3: pip install 'rnncc[keras]'") from None
    raise ImportError(
        f"Keras's backend is not installed ({error.name}): install tensorflow, jax or torch, and "
        "name it in KERAS_BACKEND"
    ) from None

_found = str(getattr(_keras, "__version__", "0"))
if tuple(int(n) for n in _found.split(".")[:2] if n.isdigit()) < _OLDEST:
    raise ImportError(
        f"rnncc.keras needs Keras 3.5 or later, this is {_found}: pip install -U 'keras>=3.5'"
    )

from rnncc.keras.bidirectional import Bidirectional  # noqa: E402
from rnncc.keras.built_in import (  # noqa: E402
    GRU,
    LSTM,
    GRUCell,
    LSTMCell,
    SimpleRNN,
    SimpleRNNCell,
)
from rnncc.keras.cells import Cell  # noqa: E402
from rnncc.keras.rnn import RNN  # noqa: E402
from rnncc.keras.stacked import StackedRNNCells  # noqa: E402
from rnncc.keras.traced import PythonCell  # noqa: E402

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "Cell",
    "GRUCell",
    "LSTMCell",
    "PythonCell",
    "SimpleRNN",
    "SimpleRNNCell",
    "StackedRNNCells",
]
