"""Leaky integrate-and-fire neurons with a surrogate gradient (Neftci et al. 2019; SuperSpike)."""

import torch
from torch import nn


class SurrogateSpike(torch.autograd.Function):
    scale = 10.0

    @staticmethod
    def forward(ctx, input):
        ctx.save_for_backward(input)
        out = torch.zeros_like(input)
        out[input > 0] = 1.0
        return out

    @staticmethod
    def backward(ctx, grad_output):
        (input,) = ctx.saved_tensors
        grad_input = grad_output.clone()
        return grad_input / (SurrogateSpike.scale * torch.abs(input) + 1.0) ** 2


spike_fn = SurrogateSpike.apply


class LIFCell(nn.Module):
    def __init__(self, nb_inputs, nb_hidden, alpha=0.8, beta=0.9):
        super().__init__()
        self.nb_hidden, self.alpha, self.beta = nb_hidden, alpha, beta
        self.w1 = nn.Parameter(torch.empty(nb_inputs, nb_hidden))
        self.v1 = nn.Parameter(torch.empty(nb_hidden, nb_hidden))
        nn.init.normal_(self.w1, std=2.0 / nb_inputs**0.5)
        nn.init.normal_(self.v1, std=0.5 / nb_hidden**0.5)

    def init_state(self, batch_size):
        syn = torch.zeros(batch_size, self.nb_hidden)
        return syn, torch.zeros_like(syn), torch.zeros_like(syn)

    def forward(self, x, state):
        syn, mem, out = state
        h1 = torch.einsum("ab,bc->ac", x, self.w1) + torch.einsum("ab,bc->ac", out, self.v1)
        mthr = mem - 1.0
        out = spike_fn(mthr)
        rst = out.detach()
        new_syn = self.alpha * syn + h1
        new_mem = (self.beta * mem + syn) * (1.0 - rst)
        return out, (new_syn, new_mem, out)
