"""Mogrifier LSTM (Melis et al. 2020): input and state gate each other before the step."""

import torch
from torch import nn


class MogrifierLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size, mogrify_steps=5):
        super().__init__()
        self.hidden_size, self.mogrify_steps = hidden_size, mogrify_steps
        self.lstm = nn.LSTMCell(input_size, hidden_size)
        self.mogrifier_list = nn.ModuleList([nn.Linear(hidden_size, input_size)])
        for i in range(1, mogrify_steps):
            if i % 2 == 0:
                self.mogrifier_list.append(nn.Linear(hidden_size, input_size))
            else:
                self.mogrifier_list.append(nn.Linear(input_size, hidden_size))

    def mogrify(self, x, h):
        for i in range(self.mogrify_steps):
            if (i + 1) % 2 == 0:
                h = (2 * torch.sigmoid(self.mogrifier_list[i](x))) * h
            else:
                x = (2 * torch.sigmoid(self.mogrifier_list[i](h))) * x
        return x, h

    def forward(self, x, states):
        ht, ct = states
        x, ht = self.mogrify(x, ht)
        ht, ct = self.lstm(x, (ht, ct))
        return ht, ct
