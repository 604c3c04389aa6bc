"""Docstrings of rnncc say arguments in running text, `name: what it is.`, or a line each. On the
site each is an item of a list, as Markdown would otherwise run them together.

Non-Goals: any other form of docstrings.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import griffe

ITEM = re.compile(r"^([a-z_]\w*(?:, \w+)*): ")


class Lists(griffe.Extension):
    """Read by mkdocstrings: see mkdocs.yml."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring and not obj.is_alias:
            named = [p.name for p in obj.parameters] if obj.is_function else []
            obj.docstring.value = listed(obj.docstring.value, named)


def listed(text: str, arguments: Collection[str]) -> str:
    """The same text, paragraphs that tell of arguments as lists."""
    return "\n\n".join(_paragraph(p, arguments) for p in text.split("\n\n"))


def _paragraph(text: str, arguments: Collection[str]) -> str:
    lines = text.split("\n")
    if ITEM.match(lines[0]) and all(s.startswith(" ") or ITEM.match(s) for s in lines[1:]):
        return "\n".join(ITEM.sub(r"- **\1**: ", s) for s in lines)
    if text.startswith(" ") or not arguments:
        return text
    name = "|".join(map(re.escape, arguments))
    begins = re.compile(rf"(?:^|(?<=[.;)] ))((?:{name})(?:, (?:{name}))*): ")
    running = re.sub(r"\n(?!\s)", " ", text)
    parts = re.split(r"(?<=\.) (?=Raises |Returns )", running)
    shown = [begins.sub(r"\n- **\1**: ", p).lstrip("\n") for p in parts]
    # A list ends with a blank line, and begins behind one where a sentence comes before it.
    return "\n\n".join(re.sub(r"^(?!- )(.*?)\n- ", r"\1\n\n- ", p) for p in shown)
