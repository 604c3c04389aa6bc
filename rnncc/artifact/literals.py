"""Data -> Python text that makes it again: the one printer of what generated modules hold.

    Array("kernel", shape=("features", "4 * units"), initializer=("glorot_uniform",))

On one line where it fits; else with every field's name, as many a line as fit. What a field has by
default is left out.

Non-Goals: data of other kinds than dataclasses, tuples, frozensets, texts and numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass

from rnncc.common.user_text import Code

WIDTH = 100
FEW = 8  # texts of a tuple that get a line each
SMALL = 6  # fields of what stands beside others on a line


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
    opening, items, closing = _parts(value, named=True)
    if not items:
        return flat
    if isinstance(value, tuple) and len(items) == 1 and _breaks(value[0]):  # hugs what it holds
        return f"({_literal(value[0], indent, lead + 1)},)"
    if not isinstance(value, tuple):
        hugging = _hugging(value, indent, lead)
        if hugging:
            return hugging
    rows = _rows(items, indent + 4, apart=isinstance(value, tuple) and not _fills(value))
    return f"{opening}\n{rows}{' ' * indent}{closing.removeprefix(',')}"


def _hugging(value: object, indent: int, lead: int) -> str:
    """A call whose last field alone needs further lines; "" where others do."""
    opening, items, closing = _parts(value, named=False)
    key, last = items[-1]
    first = opening + "".join(f"{k}{_flat(v)}, " for k, v in items[:-1]) + key
    if not _breaks(last) or indent + lead + len(first) + len(_parts(last, named=False)[0]) > WIDTH:
        return ""
    return f"{first}{_literal(last, indent, lead + len(first))}{closing}"


def _breaks(value: object) -> bool:
    """Whether it may go on in further lines: it holds something, and not one text alone."""
    items = _parts(value, named=False)[1]
    return len(items) > 1 or any(_breaks(item) for _, item in items)


def _fills(value: tuple[object, ...]) -> bool:
    """Whether its items stand side by side: those that are no more than names and numbers."""
    if all(isinstance(v, str) for v in value):
        return len(value) > FEW
    return not any(isinstance(v, str) for v in value) and all(map(_is_small, value))


def _is_small(value: object) -> bool:
    if is_dataclass(value):
        return len(fields(value)) <= SMALL
    return isinstance(value, tuple) and all(isinstance(v, str | int) for v in value)


def _rows(items: Iterable[tuple[str, object]], indent: int, *, apart: bool) -> str:
    """Items, as many a line as fit, or `apart`; one that needs several lines has its own."""
    pad, rows, line = " " * indent, [], ""
    for key, value in items:
        shown = f"{key}{_flat(value)},"
        if line and (apart or indent + len(line) + 1 + len(shown) > WIDTH):
            rows.append(line)
            line = ""
        if indent + len(shown) > WIDTH:
            rows.append(f"{key}{_literal(value, indent, len(key) + 1)},")
        else:
            line = f"{line} {shown}" if line else shown
    return "".join(f"{pad}{row}\n" for row in [*rows, *filter(None, [line])])


def _flat(value: object) -> str:
    opening, items, closing = _parts(value, named=False)
    return f"{opening}{', '.join(key + _flat(item) for key, item in items)}{closing}"


def _parts(value: object, *, named: bool) -> tuple[str, list[tuple[str, object]], str]:
    """What a value's text begins with, what it holds, and what it ends with. named: with the names
    of fields that have no default, too."""
    if isinstance(value, Code):
        return str(value), [], ""
    if isinstance(value, str):
        return quoted(value), [], ""
    if isinstance(value, tuple):
        return "(", [("", v) for v in value], ",)" if len(value) == 1 else ")"
    if isinstance(value, frozenset):
        return "frozenset({", [("", v) for v in sorted(value)], "})"
    if is_dataclass(value) and not isinstance(value, type):
        pairs = [(f, getattr(value, f.name)) for f in fields(value)]
        shown = [
            (f"{f.name}=" if named or f.default is not MISSING else "", item)
            for f, item in pairs
            if item != f.default
        ]
        return f"{type(value).__name__}(", shown, ")"
    return repr(value), [], ""
