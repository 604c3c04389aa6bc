"""The words of the language, by what they are, each with a line for whoever points at it.

Non-Goals: names that a text declares.
"""

from __future__ import annotations

from rnncc.frontend.declarations import KINDS
from rnncc.frontend.library import INITIALIZERS, SIGNATURES

KIND_MEANINGS = {
    "cell": "the name of the class",
    "size": "a size: read off the data, given when a layer is made, or its default",
    "input": "an input at every step, read as x[t]",
    "context": "an input that is the same at every step, read by its bare name",
    "state": "kept from step to step, read as h[t-1]; starts from zeros, a weight or a constant",
    "weight": "trained, filled by an initializer",
    "constant": "an array that is not trained",
    "function": "a function of the library or a lambda; another one may be given to a layer",
    "option": "a bool, an int, a float or a text, decided before anything is compiled",
    "rate": "a number in [0, 1), read when a layer runs, for drop and zoneout",
}
KEYWORDS = ("and", "else", "if", "lambda", "not", "or", "return")
CONSTANTS = ("False", "True")
FUNCTIONS = tuple(sorted(SIGNATURES))
INITIALIZERS_IN_ORDER = tuple(sorted(INITIALIZERS))
DECLARES = ("cell", *KINDS)
