"""Layers as users call them: choices, checks, calls, gradients, weights, files."""
