"""A Keras cell written in Python -> the equations it computes, as the text of a .rnn file.

    graph   one symbolic call of the cell, layers inside of it opened
    kinds   what may be read at all: known arguments, floats and conditions
    words   what Keras's operations are called in equations (elementwise, sums, layouts; values)
    sizes   numbers of a shape -> names
    text    the graph, line by line

Read once, when the cell is built; what comes after is what comes after any .rnn file.

Non-Goals: what Python decides while it runs (the sizes of a batch, the values of tensors).
"""
