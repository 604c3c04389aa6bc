"""Recurrent cells as torch modules: tensors in, tensors out, trained by torch's autograd.

    from rnncc.torch import GRU, LSTM, RNN, Recurrent

    LSTM(28, 64, num_layers=2)              in place of torch.nn.LSTM: the same state_dict
    Recurrent("peephole.rnn", units=64)     any cell, from its equations
    convert(model)                          all recurrent modules of a model, its weights shared

Needs torch: pip install 'rnncc[torch]'.

Threads. Kernels run on torch's own OpenMP threads (`torch.set_num_threads`), which would spin on
the cores that others want; a torch without OpenMP leaves them to workers of rnncc.

Non-Goals: other devices than the CPU; other numbers than float32 and float64.
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError("rnncc.torch needs torch: pip install 'rnncc[torch]'") from None

from rnncc.torch.conversion.convert import convert, restored
from rnncc.torch.conversion.report import Conversion, converted
from rnncc.torch.exporting import onnx_translations
from rnncc.torch.modules.cell import RecurrentModule
from rnncc.torch.modules.scan import scan
from rnncc.torch.modules.stacks import RecurrentStack
from rnncc.torch.recurrent import Recurrent
from rnncc.torch.stack import GRU, LSTM, RNN
from rnncc.torch.step_cells import GRUCell, LSTMCell, RNNCell

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Conversion",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Recurrent",
    "RecurrentModule",
    "RecurrentStack",
    "convert",
    "converted",
    "onnx_translations",
    "restored",
    "scan",
]
