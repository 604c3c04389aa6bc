"""Nodes of a drawing -> columns, from the left to the right, and lines from top to bottom.

Every arrow goes to the right; one that passes columns has a place in each, so that it crosses no
node. Weights and inputs stand right before what reads them first.

Non-Goals: what nodes are (`graph`), how large they are (`picture`).
"""

from __future__ import annotations

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


def columns_of(
    nodes: Sequence[str], arrows: Iterable[tuple[str, str]], late: frozenset[str]
) -> Columns:
    """late: nodes that nothing leads to and that stand as far right as they can. The arrows have no
    circle."""
    arrows = [*arrows]
    rank = _ranks(nodes, arrows)
    for node in late:
        following = [rank[b] for a, b in arrows if a == node]
        if following:
            rank[node] = min(following) - 1
    columns: list[list[str]] = [[] for _ in range(max(rank.values(), default=0) + 1)]
    for node in nodes:
        columns[rank[node]].append(node)
    ways = {}
    for a, b in arrows:
        passed = [f"{a} -> {b} {at}" for at in range(rank[a] + 1, rank[b])]
        for at, place in enumerate(passed, rank[a] + 1):
            columns[at].append(place)
        ways[a, b] = (a, *passed, b)
    return Columns(_untangled(columns, ways.values()), ways)


def _ranks(nodes: Sequence[str], arrows: Sequence[tuple[str, str]]) -> dict[str, int]:
    """How many arrows the longest way to each node has."""
    before: dict[str, list[str]] = {n: [] for n in nodes}
    after: dict[str, list[str]] = {n: [] for n in nodes}
    for a, b in arrows:
        before[b].append(a)
        after[a].append(b)
    rank: dict[str, int] = {}
    open_ends = {n: len(before[n]) for n in nodes}
    ready = [n for n in nodes if not open_ends[n]]
    while ready:
        node = ready.pop()
        rank[node] = max((rank[b] + 1 for b in before[node]), default=0)
        for follower in after[node]:
            open_ends[follower] -= 1
            if not open_ends[follower]:
                ready.append(follower)
    return rank


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
