"""Tensors of torch's that are the CPU's, made believe that a simulated device has them.

Non-Goals: how tensors of a real GPU are read (`runtime.cuda.arrays.torch_tensors`).
"""

from __future__ import annotations

from typing import Any

from rnncc.runtime.cuda.driver.target import DeviceMemory, HostArrays


class Believing(HostArrays):
    """Tensors in, tensors out."""

    copies = False

    def enter(self, array: Any, dtype: Any, lead: int = 0) -> Any:
        if hasattr(array, "detach"):
            array = array.detach().numpy()
        return super().enter(array, dtype, lead)

    def leave(self, piece: DeviceMemory, shape: Any, dtype: Any, out: Any = None) -> Any:
        import torch

        found = torch.from_numpy(super().leave(piece, shape, dtype))
        return found if out is None else out.copy_(found)
