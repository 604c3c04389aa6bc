"""The warning of weights that no gradient reaches.

Non-Goals: finding them (`lowering.reach`).
"""

from __future__ import annotations

import warnings

from rnncc.artifact.cell import CellDescription

_told: set[int] = set()  # hashes: what was said outlives no cell


class NeverLearns(UserWarning):
    """A weight of a cell that is trained gets no gradient, whatever the data."""


def sentences(cell: CellDescription) -> list[tuple[int, str]]:
    """What there is to say of each such weight, after the line it is declared on."""
    return [
        (
            line,
            f"weight {name} of {cell.name} (line {line}) never learns: nothing that reads it "
            f"(line {', '.join(map(str, lines))}) has a gradient for it",
        )
        for name, line, lines in cell.unlearned
    ]


def warn(cell: CellDescription) -> None:
    """Once for each cell and choice of options, at the line of the weight."""
    key = hash(cell)
    if key in _told:
        return
    _told.add(key)
    for line, sentence in sentences(cell):
        warnings.warn_explicit(sentence, NeverLearns, cell.source, line)
