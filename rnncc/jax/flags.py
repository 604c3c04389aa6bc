"""Lists of which some are there, as primitives' operands are: flags say which.

Non-Goals: what they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Flags = tuple[bool, ...]


def chosen(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    """Those that are flagged."""
    return [v for v, f in zip(values, flags, strict=True) if f]


def spread(values: Sequence[Any], flags: Sequence[bool], other: Any = None) -> list[Any]:
    """The way back: `other` where there is none."""
    rest = iter(values)
    return [next(rest) if f else other for f in flags]


def cut(values: Sequence[Any], *counts: int) -> Iterator[list[Any]]:
    """So many, then so many, ..., then the rest."""
    at = 0
    for count in counts:
        yield [*values[at : at + count]]
        at += count
    yield [*values[at:]]
