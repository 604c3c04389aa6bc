"""Every operation of a StepGraph that equations have a word for.

Non-Goals: what they are (`elementwise`, `sums`, `layouts`, `products`).
"""

from __future__ import annotations

from rnncc.frontend.library import SIGNATURES
from rnncc.reading import elementwise, layouts, products, sums  # noqa: F401  (they fill WORDS)
from rnncc.reading.written import WORDS, Word

# Functions of the language that don't go element by element, or that operations can't ask for.
_OTHERS = frozenset(("split", "outer", "zoneout", "stack", "surrogate"))


def word_of(op: str) -> Word | None:
    """Any other function of the language goes element by element."""
    if op in WORDS:
        return WORDS[op]
    return elementwise.function if op in SIGNATURES and op not in _OTHERS else None
