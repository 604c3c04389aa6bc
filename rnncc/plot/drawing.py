"""A cell's step as a picture.

Non-Goals: what it looks like (`rnncc.drawing.picture`); files (`rnncc draw`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rnncc.common.progress import working
from rnncc.drawing.notebook import chosen_of
from rnncc.drawing.picture import figure
from rnncc.runtime.api.layer import Layer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawing(cell: Layer | type[Layer]) -> Figure:
    """A figure of a step: states, inputs, weights and named values as boxes, what is made of what
    as arrows, dense products apart from pointwise work.

    cell: a class of `rnncc.compile`, at its defaults, or a layer of one, as it was made.
    ImportError without matplotlib; TypeError for anything else; ValueError for a layer made of
    layers, for one without its cell's text, and where a drawing has no room.
    """
    if not (isinstance(cell, Layer) or (isinstance(cell, type) and issubclass(cell, Layer))):
        kind = cell.__name__ if isinstance(cell, type) else type(cell).__name__
        raise TypeError(f"a drawing is of a class of rnncc.compile or a layer, not of {kind}")
    with working("drawing"):
        return figure(chosen_of(cell))
