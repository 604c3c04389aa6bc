"""Files of trained arrays, read without running anything of theirs, written whole or not at all.

    tensors = rnncc.files.read("w.safetensors")     # of any format here, told by what is in it
    tensors["lstm.weight_ih_l0"], tensors.format, tensors.metadata

Non-Goals: what the arrays mean (`models`); a layer's own archive (`runtime.api.weight_files`).
"""

from rnncc.files.errors import FileError
from rnncc.files.reading import format_of, read
from rnncc.files.tensors import Tensors
from rnncc.files.writing import folder_whole, write_whole

__all__ = ["FileError", "Tensors", "folder_whole", "format_of", "read", "write_whole"]
