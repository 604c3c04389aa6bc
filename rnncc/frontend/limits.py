"""How much a cell's text may ask for: whatever it says, reading and checking it ends soon.

Cells that people write stay far below each of these. What is beyond one is refused with its line
and the number; nothing is left out in silence. docs/language.md and SECURITY.md name them.

Non-Goals: sizes of a call, which only a layer knows.
"""

from __future__ import annotations

from rnncc.ir.sizes import FACTORS, TERMS, WHOLE

# ---- the text ----

CHARACTERS = 1_000_000  # of a text
LINE_CHARACTERS = 20_000  # of a line, with those it goes on in
LINES = 30_000  # that say something
NAME_CHARACTERS = 200
DECLARATIONS = 2_000
EQUATIONS = 12_000
EXPRESSIONS = 120_000  # names, numbers and what joins them
LEVELS = 200  # of expressions within expressions, bodies of functions included
UNCLOSED = 50  # brackets and strings without an end: each is looked for far ahead

# ---- what it means ----

STEPS = 1_000  # back in time; each is a state of its own
STATES = 1_500  # with those of earlier steps
PARTS = 1_000  # of a split
RANK = 32  # axes of an array
WORK = 100_000  # expressions evaluated and values made, with functions written out
FOLDINGS = 256  # choices of options that are tried

# ---- sizes, as polynomials ----

__all__ = ["FACTORS", "TERMS", "WHOLE"]  # of sizes everywhere: a room to the left has them

# ---- what is said ----

MISTAKES = 100  # shown of one text, and how many more there are
HINTS = 100  # names whose nearest are looked for
KNOWN = 500  # among more names the nearest isn't looked for
FIELD_CHARACTERS = 400  # of a name or a shape in a message
