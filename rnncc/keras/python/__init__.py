"""A Keras cell written in Python -> its step, for `rnncc.reading`.

    graph         one symbolic call of the cell, layers inside of it opened
    operations    what Keras's operations are, as calls of a Recorder; arrangements: those of shapes
    reader        the graph, operation by operation

Read once, when the cell is built; what comes after is what comes after any .rnn file.

Non-Goals: what Python decides while it runs (the sizes of a batch, the values of tensors).
"""
