"""Recurrent layers as functions of arrays, for frameworks that call out to kernels from graphs.

    operation     arguments, states and weights -> results, gradients, second derivatives
    graph_calls   the same as functions of arrays alone, with a number for what a forward saved
    paths         calls whose arrays lie like those of one before

Non-Goals: frameworks (`rnncc.keras`, `rnncc.jax`).
"""
