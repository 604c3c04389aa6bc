"""Boxes and arrows -> places: a row of boxes for each step that values take, arrows downwards.

In which row, and in which order there, `drawing.columns` says.

    >>> drawn = layered([Box("a", ("a",)), Box("b", ("b",))], [("a", "b")])
    >>> [(p.box.key, p.x, p.y) for p in drawn.boxes], drawn.width, drawn.height
    ([('a', 10, 10), ('b', 10, 72)], 70, 116)

Non-Goals: arrows in a circle, which are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rnncc.drawing.columns import columns_of, ranks_of
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
    read = {b for _, b in arrows}
    row = ranks_of([*by_key], arrows, frozenset(by_key.keys() - read))
    if sum(row[b] - row[a] for a, b in arrows) > MOST:
        return Drawing(0, 0, ())
    columns = columns_of(row, arrows)
    rows, chains = columns.columns, columns.ways.values()
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
