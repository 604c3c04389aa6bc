"""Size expressions of generated modules: text over size names to whole numbers.

Non-Goals: symbolic sizes (`ir.sizes`).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from types import CodeType

_ALLOWED = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.USub,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.FloorDiv,
    ast.Name,
    ast.Load,
    ast.Constant,
)


@cache
def _compiled(text: str) -> CodeType:
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise ValueError(f"not a size: {text!r}")
    return compile(tree, "<size>", "eval")


def evaluate(text: str, sizes: Mapping[str, int]) -> int:
    """The number; KeyError-like NameError for a size nobody gave, ValueError for other text."""
    return int(eval(_compiled(text), {"__builtins__": {}}, dict(sizes)))
