"""A torch module, or a function of tensors, that computes one step -> the equations it computes.

    trace    one run on real tensors: the operations torch's kernels were asked for
    pairs    two runs with batches of different sizes: what of it is the batch
    slots    what tensors hold while others write into the same memory
    words    what operations are, as calls of a Recorder (elementwise, along, layouts, products)
    replay   a paired run, operation by operation, into a Recorder
    surrogates  an autograd.Function: a value, and what its derivative is said to be
    steps    how a module is called: what it is given, what it gives
    reader   all of it: a step's equations
    row_counts  whether the step asks how many rows there are
    numbers  torch's own outputs and gradients, to prove equations by

Non-Goals: layers (`rnncc.torch.modules`).
"""
