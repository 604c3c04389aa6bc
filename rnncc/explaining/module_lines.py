"""A module's text -> where each of its lines comes from, by what it cites.

    # h[t] = tanh(z)  (cell.rnn:9)      what follows, as far in as this, is of line 9
    q_ = v.tanh(z_)  # line 9           this line is
    SPEC = '''...                       each line is a line of the user's text
    "kernel [features, units] weight"   a table names the declared

Non-Goals: what a line means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rnncc.explaining.origins import CameFrom, LinkedLine, TextPieces

_CITES = re.compile(r" # line (\d+)$")
_MADE = re.compile(r" +([A-Za-z]\w*?)(?:_\d+)?_ = ")  # a value, by the name that it has
_BLOCK = re.compile(r"( *)# .*:(\d+)\)$")
_NAMED = re.compile(  # in a kernel's address, a kernel's list of arrays, a table's strings
    r"\b([A-Za-z]\w*?)(?:_\d+)?_(?:ptr|stride_\w+|ring|r)\b"
    r"|^    ((?:\w+, )*\w+) +\[.*\]  "
    r'|"((?:\w+, )*\w+) \['
    r'|(?:Array|BufferView)\("(\w+)"'
)


def module_lines(text: str, pieces: TextPieces) -> Iterator[LinkedLine]:
    """Every line of the text; those that come from no equation have no source."""
    lines = text.rstrip("\n").split("\n")
    own = list(pieces.lines())
    first = next((n for n, line in enumerate(lines, 1) if line.startswith("SPEC = ")), len(lines))
    block, indent, in_heading = CameFrom(), 0, False
    for number, line in enumerate(lines):
        if first <= number < first + len(own):
            yield LinkedLine(line, own[number - first].source)
            continue
        depth = len(line) - len(line.lstrip())
        cited = _BLOCK.fullmatch(line)
        if cited:
            source = CameFrom(frozenset({pieces.of(int(cited[2]))}))
            block = block.joined(source) if in_heading and depth == indent else source
            indent, in_heading = depth, True
            yield LinkedLine(line, source)
            continue
        in_heading = False
        if (line.strip() and depth < indent) or line.lstrip().startswith(("# ----", "if shared:")):
            block, indent = CameFrom(), 0
        shared = len(block.equations) > 1 and not _CITES.search(line)
        yield LinkedLine(line, _of_line(line, block, pieces), shared=shared)


def _of_line(line: str, block: CameFrom, pieces: TextPieces) -> CameFrom:
    cites = _CITES.search(line)
    equations = frozenset({pieces.of(int(cites[1]))}) if cites else block.equations
    made = _MADE.match(line)
    if made and made[1] in pieces.sets:
        equations |= {pieces.sets[made[1]]}
    named: set[str] = set()
    for found in _NAMED.finditer(line.partition("  # ")[0]):
        named.update(str(found[found.lastindex or 0]).split(", "))
    arrays = pieces.arrays
    return CameFrom(equations, frozenset(arrays[n] for n in named & arrays.keys()))
