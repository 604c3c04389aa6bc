"""Layers of torch modules that compute one step.

    signature  what a module's forward takes: the tensors of a step, in which of its parameters
    sources    where a cell's weights are found, at every call
    cell       the layer of a cell
    stacks     layers one above the other, in both directions
    scan       a function of one step over all steps

Non-Goals: how steps are read (`rnncc.torch.reading`).
"""
