"""Layers said in words: "embedding@emb lstm(40, 256, 3) linear relu linear@head".

Non-Goals: which words there are (`torch_layers`).
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

_WORD = re.compile(r"([A-Za-z_]\w*)(?:\(([^()]*)\))?(?:@([\w.]+))?(?=\s|$)")


@dataclass(frozen=True, slots=True)
class LayerWord:
    """A layer as it is said. arguments: in order, then by keyword."""

    kind: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    name: str | None

    def __str__(self) -> str:
        inside = ", ".join(
            [*map(repr, self.arguments), *(f"{k}={v!r}" for k, v in self.keywords.items())]
        )
        at = f"@{self.name}" if self.name else ""
        return f"{self.kind}({inside}){at}" if inside else f"{self.kind}{at}"


def words_of(text: str) -> list[LayerWord]:
    """ValueError for what is no list of layers."""
    found, at, text = [], 0, text.strip()
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            raise ValueError(f"layers: {text[at : at + 40]!r} is no layer; kind(sizes)@name is")
        kind, inside, name = match.groups()
        arguments, keywords = _arguments(inside or "")
        found.append(LayerWord(kind.lower(), arguments, keywords, name))
        at = match.end() + len(text[match.end() :]) - len(text[match.end() :].lstrip())
    if not found:
        raise ValueError('layers names none: "lstm linear", say')
    return found


def _arguments(inside: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
        assert isinstance(call, ast.Call)
        keywords = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        return tuple(ast.literal_eval(a) for a in call.args), keywords
    except (ValueError, SyntaxError, AssertionError):
        raise ValueError(f"layers: ({inside}) isn't numbers and names with values") from None
