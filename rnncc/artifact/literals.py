"""Data -> Python text that makes it again: the one printer of what generated modules hold.

    Array(name="kernel", shape=("features", "4 * units"), initializer=("glorot_uniform",))

On one line where it fits, else one entry a line; what a field has by default is left out.

Non-Goals: data of other kinds than dataclasses, tuples, frozensets, texts and numbers.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from rnncc.common.user_text import Code

WIDTH = 100
FEW = 8  # texts of a tuple that get a line each


def literal(value: object, indent: int = 0, lead: int = 0) -> Code:
    """Python text for data; `Code` stands for itself.

    indent: the column its further lines start from; lead: what already stands on its first line.
    """
    return Code(_literal(value, indent, lead))


def quoted(value: str) -> str:
    """A literal of any text, on one line; in double quotes unless it holds some itself."""
    text = repr(value)
    if text[0] == "'" and '"' not in value:
        return '"' + text[1:-1].replace("\\'", "'") + '"'
    return text


def _literal(value: object, indent: int, lead: int) -> str:
    flat = _flat(value)
    if indent + lead + len(flat) <= WIDTH:
        return flat
    opening, items, closing = _parts(value)
    if not items:
        return flat
    inner, end = " " * (indent + 4), " " * indent
    if isinstance(value, tuple) and len(value) > FEW and all(isinstance(v, str) for v in value):
        return f"(\n{_filled(value, inner)}\n{end})"
    rows = [f"{inner}{key}{_literal(v, indent + 4, len(key) + 1)},\n" for key, v in items]
    return f"{opening}\n{''.join(rows)}{end}{closing.removeprefix(',')}"


def _flat(value: object) -> str:
    opening, items, closing = _parts(value)
    return f"{opening}{', '.join(key + _flat(item) for key, item in items)}{closing}"


def _parts(value: object) -> tuple[str, list[tuple[str, object]], str]:
    """What a value's text begins with, what it holds, and what it ends with."""
    if isinstance(value, Code):
        return str(value), [], ""
    if isinstance(value, str):
        return quoted(value), [], ""
    if isinstance(value, tuple):
        return "(", [("", v) for v in value], ",)" if len(value) == 1 else ")"
    if isinstance(value, frozenset):
        return "frozenset({", [("", v) for v in sorted(value)], "})"
    if is_dataclass(value) and not isinstance(value, type):
        given = [(f"{f.name}=", getattr(value, f.name), f.default) for f in fields(value)]
        shown = [(key, held) for key, held, default in given if held != default]
        return f"{type(value).__name__}(", shown, ")"
    return repr(value), [], ""


def _filled(value: tuple[object, ...], pad: str) -> str:
    """Short texts, as many a line as fit."""
    lines, line = [], ""
    for text in value:
        item = f"{_flat(text)}, "
        if line and len(pad) + len(line) + len(item) > WIDTH:
            lines.append(pad + line.rstrip())
            line = ""
        line += item
    return "\n".join([*lines, pad + line.rstrip()])
