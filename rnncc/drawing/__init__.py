"""A cell for the eye: its equations as LaTeX and MathML.

    chosen    equations under given options, without what they leave out
    walk      one walk over an expression; latex, mathml: the two scripts it writes
    notebook  what notebooks ask of layers

Non-Goals: what is computed (`lowering`).
"""
