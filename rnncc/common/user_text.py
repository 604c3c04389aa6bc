"""The user's text -> what may stand in a module: a comment, or a part of a docstring.

These, `text_literal` and `quoted` (`artifact.literals`) are the only ways by which anything of the
user's reaches a module. Templates print nothing else: `printed` lets pass what is `Code`, and of
plain text only what can't hold a string, an escape or a second line.

    >>> print(comment('z = x[t]  # C:\\\\new\\x0b'), documented('say \"\"\"hi\"\"\" in C:\\\\new'))
    z = x[t]  # C:\\new\\x0b say \\"\\""hi\\"\\"" in C:\\\\new

Non-Goals: whether a whole module is one that templates make (`module_grammar`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Undefined

# jinja's own type for text that stands for itself: its macros and filters hand it on.
Code = Markup

# A line of ours: no quotes, no backslash, nothing that ends the line.
_OURS = re.compile(r"""[^"'\\\x00-\x1f\x7f-\U0010ffff]*""")
_QUOTES = re.compile('"(?="|$)')


def comment(text: str) -> Code:
    """The text as it can stand behind a #: on one line, whatever is in it."""
    return Code("".join(map(_visible, text)))


def documented(text: str) -> Code:
    """The text as a line of a docstring: what it says is what was given, and it ends nowhere."""
    shown = "".join(map(_visible, text.replace("\\", "\\\\")))
    return Code(_QUOTES.sub(r"\\" + '"', shown))


def text_literal(text: str) -> Code:
    """A literal of the whole text, line by line as it was written."""
    lines = [*map(_visible_line, text.replace("\\", "\\\\").split("\n"))]
    shown = "\n".join(lines)
    mark = "'''"  # a spec's own title has the others
    if mark in shown or shown.endswith("'"):
        mark, shown = '"""', _QUOTES.sub(r"\\" + '"', shown)
    return Code(f"{mark}\\\n{shown}{mark}")


def _visible_line(line: str) -> str:
    """Blanks at its end are told: editors drop them."""
    shown = "".join(map(_visible, line))
    return shown[:-1] + r"\x20" if shown.endswith(" ") else shown


def _visible(character: str) -> str:
    """The character, or where it can't be seen or ends a line, its number."""
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def printed(value: object) -> Code | int | Undefined:
    """What a template prints. TypeError for text that nobody has made safe."""
    if isinstance(value, Code | int):
        return value
    if isinstance(value, str) and _OURS.fullmatch(value):
        return Code(value)
    from jinja2 import Undefined  # here, since a cell's key is a literal and needs no template

    if isinstance(value, Undefined):  # it says itself what is missing
        return value
    raise TypeError(f"a template may not print {value!r}: it is neither Code nor a line of ours")
