"""Recurrent cells as torch modules: tensors in, tensors out, trained by torch's autograd.

    from rnncc.torch import GRU, LSTM, RNN, Recurrent

    LSTM(28, 64, num_layers=2)              in place of torch.nn.LSTM: the same state_dict
    Recurrent("peephole.rnn", units=64)     any cell, from its equations

Needs torch: pip install 'rnncc[torch]'.

Threads. torch's OpenMP threads go on spinning for a while after every operation, on the cores that
these kernels want next. Where a model is mostly recurrent, start it with OMP_WAIT_POLICY=passive
in the environment (it is read when torch is imported); RNNCC_NUM_THREADS and torch.set_num_threads
choose how many threads either uses.

Non-Goals: other devices than the CPU; other numbers than float32 and float64.
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError("rnncc.torch needs torch: pip install 'rnncc[torch]'") from None

from rnncc.torch.recurrent import Recurrent
from rnncc.torch.stack import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]
