"""What editors ask: words and colours of the language, and what stands where in a text.

Non-Goals: reading and checking, which are `frontend`'s and `lowering`'s.
"""
