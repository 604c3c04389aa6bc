"""ONNX models: recurrent operators on our kernels, plain ones through a library.

Non-Goals: other formats.
"""

from rnncc.models.onnx.reader import load_onnx

__all__ = ["load_onnx"]
