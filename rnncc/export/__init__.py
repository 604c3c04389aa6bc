"""Trained layers out of Python: `rnncc.export.c(layer, folder, name="gate")`.

Non-Goals: what C says (`emit.c`); reading files (`files`, `models`).
"""

from rnncc.export.c_folder import c

__all__ = ["c"]
