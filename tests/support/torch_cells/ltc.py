"""Liquid time-constant cell (Hasani et al. 2021): a fused ODE solver, six unfoldings a step."""

import torch
from torch import nn


class LTCCell(nn.Module):
    def __init__(self, input_size, units, ode_unfolds=6, epsilon=1e-8):
        super().__init__()
        self.units, self.ode_unfolds, self.epsilon = units, ode_unfolds, epsilon
        self.gleak = nn.Parameter(torch.rand(units) * 0.9 + 0.1)
        self.vleak = nn.Parameter(torch.rand(units) * 0.4 - 0.2)
        self.cm = nn.Parameter(torch.rand(units) * 0.2 + 0.4)
        self.w = nn.Parameter(torch.rand(units, units))
        self.sigma = nn.Parameter(torch.rand(units, units) * 5 + 3)
        self.mu = nn.Parameter(torch.rand(units, units) * 0.5 + 0.3)
        self.erev = nn.Parameter(torch.randn(units, units).sign())
        self.sensory_w = nn.Parameter(torch.rand(input_size, units))
        self.sensory_sigma = nn.Parameter(torch.rand(input_size, units) * 5 + 3)
        self.sensory_mu = nn.Parameter(torch.rand(input_size, units) * 0.5 + 0.3)
        self.sensory_erev = nn.Parameter(torch.randn(input_size, units).sign())
        self.register_buffer("sparsity_mask", (torch.rand(units, units) > 0.3).float())

    def _sigmoid(self, v_pre, mu, sigma):
        v_pre = torch.unsqueeze(v_pre, -1)
        return torch.sigmoid(sigma * (v_pre - mu))

    def _ode_solver(self, inputs, state, elapsed_time=1.0):
        v_pre = state
        sensory = self.sensory_w * self._sigmoid(inputs, self.sensory_mu, self.sensory_sigma)
        sensory_rev = sensory * self.sensory_erev
        w_numerator_sensory = torch.sum(sensory_rev, dim=1)
        w_denominator_sensory = torch.sum(sensory, dim=1)
        cm_t = self.cm / (elapsed_time / self.ode_unfolds)
        for _ in range(self.ode_unfolds):
            w_activation = self.w * self._sigmoid(v_pre, self.mu, self.sigma)
            w_activation = w_activation * self.sparsity_mask
            rev_activation = w_activation * self.erev
            w_numerator = torch.sum(rev_activation, dim=1) + w_numerator_sensory
            w_denominator = torch.sum(w_activation, dim=1) + w_denominator_sensory
            numerator = cm_t * v_pre + self.gleak * self.vleak + w_numerator
            denominator = cm_t + self.gleak + w_denominator
            v_pre = numerator / (denominator + self.epsilon)
        return v_pre

    def forward(self, inputs, states):
        next_state = self._ode_solver(inputs, states)
        return next_state, next_state
