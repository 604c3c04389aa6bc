"""GRU-D (Che et al. 2018): values that are missing decay towards the mean, and so do states."""

import torch
from torch import nn


class GRUDCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.gamma_x = nn.Parameter(torch.rand(input_size))
        self.gamma_x_bias = nn.Parameter(torch.zeros(input_size))
        self.gamma_h = nn.Linear(input_size, hidden_size)
        size = input_size + hidden_size + input_size
        self.zl, self.rl, self.hl = (nn.Linear(size, hidden_size) for _ in range(3))
        self.register_buffer("x_mean", torch.randn(input_size) * 0.1)

    def forward(self, inputs, state):
        x, mask, delta = inputs["x"], inputs["mask"], inputs["delta"]
        h, x_last = state["h"], state["x_last"]
        zeros = torch.zeros(x.size(0), x.size(1), device=x.device, dtype=x.dtype)
        delta_x = torch.exp(-torch.max(zeros, self.gamma_x * delta + self.gamma_x_bias))
        delta_h = torch.exp(-torch.relu(self.gamma_h(delta)))
        x_last = mask * x + (1 - mask) * x_last
        x = mask * x + (1 - mask) * (delta_x * x_last + (1 - delta_x) * self.x_mean)
        h = delta_h * h
        combined = torch.cat((x, h, mask), 1)
        z = torch.sigmoid(self.zl(combined))
        r = torch.sigmoid(self.rl(combined))
        h_tilde = torch.tanh(self.hl(torch.cat((x, r * h, mask), 1)))
        h = (1 - z) * h + z * h_tilde
        return h, {"h": h, "x_last": x_last}
