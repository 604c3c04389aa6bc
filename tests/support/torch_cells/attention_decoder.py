"""A decoder's step that attends to what an encoder gave (Bahdanau et al. 2015)."""

import torch
from torch import nn
from torch.nn import functional as F


class BahdanauAttention(nn.Module):
    def __init__(self, hidden_size, memory_size):
        super().__init__()
        self.Wa = nn.Linear(hidden_size, hidden_size)
        self.Ua = nn.Linear(memory_size, hidden_size)
        self.Va = nn.Linear(hidden_size, 1)

    def forward(self, query, keys):
        scores = self.Va(torch.tanh(self.Wa(query.unsqueeze(1)) + self.Ua(keys)))
        weights = F.softmax(scores.squeeze(2).unsqueeze(1), dim=-1)
        return torch.bmm(weights, keys), weights


class AttnDecoderCell(nn.Module):
    def __init__(self, input_size, hidden_size, memory_size=20, dropout_p=0.1):
        super().__init__()
        self.hidden_size = hidden_size
        self.attention = BahdanauAttention(hidden_size, memory_size)
        self.gru = nn.GRUCell(input_size + memory_size, hidden_size)
        self.dropout = nn.Dropout(dropout_p)

    def forward(self, embedded, hidden, encoder_outputs):
        context, _ = self.attention(hidden, encoder_outputs)
        rnn_input = torch.cat((self.dropout(embedded), context.squeeze(1)), dim=-1)
        hidden = self.gru(rnn_input, hidden)
        return hidden, hidden
