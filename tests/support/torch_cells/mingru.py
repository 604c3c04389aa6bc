"""minGRU (Feng et al. 2024)."""

import torch
from torch import nn


def g(x):
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))


class MinGRUCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.to_z_h = nn.Linear(input_size, 2 * hidden_size, bias=False)

    def forward(self, x_t, h_prev=None):
        if h_prev is None:
            h_prev = x_t.new_zeros(x_t.shape[0], self.hidden_size)
        gate, hidden = self.to_z_h(x_t).chunk(2, dim=-1)
        z = torch.sigmoid(gate)
        return torch.lerp(h_prev, g(hidden), z)
