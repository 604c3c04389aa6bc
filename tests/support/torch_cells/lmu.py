"""Legendre memory unit (Voelker et al. 2019): a fixed linear memory beside a nonlinear state."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class LMUCell(nn.Module):
    def __init__(self, input_size, hidden_size, memory_size=12, theta=28):
        super().__init__()
        self.hidden_size, self.memory_size = hidden_size, memory_size
        self.e_x = nn.Parameter(torch.empty(1, input_size))
        self.e_h = nn.Parameter(torch.empty(1, hidden_size))
        self.e_m = nn.Parameter(torch.zeros(1, memory_size))
        self.W_x = nn.Parameter(torch.empty(hidden_size, input_size))
        self.W_h = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.W_m = nn.Parameter(torch.empty(hidden_size, memory_size))
        for e in (self.e_x, self.e_h):
            nn.init.uniform_(e, -0.3, 0.3)
        for w in (self.W_x, self.W_h, self.W_m):
            nn.init.xavier_normal_(w)
        A, B = self.state_space(memory_size, theta)
        self.register_buffer("A", torch.tensor(A, dtype=torch.float32))
        self.register_buffer("B", torch.tensor(B, dtype=torch.float32))

    @staticmethod
    def state_space(order, theta):
        q = np.arange(order, dtype=np.float64)
        r = (2 * q + 1)[:, None] / theta
        j, i = np.meshgrid(q, q)
        a = np.where(i < j, -1, (-1.0) ** (i - j + 1)) * r
        b = (-1.0) ** q[:, None] * r
        step = np.eye(order) - a / 2  # the bilinear rule
        return np.linalg.solve(step, np.eye(order) + a / 2), np.linalg.solve(step, b)

    def forward(self, x, state):
        h, m = state
        u = F.linear(x, self.e_x) + F.linear(h, self.e_h) + F.linear(m, self.e_m)
        m = F.linear(m, self.A) + F.linear(u, self.B)
        h = torch.tanh(F.linear(x, self.W_x) + F.linear(h, self.W_h) + F.linear(m, self.W_m))
        return h, (h, m)

    def init_hidden(self, batch_size):
        kind = {"dtype": self.W_x.dtype, "device": self.W_x.device}
        return (
            torch.zeros(batch_size, self.hidden_size, **kind),
            torch.zeros(batch_size, self.memory_size, **kind),
        )
