"""A figure that a notebook shows, whatever else of matplotlib it has imported.

Imported where a figure is made: it needs matplotlib.

Non-Goals: figures of pyplot, which show themselves.
"""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """matplotlib's, of nobody else. IPython learns what a Figure is with pyplot's first one."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()
