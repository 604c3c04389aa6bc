"""Statements go down to the level that reads them, where that spares rows of memory.

`levels` puts a statement as early as it can be. If only later levels read its value, that is
written to memory and read again; computed where it is read, from what is in memory anyhow, it
stays in a register. An equation that is unfolded six times computes each unfolding's values when
their turn comes, not all of them at first.

A statement is sunk as far as the first of the levels that read it, where

- everything that reads it does so lane by lane, over the same rows;
- what it reads is there: from outside the region, kept for another stage anyhow, or sunk with it.

Non-Goals: computing anything twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rnncc.ir.program import Value


@dataclass(frozen=True, eq=False, slots=True)
class Statement:
    """What sinking asks about a value that a region computes. reads: values of the region.
    readers: what reads it, in order; by_lane: lane by lane, all of them. stays: it is no statement
    that may be moved. in_memory: it is kept there whatever reads it."""

    key: object  # what it shares with others of its stage, besides the level
    level: int
    reads: Sequence[Value]
    readers: Sequence[Value]
    by_lane: bool
    stays: bool
    in_memory: bool


def sunk(statements: dict[Value, Statement]) -> dict[Value, int]:
    """The level of each value. statements: in the order they are computed in."""
    limits: dict[Value, int] = {}
    while True:
        levels = _wanted(statements, limits)
        wrong: dict[Value, int] = {}
        for value, own in statements.items():
            if levels[value] > own.level:
                unfed = _unfed(value, statements, levels)
                if unfed:
                    wrong[value] = max(own.level, *(levels[read] for read in unfed))
        if not wrong:
            return levels
        limits |= {value: wrong[value] for value in _last(wrong, statements)}


def _wanted(statements: dict[Value, Statement], limits: Mapping[Value, int]) -> dict[Value, int]:
    """Where each would go if all that it reads were there."""
    levels: dict[Value, int] = {}
    for value, own in reversed(statements.items()):
        levels[value] = own.level
        if own.readers and own.by_lane and not own.stays:
            first = min(levels[r] for r in own.readers)
            levels[value] = min(first, limits.get(value, first))
    return levels


def _unfed(
    value: Value, statements: dict[Value, Statement], levels: Mapping[Value, int]
) -> list[Value]:
    """What it reads that isn't in memory without it, nor comes along."""
    unfed = []
    for read in statements[value].reads:
        source = statements[read]
        if source.in_memory or not source.by_lane or levels[read] == levels[value]:
            continue
        stage = (levels[read], source.key)
        others = (r for r in source.readers if r is not value)
        if all((levels[r], statements[r].key) == stage for r in others):
            unfed.append(read)
    return unfed


def _last(wrong: Collection[Value], statements: dict[Value, Statement]) -> list[Value]:
    """Those that none of the others depends on: with them in place, others may be right."""
    leads: set[Value] = set()  # to a wrong one
    for value, own in reversed(statements.items()):
        if any(r in wrong or r in leads for r in own.readers):
            leads.add(value)
    return [value for value in wrong if value not in leads]
