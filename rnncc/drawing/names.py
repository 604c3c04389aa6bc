"""How a name of the language reads: a letter, what is below it.

    z_f -> z, f        beta -> β        x_dropped -> x, dropped        key_raw -> key_raw

Non-Goals: marks of a script (`latex`, `mathml`).
"""

from __future__ import annotations

import unicodedata


def parted(text: str) -> tuple[str, str]:
    """(what stands, what stands below it: ""); a word has nothing below it."""
    base, _, below = text.partition("_")
    if base and below and (len(base) == 1 or greek(base)):
        return base, below
    return text, ""


def greek(text: str) -> str:
    """The letter of that name; "" if there is none."""
    try:
        return unicodedata.lookup(f"GREEK SMALL LETTER {text}") if text.isascii() else ""
    except KeyError:
        return ""


def decimal(value: int | float) -> tuple[str, str]:
    """(digits, power of ten: ""); 1e-05 -> 1, -5."""
    digits, _, exponent = repr(value).partition("e")
    return digits.removesuffix(".0"), str(int(exponent)) if exponent else ""
