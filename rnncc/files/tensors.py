"""Named arrays out of a file, and what the file says beside them.

Non-Goals: reading (`reading`); what the arrays mean (`models`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rnncc.files import limits
from rnncc.files.errors import FileError


class Tensors(Mapping[str, np.ndarray]):
    """Arrays by name, in the file's order: bools, integers, or floats of 2, 4 or 8 bytes (bfloat16
    is widened to float32), of this machine's byte order.

    where: the file. format: "safetensors", "npz", "hdf5", "keras", "torch", "onnx" or "json".
    metadata: what the file says beside its arrays, as its format has it.
    """

    def __init__(
        self,
        where: str,
        format: str,
        arrays: Mapping[str, np.ndarray],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.where, self.format = where, format
        self.metadata = dict(metadata or {})
        limits.check_count(where, len(arrays), limits.TENSORS, "tensors")
        self._arrays = {name: self._native(name, a) for name, a in arrays.items()}

    def _native(self, name: str, array: np.ndarray) -> np.ndarray:
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise FileError(self.label(name), f"it holds {array.dtype} values, not numbers")
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

    def __getitem__(self, name: str) -> np.ndarray:
        """KeyError; `array` says it with the file."""
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def label(self, name: str) -> str:
        """A tensor as messages say it: the file, and its name."""
        return f"{self.where}: tensor {name}"

    def array(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """That one, of that shape, all of it finite. FileError says which isn't."""
        if name not in self._arrays:
            held = ", ".join(list(self)[:20]) + (", ..." if len(self) > 20 else "")
            raise FileError(self.where, f"it has no tensor {name}; it has {held or 'none'}")
        array = self._arrays[name]
        if shape is not None and array.shape != shape:
            raise FileError(
                self.label(name), f"it has shape {list(array.shape)}, expected {list(shape)}"
            )
        self.check_finite(name)
        return array

    def check_finite(self, name: str) -> None:
        """FileError where a tensor holds NaN or infinity: nobody trained it to."""
        array = self._arrays[name]
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            count = array.size - int(np.isfinite(array).sum())
            raise FileError(
                self.label(name),
                f"{count:,} of its {array.size:,} numbers are NaN or infinite: is it damaged?",
            )

    def __repr__(self) -> str:
        return f"<Tensors {self.where}: {len(self)} of {self.format}>"


def sized(where: str, shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes of an array of that shape. FileError for one that no array has."""
    if len(shape) > limits.RANK or not all(
        isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**62 for n in shape
    ):
        raise FileError(where, f"{list(shape)[:40]!s:.200} is no array's shape")
    return math.prod(shape) * itemsize


def checked_name(where: str, name: object) -> str:
    """FileError for a name that is none."""
    if not isinstance(name, str) or not 0 < len(name) <= limits.NAME:
        raise FileError(where, f"a tensor is called {name!r:.80}")
    return name


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """uint16 bits -> float32 values."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
