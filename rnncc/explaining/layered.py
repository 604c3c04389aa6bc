"""Boxes and arrows -> places: a row of boxes for each step that values take, arrows downwards.

The known way (Sugiyama et al. 1981): rows by the longest path, long arrows cut into a piece a
row, in each row the order of the means of what is above and below. Each run gives the same.

    >>> drawn = layered([Box("a", ("a",)), Box("b", ("b",))], [("a", "b")])
    >>> [(p.box.key, p.x, p.y) for p in drawn.boxes], drawn.width, drawn.height
    ([('a', 10, 10), ('b', 10, 72)], 70, 116)

Non-Goals: arrows in a circle, which are refused.
"""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rnncc.explaining.origins import CameFrom

LETTER, LINE, PAD, GAP, RISE = 6.6, 13, 8, 16, 28  # pixels; letters are of the style's font
MOST = 4000  # rows that all arrows go through


@dataclass(frozen=True)
class Box:
    """kind: what it is drawn as."""

    key: str
    lines: tuple[str, ...]
    kind: str = ""
    source: CameFrom = field(default_factory=CameFrom)

    @property
    def width(self) -> int:
        return max(50, round(max(map(len, self.lines)) * LETTER) + 2 * PAD)

    @property
    def height(self) -> int:
        return len(self.lines) * LINE + 2 * PAD + 5


@dataclass(frozen=True)
class PlacedBox:
    """x, y: of its upper left corner."""

    box: Box
    x: int
    y: int

    @property
    def text(self) -> list[tuple[int, int, str]]:
        """Each line of it with where it begins."""
        step = range(self.y + PAD + LINE, self.y + self.box.height, LINE)
        return [(self.x + PAD, y, line) for y, line in zip(step, self.box.lines, strict=False)]


@dataclass(frozen=True)
class Drawing:
    """paths: of arrows, as SVG writes them."""

    width: int
    height: int
    boxes: tuple[PlacedBox, ...]
    paths: tuple[str, ...] = ()


def layered(boxes: Sequence[Box], arrows: Iterable[tuple[str, str]]) -> Drawing:
    """CycleError for arrows in a circle; nothing drawn where nobody could follow them."""
    arrows = list(dict.fromkeys(arrows))
    by_key = {b.key: b for b in boxes}
    row = _rows(by_key, arrows)
    if sum(row[b] - row[a] for a, b in arrows) > MOST:
        return Drawing(0, 0, ())
    rows: list[list[str]] = [[] for _ in range(max(row.values(), default=0) + 1)]
    for key in by_key:
        rows[row[key]].append(key)
    chains = [_chain(a, b, row, rows) for a, b in arrows]
    pieces = [(a, b) for chain in chains for a, b in itertools.pairwise(chain)]
    _order(rows, pieces)
    widths = {k: by_key[k].width if k in by_key else 8 for keys in rows for k in keys}
    whole = max((sum(widths[k] + GAP for k in keys) - GAP for keys in rows if keys), default=0)
    x, y, top = {}, {}, 10
    for keys in rows:
        left = 10 + (whole - sum(widths[k] + GAP for k in keys) + GAP) // 2
        tall = max((by_key[k].height for k in keys if k in by_key), default=0)
        for k in keys:
            x[k], y[k], left = left, top, left + widths[k] + GAP
        top += tall + RISE
    middle = {k: x[k] + widths[k] // 2 for k in x}
    foot = {k: y[k] + (by_key[k].height if k in by_key else LINE) for k in y}
    paths = tuple(_path([(middle[k], y[k], foot[k]) for k in chain]) for chain in chains)
    placed = tuple(PlacedBox(b, x[b.key], y[b.key]) for b in boxes)
    return Drawing(whole + 20, top - RISE + 10, placed, paths)


def _rows(keys: Iterable[str], arrows: Sequence[tuple[str, str]]) -> dict[str, int]:
    above: dict[str, list[str]] = {k: [] for k in keys}
    for a, b in arrows:
        above[b].append(a)
    row: dict[str, int] = {}
    for key in graphlib.TopologicalSorter(above).static_order():
        row[key] = max((row[a] + 1 for a in above[key]), default=0)
    for key in above:  # what is read late stands right above
        readers = [row[b] for a, b in arrows if a == key]
        if not above[key] and readers:
            row[key] = min(readers) - 1
    return row


def _chain(a: str, b: str, row: dict[str, int], rows: list[list[str]]) -> list[str]:
    """From box to box by a place in each row between, which it takes."""
    between = [f"{a} {b} {n}" for n in range(row[a] + 1, row[b])]
    for n, key in enumerate(between, row[a] + 1):
        rows[n].append(key)
    return [a, *between, b]


def _order(rows: list[list[str]], pieces: Sequence[tuple[str, str]]) -> None:
    near: dict[str, list[str]] = {}
    for a, b in pieces:
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    for sweep in range(8):
        for n in range(len(rows)) if sweep % 2 == 0 else reversed(range(len(rows))):
            place = {k: (i + 0.5) / len(keys) for keys in rows for i, k in enumerate(keys)}
            beside = set(rows[n - 1] if n and sweep % 2 == 0 else rows[(n + 1) % len(rows)])

            at = {k: [place[o] for o in near.get(k, ()) if o in beside] for k in rows[n]}
            means = {k: sum(found) / len(found) if found else place[k] for k, found in at.items()}
            rows[n].sort(key=means.__getitem__)


def _path(points: Sequence[tuple[int, int, int]]) -> str:
    """From the first one's foot through all between to the last one's head."""
    x, _, y = points[0]
    text = f"M{x} {y}"
    for at, head, foot in points[1:]:
        half = (y + head) // 2
        text += f" C{x} {half} {at} {half} {at} {head}"
        if at != points[-1][0] or head != points[-1][1]:
            text += f" L{at} {foot}"
        x, y = at, foot
    return text
