"""torch.onnx.export of models with modules of rnncc.torch.

Non-Goals: files without torch (`rnncc.export`).
"""

from rnncc.torch.exporting.translation import onnx_translations

__all__ = ["onnx_translations"]
