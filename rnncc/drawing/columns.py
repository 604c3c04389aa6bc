"""Nodes of a drawing -> columns, from the left to the right, and lines from top to bottom.

The known way (Sugiyama et al. 1981): columns by the longest path, long arrows with a place in each
column that they pass, so that they cross no node, in each column the order of the means of what is
beside it. Each run gives the same. Who draws downwards takes columns for rows.

Non-Goals: what nodes are (`graph`), how large they are (`picture`).
"""

from __future__ import annotations

import graphlib
import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

SWEEPS = 12


@dataclass(frozen=True)
class Columns:
    """columns: keys of nodes, and of places that arrows pass, from top to bottom. ways: of each
    arrow, all that it passes, both ends among it."""

    columns: tuple[tuple[str, ...], ...]
    ways: Mapping[tuple[str, str], tuple[str, ...]]


def ranks_of(
    nodes: Sequence[str], arrows: Iterable[tuple[str, str]], late: frozenset[str]
) -> dict[str, int]:
    """The column of each: how many arrows the longest way to it has. late: nodes that nothing leads
    to and that stand as far right as they can. graphlib.CycleError for arrows in a circle."""
    before: dict[str, list[str]] = {n: [] for n in nodes}
    after: dict[str, list[str]] = {n: [] for n in nodes}
    for a, b in arrows:
        before[b].append(a)
        after[a].append(b)
    rank = dict.fromkeys(nodes, 0)
    for node in graphlib.TopologicalSorter(before).static_order():
        rank[node] = max((rank[b] + 1 for b in before[node]), default=0)
    for node in late:
        if after[node]:
            rank[node] = min(rank[n] for n in after[node]) - 1
    return rank


def columns_of(rank: Mapping[str, int], arrows: Iterable[tuple[str, str]]) -> Columns:
    """rank: of `ranks_of`. What arrows pass takes room: the sum over all of how far they go."""
    columns: list[list[str]] = [[] for _ in range(max(rank.values(), default=0) + 1)]
    for node, at in rank.items():
        columns[at].append(node)
    ways = {}
    for a, b in arrows:
        passed = [f"{a} -> {b} {at}" for at in range(rank[a] + 1, rank[b])]
        for at, place in enumerate(passed, rank[a] + 1):
            columns[at].append(place)
        ways[a, b] = (a, *passed, b)
    return Columns(_untangled(columns, ways.values()), ways)


def _untangled(
    columns: list[list[str]], ways: Iterable[Sequence[str]]
) -> tuple[tuple[str, ...], ...]:
    """Each where the middle of its neighbours is, forwards and backwards, a few times."""
    left: dict[str, list[str]] = {}
    right: dict[str, list[str]] = {}
    for way in ways:
        for a, b in itertools.pairwise(way):
            right.setdefault(a, []).append(b)
            left.setdefault(b, []).append(a)
    for sweep in range(SWEEPS):
        forwards = sweep % 2 == 0
        order = range(1, len(columns)) if forwards else range(len(columns) - 2, -1, -1)
        for at in order:
            fixed = columns[at - 1] if forwards else columns[at + 1]
            place = {n: (i + 0.5) / len(fixed) for i, n in enumerate(fixed)}
            beside = left if forwards else right
            own = {n: (i + 0.5) / len(columns[at]) for i, n in enumerate(columns[at])}
            columns[at].sort(
                key=lambda n: statistics.fmean(
                    [place[m] for m in beside.get(n, ()) if m in place] or [own[n]]
                )
            )
    return tuple(map(tuple, columns))
