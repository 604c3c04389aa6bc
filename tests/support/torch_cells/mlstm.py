"""mLSTM (Beck et al. 2024): a matrix memory, exponential gates and their stabiliser."""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class MLSTMState(NamedTuple):
    c: torch.Tensor
    n: torch.Tensor
    m: torch.Tensor


class MLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size, num_heads=4):
        super().__init__()
        assert hidden_size % num_heads == 0
        self.hidden_size, self.num_heads = hidden_size, num_heads
        self.head_dim = hidden_size // num_heads
        self.qkv = nn.Linear(input_size, 3 * hidden_size)
        self.gates = nn.Linear(input_size, 2 * num_heads)
        self.ogate = nn.Linear(input_size, hidden_size)
        self.norm = nn.GroupNorm(num_heads, hidden_size)

    def get_initial_state(self, batch_size, device=None, dtype=None):
        heads, dim = self.num_heads, self.head_dim
        return MLSTMState(
            torch.zeros(batch_size, heads, dim, dim, device=device, dtype=dtype),
            torch.zeros(batch_size, heads, dim, device=device, dtype=dtype),
            torch.zeros(batch_size, heads, 1, device=device, dtype=dtype),
        )

    def forward(self, x, state):
        batch = x.shape[0]
        q, k, v = self.qkv(x).view(batch, 3, self.num_heads, self.head_dim).unbind(dim=1)
        k = k / math.sqrt(self.head_dim)
        i_pre, f_pre = self.gates(x).view(batch, 2, self.num_heads, 1).unbind(dim=1)
        log_f = F.logsigmoid(f_pre)
        m = torch.maximum(log_f + state.m, i_pre)
        i = torch.exp(i_pre - m)
        f = torch.exp(log_f + state.m - m)
        c = f.unsqueeze(-1) * state.c + i.unsqueeze(-1) * (v.unsqueeze(-1) @ k.unsqueeze(-2))
        n = f * state.n + i * k
        numerator = torch.matmul(c, q.unsqueeze(-1)).squeeze(-1)
        qn = torch.sum(n * q, dim=-1, keepdim=True)
        denominator = torch.maximum(qn.abs(), torch.exp(-m))
        h = (numerator / (denominator + 1e-6)).reshape(batch, self.hidden_size)
        h = torch.sigmoid(self.ogate(x)) * self.norm(h)
        return h, MLSTMState(c, n, m)
