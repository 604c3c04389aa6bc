"""Weights of recurrent cells in the forms that libraries have them, and into any other form.

    report = load_weights(layer, "w.safetensors")       # names and form told by the file
    arrays = arrays_of(layer, "torch")                   # and back: {"weight_ih": ..., ...}

Non-Goals: whole models (`models.load`).
"""

from rnncc.models.conventions.cell_weights import CellWeights
from rnncc.models.conventions.forms import CONVENTIONS
from rnncc.models.conventions.loading import WeightReport, arrays_of, load_weights

__all__ = ["CONVENTIONS", "CellWeights", "WeightReport", "arrays_of", "load_weights"]
