"""A cell for the eye: its equations as LaTeX and MathML, and as a drawing.

    chosen    equations under given options, without what they leave out
    walk      one walk over an expression; latex, mathml: the two scripts it writes
    graph     equations -> nodes and arrows; columns: where they stand; picture: matplotlib's
    notebook  what notebooks ask of layers

Non-Goals: what is computed (`lowering`).
"""
