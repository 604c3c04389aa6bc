"""matplotlib's figures, of nobody else: nothing global is read or changed.

Non-Goals: what is drawn in them.
"""

from __future__ import annotations

from typing import Any


def new_figure(width: float, height: float, *, arranged: bool = True) -> Any:
    """A figure in inches. arranged: matplotlib finds room for its axes.

    ImportError says how to get matplotlib."""
    try:
        import matplotlib.figure  # noqa: F401

        from rnncc.common.shown_figure import ShownFigure
    except ImportError:
        needs = "pictures need matplotlib, which isn't installed: pip install 'rnncc[plot]'"
        raise ImportError(needs) from None
    return ShownFigure(figsize=(width, height), layout="constrained" if arranged else None)
