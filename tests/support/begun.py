"""A cell that begins with a weight, has a constant, and drops inputs at a rate."""

from __future__ import annotations

TEXT = """
cell: Begun
x: input[features]
features: size
units: size
h: state[units] = h0
h0: weight[units] = ones
mu: constant[units] = zeros
W: weight[features, units]
U: weight[units, units]
h[t] = tanh(drop(x[t], dropout) @ W + h[t-1] @ U + mu)
dropout: rate = 0
return h[t]
"""
