"""Trained layers out of Python: `rnncc.export.c(layer, folder, name="gate")`, and `onnx`.

Non-Goals: what C and ONNX say (`emit`); reading files (`files`, `models`).
"""

from rnncc.export.c_folder import c
from rnncc.export.onnx_file import onnx

__all__ = ["c", "onnx"]
