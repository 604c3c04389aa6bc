"""Tensors of torch on a GPU as a carrier: read and written where they are, on torch's stream.

Memory comes from torch's allocator, which hands out again what was freed in the order of the
stream, so kernels that still run keep what they use.

Non-Goals: modules, autograd (`rnncc.torch`). Nothing here has run on a GPU yet.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncc.runtime.common.strides import rows_are_dense
from rnncc.runtime.cuda.driver.target import CudaTarget, DeviceMemory


class TorchArrays:
    """A `Carrier` of one device and stream."""

    copies = False

    def __init__(self, target: CudaTarget, like: Any) -> None:
        """like: a tensor of the device."""
        import torch

        self.torch, self.target, self.device = torch, target, like.device
        self.stream = torch.cuda.current_stream(like.device).cuda_stream

    def empty(self, size: int) -> DeviceMemory:
        tensor = self.torch.empty(max(size, 1), dtype=self.torch.uint8, device=self.device)
        return DeviceMemory(tensor.data_ptr(), tensor)

    def enter(
        self, array: Any, dtype: np.dtype[Any], lead: int = 0
    ) -> tuple[DeviceMemory, tuple[int, ...] | None]:
        kind = getattr(self.torch, dtype.name)
        if not isinstance(array, self.torch.Tensor):
            array = self.torch.as_tensor(np.array(array, dtype))
        array = array.detach().resolve_neg().to(self.device, kind)
        if not array.is_contiguous() and not has_dense_rows(array, lead):
            array = array.contiguous()
        strides = None
        if not array.is_contiguous():
            strides = tuple(s * array.element_size() for s in array.stride())
        return DeviceMemory(array.data_ptr(), array), strides

    def result(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceMemory:
        tensor = self.torch.empty(shape, dtype=getattr(self.torch, dtype.name), device=self.device)
        return DeviceMemory(tensor.data_ptr(), tensor)

    def leave(
        self, piece: DeviceMemory, shape: tuple[int, ...], dtype: np.dtype[Any], out: Any = None
    ) -> Any:
        if out is None:
            return piece.owner
        out.copy_(piece.owner)
        return out


def has_dense_rows(tensor: Any, lead: int) -> bool:
    """Whether elements lie side by side behind the first axes, of which there are some."""
    return lead > 0 and rows_are_dense(tensor.shape[lead:], tensor.stride()[lead:], 1)
