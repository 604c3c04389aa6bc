"""Trained networks out of files: parts wired by the names of their values, on NumPy arrays.

    model = rnncc.load_model("voice.onnx")
    y = model(x)

Recurrent parts are layers of rnncc; what stands around them is NumPy.
"""

from rnncc.models.component import Component, Port, Wired
from rnncc.models.model import Model

__all__ = ["Component", "Model", "Port", "Wired"]
