"""A step that somebody wrote for another framework -> the equations it computes, as .rnn text.

    graph     what a reader makes of one step: operations of arrays, for one row of a batch
    recorder  where readers put operations as frameworks have them, with the axis of the batch
    sizes     numbers of a shape -> names
    written   expressions
    words     what operations are called in equations (elementwise, sums, layouts, products)
    text      the graph, line by line

A reader (`rnncc.keras.python`, `rnncc.torch.reading`, `rnncc.jax.reading`) follows one step of its
framework's and calls a method of the Recorder for everything it meets; all that is known of rows of
a batch, of kinds of numbers and of the language is known here. What isn't understood is refused
with the operation's name and the user's line, never left out.

Non-Goals: frameworks: nothing here imports one.
"""
